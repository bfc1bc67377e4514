"""Published networks: what is read from their files, and what is said without them."""

import numpy as np
import pytest
import torch

from engine.checkpoint import CheckpointError
from evaluation import EvaluationError
from evaluation.metrics import METRICS
from evaluation.scores import fidelity
from evaluation.scores.networks import NetworkPaths, Networks, load_inception, load_lpips, load_networks
from tests.unit.evaluation.toys import CPU, MOUTH, noise


def test_inception_loads_from_the_file_that_torch_fidelity_publishes(tmp_path, monkeypatch):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = tmp_path / "weights.pth"
    path.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="is not the published file: its SHA-256 begins with"):
        load_inception(path, CPU)
    with monkeypatch.context() as patch:  # the same network without a file, to write one of its layout
        patch.setattr(torch, "load", lambda *_, **__: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_, **__: None)
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
    torch.save(network.state_dict(), path)
    frames = np.concatenate([noise(4, 1, 64, 64, 3)] * 2 + [noise(5, 1, 64, 64, 3)])
    features = fidelity.inception_features(frames, load_inception(path, CPU, sha256_prefix=""), CPU)
    assert features.shape == (3, 2048) and features.dtype == np.float32
    assert np.allclose(features[0], features[1], 1e-3, 0) and not np.allclose(features[0], features[2], 1e-3, 0)


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory):
    """A file of AlexNet's convolutions with random weights."""
    import torchvision

    torch.manual_seed(0)
    state = torchvision.models.alexnet(weights=None).features.state_dict()
    path = tmp_path_factory.mktemp("alexnet") / "alexnet.pth"
    torch.save({f"features.{key}": value for key, value in state.items()}, path)
    return path


def test_lpips_takes_its_backbone_from_the_file(alexnet):
    network = load_lpips(alexnet, CPU, sha256_prefix="")
    trained = torch.load(alexnet, weights_only=True)
    assert torch.equal(network.net.slice5.state_dict()["10.weight"], trained["features.10.weight"])
    scored = fidelity.picture_scores(
        noise(6, 2, 64, 64, 3), noise(6, 2, 64, 64, 3), np.tile(MOUTH, (2, 1)), Networks(CPU, lpips=network)
    )
    assert scored["lpips"] == pytest.approx(0, abs=1e-7)
    a, b = noise(6, 2, 64, 64, 3), noise(7, 2, 64, 64, 3)
    far = fidelity.picture_scores(a, b, np.tile(MOUTH, (2, 1)), Networks(CPU, lpips=network))["lpips"]
    scaled = [torch.from_numpy(x).permute(0, 3, 1, 2) / 127.5 - 1 for x in (a, b)]
    assert far == pytest.approx(network(*scaled).mean().item(), rel=1e-4) and far > 1e-4


def test_networks_that_are_not_there_are_named(alexnet, tmp_path):
    networks = load_networks(NetworkPaths(), CPU)
    assert networks.missing["lpips"] == "needs alexnet-owt-7be5be79.pth (networks.lpips=FILE)"
    assert networks.missing["fid"] == "needs pt_inception-2015-12-05-6726825d.pth (networks.inception=FILE)"
    assert networks.missing["lse_c"] == "needs syncnet_v2.model (networks.syncnet=FILE)"
    assert networks.missing.keys() <= METRICS.keys()
    with pytest.raises(EvaluationError, match=r"networks\.lpips: .*gone\.pth does not exist; give alexnet-owt"):
        load_networks(NetworkPaths(lpips=str(tmp_path / "gone.pth")), CPU)
    with pytest.raises(CheckpointError, match="SHA-256"):  # random weights are not the published ones
        load_networks(NetworkPaths(lpips=str(alexnet)), CPU)
