"""How well the built-in head-pose estimator agrees with OpenFace.

    python -m benchmarks.pose_agreement FOLDER

Every video of the folder with an OpenFace CSV beside it is cropped as `datasets.prepare` crops (one square, 256x256,
25 fps), both poses are brought into the released camera of that crop, and each axis is compared: correlation, mean
absolute error, and the mean difference. The face model's scale, tilt and origin were fitted on such videos; so a second
table shows the error when tilt and distance are fitted on all the other videos instead.
"""

import argparse
from pathlib import Path

import numpy as np

from datasets.face.mesh import LandmarkFinder
from datasets.face.openface import default_camera, read_csv
from datasets.face.rigid_pose import pose_of, smooth, to_other_camera
from datasets.media.streams import FPS
from datasets.media.video_reader import frames_of
from datasets.pose import BOX_SIZE
from datasets.prepare.clip import Options
from datasets.prepare.framing import crop, face_square, find_face
from datasets.prepare.sources import VIDEO_SUFFIXES

AXES = ("rx rad", "ry rad", "rz rad", "tx mm", "ty mm", "tz mm")


def compare(video: Path, finder: LandmarkFinder) -> tuple[np.ndarray, np.ndarray]:
    """(ours, OpenFace's) poses [T, 6] of one video in the camera of its crop, where both found the face."""
    frames = list(frames_of(video))
    height, width = frames[0].shape[:2]
    square = face_square(find_face(frames, finder.boxes, Options.min_face), Options.margin, height, width)
    mesh_TN3 = finder.meshes(crop(frame, square, BOX_SIZE) for frame in frames)
    openface = read_csv(video.with_suffix(".csv")).at(np.arange(len(frames)) / FPS)
    both = np.isfinite(openface).all(axis=1) & np.isfinite(mesh_TN3).all(axis=(1, 2))
    focal, centre = default_camera(height, width)
    theirs = to_other_camera(openface[both], focal, centre, square[:2], BOX_SIZE / square.side)
    return smooth(pose_of(mesh_TN3[both])), theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="videos with OpenFace CSV files beside them")
    folder = parser.parse_args().folder
    videos = sorted(p for p in folder.iterdir() if p.suffix in VIDEO_SUFFIXES and p.with_suffix(".csv").is_file())
    with LandmarkFinder() as finder:
        pairs = {video.stem: compare(video, finder) for video in videos}
    for name, (ours, theirs) in pairs.items():
        print(f"\n| {name}, {len(ours)} frames | " + " | ".join(AXES) + " |\n|---|" + "---|" * 6)
        difference = ours - theirs
        others = [pair for other, pair in pairs.items() if other != name]
        rows = {
            "correlation": [np.corrcoef(ours[:, axis], theirs[:, axis])[0, 1] for axis in range(6)],
            "mean absolute error": np.abs(difference).mean(axis=0),
            "mean difference": difference.mean(axis=0),
            "standard deviation of OpenFace's": theirs.std(axis=0),
            "frame-to-frame change, ours": np.abs(np.diff(ours, axis=0)).mean(axis=0),
            "frame-to-frame change, OpenFace's": np.abs(np.diff(theirs, axis=0)).mean(axis=0),
        }
        if others:
            tilt = np.mean([np.mean(a[:, 0] - b[:, 0]) for a, b in others])
            scale = np.mean([np.mean(b[:, 5]) / np.mean(a[:, 5]) for a, b in others])
            fitted = ours * [1, 1, 1, scale, scale, scale] - [tilt, 0, 0, 0, 0, 0]
            rows["mean absolute error, fitted on the others"] = np.abs(fitted - theirs).mean(axis=0)
        for title, values in rows.items():
            print(f"| {title} | " + " | ".join(f"{value:.3f}" for value in values) + " |")


if __name__ == "__main__":
    main()
