"""Exact rewrites of trained networks for faster inference.

Two identities are used: BatchNorm in eval mode is an affine map and folds into the convolution before it; and a nearest
x2 enlargement followed by a 3x3 convolution is one transposed convolution of stride 2 with 4x4 taps (4x4x4 in 3-D),
which needs 2.25 times fewer multiplications (3.4 times in 3-D). Results differ from the plain networks by
rounding only.
"""

import copy
import itertools
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from modules.blocks import ResidualBlock, ResidualDownBlock3d, SameBlock, UpBlock

Network = TypeVar("Network", bound=nn.Module)
# Wider 2-D blocks work on few pixels, where reading 16 taps instead of 9 costs more than it saves (measured on two CPU
# cores: the dense motion network took 108 ms with all its blocks rewritten, 70 ms with none).
WIDEST_2D = 256  # input channels
CONV_TRANSPOSE = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def fuse_for_inference(network: Network) -> Network:
    """A copy of `network` (eval mode, not trainable) with the rewrites above; the original is left alone."""
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, SameBlock | ResidualDownBlock3d):  # down and up blocks included
            module.conv, module.norm = fuse_conv_bn_eval(module.conv, module.norm), nn.Identity()
        if isinstance(module, UpBlock) and (module.conv.weight.ndim == 5 or module.conv.in_channels <= WIDEST_2D):
            module.conv, module.enlarge = enlarging_conv(module.conv), nn.Identity()
        if isinstance(module, ResidualBlock):
            module.conv1, module.norm2 = fuse_conv_bn_eval(module.conv1, module.norm2), nn.Identity()
    return network


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
