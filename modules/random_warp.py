"""Random affine + thin-plate warps for the equivariance constraint (FOMM; Sec. 3.3, Eq. 7).

Letters: B batch, N point, C H W image. Coordinates are (x, y) in [-1, 1], -1 and 1 the centres of the corner pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from modules.keypoints import coordinate_grid

EPSILON = 1e-6  # inside the logarithm, as in FOMM


@dataclass(frozen=True)
class RandomWarpConfig:
    """Size of the warps; defaults are FOMM's for VoxCeleb."""

    affine_sigma: float = 0.05
    spline_sigma: float = 0.005
    spline_points: int = 5  # a grid of 5 x 5 control points

    def __post_init__(self) -> None:
        if self.affine_sigma < 0 or self.spline_sigma < 0 or self.spline_points < 1:
            raise ValueError("a random warp needs sigmas >= 0 and at least one control point")


class RandomWarp(NamedTuple):
    """One warp a sample: z -> theta [z, 1] + sum_k weight_k f(|z - c_k|_1), f(r) = r^2 log(r + 1e-6).

    The same scalar spline term is added to x and to y, and the distance is L1: FOMM's own choices, kept for parity.
    """

    theta_B23: Tensor
    control_points_N2: Tensor
    control_weights_BN: Tensor

    def points(self, position_BN2: Tensor) -> Tensor:
        """Warp points [B, N, 2]."""
        affine = _affine(self.theta_B23[:, :, :2], position_BN2) + self.theta_B23[:, None, :, 2]
        distance = (position_BN2[:, :, None] - self.control_points_N2).abs().sum(-1)  # (B, N, control point)
        spline = distance**2 * torch.log(distance + EPSILON)
        return affine + (spline * self.control_weights_BN[:, None]).sum(-1, keepdim=True)

    def jacobian(self, position_BN2: Tensor) -> Tensor:
        """Derivative of `points` at the given points, [B, N, 2, 2], rows = output (x, y), columns = input.

        Closed form of what FOMM takes from autograd with the graph kept: f'(r) = 2 r log(r + e) + r^2 / (r + e).
        """
        offset = position_BN2[:, :, None] - self.control_points_N2  # (B, N, control point, 2)
        distance = offset.abs().sum(-1)
        slope = 2 * distance * torch.log(distance + EPSILON) + distance**2 / (distance + EPSILON)
        spline_BN2 = ((slope * self.control_weights_BN[:, None])[..., None] * offset.sign()).sum(2)
        return self.theta_B23[:, None, :, :2] + spline_BN2[:, :, None]  # the same row for x and y

    def image(self, image_BCHW: Tensor, align_corners: bool) -> Tensor:
        """Sample an image at the warped grid, with reflection padding as in FOMM.

        `align_corners` is the generator's convention: keypoints and pictures must be warped alike, else a detector that
        makes no mistake is charged for the difference (up to half a pixel at the border).
        """
        height, width = image_BCHW.shape[-2:]
        grid = rearrange(coordinate_grid(height, width, self.theta_B23), "h w xy -> 1 (h w) xy")
        grid = rearrange(self.points(grid.expand(len(image_BCHW), -1, -1)), "b (h w) xy -> b h w xy", h=height)
        return F.grid_sample(image_BCHW.float(), grid, padding_mode="reflection", align_corners=align_corners)


def random_warp(
    items: Sequence[int], seed: int, config: RandomWarpConfig, device: torch.device | str = "cpu"
) -> RandomWarp:
    """One warp for each item, a pure function of (seed, item): the same on any number of ranks and after a resume."""
    size = config.spline_points
    theta, weights = [], []
    for item in items:
        generator = torch.Generator().manual_seed((int(seed) * 1_000_003 + int(item)) % 2**63)
        theta.append(torch.eye(2, 3) + config.affine_sigma * torch.randn(2, 3, generator=generator))
        weights.append(config.spline_sigma * torch.randn(size * size, generator=generator))
    points = rearrange(coordinate_grid(size, size, theta[0]), "h w xy -> (h w) xy")
    return RandomWarp(
        torch.stack(theta).to(device, non_blocking=True),
        points.to(device, non_blocking=True),
        torch.stack(weights).to(device, non_blocking=True),
    )


def _affine(matrix_B22: Tensor, position_BN2: Tensor) -> Tensor:
    """Matrix times point, written out: exact in float32 under any autocast or TF32 setting."""
    return (matrix_B22[:, None] * position_BN2[:, :, None]).sum(-1)
