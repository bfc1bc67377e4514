"""Head poses of a clip: predicted by N_H, given, or read from a file.

Letters: T video frame, A audio window in a frame, F audio feature, P pose value, B batch, C H W picture.
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from animation.models import Models
from datasets.errors import DataError
from datasets.face.finder import Face, follow_face
from datasets.face.openface import read_csv
from datasets.face.rigid_pose import fill_gaps, pose_of, smooth
from datasets.face.upright import face_frame
from datasets.files import read_npz
from datasets.media.source import VIDEO_ENDINGS
from datasets.media.streams import FPS
from datasets.media.video_reader import frames_of
from datasets.pose import BOX_SIZE

LARGEST_TURN = 3.3  # rad: half a turn and a little; more can only be degrees; ours
LARGEST_MM = 1e6  # of any translation: a kilometre; ours
NEAREST_MM, FARTHEST_MM = 20.0, 20_000.0  # a head's distance: less are metres, more are micrometres; ours
LEAST_FOUND = 0.5  # of a video's frames must show the face
POSE_CHUNK = 1024  # audio frames that E_A sees at once


class HeadPoses:
    """Head poses of a clip (rad, mm): one a video frame, one for all frames after the end, and the picture's own."""

    def __init__(self, frames_TP: np.ndarray, after_P: np.ndarray, reference_P: np.ndarray | None = None):
        self.frames_TP = np.asarray(frames_TP, np.float32)  # as used for frame i
        self.after_P = np.asarray(after_P, np.float32)  # what pads the last window
        # The pose in the source picture; frame 0's where it is not known.
        self.reference_P = self.frames_TP[0] if reference_P is None else np.asarray(reference_P, np.float32)

    def slice(self, start: int, stop: int) -> np.ndarray:
        """Poses of frames start to stop - 1, padded past the end."""
        poses = self.frames_TP[start:stop]
        padding = np.repeat(self.after_P[None], stop - start - len(poses), axis=0)
        return np.concatenate([poses, padding])

    def scaled(self, scale: float) -> "HeadPoses":
        """Motion about the first pose made `scale` times as large; 0 holds the head still."""
        first = self.frames_TP[0]
        frames_TP, after_P = first + scale * (self.frames_TP - first), first + scale * (self.after_P - first)
        return HeadPoses(frames_TP, after_P, self.reference_P)


@torch.inference_mode()
def predict_head_poses(models: Models, image_BCHW: Tensor, audio_TAF: np.ndarray) -> HeadPoses:
    """N_H over the whole sound, in chunks with the LSTM's state carried over (Sec. 3.2)."""
    predictor = models.head_motion_predictor
    row, state = predictor.start(image_BCHW)
    rows = [row]
    for start in range(0, len(audio_TAF), POSE_CHUNK):
        chunk = torch.from_numpy(audio_TAF[start : start + POSE_CHUNK]).to(models.device)
        poses, state = predictor.advance(chunk[None], state)
        rows.append(poses[0])
    rows_TP = models.pose_range.denormalise(torch.cat(rows).cpu().numpy())  # (T + 1, 6)
    first = models.head_motion_config.first_pose_row
    return HeadPoses(rows_TP[first : first + len(audio_TAF)], rows_TP[-1], rows_TP[0])


def given_head_poses(pose_TP: np.ndarray, num_frames: int) -> HeadPoses:
    """Poses from a file, cut to `num_frames` or continued with the last one."""
    return HeadPoses(HeadPoses(pose_TP, pose_TP[-1]).slice(0, num_frames), pose_TP[min(num_frames, len(pose_TP)) - 1])


def read_head_pose(path: Path) -> np.ndarray:
    """Head poses [T, 6] (rad, mm) at 25 fps from an .npz with `head_pose`, an OpenFace CSV, or the face in a video.

    Raises:
        DataError: none of these, damaged, values in other units, or no face in most frames of the video.
    """
    if path.suffix.lower() in VIDEO_ENDINGS:
        return _head_poses_in_video(path)
    if path.suffix.lower() == ".csv":
        track = read_csv(path)
        if not track.valid_N.any():
            raise DataError(f"{path}: OpenFace found no face in any row; take another video")
        times = np.arange(math.floor(float(track.time_s[-1]) * FPS) + 1) / FPS
        columns = [np.interp(times, track.time_s[track.valid_N], column) for column in track.pose_NP[track.valid_N].T]
        return in_rad_and_mm(np.stack(columns, axis=1).astype(np.float32), path)
    pose_TP = read_npz(path, "head pose").get("head_pose")
    if pose_TP is None or pose_TP.ndim != 2 or pose_TP.shape[1] != 6 or len(pose_TP) == 0:
        shape = "none" if pose_TP is None else str(list(pose_TP.shape))
        raise DataError(f"{path} should hold an array head_pose [T, 6] (rad, mm), T > 0; found {shape}")
    return in_rad_and_mm(pose_TP, path)


def in_rad_and_mm(pose_TP: np.ndarray, path: Path) -> np.ndarray:
    """The poses, unless they cannot be in radians and millimetres. Raises DataError."""
    turned, away = float(np.abs(pose_TP[:, :3]).max()), float(np.median(np.abs(pose_TP[:, 5])))
    if turned > LARGEST_TURN:
        raise DataError(
            f"{path} turns the head by {turned:.1f} rad, which cannot be: are the first three columns in degrees? "
            "They should be in radians"
        )
    if not np.abs(pose_TP[:, 3:]).max() <= LARGEST_MM:
        raise DataError(f"{path} moves the head by more than {LARGEST_MM / 1e6:.0f} km, which cannot be")
    if 0 < away < NEAREST_MM or away > FARTHEST_MM:
        raise DataError(
            f"{path} has the head {away:.3g} mm before the camera: is the last column (tz) in other units? "
            "It should be in millimetres, some hundreds"
        )
    return pose_TP


def _head_poses_in_video(path: Path) -> np.ndarray:
    """As the training data's head poses are measured: in the square that would be cut about the face."""
    meshes, square_23 = [], None
    for frame_HW3, face in _followed(path):
        if square_23 is None and face is not None:
            square_23 = face_frame(face, *frame_HW3.shape[1::-1]).upright().to_square(BOX_SIZE)
        meshes.append(np.full((468, 3), np.nan) if face is None else face.points_N3)
    mesh_TN3 = np.stack(meshes) if meshes else np.empty((0, 468, 3))
    found_T = np.isfinite(mesh_TN3).all(axis=(1, 2))
    if square_23 is None or found_T.mean() < LEAST_FOUND:
        raise DataError(f"{path}: a face was found in {found_T.sum()} of {len(meshes)} frames; take another video")
    mesh_TN3[..., :2] = mesh_TN3[..., :2] @ square_23[:, :2].T + square_23[:, 2]
    mesh_TN3[..., 2] *= square_23[0, 0]
    pose_TP = np.full((len(mesh_TN3), 6), np.nan)
    pose_TP[found_T] = pose_of(mesh_TN3[found_T])
    return smooth(fill_gaps(pose_TP)).astype(np.float32)


def _followed(path: Path) -> Iterator[tuple[np.ndarray, Face | None]]:
    pictures, seen = itertools.tee(frames_of(path))
    return zip(pictures, follow_face(seen), strict=True)
