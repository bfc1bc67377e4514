"""Published weights of the VGG that the perceptual loss looks through: torchvision's files, downloaded or given."""

import logging
import os

import torch
from torch import Tensor, nn

from engine.checkpoint import CheckpointError, load_torch_file

logger = logging.getLogger(__name__)

FILES = {"vgg16": "vgg16-397923af.pth", "vgg19": "vgg19-dcbb9e9d.pth"}
URL = "https://download.pytorch.org/models/"


def fill_vgg(vgg: nn.Module, network: str, weights: str) -> None:
    """Fill the first layers of a VGG, whose keys are torchvision's (`features.0.weight`).

    Args:
        network: vgg16 or vgg19.
        weights: "pretrained" (the torch.hub cache, downloaded if absent), a file, or "random": left as it is, with a
            warning.

    Raises:
        CheckpointError: the weights are not there (offline) or do not fit; the sentence says which file to put where.
    """
    if weights == "random":
        logger.warning("VGG weights are RANDOM (vgg.weights=random): fit for tests only, losses mean little")
        return
    state = _pretrained(network) if weights == "pretrained" else load_torch_file(weights)
    wanted = vgg.state_dict().keys()
    missing = [key for key in wanted if key not in state]
    if missing:
        raise CheckpointError(f"{weights} holds no {network}: {missing[0]} is missing")
    try:
        vgg.load_state_dict({key: state[key] for key in wanted})
    except RuntimeError as error:
        raise CheckpointError(f"{weights} does not fit {network}: {str(error).splitlines()[-1]}") from error


def _pretrained(network: str) -> dict[str, Tensor]:
    name = FILES[network]
    try:
        return torch.hub.load_state_dict_from_url(URL + name, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        folder = os.path.join(torch.hub.get_dir(), "checkpoints")
        raise CheckpointError(
            f"pretrained {network} is not on this machine and could not be downloaded ({error}); put {URL}{name} into"
            f" {folder}, or name a local copy by vgg.weights=FILE (stage three: pixels.vgg.weights), or train without"
            " it (config/ablations/*_novgg.yaml)"
        ) from error
