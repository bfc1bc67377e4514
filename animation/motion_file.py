"""A generated motion as a file: what `--save-motion` writes and `--motion` renders, on any picture."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.errors import DataError
from datasets.files import read_npz, written_beside


@dataclass
class Motion:
    """Motion of T frames and of the source picture it was made for.

    Attributes:
        head_pose: [T, 6] float32, rad and mm, as used for frame i; empty (0, 6) when no head pose was used.
        keypoints: [T, K, 2] float32, (x, y) in [-1, 1].
        jacobians: [T, K, 2, 2] float32; identities where the model has none.
        source_keypoints: [K, 2] and source_jacobians: [K, 2, 2] of the source picture.
        fps: frames a second.
    """

    head_pose: np.ndarray
    keypoints: np.ndarray
    jacobians: np.ndarray
    source_keypoints: np.ndarray
    source_jacobians: np.ndarray
    fps: float = 25.0

    def save(self, path: Path) -> None:
        """Write as .npz, whole or not at all."""
        with written_beside(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **{name: np.asarray(value, np.float32) for name, value in vars(self).items()})


def load_motion(path: Path) -> Motion:
    """Read a file of `Motion.save`, or one of the same arrays.

    Raises:
        DataError: no such file, no such arrays, wrong shapes, or values that are not finite.
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
            f"{path}: keypoints {keypoints.shape} and jacobians {jacobians.shape} should be [T, K, 2] and [T, K, 2, 2], T > 0"
        )
    arrays.setdefault("head_pose", np.zeros((0, 6), np.float32))
    arrays.setdefault("source_keypoints", keypoints[0])
    arrays.setdefault("source_jacobians", jacobians[0])
    arrays.setdefault("fps", np.float32(25))
    return Motion(**{name: arrays[name] for name in names if name != "fps"}, fps=float(arrays["fps"]))
