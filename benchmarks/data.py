"""Speed of preparing and of loading, on one core.

    OMP_NUM_THREADS=1 python -m benchmarks.data --prepared data/grid [--raw RAW/grid]

One process, one thread. Loaders are timed in processor time, so that other work on the machine counts little, on files
that are in memory. Preparing is timed by the clock (the face mesh is another process), step by step, on a few raw
videos.
"""

import argparse
import itertools
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from datasets.audio import features
from datasets.clips import JPEG_QUALITY, _frame_places, load_manifest
from datasets.face.mesh import LandmarkFinder, available
from datasets.face.rigid_pose import pose_of
from datasets.fomm import FommData, FommDataConfig
from datasets.headpose import HeadPoseData, HeadPoseDataConfig
from datasets.media.sound import load_pcm
from datasets.media.video_reader import frames_of
from datasets.motionfield import MotionFieldData, MotionFieldDataConfig
from datasets.prepare.clip import Options
from datasets.prepare.framing import crop, face_square, find_face
from datasets.prepare.sources import find_videos
from datasets.targets import Targets, TargetStore
from engine.loading import in_order

JPEG = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
STAND_IN_MS = 0.3  # a frame of N_D on a GPU, about
GOAL_PAIRS = 400  # frame pairs a second that keep one modern GPU busy


def rate(work: Callable[[int], object], seconds: float) -> float:
    """Calls of work(0), work(1), ... a second of processor time, after half as many seconds to warm up."""

    def run(numbers: Iterator[int], limit: float) -> float:
        start, calls = time.process_time(), 0
        while (passed := time.process_time() - start) < limit:
            work(next(numbers))
            calls += 1
        return calls / passed

    run(itertools.count(), seconds / 2)
    return run(itertools.count(), seconds)


def loading(root: Path, seconds: float) -> None:
    clips = load_manifest(root, "train")
    random = np.random.default_rng(0)
    places = [
        (clip, int(random.integers(clip.frames))) for clip in random.permutation(np.array(clips, dtype=object))[:200]
    ]

    def decode(n: int) -> None:
        clip, frame = places[n % len(places)]
        clip.read_frames([frame, (frame + 7) % clip.frames])

    def decode_window(n: int) -> None:
        clip, _ = places[n % len(places)]
        clip.read_frames(range(min(64, clip.frames)))

    size = clips[0].row.size
    pairs = FommData(FommDataConfig(str(root)), seed=0, size=size)
    head = HeadPoseData(HeadPoseDataConfig(str(root)), seed=0, size=size)
    motion = MotionFieldData(MotionFieldDataConfig(str(root)), seed=0, size=size, window=64)
    lines = [
        ("decode only, 2 frames of a clip", rate(decode, seconds), 2),
        ("decode only, 64 frames of a clip", rate(decode_window, seconds), 64),
        ("FommData (pair, augmented)", rate(pairs.__getitem__, seconds), 2),
        ("HeadPoseData (T = 256)", rate(head.__getitem__, seconds), 1),
        ("MotionFieldData (T = 64)", rate(motion.__getitem__, seconds), 65),
    ]
    print(f"\n| loading {size}x{size}, one core | items/s | frames/s |\n|---|---|---|")
    for title, items, frames in lines:
        print(f"| {title} | {items:.0f} | {items * frames:.0f} |")
    print(f"\n{GOAL_PAIRS} pairs/s need {GOAL_PAIRS / lines[2][1]:.1f} cores.")


def frame_lists(root: Path, seconds: float) -> None:
    """Finding a clip's pictures in its zip, as is done once a clip, and by each picture's own header."""
    paths = [clip.folder / "frames.zip" for clip in load_manifest(root, "train")]

    def by_headers(n: int) -> None:
        path = paths[n % len(paths)]
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            for entry in archive.infolist():
                file.seek(entry.header_offset + 26)  # where a header says how long its name and its extra field are
                file.read(4)

    once = rate(lambda n: _frame_places.__wrapped__(paths[n % len(paths)]), seconds)
    headers = rate(by_headers, seconds)
    print(f"\n| list of a clip's frames, first time | ms |\n|---|---|\n| by each header | {1e3 / headers:.2f} |")
    print(f"| by the directory alone | {1e3 / once:.2f} |")


