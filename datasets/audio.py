"""Sound: any file -> 16 kHz mono samples -> the 4 x 41 features of each video frame (Sec. 3.1 and the released code).

Axes: N samples, R feature rows (one each 10 ms), T video frames (25 a second), A rows a video frame (4), F features (41).

Columns of a row: 0-12 MFCC, 13-38 log mel filterbank, 39 F0 in Hz (unvoiced rows filled in), 40 voiced flag (1 = voiced).

Memory does not grow with the length, apart from the feature array: samples of a long file lie in a temporary file
(`open_pcm`), the spectrum is computed piece by piece, and F0 beyond `WHOLE_F0_S` in overlapping pieces.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from datasets.errors import DataError
from datasets.files import written_beside
from datasets.media.streams import decoded_frames, open_media, require_whole

SAMPLE_RATE = 16_000  # Hz
HOP = 160  # samples: 10 ms, one feature row
WINDOW = 400  # samples: 25 ms
FPS = 25  # video frames a second
ROWS_PER_FRAME = 4
FEATURES = 41
MFCC, FILTERBANK, PITCH, VOICED = slice(0, 13), slice(13, 39), 39, 40  # columns

SILENCE_PEAK = 3  # 16-bit steps about the mean (-81 dB): below it there is only rounding noise, no speech; ours
SPECTRUM_ROWS = 6_000  # rows (1 minute) of spectrum at a time: about 40 MB
WHOLE_F0_S = 60  # F0 of up to a minute is found in one go, exactly as the released code does
PIECE_F0_S = 5  # longer sound: pieces of this length ...
MARGIN_F0_S = 0.5  # ... with this much more on both sides, found but not kept
F0_WORKERS = 12  # pieces at a time: no more than a minute of sound, so that no length needs more memory than a minute


class Samples(Protocol):
    """16 kHz mono int16 samples: a numpy array, or `PcmFile` for any length."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


