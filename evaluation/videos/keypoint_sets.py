"""Keypoints of whole clips: found by N_D, cut, moved between devices.

Letters: T video frame, K keypoint, H W C picture.
"""

import numpy as np
import torch

from evaluation.videos.frames import batches, to_unit
from modules.keypoint_detector import KeypointDetector
from modules.keypoints import Keypoints


@torch.inference_mode()
def detect(detector: KeypointDetector, frames_THWC: np.ndarray, device: torch.device) -> Keypoints:
    """N_D's keypoints of every frame, on the CPU."""
    return concatenated(
        [on(torch.device("cpu"), detector(to_unit(frames.to(device))).keypoints) for frames in batches(frames_THWC)]
    )


def cut(keypoints: Keypoints, frames: int) -> Keypoints:
    """The first so many sets."""
    jacobian = keypoints.jacobian_BK22
    return Keypoints(keypoints.position_BK2[:frames], None if jacobian is None else jacobian[:frames])


def on(device: torch.device, keypoints: Keypoints) -> Keypoints:
    """The same on a device."""
    jacobian = keypoints.jacobian_BK22
    return Keypoints(keypoints.position_BK2.to(device), None if jacobian is None else jacobian.to(device))


def concatenated(parts: list[Keypoints]) -> Keypoints:
    """One batch of all sets, in order."""
    jacobians = [part.jacobian_BK22 for part in parts if part.jacobian_BK22 is not None]
    return Keypoints(torch.cat([part.position_BK2 for part in parts]), torch.cat(jacobians) if jacobians else None)


def arrays(keypoints: Keypoints | None) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Positions [T, K, 2] and Jacobians [T, K, 2, 2]; None where there are none."""
    if keypoints is None:
        return None, None
    jacobian = keypoints.jacobian_BK22
    return keypoints.position_BK2.cpu().numpy(), None if jacobian is None else jacobian.cpu().numpy()
