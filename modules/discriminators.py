"""Discriminators: PatchGAN over pictures (FOMM's vox-adv) and 1-D PatchGAN over head-pose sequences (Sec. 3.2).

Letters: B batch, C H W image, K keypoint, P pose value, T video frame.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from modules.keypoints import gaussian_heatmaps
from modules.limits import at_least, one_nth
from modules.perceptual import ImagePyramid

LEAKY_SLOPE = 0.2


class Judgement(NamedTuple):
    """What a discriminator says: the outputs of its blocks (for feature matching) and its map of patch scores."""

    features: list[Tensor]
    score: Tensor


@dataclass(frozen=True)
class ImageDiscriminatorConfig:
    """Defaults are FOMM's vox-adv discriminator."""

    block_expansion: int = 64
    num_blocks: int = 4
    max_features: int = 512
    scales: tuple[float, ...] = (1.0,)
    spectral_norm: bool = False  # vox-256's unused discriminator has it, vox-adv's not
    keypoints: int = 10  # heatmaps given beside the picture; 0: the picture alone
    heatmap_variance: float = 0.01

    def __post_init__(self) -> None:
        at_least(1, self, "num_blocks", "block_expansion", "max_features")
        at_least(0, self, "keypoints")
        one_nth("scales", *self.scales)


class MultiScaleDiscriminator(nn.Module):
    """One PatchGAN for each scale of the picture; attribute names are FOMM's, so that its checkpoints load."""

    def __init__(self, config: ImageDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.pyramid = ImagePyramid(config.scales)
        # FOMM's key of scale 0.5 is "0-5"; a dot would split the name.
        self.discs = nn.ModuleDict(
            {f"{scale:g}".replace(".", "-"): _ImageDiscriminator(config) for scale in config.scales}
        )

    def forward(self, image_BCHW: Tensor, position_BK2: Tensor) -> list[Judgement]:
        """Judge pictures in [0, 1]; `position_BK2` are the driving keypoints (ignored with `keypoints: 0`)."""
        judgements = []
        for image, discriminator in zip(self.pyramid(image_BCHW), self.discs.values(), strict=True):
            if self.config.keypoints:
                heatmaps = gaussian_heatmaps(position_BK2, *image.shape[-2:], variance=self.config.heatmap_variance)
                image = torch.cat([image, heatmaps.to(image.dtype)], dim=1)
            judgements.append(discriminator(image))
        return judgements


@contextlib.contextmanager
def only_judging(discriminator: nn.Module | None) -> Iterator[None]:
    """Inside, losses pass through a discriminator (None: there is none) without gradients of its weights.

    For the step of what it judges. Stands round the losses, not in them: such a switch breaks a compiled graph in two.
    """
    if discriminator is not None:
        discriminator.requires_grad_(False)
    try:
        yield
    finally:
        if discriminator is not None:
            discriminator.requires_grad_(True)


class _DownBlock2d(nn.Module):
    def __init__(self, in_features: int, out_features: int, norm: bool, pool: bool, spectral: bool) -> None:
        super().__init__()
        self.conv = _maybe_spectral(nn.Conv2d(in_features, out_features, kernel_size=4), spectral)
        self.norm = nn.InstanceNorm2d(out_features, affine=True) if norm else None
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        x = F.leaky_relu(x, LEAKY_SLOPE)
        return F.avg_pool2d(x, 2) if self.pool else x


class _ImageDiscriminator(nn.Module):
    def __init__(self, config: ImageDiscriminatorConfig) -> None:
        super().__init__()
        widths = [min(config.max_features, config.block_expansion * 2**i) for i in range(config.num_blocks)]
        self.down_blocks = nn.ModuleList(
            _DownBlock2d(
                in_features=widths[i - 1] if i else 3 + config.keypoints,
                out_features=width,
                norm=i > 0,
                pool=i < config.num_blocks - 1,
                spectral=config.spectral_norm,
            )
            for i, width in enumerate(widths)
        )
        self.conv = _maybe_spectral(nn.Conv2d(widths[-1], 1, kernel_size=1), config.spectral_norm)

    def forward(self, x: Tensor) -> Judgement:
        features = []
        for block in self.down_blocks:
            x = block(x)
            features.append(x)
        return Judgement(features, self.conv(x))


def _maybe_spectral(conv: nn.Module, wanted: bool) -> nn.Module:
    # The old-style wrapper keeps FOMM's key names (weight_orig, weight_u, weight_v).
    return spectral_norm(conv) if wanted else conv


@dataclass(frozen=True)
class PoseDiscriminatorConfig:
    """The paper says "PatchGAN" with "1D convolution operations ... along temporal trunks" and no sizes.

    Ours are pix2pix's 70-patch PatchGAN turned to one dimension: kernels of 4, three strides of 2, two of 1; a score
    judges 70 frames (2.8 s). InstanceNorm instead of BatchNorm: a sequence is judged alone, whatever its batch.
    """

    pose_size: int = 6
    width: int = 64
    num_strided: int = 3
    max_width: int = 512

    def __post_init__(self) -> None:
        at_least(1, self, "pose_size", "max_width")
        if self.width < 1 or not 1 <= self.num_strided <= 8:
            raise ValueError("a pose discriminator needs at least one channel and 1 to 8 strided layers")

    @property
    def shortest(self) -> int:
        """Frames below which the last maps are too short to be normalised."""
        return 2**self.num_strided * 4


class PoseDiscriminator(nn.Module):
    """1-D PatchGAN over a pose sequence (Sec. 3.2)."""

    def __init__(self, config: PoseDiscriminatorConfig) -> None:
        super().__init__()
        widths = [min(config.max_width, config.width * 2**i) for i in range(config.num_strided + 1)]
        layers: list[nn.Module] = [nn.Conv1d(config.pose_size, widths[0], 4, stride=2, padding=1)]
        layers.append(nn.LeakyReLU(LEAKY_SLOPE))
        for i in range(1, len(widths)):
            stride = 2 if i < config.num_strided else 1
            layers.append(nn.Conv1d(widths[i - 1], widths[i], 4, stride=stride, padding=1))
            layers.append(nn.InstanceNorm1d(widths[i], affine=True))
            layers.append(nn.LeakyReLU(LEAKY_SLOPE))
        layers.append(nn.Conv1d(widths[-1], 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)
        self.shortest = config.shortest

    def forward(self, pose_BTP: Tensor) -> Tensor:
        """Scores of overlapping stretches, [B, T'], of a normalised pose sequence."""
        if pose_BTP.shape[1] < self.shortest:
            raise ValueError(f"the pose discriminator needs {self.shortest} frames or more, found {pose_BTP.shape[1]}")
        return self.layers(rearrange(pose_BTP, "b t p -> b p t"))[:, 0]
