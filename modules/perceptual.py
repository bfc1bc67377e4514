"""Frozen VGG features and the image pyramid of the reconstruction loss (Eq. 6; FOMM's perceptual loss).

Letters: B batch, C H W image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modules.blocks import AntiAliasDownsample

# Widths of the 3x3 convolutions between poolings.
_LAYOUTS = {
    "vgg16": [(64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)],
    "vgg19": [(64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4],
}


@dataclass(frozen=True)
class VggConfig:
    """Which VGG, which layers, and where its weights come from."""

    network: str = "vgg19"  # FOMM's; Sec. 3.3 names VGG-16 for the motion field's second phase
    # FOMM's five layers. Eq. 6 says "a specific pretrained VGG-16 layer" without naming it and otherwise repeats
    # FOMM's text, whose loss has 20 terms (4 resolutions x 5 layers); so both use these five.
    layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    # "pretrained": torchvision's ImageNet weights from the torch.hub cache (downloaded if absent); a path: that file;
    # "random": untrained features, for tests only, with a warning.
    weights: str = "pretrained"

    def __post_init__(self) -> None:
        if self.network not in _LAYOUTS:
            raise ValueError(f"vgg.network is {self.network!r}, known: {', '.join(_LAYOUTS)}")
        known = _layer_indices(self.network)
        unknown = [name for name in self.layers if name not in known]
        if unknown or not self.layers:
            raise ValueError(f"vgg.layers {unknown or self.layers} not in {self.network}; known: {', '.join(known)}")


class VggFeatures(nn.Module):
    """Activations of chosen VGG layers; keys are torchvision's (`features.0.weight`), weights are frozen."""

    def __init__(self, config: VggConfig) -> None:
        super().__init__()
        indices = _layer_indices(config.network)
        self.wanted = sorted(indices[name] for name in config.layers)
        self.features = nn.Sequential(*_layers(config.network)[: self.wanted[-1] + 1])
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """RGB in [0, 1] -> one feature map for each wanted layer, shallow first."""
        x = (image_BCHW - self.mean) / self.std
        features = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.wanted:
                features.append(x)
        return features


def _layers(network: str) -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for group in _LAYOUTS[network]:
        for width in group:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return layers


def _layer_indices(network: str) -> dict[str, int]:
    """Name of each activation -> its place in torchvision's `features`: relu1_1 -> 1, relu1_2 -> 3, relu2_1 -> 6 ..."""
    indices, position = {}, 0
    for block, group in enumerate(_LAYOUTS[network], start=1):
        for number in range(1, len(group) + 1):
            indices[f"relu{block}_{number}"] = position + 1
            position += 2
        position += 1  # pooling
    return indices


class ImagePyramid(nn.Module):
    """The picture at several scales, each anti-aliased before it is thinned out (FOMM); scale 1 is the picture."""

    def __init__(self, scales: tuple[float, ...]) -> None:
        super().__init__()
        # Half the size has 5 taps, for which one pass is faster (measured on a CPU); an eighth has 29.
        self.levels = nn.ModuleList(
            nn.Identity() if scale == 1 else AntiAliasDownsample(3, scale, separable=scale < 0.5) for scale in scales
        )

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        return [level(image_BCHW) for level in self.levels]
