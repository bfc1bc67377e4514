"""Convolutions in bfloat16 for CPUs that compute in it: weights laid out beforehand, neighbouring steps in one pass.

Autocast converts each weight again for each frame, oneDNN then lays it out anew for its instructions, and ReLU and sums
read and write the whole map once more. Here weights are converted and laid out once, and what follows a convolution is
done while its output is in the registers. Measured in docs/SPEED.md.

The operators are those that torch.compile puts into its own graphs for CPUs (`torch.ops.mkldnn`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.blocks import DownBlock, ResidualBlock, SameBlock, UpBlock, joined
from modules.hourglass import Hourglass2d

LAYOUT = torch.channels_last


def prepared(x: Tensor) -> Tensor:
    """In the type and layout that these convolutions take; not copied where it is already."""
    return x.to(torch.bfloat16, memory_format=LAYOUT)


class PackedConv(nn.Module):
    """A trained 2-D `conv` of stride 1 -> bfloat16 [B, O, H, W], channels last in memory.

    Args:
        relu: with a ReLU after it.
    """

    def __init__(self, conv: nn.Conv2d, relu: bool = False) -> None:
        super().__init__()
        self.padding, self.activation = list(conv.padding), "relu" if relu else "none"
        weight = prepared(conv.weight.detach())
        # No buffers: the layout is oneDNN's own, which can neither be converted nor saved.
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(weight, self.padding, [1, 1], [1, 1], 1)
        self.bias = conv.bias.detach().bfloat16()

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """`added`: bfloat16 of the output's size and layout, goes onto the result (instead of a ReLU)."""
        convolution = torch.ops.mkldnn._convolution_pointwise
        common = self.weight, self.bias, self.padding, [1, 1], [1, 1], 1
        if added is None:
            return convolution(prepared(x), *common, self.activation, [], "")
        return convolution.binary(prepared(x), added, *common, "add", 1.0, None, [], None)


class PackedPair(nn.Module):
    """Two convolutions of one kernel size over the same features, as one."""

    def __init__(self, one: nn.Conv2d, other: nn.Conv2d) -> None:
        super().__init__()
        self.counts = one.out_channels, other.out_channels
        both = nn.Conv2d(one.in_channels, sum(self.counts), one.kernel_size, padding=one.padding)
        both.weight.data, both.bias.data = joined(one, other)
        self.both = PackedConv(both)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        one, other = self.both(x).split(self.counts, dim=1)
        return one, other


class PackedBlock(nn.Module):
    """A SameBlock, DownBlock or UpBlock whose BatchNorm is folded into its convolution.

    The enlargement stays what it is: rewritten as a transposed convolution it needs fewer products, but oneDNN is
    slower at those than at three by three taps.
    """

    def __init__(self, block: SameBlock) -> None:
        super().__init__()
        self.conv = PackedConv(block.conv, relu=True)
        self.halves, self.doubles = isinstance(block, DownBlock), isinstance(block, UpBlock)

    def forward(self, x: Tensor) -> Tensor:
        x = prepared(x)
        if self.doubles:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = self.conv(x)
        return F.avg_pool2d(x, 2) if self.halves else x


class PackedResidualBlock(nn.Module):
    """A ResidualBlock whose second BatchNorm is folded into its first convolution."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        norm = block.norm1
        scale_C = norm.weight.detach() * (norm.running_var + norm.eps).rsqrt()
        self.scale_C11 = scale_C.bfloat16()[:, None, None]
        self.shift_C11 = (norm.bias.detach() - norm.running_mean * scale_C).bfloat16()[:, None, None]
        self.conv1, self.conv2 = PackedConv(block.conv1, relu=True), PackedConv(block.conv2)

    def forward(self, x: Tensor) -> Tensor:
        x = prepared(x)
        y = torch.addcmul(self.shift_C11, x, self.scale_C11).relu_()
        return self.conv2(self.conv1(y), added=x)


class PackedHourglass(nn.Module):
    """A Hourglass2d of packed blocks."""

    def __init__(self, hourglass: Hourglass2d) -> None:
        super().__init__()
        self.encoder, self.decoder = hourglass.encoder, hourglass.decoder
        pack(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(prepared(x)))


def pack(network: nn.Module) -> None:
    """Replace the blocks of a network that `modules.fuse` has folded, in place."""
    for name, part in list(network.named_children()):
        if isinstance(part, ResidualBlock):
            setattr(network, name, PackedResidualBlock(part))
        elif isinstance(part, SameBlock):
            setattr(network, name, PackedBlock(part))
        elif isinstance(part, Hourglass2d):
            setattr(network, name, PackedHourglass(part))
        else:
            pack(part)
