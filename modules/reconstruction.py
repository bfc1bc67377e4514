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


def reconstruction_losses(
    image_BCHW: Tensor,
    wanted_BCHW: Tensor,
    mouth_B4: Tensor,
    weights: ReconstructionWeights,
    pyramid: ImagePyramid,
    vgg: VggFeatures | None,
) -> dict[str, Tensor]:
    """The perceptual loss over the image pyramid (Eq. 6; FOMM) and, for training without a VGG, ours on pixels.

    Args:
        mouth_B4: boxes as `losses.region_weight` takes them; read only if `weights.mouth` is not 0.
        vgg: read only if `weights.perceptual` is not 0.
    """
    levels = list(zip(pyramid(image_BCHW), pyramid(wanted_BCHW), strict=True))
    maps = [losses.region_weight(mouth_B4, *a.shape[-2:], weights.mouth) if weights.mouth else None for a, _ in levels]
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
