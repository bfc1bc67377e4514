"""Where the perceptual loss's VGG comes from, and what is said when it is not there."""

from pathlib import Path

import pytest
import torch

from engine.checkpoint import CheckpointError
from engine.vgg_weights import fill_vgg
from modules.perceptual import VggConfig, VggFeatures

SMALL = VggFeatures(VggConfig(layers=("relu1_1",)))


def test_vgg_weights_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pth does not exist"):
        fill_vgg(SMALL, "vgg19", str(tmp_path / "nowhere.pth"))

    def offline(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "/hub")
    said = r"vgg19-dcbb9e9d\.pth into /hub/checkpoints, or name a local copy by vgg\.weights"
    with pytest.raises(CheckpointError, match=said):
        fill_vgg(SMALL, "vgg19", "pretrained")
    fill_vgg(SMALL, "vgg19", "random")
    assert "RANDOM" in caplog.text


def test_vgg_from_a_local_file(tmp_path: Path) -> None:
    path = tmp_path / "vgg.pth"
    state = {key: torch.rand_like(value) for key, value in SMALL.state_dict().items()}
    torch.save({**state, "classifier.0.weight": torch.zeros(1)}, path)
    vgg = VggFeatures(VggConfig(layers=("relu1_1",)))
    fill_vgg(vgg, "vgg19", str(path))
    assert torch.equal(vgg.features[0].weight, state["features.0.weight"])
    torch.save({"other": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"features\.0\.weight is missing"):
        fill_vgg(vgg, "vgg19", str(path))
    torch.save(state | {"features.0.weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="does not fit vgg19"):
        fill_vgg(vgg, "vgg19", str(path))
