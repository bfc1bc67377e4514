"""Lips against sound by SyncNet (Chung and Zisserman 2016): the scores of Sec. 5.2; LSE-D, LSE-C (Prajwal et al. 2020).

The numbers are those of `joonson/syncnet_python`, and of Wav2Lip's `scores_LSE` on top of it, for the same face crop:
25 frames/s, 16 kHz mono, frames stretched to 224x224, blue first, 0..255. The one difference: there, frames pass
through JPEG files. The public file is SYNCNET_FILE, of
http://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model

Letters: T video frame, N window (5 frames = 20 MFCC rows = 0.2 s, one each frame), R MFCC row (10 ms), M MFCC,
E embedding, B batch, H W C picture.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from einops import rearrange
from scipy.ndimage import median_filter
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.clips import SAMPLES_PER_FRAME
from datasets.media.streams import SAMPLE_RATE
from engine.checkpoint import load_strict, load_torch_file
from evaluation.scores.published import checked

SYNCNET_FILE = "syncnet_v2.model"
# Its authors publish no hash; this one, of 54 573 114 bytes, is what several projects that use the file recorded.
SYNCNET_SHA256 = "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442"

SIZE = 224  # pixels
WINDOW = 5  # frames
ROWS_PER_FRAME = 4
MAX_SHIFT = 15  # frames to either side: Wav2Lip's setting (the demo of syncnet_python uses 15 as well)
LEAST_OVERLAP = 3  # a shift is at most 1 / 3 of the windows, so that no mean is more than a third padding; ours
BATCH = 20  # windows at a time
CROP_SCALE = 0.4  # of the face's half side: how much more than the face is cut out
PADDING_GREY = 110
SMOOTHING = 13  # frames of the median filter over face boxes


class SyncScore(NamedTuple):
    """How well lips follow a sound. NaN where the clip has fewer than 8 frames, or sound for fewer."""

    confidence: float  # LSE-C, median less minimum over shifts of the mean distance; higher is better
    offset: float  # frames by which the lips are late at the minimum (negative: early); 0 is in sync
    distance: float  # LSE-D, that minimum; lower is better
    max_shift: int  # shifts were tried from -max_shift to +max_shift frames


class SyncNet(nn.Module):
    """Two networks that embed 0.2 s of a face and of a sound; the embeddings are near if the two belong together.

    Attribute names and order are those of the public file, so that it loads strictly.
    """

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_conv(nn.Conv2d(1, 64, 3, padding=1), nn.MaxPool2d(1)),
            *_conv(nn.Conv2d(64, 192, 3, padding=1), nn.MaxPool2d(3, stride=(1, 2))),
            *_conv(nn.Conv2d(192, 384, 3, padding=1)),
            *_conv(nn.Conv2d(384, 256, 3, padding=1)),
            *_conv(nn.Conv2d(256, 256, 3, padding=1), nn.MaxPool2d(3, stride=2)),
            *_conv(nn.Conv2d(256, 512, (5, 4))),
        )
        self.netcnnlip = nn.Sequential(
            *_conv(nn.Conv3d(3, 96, (WINDOW, 7, 7), stride=(1, 2, 2)), nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2))),
            *_conv(
                nn.Conv3d(96, 256, (1, 5, 5), stride=(1, 2, 2), padding=(0, 1, 1)),
                nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            ),
            *_conv(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_conv(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_conv(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)), nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2))),
            *_conv(nn.Conv3d(256, 512, (1, 6, 6))),
        )
        self.netfcaud = _head()
        self.netfclip = _head()

    def embed_sound(self, mfcc_NMR: Tensor) -> Tensor:
        """Windows of 13 coefficients by 20 rows -> [N, E=1024]."""
        return self.netfcaud(self.netcnnaud(mfcc_NMR[:, None]).flatten(1))

    def embed_lips(self, frames_CTHW: Tensor) -> Tensor:
        """All windows of consecutive frames, 224x224, blue first, 0..255 -> [N=T-4, E=1024].

        Only the first layer looks along time, and without padding, so that one pass over the frames gives what the
        public program computes window by window.
        """
        features_NE = rearrange(self.netcnnlip(frames_CTHW[None]), "1 e n 1 1 -> n e")
        return self.netfclip(features_NE)


def _conv(convolution: nn.Conv2d | nn.Conv3d, *pool: nn.Module) -> list[nn.Module]:
    norm = nn.BatchNorm2d if isinstance(convolution, nn.Conv2d) else nn.BatchNorm3d
    return [convolution, norm(convolution.out_channels), nn.ReLU(inplace=True), *pool]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


def load_syncnet(path: Path, device: str | torch.device = "cpu", sha256_prefix: str = SYNCNET_SHA256) -> SyncNet:
    """The public SyncNet, for evaluation.

    Args:
        path: syncnet_v2.model.
        sha256_prefix: what the file's SHA-256 begins with; "" takes any weights of this layout, whose scores can then
            not be compared with published ones.

    Raises:
        CheckpointError: no file there, or another one.
    """
    network = SyncNet()
    load_strict(network, load_torch_file(checked(path, sha256_prefix)), str(path))
    return network.requires_grad_(False).eval().to(device)


def lip_sync(network: SyncNet, frames_THWC: np.ndarray, pcm: np.ndarray, max_shift: int = MAX_SHIFT) -> SyncScore:
    """How well lips follow the sound.

    The mean distance of lip and sound embeddings is taken at each shift of the sound by -s..s frames. As in the public
    program, windows for which the shifted sound does not exist count with the distance to an embedding of zeros, and
    the last whole window is not used (its sound lacks one MFCC row). s is 15; only for clips of fewer than 45 windows
    (50 frames) is it less, a third of the windows, because the padding would otherwise rule the mean at the far shifts:
    GRID (75 frames) has s = 15, LRW (29 frames) s = 8.

    Args:
        frames_THWC: uint8 RGB at 25 a second, a face crop (`face_crops`, or a video that is one already).
        pcm: int16, 16 kHz mono, starting with frame 0. The longer of both is cut.
    """
    windows = min(len(frames_THWC), len(pcm) // SAMPLES_PER_FRAME) - WINDOW
    shift = min(max_shift, windows // LEAST_OVERLAP)
    if shift < 1:
        return SyncScore(float("nan"), float("nan"), float("nan"), 0)
    lips_NE = lip_embeddings(network, frames_THWC[: windows + WINDOW - 1])
    sound_NE = F.pad(sound_embeddings(network, pcm, windows), (0, 0, shift, shift))
    distances = torch.stack(
        [F.pairwise_distance(lips_NE, sound_NE[start : start + windows]).mean() for start in range(2 * shift + 1)]
    )
    distance, place = distances.min(0)
    return SyncScore(
        confidence=(distances.median() - distance).item(),
        offset=float(shift - place.item()),
        distance=distance.item(),
        max_shift=shift,
    )


@torch.inference_mode()
def lip_embeddings(network: SyncNet, frames_THWC: np.ndarray) -> Tensor:
    """Embeddings of all T - 4 windows, [N, E=1024], on the CPU. Memory for `BATCH` windows is used at a time."""
    device = next(network.parameters()).device
    embeddings = []
    for start in range(0, len(frames_THWC) - WINDOW + 1, BATCH):
        part = [cv2.resize(frame, (SIZE, SIZE)) for frame in frames_THWC[start : start + BATCH + WINDOW - 1]]
        frames_CTHW = rearrange(torch.from_numpy(np.stack(part)), "t h w c -> c t h w").flip(0)  # blue first
        embeddings.append(network.embed_lips(frames_CTHW.float().to(device)).cpu())
    return torch.cat(embeddings)


@torch.inference_mode()
def sound_embeddings(network: SyncNet, pcm: np.ndarray, windows: int) -> Tensor:
    """Embeddings of the first `windows` windows, one each 40 ms, [N, E=1024], on the CPU.

    MFCC as python_speech_features gives them for 16-bit samples: 13 coefficients, the first the log energy.
    """
    import python_speech_features

    device = next(network.parameters()).device
    mfcc_MR = torch.from_numpy(python_speech_features.mfcc(pcm, SAMPLE_RATE).T).float()
    mfcc_NMR = rearrange(mfcc_MR.unfold(1, WINDOW * ROWS_PER_FRAME, ROWS_PER_FRAME)[:, :windows], "m n r -> n m r")
    return torch.cat([network.embed_sound(part.to(device)).cpu() for part in mfcc_NMR.split(BATCH)])


def face_crops(frames_THWC: np.ndarray, box_T4: np.ndarray) -> np.ndarray:
    """The crop that the public pipeline (`run_pipeline.py`) cuts out of a video before it is scored.

    The face's square, widened by 0.4 of its half side left and right and 0.8 below; boxes go through a median filter of
    13 frames (their ends are held; the public one takes zeros beyond them); grey where the crop leaves the picture.
    SyncNet was trained on such crops, made with S3FD's face boxes. Boxes of another detector, or whole frames, give
    other values, so a protocol must say which were used.

    Args:
        box_T4: left, top, right, bottom of the face in pixels, of every frame.

    Returns: uint8 RGB [T, 224, 224, 3].
    """
    left, top, right, bottom = np.asarray(box_T4, np.float64).T
    half_T = _smooth(np.maximum(bottom - top, right - left) / 2)
    middle_y_T = _smooth((top + bottom) / 2)
    middle_x_T = _smooth((left + right) / 2)
    crops = np.empty((len(frames_THWC), SIZE, SIZE, 3), np.uint8)
    for number, (frame, half, y, x) in enumerate(zip(frames_THWC, half_T, middle_y_T, middle_x_T, strict=True)):
        margin = int(half * (1 + 2 * CROP_SCALE))
        padded = np.pad(frame, ((margin, margin), (margin, margin), (0, 0)), constant_values=PADDING_GREY)
        y, x = y + margin, x + margin
        rows = slice(int(y - half), int(y + half * (1 + 2 * CROP_SCALE)))
        columns = slice(int(x - half * (1 + CROP_SCALE)), int(x + half * (1 + CROP_SCALE)))
        crops[number] = cv2.resize(padded[rows, columns], (SIZE, SIZE))
    return crops


def _smooth(value_T: np.ndarray) -> np.ndarray:
    return median_filter(value_T, SMOOTHING, mode="nearest")
