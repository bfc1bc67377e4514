"""Frozen VGG features and the image pyramid of the reconstruction loss (Eq. 6; FOMM's perceptual loss).

Letters: B batch, C H W image.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from modules.blocks import AntiAliasDownsample

logger = logging.getLogger(__name__)

# Widths of the 3x3 convolutions between poolings, and torchvision's published files.
_LAYOUTS = {
    "vgg16": [(64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)],
    "vgg19": [(64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4],
}
_FILES = {"vgg16": "vgg16-397923af.pth", "vgg19": "vgg19-dcbb9e9d.pth"}
_URL = "https://download.pytorch.org/models/"


class VggError(ValueError):
    """VGG weights that are not there or do not fit; the message says which file to put where."""


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
        found = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.wanted:
                found.append(x)
        return found


def load_vgg(config: VggConfig) -> VggFeatures:
    """Build the frozen network and fill it.

    Raises:
        VggError: the weights are not there (offline) or do not fit; the sentence says which file to put where.
    """
    vgg = VggFeatures(config)
    if config.weights == "random":
        logger.warning("VGG weights are RANDOM (vgg.weights=random): fit for tests only, losses mean little")
        return vgg
    state = _pretrained(config.network) if config.weights == "pretrained" else _from_file(Path(config.weights))
    wanted = vgg.state_dict().keys()
    missing = [key for key in wanted if key not in state]
    if missing:
        raise VggError(f"{config.weights} holds no {config.network}: {missing[0]} is missing")
    try:
        vgg.load_state_dict({key: state[key] for key in wanted})
    except RuntimeError as error:
        raise VggError(f"{config.weights} does not fit {config.network}: {str(error).splitlines()[-1]}") from error
    return vgg


def _pretrained(network: str) -> dict[str, Tensor]:
    name = _FILES[network]
    try:
        return torch.hub.load_state_dict_from_url(_URL + name, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        folder = os.path.join(torch.hub.get_dir(), "checkpoints")
        raise VggError(
            f"pretrained {network} is not on this machine and could not be downloaded ({error}); put {_URL}{name} into"
            f" {folder}, or name a local copy by vgg.weights=FILE, or train without it (config/ablations/*_novgg.yaml)"
        ) from error


def _from_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise VggError(f"vgg.weights: {path} does not exist; give torchvision's .pth file or 'pretrained'")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise VggError(f"vgg.weights: {path} is not a readable PyTorch file: {error}") from error


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
        self.levels = nn.ModuleList(nn.Identity() if scale == 1 else AntiAliasDownsample(3, scale) for scale in scales)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        return [level(image_BCHW) for level in self.levels]
