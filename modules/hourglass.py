"""Hourglass networks: the 2-D one of Siarohin et al. 2019b and the paper's Hourglass-3D (Sec. 3.3).

Both return features at the size of their input with `block_expansion + in_channels` channels.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.blocks import DownBlock, ResidualBlock, ResidualDownBlock3d, ResidualUpBlock3d, UpBlock


def _level_channels(in_channels: int, block_expansion: int, max_features: int, num_blocks: int) -> list[int]:
    """Channels at the input and after each of `num_blocks` halvings."""
    return [in_channels] + [min(max_features, block_expansion * 2 ** (i + 1)) for i in range(num_blocks)]


class Encoder(nn.Module):
    """Down blocks; returns the input and the output of every level."""

    def __init__(self, down_blocks: list[nn.Module]):
        super().__init__()
        self.down_blocks = nn.ModuleList(down_blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = [x]
        for block in self.down_blocks:
            levels.append(block(levels[-1]))
        return levels


class Decoder2d(nn.Module):
    """Up blocks, each followed by concatenation with the encoder's features of that size."""

    def __init__(self, up_blocks: list[nn.Module]):
        super().__init__()
        self.up_blocks = nn.ModuleList(up_blocks)

    def forward(self, levels: list[Tensor]) -> Tensor:
        *skips, x = levels
        for block, skip in zip(self.up_blocks, reversed(skips), strict=True):
            x = torch.cat([block(x), skip], dim=1)
        return x


class Decoder3d(nn.Module):
    """Like Decoder2d; each skip connection passes a residual block, BatchNorm and ReLU first."""

    def __init__(self, up_blocks: list[nn.Module], skip_channels: list[int]):
        super().__init__()
        self.up_blocks = nn.ModuleList(up_blocks)
        self.res_blocks = nn.ModuleList(
            nn.Sequential(ResidualBlock(channels, dims=3), nn.BatchNorm3d(channels)) for channels in skip_channels
        )

    def forward(self, levels: list[Tensor]) -> Tensor:
        *skips, x = levels
        for block, res_block, skip in zip(self.up_blocks, self.res_blocks, reversed(skips), strict=True):
            x = torch.cat([block(x), F.relu(res_block(skip))], dim=1)
        return x


def _up_channels(channels: list[int], block_expansion: int) -> list[tuple[int, int]]:
    """(in, out) of each up block, from the bottom; all but the first take a concatenation of two."""
    outs = [block_expansion, *channels[1:-1]]
    depth = len(outs)
    return [(channels[i + 1] * (1 if i == depth - 1 else 2), outs[i]) for i in reversed(range(depth))]


class Hourglass2d(nn.Module):
    """[B, C, H, W] -> [B, block_expansion + C, H, W]; H and W must be divisible by 2^num_blocks."""

    def __init__(self, in_channels: int, block_expansion: int, max_features: int, num_blocks: int):
        super().__init__()
        channels = _level_channels(in_channels, block_expansion, max_features, num_blocks)
        self.encoder = Encoder([DownBlock(i, o) for i, o in itertools.pairwise(channels)])
        self.decoder = Decoder2d([UpBlock(i, o) for i, o in _up_channels(channels, block_expansion)])
        self.out_channels = block_expansion + in_channels

    def forward(self, x: Tensor) -> Tensor:
        if self.encoder.down_blocks[0].conv.weight.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous(memory_format=torch.channels_last)  # once, not before each convolution
        return self.decoder(self.encoder(x))


class Hourglass3d(nn.Module):
    """The paper's Hourglass-3D: [B, C, T, H, W] -> [B, block_expansion + C, T, H, W].

    T, H and W must be divisible by 2^num_blocks. Time is halved together with the picture, which
    keeps the motion smooth between frames (Sec. 3.3).
    """

    def __init__(self, in_channels: int, block_expansion: int, max_features: int, num_blocks: int):
        super().__init__()
        channels = _level_channels(in_channels, block_expansion, max_features, num_blocks)
        down = [ResidualDownBlock3d(i, o) for i, o in itertools.pairwise(channels)]
        up = [ResidualUpBlock3d(i, o) for i, o in _up_channels(channels, block_expansion)]
        self.encoder = Encoder(down)
        self.decoder = Decoder3d(up, skip_channels=channels[-2::-1])
        self.out_channels = block_expansion + in_channels

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))
