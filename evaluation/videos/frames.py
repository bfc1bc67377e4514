"""Pictures of a clip as the networks want them.

Letters: T video frame, B frames at once, H W C picture (RGB).
"""

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

BATCH = 32  # frames that a network sees at once


def batches(frames_THWC: np.ndarray) -> tuple[Tensor, ...]:
    """uint8 [B, C, H, W], B <= 32."""
    return rearrange(torch.from_numpy(np.ascontiguousarray(frames_THWC)), "t h w c -> t c h w").split(BATCH)


def to_unit(frames_BCHW: Tensor) -> Tensor:
    """uint8 -> [0, 1]."""
    return frames_BCHW.float() / 255
