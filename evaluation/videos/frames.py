"""Frames of a clip as the networks want them, and the keypoints that N_D finds in them.

Letters: T video frame, B frames at once, H W C picture (RGB).
"""

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from modules.keypoint_detector import KeypointDetector
from modules.keypoints import Keypoints

BATCH = 32  # frames that a network sees at once


def batches(frames_THWC: np.ndarray) -> tuple[Tensor, ...]:
    """uint8 [B, C, H, W], B <= 32."""
    return rearrange(torch.from_numpy(np.ascontiguousarray(frames_THWC)), "t h w c -> t c h w").split(BATCH)


def to_unit(frames_BCHW: Tensor) -> Tensor:
    """uint8 -> [0, 1]."""
    return frames_BCHW.float() / 255


@torch.inference_mode()
def detect(detector: KeypointDetector, frames_THWC: np.ndarray, device: torch.device) -> Keypoints:
    """N_D's keypoints of every frame, on the CPU."""
    return Keypoints.cat(detector(to_unit(frames.to(device))).keypoints.to("cpu") for frames in batches(frames_THWC))
