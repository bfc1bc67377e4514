"""Head poses: predicted by N_H while the sound comes, given, or read from a file.

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
    """Head poses (rad, mm), one a video frame, made while the sound comes.

    Attributes:
        reference_P: the pose in the source picture; frame 0's where it is not known.
        after_P: what stands for the frames that have not been heard, at the end of the sound or for now.
    """

    reference_P: np.ndarray
    after_P: np.ndarray

    def follow(self, audio_TAF: np.ndarray) -> np.ndarray:
        """Poses [T, 6] float32 of the next T frames."""
        raise NotImplementedError


class PredictedHeadPoses(HeadPoses):
    """N_H follows the sound; between calls it carries the LSTM's state (Sec. 3.2)."""

    def __init__(self, models: Models, image_BCHW: Tensor):
        self.models = models
        with torch.inference_mode():
            row, self.state = models.head_motion_predictor.start(image_BCHW)
        self.reference_P = self.after_P = self._in_rad_and_mm(row)[0]

    def follow(self, audio_TAF: np.ndarray) -> np.ndarray:
        rows = [self.after_P[None]]
        with torch.inference_mode():
            for start in range(0, len(audio_TAF), POSE_CHUNK):
                chunk = torch.from_numpy(audio_TAF[start : start + POSE_CHUNK]).to(self.models.device)
                poses, self.state = self.models.head_motion_predictor.advance(chunk[None], self.state)
                rows.append(self._in_rad_and_mm(poses[0]))
        rows_TP = np.concatenate(rows)  # the row before these frames, then one for each
        self.after_P = rows_TP[-1]
        first = self.models.head_motion_config.first_pose_row
        return rows_TP[first : first + len(audio_TAF)]

    def _in_rad_and_mm(self, rows_TP: Tensor) -> np.ndarray:
        return self.models.pose_range.denormalise(rows_TP.cpu().numpy())


class GivenHeadPoses(HeadPoses):
    """Poses from elsewhere; after their end the last one is held."""

    def __init__(self, pose_TP: np.ndarray, after_P: np.ndarray | None = None):
        """`after_P`: what stands for frames that have not been heard; None: the last pose that was."""
        self.pose_TP, self.given_after_P, self.next = np.asarray(pose_TP, np.float32), after_P, 0
        self.reference_P = self.after_P = self.pose_TP[0]

    def follow(self, audio_TAF: np.ndarray) -> np.ndarray:
        wanted = np.arange(self.next, self.next + len(audio_TAF)).clip(max=len(self.pose_TP) - 1)
        self.next += len(audio_TAF)
        self.after_P = self.pose_TP[wanted[-1]] if self.given_after_P is None else self.given_after_P
        return self.pose_TP[wanted]


class ScaledHeadPoses(HeadPoses):
    """Motion about the first frame's pose made `scale` times as large; 0 holds the head still."""

    def __init__(self, poses: HeadPoses, scale: float):
        self.poses, self.scale = poses, scale
        self.reference_P = self.after_P = poses.reference_P
        self.first_P: np.ndarray | None = None

    def follow(self, audio_TAF: np.ndarray) -> np.ndarray:
        pose_TP = self.poses.follow(audio_TAF)
        if self.first_P is None:
            self.first_P = pose_TP[0]
        self.after_P = self._scaled(self.poses.after_P)
        return self._scaled(pose_TP)

    def _scaled(self, pose: np.ndarray) -> np.ndarray:
        return self.first_P + np.float32(self.scale) * (pose - self.first_P)


class ReturningHeadPoses(HeadPoses):
    """Heads that come back to the first frame's pose (ours): their mean displacement of late is taken off.

    N_H guesses where a head rests, from one picture; where it guesses wrongly the head goes there and stays. The mean
    counts older frames less and less, by 1/e in `seconds`; what is slower than that is lost, too.
    """

    def __init__(self, poses: HeadPoses, seconds: float):
        self.poses, self.share = poses, 1 - math.exp(-1 / (seconds * FPS))
        self.reference_P = self.after_P = poses.reference_P
        self.first_P: np.ndarray | None = None
        self.mean_P = np.zeros(6, np.float32)

    def follow(self, audio_TAF: np.ndarray) -> np.ndarray:
        pose_TP = self.poses.follow(audio_TAF).copy()
        if self.first_P is None:
            self.first_P = pose_TP[0].copy()
        for pose_P in pose_TP:
            self.mean_P += self.share * (pose_P - self.first_P - self.mean_P)
            pose_P -= self.mean_P
        self.after_P = self.poses.after_P - self.mean_P
        return pose_TP


class KeptHeadPoses(HeadPoses):
    """Puts all poses that it gives into a list, too."""

    def __init__(self, poses: HeadPoses, kept: list[np.ndarray]):
        self.poses, self.kept = poses, kept
        self.reference_P = poses.reference_P

    @property
    def after_P(self) -> np.ndarray:
        return self.poses.after_P

    def follow(self, audio_TAF: np.ndarray) -> np.ndarray:
        self.kept.append(self.poses.follow(audio_TAF))
        return self.kept[-1]


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
