"""Convolutions in bfloat16 for CPUs that compute in it: weights laid out beforehand, neighbouring steps in one pass.

Autocast converts each weight again for each frame, oneDNN then lays it out anew for its instructions, and ReLU and sums
read and write the whole map once more. Here weights are converted and laid out once, and what follows a convolution is
done while its output is in the registers. Convolutions over an enlarged map work on the small one. Measured in
docs/SPEED.md.

The operators are those that torch.compile puts into its own graphs for CPUs (`torch.ops.mkldnn`).
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.blocks import DownBlock, ResidualBlock, SameBlock, UpBlock, joined
from modules.hourglass import Hourglass2d

LAYOUT = torch.channels_last
ALL_PHASES = tuple(itertools.product(range(2), repeat=2))


def prepared(x: Tensor) -> Tensor:
    """In the type and layout that these convolutions take; not copied where it is already."""
    return x.bfloat16().contiguous(memory_format=LAYOUT)  # in two steps: both at once take longer


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

    def forward(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """`onto`: the result goes onto this map of its size (instead of a ReLU)."""
        convolution = torch.ops.mkldnn._convolution_pointwise
        common = self.weight, self.bias, self.padding, [1, 1], [1, 1], 1
        if onto is None:
            return convolution(prepared(x), *common, self.activation, [], "")
        return convolution.binary(prepared(x), prepared(onto), *common, "add", 1.0, None, [], None)


class PackedPair(nn.Module):
    """The outputs of two convolutions that are computed as one, apart again.

    Args:
        both: made of what `both_convs` gives.
        counts: channels of each.
    """

    def __init__(self, both: nn.Module, counts: tuple[int, int]) -> None:
        super().__init__()
        self.both, self.counts = both, counts

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        one, other = self.both(x).split(self.counts, dim=1)
        return one, other


class PackedBlock(nn.Module):
    """A SameBlock or DownBlock whose BatchNorm is folded into its convolution."""

    def __init__(self, block: SameBlock) -> None:
        super().__init__()
        self.conv = PackedConv(block.conv, relu=True)
        self.halves = isinstance(block, DownBlock)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return F.avg_pool2d(x, 2) if self.halves else x


class PackedUpBlock(nn.Module):
    """An UpBlock whose BatchNorm is folded into its convolution: the four phases, and the large map from them."""

    def __init__(self, block: UpBlock) -> None:
        super().__init__()
        self.phases = PackedConv(phases_conv(block.conv), relu=True)

    def forward(self, x: Tensor) -> Tensor:
        phases = self.phases(x).movedim(1, -1)
        batch, height, width, channels = phases.shape
        height, width, channels = height - 1, width - 1, channels // 4
        large = phases.new_empty(batch, height, 2, width, 2, channels)
        for n, (p, q) in enumerate(ALL_PHASES):
            large[:, :, p, :, q] = phases[:, p : p + height, q : q + width, n * channels : (n + 1) * channels]
        return large.view(batch, 2 * height, 2 * width, channels).movedim(-1, 1)


class PackedEnd(nn.Module):
    """The last UpBlock and a convolution over the large map that it gives, which is never made."""

    def __init__(self, block: UpBlock, conv: nn.Conv2d) -> None:
        super().__init__()
        self.phases = PackedConv(phases_conv(block.conv), relu=True)
        self.conv = PackedConv(conv_of_phases(conv))

    def forward(self, x: Tensor) -> Tensor:
        """-> float32 [B, O, 2 H, 2 W]."""
        phases = self.phases(x)
        rows, columns = phases.unflatten(1, (2, 2, -1)).unbind(1), phases.unflatten(1, (2, 2, -1)).unbind(2)
        # Large pixels beyond the border, which the convolution takes for 0.
        rows[1][:, :, :, 0] = rows[0][:, :, :, -1] = 0
        columns[1][..., 0] = columns[0][..., -1] = 0
        return F.pixel_shuffle(self.conv(phases).float().contiguous(), 2)


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
        return self.conv2(self.conv1(y), onto=x)


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
        elif isinstance(part, UpBlock):
            setattr(network, name, PackedUpBlock(part))
        elif isinstance(part, SameBlock):
            setattr(network, name, PackedBlock(part))
        elif isinstance(part, Hourglass2d):
            setattr(network, name, PackedHourglass(part))
        else:
            pack(part)


def phases_conv(conv: nn.Conv2d) -> nn.Conv2d:
    """Nearest enlargement by 2 and then `conv` (3x3, padding 1), as one convolution over the small map.

    In a map where every pixel stands twice, three taps see two pixels of the small map, so two by two taps, sums of the
    conv's, do: 2.25 times fewer products, and the enlarged map is not made. The four large pixels of a small one, the
    phases (p, q), have taps of their own.

    Returns:
        A convolution [B, C, H, W] -> [B, 4 O, H + 1, W + 1]. Its channels 2 p + q, O at a time, hold at (i + p, j + q)
        the large pixel (2 i + p, 2 j + q).
    """
    sums_p2t = conv.weight.new_zeros(2, 2, 3)  # which of the two taps of a phase each of the three is added to
    for p, t in itertools.product(range(2), range(3)):
        sums_p2t[p, (p + t - 1) // 2 - p + 1, t] = 1
    weight = torch.einsum("pat,qbs,octs->pqocab", sums_p2t, sums_p2t, conv.weight.detach()).flatten(0, 2)
    return _filled(weight, conv.bias.detach().repeat(4), padding=1)


def conv_of_phases(conv: nn.Conv2d) -> nn.Conv2d:
    """`conv` over a large map, as a convolution over its phases (as `phases_conv` gives them, but 0 where they lie
    outside the large map).

    Args:
        conv: with 7x7 taps (or 3, 11, ...) and padding to keep the size.

    Returns:
        A convolution [B, 4 C, H + 1, W + 1] -> [B, O 4, H, W], whose output torch.pixel_shuffle puts in order. With a
        few output channels it takes less time, as four times as many fill the registers.
    """
    taps = conv.kernel_size[0]
    reach = taps // 2
    assert reach % 2 == 1, "an even reach would not be symmetrical in phases"
    place_qpat = conv.weight.new_zeros(2, 2, reach + 1, taps)  # where tap t finds, seen from phase q, phase p
    for q, p, t in itertools.product(range(2), range(2), range(taps)):
        if (q + p + t - reach) % 2 == 0:
            place_qpat[q, p, (q + p + t - reach) // 2 + (reach - 1) // 2, t] = 1
    weight = torch.einsum("qpat,rubs,octs->oqrpucab", place_qpat, place_qpat, conv.weight.detach())
    weight = weight.flatten(3, 5).flatten(0, 2)
    return _filled(weight, conv.bias.detach().repeat_interleave(4), padding=(reach - 1) // 2)


def both_convs(one: nn.Conv2d, other: nn.Conv2d) -> nn.Conv2d:
    """Two convolutions of one kernel size over the same features, as one with the channels of both."""
    return _filled(*joined(one, other), padding=one.padding)


def _filled(weight: Tensor, bias: Tensor, padding: int | tuple[int, ...]) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:], padding=padding)
    conv.weight.data, conv.bias.data = weight, bias
    return conv
