"""Discriminators: FOMM's key names, what they see, gradients."""

import inspect
import json

import pytest
import torch

import train_fomm
import train_headpose
from modules import losses
from modules.discriminators import (
    ImageDiscriminatorConfig,
    MultiScaleDiscriminator,
    PoseDiscriminator,
    PoseDiscriminatorConfig,
    only_judging,
)
from modules.perceptual import VggConfig, VggFeatures
from tests.extra_data import EXTRA_DATA, WHY_SKIPPED

REFERENCE = EXTRA_DATA / "reference"


@pytest.mark.skipif(not REFERENCE.exists(), reason=WHY_SKIPPED)
@pytest.mark.parametrize(("name", "spectral", "keypoints"), [("vox", True, 0), ("vox_adv", False, 10)])
def test_state_dictionaries_are_fomms(name: str, spectral: bool, keypoints: int) -> None:
    manifest = json.loads((REFERENCE / f"fomm_{name}_manifest.json").read_text())["discriminator"]
    network = MultiScaleDiscriminator(ImageDiscriminatorConfig(spectral_norm=spectral, keypoints=keypoints))
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert shapes == {key: shape for key, shape, _ in manifest}


def test_image_discriminator_maps_and_features() -> None:
    config = ImageDiscriminatorConfig(block_expansion=4, max_features=16, scales=(1.0, 0.5), keypoints=3)
    judgements = MultiScaleDiscriminator(config)(torch.rand(2, 3, 128, 128), torch.rand(2, 3, 2))
    assert [j.score.shape for j in judgements] == [(2, 1, 10, 10), (2, 1, 2, 2)]
    assert [f.shape[1] for f in judgements[0].features] == [4, 8, 16, 16]


def test_image_discriminator_sees_the_keypoints() -> None:
    network = MultiScaleDiscriminator(ImageDiscriminatorConfig(block_expansion=4, max_features=16, keypoints=2))
    image, here, there = torch.rand(1, 3, 64, 64), torch.zeros(1, 2, 2), torch.full((1, 2, 2), 0.5)
    assert not torch.allclose(network(image, here)[0].score, network(image, there)[0].score)


def test_pose_discriminator_judges_stretches_of_70_frames() -> None:
    network = PoseDiscriminator(PoseDiscriminatorConfig(width=4)).eval()
    for layer in network.layers:
        if isinstance(layer, torch.nn.InstanceNorm1d):
            layer.forward = lambda x: x  # it mixes all frames; the convolutions' own reach is asked for
    pose = torch.randn(1, 257, 6, requires_grad=True)
    score = network(pose)
    score[0, score.shape[1] // 2].backward()
    frames = pose.grad.abs().sum((0, 2)).nonzero().flatten()
    assert frames[-1] - frames[0] + 1 == 70
    with pytest.raises(ValueError, match="needs 32 frames"):
        network(torch.zeros(1, 31, 6))


def test_vgg_layers_are_where_torchvision_has_them() -> None:
    assert VggFeatures(VggConfig()).wanted == [1, 6, 11, 20, 29]  # FACTS: VGG-19
    assert VggFeatures(VggConfig(network="vgg16")).wanted == [1, 6, 11, 18, 25]
    with pytest.raises(ValueError, match="relu9_9"):
        VggConfig(layers=("relu9_9",))


def test_vgg_equals_torchvisions() -> None:
    torchvision = pytest.importorskip("torchvision")
    reference = torchvision.models.vgg16(weights=None).features.eval()
    ours = VggFeatures(VggConfig(network="vgg16", layers=("relu1_1", "relu3_1")))
    ours.load_state_dict({f"features.{k}": v for k, v in reference.state_dict().items() if int(k.split(".")[0]) < 12})
    image = torch.rand(1, 3, 32, 32)
    normalised = (image - ours.mean) / ours.std
    activations = ours(image)
    assert torch.allclose(activations[0], reference[:2](normalised), atol=1e-6)
    assert torch.allclose(activations[1], reference[:12](normalised), atol=1e-5)


def test_who_is_judged_gives_the_judge_no_gradient_and_stays_one_graph() -> None:
    """The switch stands round what is compiled; inside it would break the graph."""
    critic = PoseDiscriminator(PoseDiscriminatorConfig(width=4))
    graphs = []

    def judged(pose_BTP: torch.Tensor) -> torch.Tensor:
        return losses.lsgan_generator(critic(pose_BTP * 2)) + pose_BTP.square().mean()

    def count(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    pose_BTP = torch.rand(2, 40, 6, requires_grad=True)
    with only_judging(critic), only_judging(None):
        loss = torch.compile(judged, backend=count)(pose_BTP)
    loss.backward()
    assert pose_BTP.grad.abs().sum() > 0 and all(weight.grad is None for weight in critic.parameters())
    assert all(weight.requires_grad for weight in critic.parameters())
    assert len(graphs) == 1


def test_stage_one_and_two_compile_without_a_switch_inside() -> None:
    """What used to turn the discriminator's gradients off and on stood in the compiled losses."""
    for compiled in (train_fomm.GeneratorLosses.forward, train_fomm.adversarial_losses, train_headpose.PredictorLosses):
        assert "requires_grad_(" not in inspect.getsource(compiled)
