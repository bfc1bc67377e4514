"""Published networks that measure: each is a local file, checked where its hash is published, and left out without it.

Nothing is downloaded, and nothing stands in for a file that is not there: the numbers it gives are reported as missing.
"""

import warnings
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from torch import nn

from datasets.files import file_digest
from engine.checkpoint import CheckpointError, load_torch_file
from evaluation import EvaluationError
from evaluation.scores.identity import ARCFACE_FILE, ArcFace, load_arcface
from evaluation.scores.published import checked
from evaluation.scores.sync import SYNCNET_FILE, SyncNet, load_syncnet

ALEXNET_FILE, ALEXNET_SHA256 = "alexnet-owt-7be5be79.pth", "7be5be79"
INCEPTION_FILE, INCEPTION_SHA256 = "pt_inception-2015-12-05-6726825d.pth", "6726825d"


@dataclass(frozen=True)
class NetworkPaths:
    """Local files; empty: what the network measures is reported as not computed.

    Attributes:
        lpips: torchvision's AlexNet, alexnet-owt-7be5be79.pth (LPIPS's own layers come with the package).
        inception: pt_inception-2015-12-05-6726825d.pth, FID's (also named weights-inception-2015-12-05-6726825d.pth).
        syncnet: syncnet_v2.model. arcface: backbone.pth of an IResNet.
    """

    lpips: str = ""
    inception: str = ""
    syncnet: str = ""
    arcface: str = ""


FILES = {"lpips": ALEXNET_FILE, "inception": INCEPTION_FILE, "syncnet": SYNCNET_FILE, "arcface": ARCFACE_FILE}
MEASURES = {
    "lpips": ("lpips",),
    "inception": ("fid",),
    "syncnet": ("lse_c", "lse_d", "av_offset"),
    "arcface": ("csim",),
}


@dataclass
class Networks:
    """Attributes:
    lpips: (image, wanted, normalize=True) -> [B, 1, 1, 1] for pictures in [0, 1].
    inception: uint8 [B, 3, H, W] -> [B, 2048].
    syncnet: for `evaluation.scores.sync.score`. arcface: for `evaluation.scores.identity.csim`.
    digests: SHA-256 of each file that was loaded, by its name in the configuration.
    missing: metric -> why it is not computed.
    """

    device: torch.device
    lpips: nn.Module | None = None
    inception: nn.Module | None = None
    syncnet: SyncNet | None = None
    arcface: ArcFace | None = None
    digests: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def load_networks(paths: NetworkPaths, device: torch.device) -> Networks:
    """Load what is there.

    Raises:
        CheckpointError: a file is not the published one.
        EvaluationError: a file that the configuration names is missing.
    """
    networks = Networks(device)
    loaders = {"lpips": load_lpips, "inception": load_inception, "syncnet": load_syncnet, "arcface": load_arcface}
    for name in (entry.name for entry in fields(NetworkPaths)):
        path = getattr(paths, name)
        if not path:
            networks.missing |= dict.fromkeys(MEASURES[name], f"needs {FILES[name]} (networks.{name}=FILE)")
        elif not Path(path).is_file():
            raise EvaluationError(f"networks.{name}: {path} does not exist; give {FILES[name]}, or leave it empty")
        else:
            setattr(networks, name, loaders[name](Path(path), device))
            networks.digests[name] = file_digest(Path(path))
    return networks


def load_lpips(path: Path, device: torch.device, sha256_prefix: str = ALEXNET_SHA256) -> nn.Module:
    """LPIPS (Zhang et al. 2018), version 0.1 with AlexNet, whose weights are read from `path`. Raises CheckpointError."""
    import lpips

    trained = load_torch_file(checked(path, sha256_prefix))
    with warnings.catch_warnings():  # lpips names torchvision's weights in the old way
        warnings.simplefilter("ignore", UserWarning)
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    state = {}  # `sliceS.N.weight` of lpips is `features.N.weight` of torchvision
    for key in network.net.state_dict():
        source = "features." + key.split(".", 1)[1]
        if source not in trained:
            raise CheckpointError(f"{path} is no AlexNet of torchvision: it lacks {source}")
        state[key] = trained[source]
    network.net.load_state_dict(state)
    return network.requires_grad_(False).eval().to(device)


def load_inception(path: Path, device: torch.device, sha256_prefix: str = INCEPTION_SHA256) -> nn.Module:
    """The Inception network of FID as torch-fidelity runs it: uint8 pictures of any size -> pooled features."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    checked(path, sha256_prefix)
    network = FrechetInceptionDistance(feature=2048, feature_extractor_weights_path=str(path)).inception
    return network.requires_grad_(False).eval().to(device)