class PcmFile:
    """16 kHz mono int16 samples in a temporary file; a slice is read when asked for, nothing stays in memory."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="audio2head-", suffix=".pcm")  # noqa: SIM115
        self._length = 0

    def append(self, pcm: np.ndarray) -> None:
        self._file.seek(0, os.SEEK_END)
        self._file.write(np.ascontiguousarray(pcm, dtype=np.int16).tobytes())
        self._length += len(pcm)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, step = part.indices(self._length)
        assert step == 1, part
        self._file.seek(2 * start)
        return np.frombuffer(self._file.read(2 * max(0, stop - start)), dtype=np.int16)

    def close(self) -> None:
        self._file.close()


# ---- reading and writing


@contextlib.contextmanager
def open_pcm(path: str | Path) -> Iterator[PcmFile]:
    """The sound of any media file as 16 kHz mono int16, decoded piece by piece into a temporary file.

    The file lies in the system's temporary folder (set by TMPDIR), 115 MB an hour, and is gone after the block.

    Raises:
        DataError: no such file, not a media file, no sound track, cut off, or no sample in it.
    """
    pcm = PcmFile()
    try:
        for piece_N in decode(path):
            pcm.append(piece_N)
        yield pcm
    finally:
        pcm.close()


def load_pcm(path: str | Path) -> np.ndarray:
    """The sound of any media file as int16 [N], 16 kHz mono (32 kB a second: for clips; `open_pcm` for hours).

    Raises:
        DataError: as `open_pcm`.
    """
    return np.concatenate(list(decode(path)))


def decode(path: str | Path) -> Iterator[np.ndarray]:
    """Pieces of the sound of any media file, int16 [n], 16 kHz mono.

    Exactly what `ffmpeg -i path -ac 1 -ar 16000 -c:a pcm_s16le -async 1` of version 5 gives: gaps in the time stamps and
    a late start become silence; 16 kHz mono 16-bit sound passes unchanged.

    Raises:
        DataError: as `open_pcm`.
    """
    samples = 0
    with open_media(path, "audio", "sound") as (container, stream):
        for piece_1N in resampled(decoded_frames(container, stream, path), "s16", SAMPLE_RATE, "mono"):
            samples += piece_1N.shape[1]
            yield piece_1N[0]
        require_whole(container, stream, samples / SAMPLE_RATE, path)
    if not samples:
        raise DataError(f"{path} holds no sound (0 samples); name a longer recording")


def resampled(frames: Iterator[Any], sample_format: str, rate: int, layout: str) -> Iterator[np.ndarray]:
    """Decoded sound frames converted to one format, rate and channel layout: [1, n x channels] or planar [channels, n]."""
    import av

    graph, source, sink, signature = None, None, None, None
    for frame in frames:
        found = (frame.format.name, frame.sample_rate, frame.layout.name)
        if found != signature:  # the first frame, or the stream changes on the way
            if graph is not None:
                source.push(None)
                yield from _pull(sink)
            signature = found
            # FFmpeg 5 mixes and filters sound of up to 16 bits in 16-bit integers; later versions in floats (2 steps apart)
            inner = ":internal_sample_fmt=s16p" if sample_format == "s16" and frame.format.bytes <= 2 else ""
            first = "" if graph is not None else ":first_pts=0"
            graph = av.filter.Graph()
            source = graph.add_abuffer(
                sample_rate=frame.sample_rate, format=frame.format, layout=frame.layout, time_base=frame.time_base
            )
            resample = graph.add("aresample", f"async=1{first}{inner}")
            target = graph.add("aformat", f"sample_fmts={sample_format}:sample_rates={rate}:channel_layouts={layout}")
            sink = graph.add("abuffersink")
            graph.link_nodes(source, resample, target, sink).configure()
        source.push(frame)
        yield from _pull(sink)
    if graph is not None:
        source.push(None)
        yield from _pull(sink)


def _pull(sink: Any) -> Iterator[np.ndarray]:
    import av

    while True:
        try:
            yield sink.pull().to_ndarray()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def write_wav(path: str | Path, pcm: np.ndarray) -> None:
    """Write int16 [N] as a 16 kHz mono 16-bit wav, whole or not at all."""
    import soundfile

    assert pcm.dtype == np.int16 and pcm.ndim == 1, (pcm.dtype, pcm.shape)
    with written_beside(path) as temporary:
        soundfile.write(temporary, pcm, SAMPLE_RATE, subtype="PCM_16", format="WAV")


# ---- features


def frame_count(samples: int) -> int:
    """Number T of video frames of so many samples: whole groups of four 25 ms windows, at least 1."""
    return max(1, _row_count(samples) // ROWS_PER_FRAME)


def features(pcm: Samples) -> np.ndarray:
    """Features of each video frame, float32 [T, A=4, F=41].

    Sound too short for one video frame (under 721 samples, 45 ms) is continued with silence to exactly one frame.
    Silent sound (`is_silent`) gives the features of digital silence: finite, unvoiced, F0 zero.

    Raises:
        DataError: no sample at all.
    """
    shortest = WINDOW + (ROWS_PER_FRAME - 1) * HOP
    if len(pcm) and _row_count(len(pcm)) < ROWS_PER_FRAME:
        pcm = np.pad(pcm[:], (0, shortest - len(pcm)))
    rows_RF = feature_rows(pcm)
    frames = len(rows_RF) // ROWS_PER_FRAME
    return rows_RF[: frames * ROWS_PER_FRAME].reshape(frames, ROWS_PER_FRAME, FEATURES)


def feature_rows(pcm: Samples) -> np.ndarray:
    """One row of features each 10 ms, float32 [R, F=41], before grouping by four (R = 1 for up to 400 samples).

    Raises:
        DataError: no sample at all.
    """
    if len(pcm) == 0:
        raise DataError("the sound holds no sample; use a recording of 0.1 s or longer")
    mean, peak = _mean_and_peak(pcm)
    silent = peak < SILENCE_PEAK
    rows_RF = np.empty((_row_count(len(pcm)), FEATURES), np.float32)

    def wave(start: int, stop: int) -> np.ndarray:
        """Samples as the released code scales them: mean 0, largest magnitude 1, float64."""
        wave_N = pcm[start:stop].astype(np.float64)
        return np.zeros_like(wave_N) if silent else (wave_N - mean) / peak

    for first in range(0, len(rows_RF), SPECTRUM_ROWS):
        last = min(first + SPECTRUM_ROWS, len(rows_RF))
        rows_RF[first:last, : FILTERBANK.stop] = _spectral_rows(wave, first, last, len(pcm))
    f0_R = np.zeros(len(pcm) // HOP + 1) if silent else _f0(wave, len(pcm))
    filled_R, voiced_R = fill_unvoiced(f0_R)
    rows_RF[:, PITCH] = filled_R[: len(rows_RF)]
    rows_RF[:, VOICED] = voiced_R[: len(rows_RF)]
    return rows_RF


def is_silent(pcm: Samples) -> bool:
    """Whether the sound never leaves its mean by `SILENCE_PEAK` 16-bit steps."""
    return _mean_and_peak(pcm)[1] < SILENCE_PEAK


def fill_unvoiced(f0_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(F0 without holes, voiced flag 0/1): zeros are filled linearly between voiced rows, outside them by the nearest."""
    voiced_R = f0_R > 0
    rows = np.arange(len(f0_R))
    filled_R = np.interp(rows, rows[voiced_R], f0_R[voiced_R]) if voiced_R.any() else np.zeros_like(f0_R)
    return filled_R, voiced_R.astype(f0_R.dtype)


