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

from modules.blocks import (
    CONV,
    DownBlock,
    ResidualBlock,
    ResidualDownBlock3d,
    ResidualUpBlock3d,
    SameBlock,
    UpBlock,
    joined,
)
from modules.hourglass import Hourglass2d, Hourglass3d

LAYOUT = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the dimensions of a batch


def prepared(x: Tensor) -> Tensor:
    """In the type and layout that these convolutions take; not copied where it is already."""
    return x.bfloat16().contiguous(memory_format=LAYOUT[x.ndim])  # in two steps: both at once take longer


class PackedConv(nn.Module):
    """A trained 2-D or 3-D `conv` of stride 1 -> bfloat16 [B, O, (T,) H, W], channels last in memory.

    Args:
        relu: with a ReLU after it.
    """

    def __init__(self, conv: nn.Conv2d | nn.Conv3d, relu: bool = False) -> None:
        super().__init__()
        self.padding, self.ones = list(conv.padding), [1] * len(conv.padding)
        self.activation = "relu" if relu else "none"
        weight = prepared(conv.weight.detach())
        # No buffers: the layout is oneDNN's own, which can neither be converted nor saved.
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(weight, self.padding, self.ones, self.ones, 1)
        self.bias = conv.bias.detach().bfloat16()

    def forward(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """`onto`: the result goes onto this map of its size (instead of a ReLU)."""
        convolution = torch.ops.mkldnn._convolution_pointwise
        common = self.weight, self.bias, self.padding, self.ones, self.ones, 1
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
    """An UpBlock whose BatchNorm is folded into its convolution: its phases, and the large map from them."""

    def __init__(self, block: UpBlock) -> None:
        super().__init__()
        self.phases, self.channels = PackedConv(phases_conv(block.conv), relu=True), block.conv.out_channels

    def forward(self, x: Tensor) -> Tensor:
        phases = self.phases(x).movedim(1, -1).unflatten(-1, (-1, self.channels))
        sizes = x.shape[2:]
        large = phases.new_empty(len(x), *itertools.chain(*((size, 2) for size in sizes)), self.channels)
        for n, phase in enumerate(itertools.product(range(2), repeat=len(sizes))):
            here = itertools.chain(*((slice(None), p) for p in phase))
            there = (slice(p, p + size) for p, size in zip(phase, sizes, strict=True))
            large[(slice(None), *here)] = phases[(slice(None), *there, n)]
        return large.view(len(x), *(2 * size for size in sizes), self.channels).movedim(-1, 1)


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


class PackedNorm(nn.Module):
    """A trained BatchNorm that no convolution precedes."""

    def __init__(self, norm: nn.BatchNorm2d | nn.BatchNorm3d) -> None:
        super().__init__()
        scale_C = norm.weight.detach() * (norm.running_var + norm.eps).rsqrt()
        self.scale_C = scale_C.bfloat16()
        self.shift_C = (norm.bias.detach() - norm.running_mean * scale_C).bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        channels_last = x.movedim(1, -1)
        return torch.addcmul(self.shift_C, channels_last, self.scale_C).movedim(-1, 1)


class PackedResidualBlock(nn.Module):
    """A ResidualBlock whose second BatchNorm is folded into its first convolution."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.norm1 = PackedNorm(block.norm1)
        self.conv1, self.conv2 = PackedConv(block.conv1, relu=True), PackedConv(block.conv2)

    def forward(self, x: Tensor) -> Tensor:
        x = prepared(x)
        return self.conv2(self.conv1(self.norm1(x).relu_()), onto=x)


class PackedDownBlock3d(nn.Module):
    """A ResidualDownBlock3d whose last BatchNorm is folded into its convolution."""

    def __init__(self, block: ResidualDownBlock3d) -> None:
        super().__init__()
        self.res, self.norm_res = PackedResidualBlock(block.res), PackedNorm(block.norm_res)
        self.conv = PackedConv(block.conv, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.norm_res(self.res(x)).relu_())
        frames = F.avg_pool2d(x.movedim(2, 1).flatten(0, 1), 2)  # in 3-D it would take another layout
        pairs = frames.unflatten(0, (len(x), -1, 2))
        return ((pairs[:, :, 0] + pairs[:, :, 1]) * 0.5).movedim(1, 2)


class PackedUpBlock3d(nn.Module):
    """A ResidualUpBlock3d whose first BatchNorm is folded into its first convolution."""

    def __init__(self, block: ResidualUpBlock3d) -> None:
        super().__init__()
        self.up, self.res, self.norm2 = PackedUpBlock(block), PackedResidualBlock(block.res), PackedNorm(block.norm2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.res(self.up(x))).relu_()


class PackedHourglass(nn.Module):
    """A Hourglass2d or Hourglass3d of packed blocks.

    Args:
        dtype: of its output.
    """

    def __init__(self, hourglass: Hourglass2d | Hourglass3d, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.encoder, self.decoder, self.dtype = hourglass.encoder, hourglass.decoder, dtype
        pack(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(prepared(x))).to(self.dtype)


PACKED = {  # the first that fits
    ResidualBlock: PackedResidualBlock,
    ResidualDownBlock3d: PackedDownBlock3d,
    ResidualUpBlock3d: PackedUpBlock3d,
    UpBlock: PackedUpBlock,
    SameBlock: PackedBlock,
    nn.BatchNorm3d: PackedNorm,
    Hourglass2d: PackedHourglass,
}


def pack(network: nn.Module) -> None:
    """Replace the blocks of a network that `modules.fuse` has folded, in place."""
    for name, part in list(network.named_children()):
        packed = next((packed for kind, packed in PACKED.items() if isinstance(part, kind)), None)
        if packed is None:
            pack(part)
        else:
            setattr(network, name, packed(part))


def phases_conv(conv: nn.Conv2d | nn.Conv3d) -> nn.Conv2d | nn.Conv3d:
    """Nearest enlargement by 2 and then `conv` (taps of 3, padding 1), as one convolution over the small map.

    In a map where every pixel stands twice, three taps see two pixels of the small map, so two in each direction, sums
    of the conv's, do: 2.25 times fewer products (3.4 in 3-D), and the enlarged map is not made. The large pixels of a
    small one, its phases, have taps of their own.

    Returns:
        A convolution [B, C, H, W] -> [B, 4 O, H + 1, W + 1]. Its channels 2 p + q, O at a time, hold at (i + p, j + q)
        the large pixel (2 i + p, 2 j + q); and so on in 3-D.
    """
    sums_p2t = conv.weight.new_zeros(2, 2, 3)  # which of the two taps of a phase each of the three is added to
    for p, t in itertools.product(range(2), range(3)):
        sums_p2t[p, (p + t - 1) // 2 - p + 1, t] = 1
    weight, dims = conv.weight.detach(), conv.weight.ndim - 2
    for _ in range(dims):  # (O, C, taps, ..., phase and its taps of directions that are done)
        weight = torch.tensordot(weight, sums_p2t, dims=([2], [2]))
    phases, taps = range(2, 2 + 2 * dims, 2), range(3, 2 + 2 * dims, 2)
    weight = weight.permute(*phases, 0, 1, *taps).flatten(0, dims)
    return _filled(weight, conv.bias.detach().repeat(2**dims), padding=1)


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


def _filled(weight: Tensor, bias: Tensor, padding: int | tuple[int, ...]) -> nn.Conv2d | nn.Conv3d:
    conv = CONV[weight.ndim - 2](weight.shape[1], weight.shape[0], weight.shape[2:], padding=padding)
    conv.weight.data, conv.bias.data = weight, bias
    return conv
