"""Published networks that measure. Each is a local file, checked against its hash where one is published.

Nothing is downloaded, and nothing replaces a file that is not there: its numbers are reported as missing.
"""

import warnings
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from torch import nn

from datasets.files import file_digest
from engine.checkpoint import CheckpointError, load_torch_file
from evaluation import EvaluationError
from evaluation.metrics import METRICS
from evaluation.scores.identity import ARCFACE_FILE, ArcFace, load_arcface
from evaluation.scores.published import checked
from evaluation.scores.sync import SYNCNET_FILE, SyncNet, load_syncnet

ALEXNET_FILE, ALEXNET_SHA256 = "alexnet-owt-7be5be79.pth", "7be5be79"
INCEPTION_FILE, INCEPTION_SHA256 = "pt_inception-2015-12-05-6726825d.pth", "6726825d"


@dataclass(frozen=True)
class NetworkPaths:
    """Local files; empty: what the network measures is reported as not computed."""

    lpips: str = ""  # torchvision's AlexNet, alexnet-owt-7be5be79.pth (LPIPS's own layers come with the package)
    inception: str = ""  # FID's, pt_inception-2015-12-05-6726825d.pth (or weights-inception-2015-12-05-6726825d.pth)
    syncnet: str = ""  # syncnet_v2.model
    arcface: str = ""  # backbone.pth of an IResNet


FILES = {"lpips": ALEXNET_FILE, "inception": INCEPTION_FILE, "syncnet": SYNCNET_FILE, "arcface": ARCFACE_FILE}


@dataclass
class Networks:
    """Those that are at hand, on one device."""

    device: torch.device
    lpips: nn.Module | None = None  # (image, wanted, normalize=True) -> [B, 1, 1, 1] for pictures in [0, 1]
    inception: nn.Module | None = None  # uint8 [B, 3, H, W] -> [B, 2048]
    syncnet: SyncNet | None = None
    arcface: ArcFace | None = None
    digests: dict[str, str] = field(default_factory=dict)  # SHA-256 of each loaded file, by its name in `NetworkPaths`
    missing: dict[str, str] = field(default_factory=dict)  # metric -> why it is not computed


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
            reason = f"needs {FILES[name]} (networks.{name}=FILE)"
            networks.missing |= {metric.name: reason for metric in METRICS.values() if metric.network == name}
        elif not Path(path).is_file():
            raise EvaluationError(f"networks.{name}: {path} does not exist; give {FILES[name]}, or leave it empty")
        else:
            setattr(networks, name, loaders[name](Path(path), device))
            networks.digests[name] = file_digest(Path(path))
    return networks


def load_lpips(path: Path, device: torch.device, sha256_prefix: str = ALEXNET_SHA256) -> nn.Module:
    """LPIPS (Zhang et al. 2018), version 0.1, with the AlexNet of `path`. Raises CheckpointError."""
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
