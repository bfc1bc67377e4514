"""Exact rewrites of trained networks for faster inference.

Two identities are used: BatchNorm in eval mode is an affine map and folds into the convolution before it;
and a nearest x2 enlargement followed by a 3x3 convolution is one transposed convolution of stride 2 with 4x4 taps
(4x4x4 in 3-D), which needs 2.25 times fewer multiplications (3.4 times in 3-D).

In float32 on a CPU three more pay: Winograd's convolutions (`modules.winograd`), those by Fourier transforms
(`modules.fourier`), and sums of rows for the 7x7 convolutions that give a few channels. Results differ from the plain
networks by rounding only. In bfloat16 on a CPU networks are rewritten otherwise (`modules.packed`).
"""

import copy
import itertools
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from modules.blocks import ResidualBlock, ResidualDownBlock3d, SameBlock, UpBlock
from modules.fourier import FourierConvs
from modules.image_generator import ImageGenerator
from modules.motion_field_generator import MotionFieldGenerator
from modules.packed import PackedConv, PackedEnd, PackedHourglass, PackedPair, both_convs, pack
from modules.winograd import WinogradConv

Network = TypeVar("Network", bound=nn.Module)
# Wider 2-D blocks work on few pixels, where reading 16 taps instead of 9 costs more than it saves (measured on two CPU
# cores: the dense motion network took 108 ms with all its blocks rewritten, 70 ms with none).
WIDEST_2D = 256  # input channels
# By channels, where Winograd's way is faster: with fewer, its sums cost more than its products save; with more, as the
# deepest blocks have on a few pixels, it reads too many sums of taps.
WINOGRAD_CHANNELS = range(128, 257)
CONV_TRANSPOSE = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def fuse_for_inference(network: Network, cpu_dtype: torch.dtype | None = None) -> Network:
    """A copy of `network` (eval mode, not trainable) with the rewrites above; the original is left alone.

    Args:
        cpu_dtype: with those that pay only on a CPU which computes in this type: float32, or bfloat16 for N_I and for
            Hourglass-3D of N_M (whose heads stay in float32). Autocast then does not reach what they rewrite. With
            bfloat16 the copy is for use where it was made: its kernels can neither be copied, moved nor saved.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    _fold(network)
    if cpu_dtype == torch.bfloat16 and isinstance(network, ImageGenerator):
        _pack_generator(network)
        return network
    if cpu_dtype == torch.bfloat16 and isinstance(network, MotionFieldGenerator) and network.hourglass:
        network.predictor = PackedHourglass(network.predictor, torch.float32)
        _heads_by_spectra(network)
        return network
    for module in network.modules():
        if isinstance(module, UpBlock) and (module.conv.weight.ndim == 5 or module.conv.in_channels <= WIDEST_2D):
            module.conv, module.enlarge = enlarging_conv(module.conv), nn.Identity()
    if cpu_dtype == torch.float32:
        _fewer_products(network)
    return network


def _pack_generator(generator: ImageGenerator) -> None:
    """The rewrites for bfloat16 on a CPU, in place."""
    dense = generator.dense_motion_network
    maps = PackedConv(both_convs(dense.mask, dense.occlusion))
    dense.mask = dense.occlusion = PackedPair(maps, (dense.mask.out_channels, dense.occlusion.out_channels))
    last = generator.up_blocks[-1]
    generator.up_blocks = generator.up_blocks[:-1]
    if generator.skip is None:
        generator.final = PackedEnd(last, generator.final)
    else:
        counts = generator.final.out_channels, generator.skip.out_channels
        end = PackedEnd(last, both_convs(generator.final, generator.skip))
        generator.final = generator.skip = PackedPair(end, counts)
    if generator.keypoint_maps is not None:
        generator.keypoint_maps = PackedConv(generator.keypoint_maps)
    pack(generator)


def _fold(network: nn.Module) -> None:
    """Fold each BatchNorm that follows a convolution into it, in place."""
    for module in network.modules():
        if isinstance(module, SameBlock | ResidualDownBlock3d):  # down and up blocks included
            module.conv, module.norm = fuse_conv_bn_eval(module.conv, module.norm), nn.Identity()
        if isinstance(module, ResidualBlock):
            module.conv1, module.norm2 = fuse_conv_bn_eval(module.conv1, module.norm2), nn.Identity()


def _fewer_products(network: nn.Module) -> None:
    """The rewrites for float32 on a CPU, in place."""
    for module in list(network.modules()):
        if isinstance(module, ResidualBlock):
            module.conv1, module.conv2 = _winograd(module.conv1), _winograd(module.conv2)
        if isinstance(module, ResidualDownBlock3d):
            module.conv = _winograd(module.conv)
        if isinstance(module, ImageGenerator):
            module.final = RowsFirstConv(module.final)
            module.skip = None if module.skip is None else RowsFirstConv(module.skip)
        if isinstance(module, MotionFieldGenerator) and module.hourglass:
            _heads_by_spectra(module)


def _heads_by_spectra(generator: MotionFieldGenerator) -> None:
    if generator.relative_head is None:
        convs = [conv for conv in (generator.kp, generator.jacobian) if conv is not None]
        generator.kp = generator.jacobian = FourierConvs(convs, generator.map_size)


def _winograd(conv: nn.Conv2d | nn.Conv3d) -> nn.Module:
    return WinogradConv(conv) if conv.in_channels in WINOGRAD_CHANNELS else conv


class LowPrecision(nn.Module):
    """A network under autocast to `dtype` amid others that compute in float32."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, self.dtype):
            return self.network(x).float()


class RowsFirstConv(nn.Module):
    """A `conv` that gives a few channels: each row of its kernel by itself, then the rows' sum.

    A convolution fills its vectors with output channels, 8 or 16 at a time, and 3 leave them nearly empty. One row of
    each kernel, as a channel of its own, makes them 7 times as many.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        out, channels, self.rows, columns = conv.weight.shape
        weight = conv.weight.detach().transpose(1, 2).transpose(0, 1).reshape(self.rows * out, channels, 1, columns)
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", conv.bias.detach()[:, None, None].clone())
        self.padding = conv.padding

    def forward(self, x_BCHW: Tensor) -> Tensor:
        height = x_BCHW.shape[2]
        rows = F.conv2d(x_BCHW, self.weight, padding=self.padding).chunk(self.rows, dim=1)
        total = rows[0][:, :, :height] + self.bias
        for n, row in enumerate(rows[1:], 1):
            total += row[:, :, n : n + height]
        return total


def enlarging_conv(conv: nn.Conv2d | nn.Conv3d) -> nn.ConvTranspose2d | nn.ConvTranspose3d:
    """The transposed convolution equal to nearest x2 followed by `conv` (kernel 3, padding 1)."""
    weight = conv.weight  # (out, in, 3, 3[, 3])
    dims = weight.ndim - 2
    fused = CONV_TRANSPOSE[dims](conv.in_channels, conv.out_channels, 4, stride=2, padding=1)
    fused = fused.to(weight).requires_grad_(False)
    with torch.no_grad():
        fused.weight.copy_(_spread(weight))
        fused.bias.copy_(conv.bias)
    return fused


def _spread(weight: Tensor) -> Tensor:
    """Each tap of a transposed kernel (in, out, 4, ...) collects the taps that see the same input pixel twice."""
    dims = weight.ndim - 2
    flipped = weight.flip(list(range(2, weight.ndim))).transpose(0, 1)
    spread = weight.new_zeros(*flipped.shape[:2], *[4] * dims)
    for shift in itertools.product(range(2), repeat=dims):
        spread[(..., *[slice(s, s + 3) for s in shift])] += flipped
    return spread
