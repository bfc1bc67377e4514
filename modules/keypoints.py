"""Keypoints with Jacobians: the sparse motion of Siarohin et al. 2019b, on which the paper builds (Sec. 3.3).

Letters: B batch, K keypoint, H W picture, digits literal. Positions are (x, y) in [-1, 1]; -1 and 1 are the centres of
the corner pixels.

Everything here stays in float32 under autocast: sums of products are written elementwise, since matrix products (einsum
included) would be cast to bfloat16, whose 8 bits are too coarse for coordinates.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Keypoints(NamedTuple):
    """K local affine transforms a picture: (p^k, j^k) of Sec. 3.3.

    `jacobian_BK22` is None for the paper's ablation "w/o Jacobians" (Sec. 5.4): the local motion is then a shift.
    """

    position_BK2: Tensor
    jacobian_BK22: Tensor | None

    def map(self, change: Callable[[Tensor], Tensor]) -> "Keypoints":
        """`change` applied to the positions, and to the Jacobians where there are any."""
        return Keypoints(change(self.position_BK2), None if self.jacobian_BK22 is None else change(self.jacobian_BK22))

    def cut(self, start: int, stop: int | None) -> "Keypoints":
        """Sets start to stop - 1 of the batch."""
        return self.map(lambda part: part[start:stop])

    def to(self, device: torch.device | str) -> "Keypoints":
        """The same on a device."""
        return self.map(lambda part: part.to(device))

    def repeated(self, count: int) -> "Keypoints":
        """A batch of one as a batch of `count` equal sets, without a copy."""
        return self.map(lambda part: part.expand(count, *part.shape[1:]))

    def moved(self, first: "Keypoints", now: "Keypoints") -> "Keypoints":
        """These keypoints after the motion from `first` to `now` (relative mode of Siarohin et al. 2019b).

        Positions change by the difference, Jacobians by the product now first^-1. A batch of one stands for all.
        """
        position = self.position_BK2 + now.position_BK2 - first.position_BK2
        if self.jacobian_BK22 is None or now.jacobian_BK22 is None:
            return Keypoints(position, None)
        turn = compose_2x2(now.jacobian_BK22, invert_2x2(first.jacobian_BK22))
        return Keypoints(position, compose_2x2(turn, self.jacobian_BK22))

    @staticmethod
    def cat(parts: Iterable["Keypoints"]) -> "Keypoints":
        """All sets of several batches, in order."""
        position, jacobian = zip(*parts, strict=True)
        return Keypoints(torch.cat(position), None if jacobian[0] is None else torch.cat(jacobian))


class DetectedKeypoints(NamedTuple):
    """Keypoints as a network finds them, with the heatmaps [B, K, H, W] (each sums to 1) they are the means of."""

    position_BK2: Tensor
    jacobian_BK22: Tensor | None
    heatmap_BKHW: Tensor

    @property
    def keypoints(self) -> Keypoints:
        return Keypoints(self.position_BK2, self.jacobian_BK22)


def coordinate_lines(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """x of the W columns and y of the H rows, the outermost exactly -1 and 1, on the device and in the type of `like`.

    Much that lies on the whole grid is a sum or a product of something on these two.
    """
    x_W = torch.linspace(-1, 1, width, device=like.device, dtype=like.dtype)
    return x_W, torch.linspace(-1, 1, height, device=like.device, dtype=like.dtype)


def coordinate_grid(height: int, width: int, like: Tensor) -> Tensor:
    """[H, W, 2] of (x, y), corners at exactly -1 and 1, on the device and in the type of `like`."""
    return torch.stack(torch.meshgrid(*coordinate_lines(height, width, like), indexing="xy"), dim=-1)


def soft_argmax(heatmap_BKHW: Tensor) -> Tensor:
    """Expected position of each heatmap (Sec. 3.3, after Siarohin et al. 2019a).

    Args:
        heatmap_BKHW: non-negative, sums to 1 over H and W.

    Returns:
        position_BK2 in [-1, 1].
    """
    x_W, y_H = coordinate_lines(*heatmap_BKHW.shape[-2:], like=heatmap_BKHW)
    x = (heatmap_BKHW.sum(-2) * x_W).sum(-1)
    y = (heatmap_BKHW.sum(-1) * y_H).sum(-1)
    return torch.stack([x, y], dim=-1)


def spatial_softmax(logits_BKHW: Tensor, temperature: float) -> Tensor:
    """Softmax over H and W of logits / temperature, in float32 whatever the type of the logits."""
    flat = (logits_BKHW.float() / temperature).flatten(2).softmax(dim=-1)
    return flat.unflatten(2, logits_BKHW.shape[-2:])


def weighted_jacobian(maps_BJHW: Tensor, heatmap_BKHW: Tensor) -> Tensor:
    """Mean of the predicted 2x2 maps under each heatmap -> jacobian_BK22, row-major (Siarohin et al. 2019b)."""
    maps = maps_BJHW.float().unflatten(1, (-1, 4))
    jacobian = (maps * heatmap_BKHW[:, :, None]).sum((-1, -2))
    return jacobian.unflatten(2, (2, 2))


def gaussian_heatmaps(position_BK2: Tensor, height: int, width: int, variance: float = 0.01) -> Tensor:
    """exp(-|z - p|^2 / (2 variance)) on the coordinate grid -> BKHW in (0, 1]."""
    x_BKW, y_BKH = (line.exp() for line in _log_gaussian_lines(position_BK2, height, width, variance))
    return y_BKH[..., None] * x_BKW[..., None, :]


def log_gaussians(position_BK2: Tensor, height: int, width: int, variance: float = 0.01) -> Tensor:
    """-|z - p|^2 / (2 variance) on the coordinate grid -> BKHW, at most 0."""
    x_BKW, y_BKH = _log_gaussian_lines(position_BK2, height, width, variance)
    return y_BKH[..., None] + x_BKW[..., None, :]


def _log_gaussian_lines(position_BK2: Tensor, height: int, width: int, variance: float) -> tuple[Tensor, Tensor]:
    """The two terms of `log_gaussians`, by column [B, K, W] and by row [B, K, H]."""
    lines = zip(coordinate_lines(height, width, like=position_BK2), position_BK2[..., None].unbind(-2), strict=True)
    x_BKW, y_BKH = (-0.5 / variance * (line - place_BK1).square() for line, place_BK1 in lines)
    return x_BKW, y_BKH


def invert_2x2(matrix: Tensor) -> Tensor:
    """Closed-form inverse of [..., 2, 2]; unlike torch.inverse it exports and needs no solver."""
    (a, b), (c, d) = (row.unbind(-1) for row in matrix.unbind(-2))
    adjugate = torch.stack((torch.stack((d, -b), -1), torch.stack((-c, a), -1)), -2)
    return adjugate / (a * d - b * c)[..., None, None]


def compose_2x2(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product a b of [..., 2, 2]."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)


def identity_jacobian_(weight: Tensor, bias: Tensor) -> None:
    """Initialise a Jacobian head so that every Jacobian starts as the identity (Siarohin et al. 2019b)."""
    with torch.no_grad():
        weight.zero_()
        bias.copy_(bias.new_tensor([1.0, 0.0, 0.0, 1.0]).repeat(bias.numel() // 4))


def warp(image_BCHW: Tensor, grid_BHW2: Tensor, align_corners: bool, padding: str = "zeros") -> Tensor:
    """Bilinear sampling of an image at (x, y) positions, always in float32."""
    return F.grid_sample(
        image_BCHW.float(), grid_BHW2.float(), mode="bilinear", padding_mode=padding, align_corners=align_corners
    )
