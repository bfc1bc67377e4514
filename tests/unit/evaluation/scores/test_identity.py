"""CSIM against values by hand, the ArcFace layout and alignment, and files that are checked before they are used."""

import hashlib

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.checkpoint import CheckpointError
from evaluation.scores import identity
from evaluation.scores.published import checked

# ---- files


def test_a_file_is_checked_by_the_start_of_its_hash(tmp_path) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert checked(path, digest) == checked(str(path), digest[:8].upper()) == checked(path, "") == path
    with pytest.raises(CheckpointError, match=f"begins with {digest[:12]}, wanted 00112233; download it again"):
        checked(path, "00112233")
    with pytest.raises(CheckpointError, match=r"gone\.pth does not exist"):
        checked(tmp_path / "gone.pth", "")


# ---- ArcFace


@pytest.mark.parametrize(("depth", "parameters"), [(18, 24_025_600), (50, 43_590_848), (100, 65_156_160)])
def test_the_networks_are_those_of_insightface(depth: int, parameters: int) -> None:
    """24.03, 43.59 and 65.16 million parameters, under the names of backbone.pth."""
    with torch.device("meta"):
        network = identity.ArcFace(depth)
    assert sum(value.numel() for value in network.parameters()) == parameters
    state = network.state_dict()
    for name, shape in {
        "conv1.weight": (64, 3, 3, 3),
        "prelu.weight": (64,),
        "layer1.0.downsample.0.weight": (64, 64, 1, 1),
        "layer2.0.downsample.1.running_var": (128,),
        "layer2.0.bn1.weight": (64,),
        "layer3.1.conv2.weight": (256, 256, 3, 3),
        "layer4.1.prelu.weight": (512,),
        "bn2.bias": (512,),
        "fc.weight": (512, 25088),
        "features.running_mean": (512,),
    }.items():
        assert tuple(state[name].shape) == shape, name


def test_a_block_is_norm_conv_norm_prelu_conv_norm_beside_its_shortcut() -> None:
    torch.manual_seed(0)
    block = identity.Block(4, 6, 2).eval()
    for name, value in block.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if name.endswith(("var", "weight")) else value.normal_()

    def norm(x: Tensor, layer: nn.BatchNorm2d) -> Tensor:
        return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)

    x = torch.randn(2, 4, 8, 8)
    y = F.conv2d(norm(x, block.bn1), block.conv1.weight, padding=1)
    y = F.prelu(norm(y, block.bn2), block.prelu.weight)
    y = norm(F.conv2d(y, block.conv2.weight, stride=2, padding=1), block.bn3)
    shortcut = norm(F.conv2d(x, block.downsample[0].weight, stride=2), block.downsample[1])
    assert torch.allclose(block(x), y + shortcut, atol=1e-4)


def test_a_backbone_loads_strictly_and_its_depth_is_seen(tmp_path) -> None:
    torch.manual_seed(0)
    saved = identity.ArcFace(18).eval()
    path = tmp_path / "backbone.pth"
    state = saved.state_dict()
    torch.save(state, path)
    network = identity.load_arcface(path)
    face_NCHW = torch.rand(1, 3, 112, 112)
    with torch.inference_mode():
        assert torch.equal(network(face_NCHW), saved(face_NCHW))
    assert not network.training

    del state["layer3.1.bn3.bias"]
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"missing layer3\.1\.bn3\.bias"):
        identity.load_arcface(path)
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="no ArcFace IResNet of 18, 34, 50, 100 layers"):
        identity.load_arcface(path)
    with pytest.raises(CheckpointError, match="not the published file"):
        identity.load_arcface(path, sha256_prefix="0123")


# ---- alignment and similarity


def mesh_of(five_52: np.ndarray) -> np.ndarray:
    """A mesh [468, 3] whose eyes' centres, nose and mouth corners are these; other points lie elsewhere."""
    mesh_N3 = np.full((468, 3), 7.0)
    for (outer, inner), centre in zip(((33, 133), (362, 263)), five_52[:2], strict=True):
        mesh_N3[outer, :2], mesh_N3[inner, :2] = np.add(centre, (-9, -2)), np.add(centre, (9, 2))
    mesh_N3[[1, 61, 291], :2] = five_52[2:]
    return mesh_N3


def test_the_template_is_that_of_insightface() -> None:
    wanted = [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
    assert identity.TEMPLATE_52.tolist() == [list(point) for point in wanted]


def test_alignment_undoes_turn_scale_and_place() -> None:
    face_HWC = np.zeros((112, 112, 3), np.uint8)
    face_HWC[30:100, 20:60] = (250, 120, 30)
    face_HWC[60:112, 60:90] = (20, 200, 90)
    turn = np.radians(25)
    matrix = 1.7 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    move = np.array([120.0, 30])
    picture = identity.cv2.warpAffine(face_HWC, np.column_stack([matrix, move]), (360, 360))
    aligned = identity.align(picture, mesh_of(identity.TEMPLATE_52 @ matrix.T + move))
    assert aligned.shape == (112, 112, 3)
    assert np.abs(aligned.astype(int) - face_HWC).mean() < 3  # but for interpolation at the edges


class MeanColour(nn.Module):
    """The embedding is the mean colour as the network gets it, so that similarities can be had by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1))

    def forward(self, face_NCHW: Tensor) -> Tensor:
        return face_NCHW.mean((2, 3))


def plain(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((200, 200, 3), colour, np.uint8)


def test_pictures_go_in_as_rgb_from_minus_one_to_one() -> None:
    seen_NE = identity.embed(MeanColour(), np.stack([plain((255, 0, 0)), plain((255, 255, 0))]))
    assert seen_NE.numpy() == pytest.approx(np.array([[1, -1, -1], [1, 1, -1]]) / np.sqrt(3), abs=1e-6)


def test_csim_is_the_mean_cosine_over_frames_with_a_face(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "BATCH", 2)
    mesh_N3 = mesh_of(identity.TEMPLATE_52 + 40)
    red, yellow, cyan = (255, 0, 0), (255, 255, 0), (0, 255, 255)  # cosines to red: 1, 1/3, -1
    frames_THWC = np.stack([plain(colour) for colour in (red, yellow, yellow, cyan, red)])
    mesh_TN3 = np.stack([mesh_N3] * 5)
    mesh_TN3[3] = np.nan  # no face in the cyan frame
    result = identity.csim(MeanColour(), frames_THWC, mesh_TN3, plain(red), mesh_N3)
    assert result == pytest.approx(((1 + 1 / 3 + 1 / 3 + 1) / 4, 4 / 5), abs=1e-6)

    nobody = identity.csim(MeanColour(), frames_THWC, np.full_like(mesh_TN3, np.nan), plain(red), mesh_N3)
    assert np.isnan(nobody.similarity) and nobody.faces == 0
    unknown = identity.csim(MeanColour(), frames_THWC, mesh_TN3, plain(red), np.full_like(mesh_N3, np.nan))
    assert np.isnan(unknown.similarity) and unknown.faces == 4 / 5
