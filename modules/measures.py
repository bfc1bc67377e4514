"""What is reported, not trained: quality of pictures (one number a picture), liveliness of head motion.

Letters: B batch, C H W image in [0, 1], T video frame, P pose value.
"""

import torch
from torch import Tensor

from modules.losses import ssim_map

SMALLEST_ERROR = 1e-10  # equal pictures: 100 dB


def psnr(image_BCHW: Tensor, wanted_BCHW: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, [B]."""
    return _decibel((image_BCHW - wanted_BCHW).square().mean((1, 2, 3)))


def box_psnr(image_BCHW: Tensor, wanted_BCHW: Tensor, box_B4: Tensor) -> Tensor:
    """PSNR of the pixels inside a box (left, top, right, bottom) in [-1, 1], [B]; NaN where the box is empty."""
    inside_BHW = _inside(box_B4, *image_BCHW.shape[-2:])
    error_BHW = (image_BCHW - wanted_BCHW).square().mean(1) * inside_BHW
    return _decibel(error_BHW.sum((1, 2)) / inside_BHW.sum((1, 2)))


def ssim(image_BCHW: Tensor, wanted_BCHW: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), [B]."""
    return ssim_map(image_BCHW, wanted_BCHW).mean((1, 2, 3))


def box_ssim(image_BCHW: Tensor, wanted_BCHW: Tensor, box_B4: Tensor) -> Tensor:
    """Mean SSIM of the windows whose centre lies inside a box as in `box_psnr`, [B]; NaN where there is none."""
    map_BHW = ssim_map(image_BCHW, wanted_BCHW).mean(1)
    height, width = image_BCHW.shape[-2:]
    lost = (height - map_BHW.shape[-2]) // 2  # pixels that the map lacks on each side
    inside_BHW = _inside(box_B4, height, width)[:, lost : height - lost, lost : width - lost]
    return (map_BHW * inside_BHW).sum((1, 2)) / inside_BHW.sum((1, 2))


def deviation(pose_BTP: Tensor, valid_BT: Tensor) -> Tensor:
    """Standard deviation over time, mean over axes and sequences; only real frames count."""
    mask_BT1 = valid_BT[..., None].to(pose_BTP)
    count = mask_BT1.sum(1, keepdim=True)
    mean = (pose_BTP * mask_BT1).sum(1, keepdim=True) / count
    return (((pose_BTP - mean).square() * mask_BT1).sum(1, keepdim=True) / count).sqrt().mean()


def speed(pose_BTP: Tensor, valid_BT: Tensor) -> Tensor:
    """Mean absolute change from frame to frame; only pairs of real frames count."""
    mask_BT = (valid_BT[:, 1:] & valid_BT[:, :-1]).to(pose_BTP)
    return (pose_BTP.diff(dim=1).abs().mean(-1) * mask_BT).sum() / mask_BT.sum()


def correlation(value_BT: Tensor, wanted_BT: Tensor, valid_BT: Tensor) -> Tensor:
    """Pearson's correlation over the real frames, [B]; NaN where one of the two never changes."""
    mask_BT = valid_BT.to(value_BT)
    count = mask_BT.sum(1, keepdim=True)
    a, b = (((x - (x * mask_BT).sum(1, keepdim=True) / count) * mask_BT) for x in (value_BT, wanted_BT))
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()


def _inside(box_B4: Tensor, height: int, width: int) -> Tensor:
    """Which pixels of a picture lie in a box (left, top, right, bottom) in [-1, 1], [B, H, W]."""
    x = torch.linspace(-1, 1, width, device=box_B4.device)
    y = torch.linspace(-1, 1, height, device=box_B4.device)
    left, top, right, bottom = (side[:, None] for side in box_B4.unbind(-1))
    return ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None]


def _decibel(error_B: Tensor) -> Tensor:
    return -10 * torch.log10(error_B.clamp(min=SMALLEST_ERROR))
