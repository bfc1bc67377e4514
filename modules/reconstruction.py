"""How far a drawn picture is from the wanted one: the terms that stage one and the motion field's second phase share.

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
    mouth: float = 0.0  # not a term: how much more than 1 the mouth's pixels weigh in the three above
    eyes: float = 0.0  # the same for the eyes


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
        eyes_B24: the same of both eyes; read only if `weights.eyes` is not 0.
        vgg: read only if `weights.perceptual` is not 0.
    """
    levels = list(zip(pyramid(image_BCHW), pyramid(wanted_BCHW), strict=True))
    maps = [pixel_weight(mouth_B4, eyes_B24, *a.shape[-2:], weights) for a, _ in levels]
    found = {}
    if weights.perceptual:
        terms = [losses.feature_l1(vgg(a), vgg(b)) for a, b in levels]
        found["perceptual"] = weights.perceptual * torch.stack(terms).sum()
    if weights.pixel:
        terms = [losses.pixel_l1(a, b, w) for (a, b), w in zip(levels, maps, strict=True)]
        found["pixel"] = weights.pixel * torch.stack(terms).sum()
    if weights.gradient:
        terms = [losses.gradient_l1(a, b, w) for (a, b), w in zip(levels, maps, strict=True)]
        found["gradient"] = weights.gradient * torch.stack(terms).sum()
    if weights.ssim:
        found["ssim"] = weights.ssim * losses.ssim_loss(image_BCHW, wanted_BCHW, maps[0])
    return found


def pixel_weight(
    mouth_B4: Tensor, eyes_B24: Tensor | None, height: int, width: int, weights: ReconstructionWeights
) -> Tensor | None:
    """Weight of each pixel, [B, 1, H, W], after `weights.mouth` and `weights.eyes`; None where all weigh the same."""
    found = []
    if weights.mouth:
        found.append(losses.region_weight(mouth_B4, height, width, weights.mouth))
    if weights.eyes:
        found += [losses.region_weight(eyes_B24[:, eye], height, width, weights.eyes) for eye in (0, 1)]
    return sum(found) - (len(found) - 1) if found else None
