"""Convolution blocks shared by the networks; attribute names are those of the released state dictionaries.

Letters: B batch, C channel, H W picture; the 3-D blocks work on B C T H W. `dims` is 2 or 3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.limits import one_nth

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
AVERAGE_POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


class SameBlock(nn.Module):
    """conv - BatchNorm - ReLU, size kept."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, dims: int = 2):
        super().__init__()
        self.conv = CONV[dims](in_channels, out_channels, kernel, padding=kernel // 2)
        self.norm = BATCH_NORM[dims](out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class DownBlock(SameBlock):
    """conv - BatchNorm - ReLU - average pool by 2."""

    def __init__(self, in_channels: int, out_channels: int, dims: int = 2):
        super().__init__(in_channels, out_channels, dims=dims)
        self.pool = AVERAGE_POOL[dims](2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(super().forward(x))


class UpBlock(SameBlock):
    """nearest x2 - conv - BatchNorm - ReLU."""

    def __init__(self, in_channels: int, out_channels: int, dims: int = 2):
        super().__init__(in_channels, out_channels, dims=dims)
        self.enlarge = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.enlarge(x))


class ResidualBlock(nn.Module):
    """Pre-activation residual block: x + conv(ReLU(BN(conv(ReLU(BN(x))))))."""

    def __init__(self, channels: int, dims: int = 2):
        super().__init__()
        self.conv1 = CONV[dims](channels, channels, 3, padding=1)
        self.conv2 = CONV[dims](channels, channels, 3, padding=1)
        self.norm1 = BATCH_NORM[dims](channels)
        self.norm2 = BATCH_NORM[dims](channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(y)))


class ResidualDownBlock3d(nn.Module):
    """An encoder level of Hourglass-3D: residual block, conv - BatchNorm - ReLU, average pool by 2 in T, H, W."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.res = ResidualBlock(in_channels, dims=3)
        self.norm_res = nn.BatchNorm3d(in_channels)
        self.conv = nn.Conv3d(in_channels, out_channels, 3, padding=1)
        self.norm = nn.BatchNorm3d(out_channels)
        self.pool = nn.AvgPool3d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm_res(self.res(x)))
        return self.pool(F.relu(self.norm(self.conv(x))))


class ResidualUpBlock3d(UpBlock):
    """One decoder level of Hourglass-3D: nearest x2 in T, H, W - conv - BatchNorm - ReLU, then a residual block."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, dims=3)
        self.res = ResidualBlock(out_channels, dims=3)
        self.norm2 = nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm2(self.res(super().forward(x))))


class ConvOnto(nn.Conv2d):
    """A convolution whose output goes onto a map of its size."""

    def forward(self, x: Tensor, onto: Tensor) -> Tensor:
        return onto + super().forward(x)


def joined(one: nn.Conv2d, other: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Kernels and biases of two convolutions over the same features, as those of one with the channels of both."""
    return torch.cat([one.weight, other.weight]), torch.cat([one.bias, other.bias])


def side_by_side(x: Tensor, one: nn.Module, other: nn.Module) -> tuple[Tensor, Tensor]:
    """Two convolutions of one kernel size over the same features, as one: a CPU spends half the time on it.

    What `modules.fuse` made of them runs as it made it: each by itself, or both in one module.
    """
    if one is other:
        return one(x)
    if not isinstance(one, nn.Conv2d):
        return one(x), other(x)
    both = F.conv2d(x, *joined(one, other), padding=one.padding)
    return both[:, : one.out_channels], both[:, one.out_channels :]


def downsampling_kernels(network: nn.Module) -> dict[str, Tensor]:
    """The kernels of all `AntiAliasDownsample` in a network, by their names in its state: constants of its sizes."""
    modules = network.named_modules()
    return {f"{name}.weight": part.weight for name, part in modules if isinstance(part, AntiAliasDownsample)}


class AntiAliasDownsample(nn.Module):
    """Gaussian blur, then every (1/scale)-th pixel starting with the first (Siarohin et al. 2019b).

    The kernel has sigma (1/scale - 1) / 2 and 2 round(4 sigma) + 1 taps; borders are zero padded. The released files
    hold it as a buffer `weight` [C, 1, k, k], one copy a channel; it is a constant, so only the first copy is applied.
    Computed in the buffer's type (float32) under autocast: the losses compare pictures that went through it.

    Args:
        separable: run as rows and then columns, with 2 k taps and not k * k. For losses: a Gaussian is the product of
            the two, but the stored kernel is it only to 1e-8, and released networks are followed more closely. So is
            anything in float64.

    Raises:
        ValueError: 1/scale is no whole number.
    """

    def __init__(self, channels: int, scale: float, separable: bool = False):
        super().__init__()
        self.separable = separable
        one_nth("downsampling scale", scale)
        self.stride = round(1 / scale)
        sigma = (self.stride - 1) / 2
        self.taps = 2 * round(4 * sigma) + 1
        offset = torch.arange(self.taps, dtype=torch.float32) - (self.taps - 1) / 2
        line = torch.exp(-(offset**2) / (2 * sigma**2)) if sigma > 0 else torch.ones(1)
        kernel = line[:, None] * line[None, :]
        kernel = kernel / kernel.sum()
        self.register_buffer("weight", kernel.expand(channels, 1, -1, -1).clone())

    def forward(self, image_BCHW: Tensor) -> Tensor:
        if self.stride == 1:
            return image_BCHW
        channels = image_BCHW.shape[1]
        kernel, stride, margin = self.weight[:1], self.stride, self.taps // 2
        with torch.autocast(image_BCHW.device.type, enabled=False):
            image = image_BCHW.to(kernel.dtype)
            if not self.separable or kernel.dtype == torch.float64:
                kernel = kernel.expand(channels, -1, -1, -1)
                return F.conv2d(image, kernel, stride=stride, padding=margin, groups=channels)
            line = kernel.sum(2, keepdim=True).expand(channels, -1, -1, -1)  # (C, 1, 1, k)
            rows = F.conv2d(image, line, stride=(1, stride), padding=(0, margin), groups=channels)
            return F.conv2d(rows, line.mT, stride=(stride, 1), padding=(margin, 0), groups=channels)
