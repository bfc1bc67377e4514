"""Occlusion-aware image generator N_I (Sec. 3.1), adopted from Siarohin et al. 2019b, with one extension of ours.

The source is encoded once (`encode`) and rendered for any number of driving frames (`render`).
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.blocks import (
    AntiAliasDownsample,
    ConvOnto,
    DownBlock,
    ResidualBlock,
    SameBlock,
    UpBlock,
    downsampling_kernels,
    side_by_side,
)
from modules.dense_motion import DenseMotion, DenseMotionNetwork
from modules.keypoints import Keypoints, gaussian_heatmaps, warp
from modules.limits import at_least, one_nth

MAP_VARIANCE = 0.0025  # of the Gaussians in `keypoint_maps`; lips open by less than the dense motion's are wide
ADDED_PARTS = ("skip.", "keypoint_maps.")  # first words of the names of tensors that FOMM's N_I does not have


@dataclass(frozen=True)
class DenseMotionConfig:
    """Sizes of the dense motion network (vox-256)."""

    scale_factor: float = 0.25
    block_expansion: int = 64
    max_features: int = 1024
    num_blocks: int = 5
    # Ours, off in the paper: how strongly each pixel follows the keypoints nearest to it. Without this, masks learned
    # from a few people move the lips of an unfamiliar face with the wrong keypoints, and its mouth stays shut.
    keypoint_prior: float = 0.0

    def __post_init__(self) -> None:
        at_least(1, self, "block_expansion", "max_features", "num_blocks")
        one_nth("scale_factor", self.scale_factor)


@dataclass(frozen=True)
class ImageGeneratorConfig:
    """Sizes of N_I; the defaults are those of vox-256 (Siarohin et al. 2019b), which the paper adopts (Sec. 4.2)."""

    image_size: int = 256  # pixels, square (Sec. 4.1)
    num_keypoints: int = 10
    block_expansion: int = 64
    max_features: int = 512
    num_down_blocks: int = 2
    num_bottleneck_blocks: int = 6
    dense_motion: DenseMotionConfig = DenseMotionConfig()
    # Sampling convention of the warps. The grids put -1 and 1 on the centres of the corner pixels, which is what True
    # means. The released weights were trained and are used with False, which shrinks a picture that should stay as it
    # is by 64/63.
    align_corners: bool = False
    # How [0, 1] becomes 8 bits: the released program truncates; rounding is right.
    truncate_frames: bool = False
    # Ours, off in the paper: output = m * generated + (1 - m) * warped source, so that visible pixels stay sharp.
    source_skip: bool = False
    # Ours, off in the paper: show the painting layers where the driving and source keypoints are (much as in Siarohin
    # et al. 2019a), not only features moved by them. Without this, N_I cannot tell an opening mouth from thicker lips.
    keypoint_maps: bool = False

    def __post_init__(self) -> None:
        at_least(1, self, "image_size", "num_keypoints", "block_expansion", "max_features", "num_down_blocks")
        at_least(0, self, "num_bottleneck_blocks")


class SourceEncoding(NamedTuple):
    """What N_I needs of a source picture, computed once."""

    image_BCHW: Tensor
    small_BCHW: Tensor  # anti-aliased, at the dense motion's size
    features_BCHW: Tensor


class Rendering(NamedTuple):
    """A generated picture and the motion it came from."""

    image_BCHW: Tensor  # [0, 1]
    painted_BCHW: Tensor  # what the network paints; the picture itself without `source_skip`
    motion: DenseMotion
    skip_mask_B1HW: Tensor | None  # 1: painted by the network, 0: taken from the warped source


def _resize(map_BCHW: Tensor, like_BCHW: Tensor, align_corners: bool) -> Tensor:
    """A map at the resolution of another; unchanged (not copied) when the size is right already."""
    size = like_BCHW.shape[-2:]
    if map_BCHW.shape[-2:] == size:
        return map_BCHW
    return F.interpolate(map_BCHW, size=size, mode="bilinear", align_corners=align_corners)


def position_maps(driving: Keypoints, source: Keypoints, height: int, width: int) -> Tensor:
    """Gaussians at driving and source positions -> [B, 2 K, H, W] in [0, 1]; `source` may be a batch of one."""
    both = driving.position_BK2, source.position_BK2.expand_as(driving.position_BK2)
    return torch.cat([gaussian_heatmaps(position, height, width, MAP_VARIANCE) for position in both], dim=1)


def added_parts(network: nn.Module) -> dict[str, Tensor]:
    """Tensors of our own parts of a network, which weights from elsewhere lack."""
    return {name: value for name, value in network.state_dict().items() if name.startswith(ADDED_PARTS)}


def starting_state(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` as N_D or N_I can start its training from it, although some settings differ.

    `scale_factor` may: the kernels of the downsampling are constants of the network's sizes and its own are kept.
    `source_skip` and `keypoint_maps` may be new: these parts start afresh. Anything else must fit when it is loaded.
    """
    return added_parts(network) | state | downsampling_kernels(network)


