"""Is it still the same person? CSIM: cosine similarity of ArcFace embeddings (Deng et al. 2019), frames and reference.

The network is the IResNet of insightface's arcface_torch; its `backbone.pth` files (model zoo of
github.com/deepinsight/insightface, non-commercial research) load unchanged. Values depend on the file (depth, training
set) and on the alignment: compare only rows that name the same hash.

Letters: N face, T video frame, H W C picture, E embedding; meshes are [468, 3], (x, y, z) in pixels of the picture.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from engine.checkpoint import CheckpointError, load_strict, load_torch_file
from evaluation.scores.published import checked

ARCFACE_FILE = "backbone.pth"
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
CHANNELS = (64, 128, 256, 512)
SIZE = 112  # pixels
BATCH = 16  # faces at a time

# Eye centres, nose tip and mouth corners in an aligned face, left to right as seen: the template of insightface.
TEMPLATE_52 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
EYES = ((33, 133), (362, 263))  # corners in mediapipe's mesh; the centre of an eye is between them
NOSE_AND_MOUTH = (1, 61, 291)


class Identity(NamedTuple):
    """Whether a video shows one person. Frames without a face are not in the mean: look at both numbers."""

    similarity: float  # CSIM, mean over the frames in which a face was found, in [-1, 1]; NaN if there are none
    faces: float  # share of frames in which a face was found


class Block(nn.Module):
    """Norm, convolution, norm, PReLU, convolution with the stride, norm; and a shortcut beside them."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(x)) + shortcut


class ArcFace(nn.Module):
    """IResNet of 18, 34, 50 or 100 layers; attribute names are those of the public files."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        before = (64, *CHANNELS)
        for number, (blocks, channels) in enumerate(zip(DEPTHS[depth], CHANNELS, strict=True), start=1):
            layer = [Block(before[number - 1], channels, 2), *(Block(channels, channels, 1) for _ in range(blocks - 1))]
            setattr(self, f"layer{number}", nn.Sequential(*layer))
        self.bn2 = nn.BatchNorm2d(512)
        self.fc = nn.Linear(512 * 7 * 7, 512)
        self.features = nn.BatchNorm1d(512)

    def forward(self, face_NCHW: Tensor) -> Tensor:
        """Aligned faces [N, 3, 112, 112], RGB in [-1, 1] -> [N, E=512], of any length."""
        x = self.prelu(self.bn1(self.conv1(face_NCHW)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(self.bn2(x).flatten(1)))


def load_arcface(path: Path, device: str | torch.device = "cpu", sha256_prefix: str = "") -> ArcFace:
    """An ArcFace backbone, ready to measure; its depth is read off the file.

    Args:
        path: backbone.pth.
        sha256_prefix: what the file's SHA-256 must begin with; its authors publish none.

    Raises:
        CheckpointError: no file there, or another one.
    """
    state = load_torch_file(checked(path, sha256_prefix))
    names = {tuple(key.split(".")[:2]) for key in state}
    blocks = tuple(sum(layer == f"layer{number}" for layer, *_ in names) for number in (1, 2, 3, 4))
    depth = next((depth for depth, wanted in DEPTHS.items() if wanted == blocks), None)
    if depth is None:
        raise CheckpointError(f"{path} is no ArcFace IResNet of {', '.join(map(str, DEPTHS))} layers")
    with torch.device("meta"):
        network = ArcFace(depth)
    network = network.to_empty(device="cpu")
    load_strict(network, state, str(path))
    return network.requires_grad_(False).eval().to(device)


def csim(
    network: nn.Module,
    frames_THWC: np.ndarray,
    mesh_TN3: np.ndarray,
    reference_HWC: np.ndarray,
    reference_mesh_N3: np.ndarray,
) -> Identity:
    """Identity similarity of the frames of a video and the picture it was made from.

    Args:
        network: of `load_arcface`.
        frames_THWC, reference_HWC: uint8 RGB, of any size.
        mesh_TN3: face mesh of each frame, NaN where no face was found. reference_mesh_N3: of the reference.

    Returns: NaN similarity if no face is found in the reference or in any frame.
    """
    face_T = np.isfinite(mesh_TN3).all(axis=(1, 2))
    if not face_T.any() or not np.isfinite(reference_mesh_N3).all():
        return Identity(float("nan"), float(face_T.mean()))
    reference_E = embed(network, align(reference_HWC, reference_mesh_N3)[None])[0]
    similarities = []
    for part in np.array_split(np.flatnonzero(face_T), -(-int(face_T.sum()) // BATCH)):
        faces_NHWC = np.stack([align(frames_THWC[frame], mesh_TN3[frame]) for frame in part])
        similarities.append(embed(network, faces_NHWC) @ reference_E)
    similarity_N = torch.cat(similarities)
    return Identity(similarity_N.mean().item(), float(face_T.mean()))


@torch.inference_mode()
def embed(network: nn.Module, face_NHWC: np.ndarray) -> Tensor:
    """Aligned faces, uint8 RGB [N, 112, 112, 3] -> embeddings of length 1, [N, E] on the CPU."""
    device = next(network.parameters()).device
    face_NCHW = rearrange(torch.from_numpy(face_NHWC), "n h w c -> n c h w").to(device)
    return F.normalize(network(face_NCHW.float() / 127.5 - 1)).cpu()


def align(frame_HWC: np.ndarray, mesh_N3: np.ndarray) -> np.ndarray:
    """The face as ArcFace wants it, uint8 [112, 112, 3]: turned, scaled, moved so that five points fit `TEMPLATE_52`.

    The five points are the centres of the eyes, the tip of the nose and the corners of the mouth in mediapipe's mesh;
    the transform is the least-squares similarity without reflection. insightface takes the points from RetinaFace.
    """
    points_52 = np.concatenate([[mesh_N3[list(eye)].mean(0) for eye in EYES], mesh_N3[list(NOSE_AND_MOUTH)]])[:, :2]
    here, there = points_52 @ (1, 1j), TEMPLATE_52 @ (1, 1j)  # as complex numbers: a similarity is z -> turn * z + move
    centred = here - here.mean()
    turn = (centred.conj() @ (there - there.mean())) / (centred.conj() @ centred)
    move = there.mean() - turn * here.mean()
    matrix = np.array([[turn.real, -turn.imag, move.real], [turn.imag, turn.real, move.imag]])
    return cv2.warpAffine(frame_HWC, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
