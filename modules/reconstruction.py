"""How far a generated picture is from the wanted one: the losses that stage one and N_M's second phase share.

Letters: B batch, C H W image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from modules import losses
from modules.perceptual import ImagePyramid, VggFeatures


@dataclass(frozen=True)
class ReconstructionWeights:
    """Weight of each term, by the name under which it is logged; a term of weight 0 is not computed."""

    perceptual: float = 10.0  # FOMM's; also lambda_rec of Eq. 7
    # Ours, for training without a pretrained VGG; off in the paper's settings.
    pixel: float = 0.0
    gradient: float = 0.0
    ssim: float = 0.0
    mouth: float = 0.0  # not a loss: extra weight of the mouth's pixels in the three above
    eyes: float = 0.0  # the same of the eyes' pixels


def reconstruction_losses(
    image_BCHW: Tensor,
    wanted_BCHW: Tensor,
    mouth_B4: Tensor,
    weights: ReconstructionWeights,
    pyramid: ImagePyramid,
    vgg: VggFeatures | None,
    eyes_B24: Tensor | None = None,
) -> dict[str, Tensor]:
    """The perceptual loss over the image pyramid (Eq. 6; FOMM) and, for training without a VGG, ours on pixels.

    Args:
        mouth_B4: boxes as `losses.region_weight` takes them; read only if `weights.mouth` is not 0.
        eyes_B24: boxes of both eyes; read only if `weights.eyes` is not 0.
        vgg: read only if `weights.perceptual` is not 0.
    """
    levels = list(zip(pyramid(image_BCHW), pyramid(wanted_BCHW), strict=True))
    maps = [pixel_weight(mouth_B4, eyes_B24, *a.shape[-2:], weights) for a, _ in levels]
    weighted = {}
    if weights.perceptual:
        terms = [losses.feature_l1(vgg(a), vgg(b)) for a, b in levels]
        weighted["perceptual"] = weights.perceptual * torch.stack(terms).sum()
    if weights.pixel:
        terms = [losses.pixel_l1(a, b, w) for (a, b), w in zip(levels, maps, strict=True)]
        weighted["pixel"] = weights.pixel * torch.stack(terms).sum()
    if weights.gradient:
        terms = [losses.gradient_l1(a, b, w) for (a, b), w in zip(levels, maps, strict=True)]
        weighted["gradient"] = weights.gradient * torch.stack(terms).sum()
    if weights.ssim:
        weighted["ssim"] = weights.ssim * losses.ssim_loss(image_BCHW, wanted_BCHW, maps[0])
    return weighted


def pixel_weight(
    mouth_B4: Tensor, eyes_B24: Tensor | None, height: int, width: int, weights: ReconstructionWeights
) -> Tensor | None:
    """Weight of each pixel, [B, 1, H, W], from `weights.mouth` and `weights.eyes`; None where all weigh the same."""
    boxes = [(mouth_B4, weights.mouth)] if weights.mouth else []
    if weights.eyes:
        assert eyes_B24 is not None, "weights.eyes needs the eyes' boxes"
        boxes += [(eyes_B24[:, eye], weights.eyes) for eye in (0, 1)]
    extra = [losses.region_weight(box_B4, height, width, weight) - 1 for box_B4, weight in boxes]
    return 1 + torch.stack(extra).sum(0) if extra else None