class ImageGenerator(nn.Module):
    """Source picture, its keypoints and driving keypoints -> picture of the source in the driving motion."""

    def __init__(self, config: ImageGeneratorConfig):
        super().__init__()
        dense = config.dense_motion
        channels = [min(config.max_features, config.block_expansion * 2**i) for i in range(config.num_down_blocks + 1)]
        pairs = list(itertools.pairwise(channels))
        self.align_corners = config.align_corners
        self.dense_motion_network = DenseMotionNetwork(
            config.num_keypoints,
            dense.block_expansion,
            dense.max_features,
            dense.num_blocks,
            down=AntiAliasDownsample(3, dense.scale_factor),
            align_corners=config.align_corners,
            prior=dense.keypoint_prior,
        )
        self.first = SameBlock(3, channels[0], kernel=7)
        self.down_blocks = nn.ModuleList(DownBlock(i, o) for i, o in pairs)
        self.bottleneck = nn.Sequential()
        for i in range(config.num_bottleneck_blocks):
            self.bottleneck.add_module(f"r{i}", ResidualBlock(channels[-1]))
        self.up_blocks = nn.ModuleList(UpBlock(o, i) for i, o in reversed(pairs))
        self.final = nn.Conv2d(channels[0], 3, 7, padding=3)
        self.keypoint_maps = None
        if config.keypoint_maps:
            self.keypoint_maps = ConvOnto(2 * config.num_keypoints, channels[-1], 3, padding=1)
        self.skip = None
        if config.source_skip:
            self.skip = nn.Conv2d(channels[0], 1, 7, padding=3)
            nn.init.constant_(self.skip.bias, -1.0)  # starts by trusting the warped source

    def encode(self, source_BCHW: Tensor) -> SourceEncoding:
        """Everything that depends on the source picture [0, 1] alone."""
        features = self.first(source_BCHW)
        for block in self.down_blocks:
            features = block(features)
        return SourceEncoding(source_BCHW, self.dense_motion_network.down(source_BCHW), features)

    def render(self, encoding: SourceEncoding, driving: Keypoints, source: Keypoints) -> Rendering:
        """Pictures for B driving frames; `encoding` and `source` are batches of B, or of one that serves all."""
        motion = self.dense_motion_network(encoding.small_BCHW, driving, source)
        features = encoding.features_BCHW
        if features.requires_grad and features.is_contiguous(memory_format=torch.channels_last):
            # grid_sample's gradient comes in another layout, in which everything before it is slow on CPUs
            features.register_hook(lambda gradient: gradient.contiguous(memory_format=torch.channels_last))
        x = self._warp(features, motion.deformation_BHW2)
        x = x * _resize(motion.occlusion_B1HW, features, self.align_corners)
        if self.keypoint_maps is not None:
            x = self.keypoint_maps(position_maps(driving, source, *features.shape[-2:]), onto=x)
        x = self.bottleneck(x)
        for block in self.up_blocks:
            x = block(x)
        if self.skip is None:
            image = self.final(x).float().sigmoid()
            return Rendering(image, image, motion, None)
        image, mask = side_by_side(x, self.final, self.skip)
        image, mask = image.float().sigmoid(), mask.float().sigmoid()
        mixed = mask * image + (1 - mask) * self.warp_source(encoding, motion)
        return Rendering(mixed, image, motion, mask)

    def warp_source(self, encoding: SourceEncoding, motion: DenseMotion) -> Tensor:
        """The source picture itself under the dense motion, at full size -> BCHW."""
        return self._warp(encoding.image_BCHW, motion.deformation_BHW2)

    def _warp(self, x_BCHW: Tensor, deformation_BHW2: Tensor) -> Tensor:
        field = _resize(deformation_BHW2.movedim(-1, 1), x_BCHW, self.align_corners)
        grid = field.movedim(1, -1)
        return warp(x_BCHW.float().expand(len(grid), -1, -1, -1), grid, self.align_corners)  # one copy for all frames

    def forward(self, source_BCHW: Tensor, driving: Keypoints, source: Keypoints) -> Rendering:
        return self.render(self.encode(source_BCHW), driving, source)
