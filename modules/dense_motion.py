"""Dense motion from sparse keypoints (Siarohin et al. 2019b, Eqs. 4, 6, 7), the motion field of Sec. 3.3.

Letters: B batch, K keypoint, N = K + 1 motions (background first), H W the dense motion's own size.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from modules.blocks import side_by_side
from modules.hourglass import Hourglass2d
from modules.keypoints import (
    Keypoints,
    compose_2x2,
    coordinate_grid,
    coordinate_lines,
    gaussian_heatmaps,
    invert_2x2,
    log_gaussians,
    warp,
)

FAR = -4.0  # lowest value of `keypoint_prior`


class DenseMotion(NamedTuple):
    """Where each output pixel comes from in the source, and how far that can be trusted."""

    deformation_BHW2: Tensor  # (x, y) in the source
    occlusion_B1HW: Tensor  # 0: must be painted anew, 1: visible in the source
    mask_BNHW: Tensor  # weight of each sparse motion, sums to 1 over N
    sparse_deformed_BNCHW: Tensor  # the source warped by each sparse motion


def relative_heatmaps(driving_BK2: Tensor, source_BK2: Tensor, height: int, width: int) -> Tensor:
    """Difference of Gaussians at driving and source positions, a zero map first for the background (Eq. 6) -> BNHW."""
    difference = gaussian_heatmaps(driving_BK2, height, width) - gaussian_heatmaps(source_BK2, height, width)
    return torch.cat([torch.zeros_like(difference[:, :1]), difference], dim=1)


def keypoint_prior(driving_BK2: Tensor, height: int, width: int) -> Tensor:
    """Logits by which each keypoint's motion counts most near it (ours) -> BNHW.

    They are the log of `gaussian_heatmaps`, but at least FAR, which a keypoint has from a distance of 0.28 on. The
    background, first, has FAR everywhere.
    """
    near_BKHW = log_gaussians(driving_BK2, height, width).clamp(min=FAR)
    return torch.cat([torch.full_like(near_BKHW[:, :1], FAR), near_BKHW], dim=1)


def sparse_motions(driving: Keypoints, source: Keypoints, height: int, width: int) -> Tensor:
    """Each keypoint's affine motion T_{S<-D}(z) (Eq. 4) on the whole grid, the identity first -> BNHW2."""
    like = driving.position_BK2
    if driving.jacobian_BK22 is not None and source.jacobian_BK22 is not None:
        affine_BK22 = compose_2x2(source.jacobian_BK22, invert_2x2(driving.jacobian_BK22))
    else:
        affine_BK22 = torch.eye(2, device=like.device, dtype=like.dtype).expand(*like.shape[:2], 2, 2)
    # An affine motion is the sum of what the column says and what the row says. Both coordinates are whole maps in
    # memory, and the result a view of them: what follows runs along rows, not along pairs.
    x_W, y_H = coordinate_lines(height, width, like)
    across_BK1W, down_BK1H = x_W - like[:, :, :1, None], y_H - like[:, :, 1:, None]
    across_BK2W = across_BK1W * affine_BK22[..., :1] + source.position_BK2[..., None]
    down_BK2H = down_BK1H * affine_BK22[..., 1:]
    motions = down_BK2H[..., None] + across_BK2W[..., None, :]
    grid = coordinate_grid(height, width, like).movedim(-1, 0)
    return torch.cat([grid.expand(len(motions), 1, -1, -1, -1), motions], dim=1).movedim(2, -1)


class DenseMotionNetwork(nn.Module):
    """Weighs the sparse motions into one deformation and predicts the occlusion map (Eq. 7).

    Args:
        down: anti-aliased downsampling of the picture to the size at which this network works.
        prior: weight of `keypoint_prior` in the logits of the masks (ours; 0 in FOMM and the paper).
    """

    def __init__(
        self,
        num_keypoints: int,
        block_expansion: int,
        max_features: int,
        num_blocks: int,
        down: nn.Module,
        align_corners: bool,
        prior: float = 0.0,
    ):
        super().__init__()
        self.align_corners = align_corners
        self.prior = prior
        self.hourglass = Hourglass2d((num_keypoints + 1) * 4, block_expansion, max_features, num_blocks)
        self.mask = nn.Conv2d(self.hourglass.out_channels, num_keypoints + 1, 7, padding=3)
        self.occlusion = nn.Conv2d(self.hourglass.out_channels, 1, 7, padding=3)
        self.down = down

    def forward(self, small_source_BCHW: Tensor, driving: Keypoints, source: Keypoints) -> DenseMotion:
        """Args: the source picture after `down`; keypoints in float32."""
        height, width = small_source_BCHW.shape[-2:]
        heatmaps = relative_heatmaps(driving.position_BK2, source.position_BK2, height, width)
        motions = sparse_motions(driving, source, height, width)
        count = motions.shape[1]
        sources = small_source_BCHW
        if len(sources) > 1:  # one that serves all is not copied
            sources = sources.repeat_interleave(count, dim=0)
        sources = sources.expand(len(motions) * count, -1, -1, -1)
        deformed = warp(sources, motions.flatten(0, 1), self.align_corners)
        deformed = deformed.unflatten(0, (-1, count))
        inputs = torch.cat([heatmaps[:, :, None], deformed], dim=2).flatten(1, 2)
        logits, occlusion = side_by_side(self.hourglass(inputs), self.mask, self.occlusion)
        logits, occlusion = logits.float(), occlusion.float().sigmoid()
        if self.prior:
            logits = logits + self.prior * keypoint_prior(driving.position_BK2, height, width)
        mask = logits.softmax(dim=1)
        deformation = (mask[:, :, None] * motions.movedim(-1, 2)).sum(1).movedim(1, -1)  # in memory as the motions are
        return DenseMotion(deformation, occlusion, mask, deformed)