def _row_count(samples: int) -> int:
    return 1 if samples <= WINDOW else 1 + -(-(samples - WINDOW) // HOP)


def _mean_and_peak(pcm: Samples) -> tuple[float, float]:
    """Mean, and the largest distance from it; sums of integers are exact, so pieces give what the whole gives."""
    total, low, high = 0, 0, 0
    for piece in range(0, len(pcm), 60 * SAMPLE_RATE):
        pcm_N = pcm[piece : piece + 60 * SAMPLE_RATE]
        low = min(low, int(pcm_N.min())) if piece else int(pcm_N.min())
        high = max(high, int(pcm_N.max())) if piece else int(pcm_N.max())
        total += int(pcm_N.sum(dtype=np.int64))
    mean = total / max(1, len(pcm))
    return mean, max(high - mean, mean - low)


def _spectral_rows(wave: Any, first: int, last: int, samples: int) -> np.ndarray:
    """MFCC and log filterbank of rows first..last-1, float64 [last - first, 39], from one power spectrum.

    python_speech_features computes `mfcc` and `logfbank` from the same filterbank energies, so one call serves both.
    """
    import python_speech_features as psf
    from scipy.fft import dct

    before = min(first, 1)  # one row more in front, dropped: its first sample has no predecessor to pre-emphasise with
    start = (first - before) * HOP
    wave_N = wave(start, min(samples, (last - 1) * HOP + WINDOW))
    energies_RF, total_R = psf.fbank(wave_N, SAMPLE_RATE)
    log_energies_RF = np.log(energies_RF[before:])
    mfcc_RF = psf.lifter(dct(log_energies_RF, type=2, axis=1, norm="ortho")[:, : MFCC.stop])
    mfcc_RF[:, 0] = np.log(total_R[before:])
    return np.concatenate([mfcc_RF, log_energies_RF], axis=1)


def _f0(wave: Any, samples: int) -> np.ndarray:
    """F0 in Hz each 10 ms, 0 where unvoiced, float64 [samples // 160 + 1] (WORLD Harvest, Morise 2017).

    Beyond `WHOLE_F0_S`, pieces with margins are found on all cores (Harvest runs without Python's lock). Harvest halves
    the rate on a grid that depends on whether the length is odd; pieces keep the whole's parity, or every fifth row moves.
    """
    import pyworld

    def harvest(start: int, stop: int) -> np.ndarray:
        return pyworld.harvest(wave(start, stop), SAMPLE_RATE, frame_period=1000 * HOP / SAMPLE_RATE)[0]

    if samples <= WHOLE_F0_S * SAMPLE_RATE:
        return harvest(0, samples)

    f0_R = np.zeros(samples // HOP + 1)
    piece, margin = PIECE_F0_S * SAMPLE_RATE, int(MARGIN_F0_S * SAMPLE_RATE)

    def find(start: int) -> None:
        first = max(0, start - margin)
        stop = min(samples, start + piece + margin)
        stop -= (stop - first - samples) % 2
        rows = min(piece // HOP, len(f0_R) - start // HOP)
        skip = (start - first) // HOP
        f0_R[start // HOP : start // HOP + rows] = harvest(first, stop)[skip : skip + rows]

    with ThreadPoolExecutor(min(F0_WORKERS, os.cpu_count() or 1)) as pool:
        list(pool.map(find, range(0, samples, piece)))
    return f0_R
