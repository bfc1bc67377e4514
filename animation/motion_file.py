"""A generated motion as a file: what `--save-motion` writes and `--motion` renders, on any picture."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from datasets.errors import DataError
from datasets.files import read_npz, written_beside
from datasets.media.streams import FPS
from modules.keypoints import Keypoints

FPS_RANGE = (1, 240)  # frames a second that a video can sensibly have; ours


@dataclass
class Motion:
    """Motion of T frames, and of the source picture it was made for; all arrays float32."""

    head_pose: np.ndarray  # [T, 6], rad and mm, as used for frame i; empty (0, 6) when no head pose was used
    keypoints: np.ndarray  # [T, K, 2], (x, y) in [-1, 1]
    jacobians: np.ndarray  # [T, K, 2, 2]; identities where the model has none
    source_keypoints: np.ndarray  # [K, 2]
    source_jacobians: np.ndarray  # [K, 2, 2]
    fps: float = 25.0

    def save(self, path: Path) -> None:
        """Write as .npz, whole or not at all."""
        with written_beside(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **{name: np.asarray(value, np.float32) for name, value in vars(self).items()})


def load_motion(path: Path) -> Motion:
    """Read a file of `Motion.save`, or one of the same arrays.

    Raises:
        DataError: no such file, no such arrays, wrong shapes, values that are not finite, or an fps out of range.
    """
    arrays = read_npz(path, "motion")
    names = ("head_pose", "keypoints", "jacobians", "source_keypoints", "source_jacobians", "fps")
    missing = [name for name in names[1:3] if name not in arrays]
    if missing:
        raise DataError(f"{path} is no motion file: it lacks {', '.join(missing)}; write one with --save-motion")
    keypoints, jacobians = arrays["keypoints"], arrays["jacobians"]
    frames, count = keypoints.shape[:2] if keypoints.ndim == 3 else (0, 0)
    if not frames or keypoints.shape != (frames, count, 2) or jacobians.shape != (frames, count, 2, 2):
        raise DataError(
            f"{path}: keypoints {keypoints.shape} and jacobians {jacobians.shape} "
            "should be [T, K, 2] and [T, K, 2, 2], T > 0"
        )
    arrays.setdefault("head_pose", np.zeros((0, 6), np.float32))
    arrays.setdefault("source_keypoints", keypoints[0])
    arrays.setdefault("source_jacobians", jacobians[0])
    fps = arrays.get("fps", np.float32(FPS))
    if fps.shape != () or not FPS_RANGE[0] <= fps <= FPS_RANGE[1]:
        found = float(fps) if fps.shape == () else f"an array {list(fps.shape)}"
        raise DataError(f"{path}: fps should be one number from {FPS_RANGE[0]} to {FPS_RANGE[1]}, found {found}")
    return Motion(**{name: arrays[name] for name in names if name != "fps"}, fps=float(fps))


@dataclass
class Plan:
    """Motion to be rendered."""

    fps: float
    frames: int
    chunks: Iterator[Keypoints]  # keypoints of all frames, in order
    poses: list[np.ndarray] = field(default_factory=list)  # [t, 6] (rad, mm); grows while the chunks are taken

    @property
    def head_pose_TP(self) -> np.ndarray:
        """Head poses [T, 6] (rad, mm) of the frames that were taken; [0, 6] when none was used."""
        return np.concatenate([np.zeros((0, 6), np.float32), *self.poses])


def saved_plan(path: Path, source: Keypoints) -> Plan:
    """A saved motion, ready for a picture with the keypoints `source`, on their device. Raises DataError."""
    motion = load_motion(path)
    frames, count = motion.keypoints.shape[:2]
    if count != source.position_BK2.shape[1]:
        raise DataError(
            f"{path} has {count} keypoints, this model {source.position_BK2.shape[1]}; "
            "use the checkpoint that the motion was made with"
        )
    jacobian = None if source.jacobian_BK22 is None else torch.from_numpy(motion.jacobians)
    keypoints = Keypoints(torch.from_numpy(motion.keypoints), jacobian).to(source.position_BK2.device)
    return Plan(motion.fps, frames, iter([keypoints]), [motion.head_pose])


class MotionRecorder:
    """Keeps the keypoints that pass by, on the CPU."""

    def __init__(self, source: Keypoints):
        self.source = source.to("cpu")
        self.passed: list[Keypoints] = []

    def record(self, chunks: Iterator[Keypoints]) -> Iterator[Keypoints]:
        """The chunks, unchanged."""
        for chunk in chunks:
            self.passed.append(chunk.to("cpu"))
            yield chunk

    def motion(self, plan: Plan) -> Motion:
        """What has passed, as the motion of a plan."""
        keypoints = Keypoints.cat(self.passed)
        return Motion(
            head_pose=plan.head_pose_TP,
            keypoints=keypoints.position_BK2.numpy(),
            jacobians=_jacobians(keypoints),
            source_keypoints=self.source.position_BK2[0].numpy(),
            source_jacobians=_jacobians(self.source)[0],
            fps=plan.fps,
        )


def _jacobians(keypoints: Keypoints) -> np.ndarray:
    """[B, K, 2, 2]; identities where there are none."""
    if keypoints.jacobian_BK22 is None:
        return np.broadcast_to(np.eye(2, dtype=np.float32), (*keypoints.position_BK2.shape[:2], 2, 2))
    return keypoints.jacobian_BK22.numpy()