def targets(root: Path) -> None:
    """Targets of stage three beside a stand-in for a GPU: by the clock, on a quiet machine."""
    clips = load_manifest(root, "train")[:20]
    frames = sum(clip.frames for clip in clips)
    heatmap_HW = np.random.default_rng(0).integers(0, 4, (64, 64), dtype=np.uint8)

    def detect(frames_NHWC: np.ndarray) -> Targets:
        count = len(frames_NHWC)
        time.sleep(STAND_IN_MS / 1e3 * count)
        heatmap_TKHW = np.ascontiguousarray(np.broadcast_to(heatmap_HW, (count, 10, 64, 64)))
        return Targets(np.zeros((count, 10, 2), np.float32), np.zeros((count, 10, 2, 2), np.float32), heatmap_TKHW)

    print(f"\n| targets of {len(clips)} clips, {frames} frames | ms/frame |\n|---|---|")
    print(f"| the stand-in alone | {STAND_IN_MS:.2f} |")
    for workers in (0, 1, 2):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            load = partial(in_order, workers=workers)
            TargetStore(folder, "key").fill(clips, detect, clips[0].row.size, 32, True, load)
            took = time.perf_counter() - start
        print(f"| {workers} workers decode, a thread writes | {1e3 * took / frames:.2f} |")


def preparing(root: Path, number: int) -> None:
    videos = find_videos(root)
    videos = videos[:: max(1, len(videos) // number)][:number]
    seconds: dict[str, float] = {}
    frames_total = 0

    def timed(name: str, work: Callable[[], object]) -> object:
        start = time.perf_counter()
        result = work()
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
        return result

    with LandmarkFinder() as finder:
        finder.meshes([np.zeros((256, 256, 3), np.uint8)])
        features(load_pcm(videos[0]))
        for video in videos:
            frames = timed("decode to RGB at 25 fps (done twice)", lambda video=video: list(frames_of(video)))
            frames_total += len(frames)
            height, width = frames[0].shape[:2]
            boxes = timed("face boxes, every 5th frame", lambda frames=frames: find_face(frames, finder.boxes, 1))
            square = face_square(boxes, Options.margin, height, width)
            crops = timed(
                "crop to 256x256", lambda frames=frames, square=square: [crop(f, square, 256) for f in frames]
            )
            mesh = timed("face mesh", lambda crops=crops: finder.meshes(crops))
            timed("pose", lambda mesh=mesh: pose_of(mesh[np.isfinite(mesh[:, 0, 0])]))
            timed("sound: decode, features", lambda video=video: features(load_pcm(video)))
            timed("JPEG", lambda crops=crops: [cv2.imencode(".jpg", frame, JPEG) for frame in crops])
    seconds["decode to RGB at 25 fps (done twice)"] *= 2
    whole = sum(seconds.values())
    print(f"\n| preparing, one core, {len(videos)} videos, {frames_total} frames | ms a frame | share |\n|---|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {1000 * value / frames_total:.2f} | {value / whole:.0%} |")
    rates = f"{frames_total / whole:.0f} frames/s, {len(videos) / whole:.2f} clips/s"
    print(f"| all | {1000 * whole / frames_total:.2f} | {rates} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prepared", type=Path, required=True, help="a prepared corpus")
    parser.add_argument("--raw", type=Path, help="raw videos, to time preparing (needs `make pose-tools`)")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each loader")
    parser.add_argument("--videos", type=int, default=8, help="raw videos to prepare")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    loading(args.prepared, args.seconds)
    frame_lists(args.prepared, args.seconds)
    targets(args.prepared)
    if args.raw and available():
        preparing(args.raw, args.videos)


if __name__ == "__main__":
    main()
