"""Audio features: 16 kHz mono samples -> the 4 x 41 features of each video frame (Sec. 3.1 and the released code).

Letters: N samples, R feature rows (one each 10 ms), T video frames (25 a second), A rows a video frame (4),
F features (41).

Columns of a row: 0-12 MFCC, 13-38 log mel filterbank, 39 F0 in Hz (unvoiced rows filled in), 40 voiced flag
(1 = voiced).
`AudioFeatureConfig` says what else a model of ours may hear.

Memory does not grow with the length, apart from the feature array: samples of a long file lie in a temporary file
(`datasets.media.sound`), the spectrum is computed piece by piece, and so is F0 beyond `WHOLE_F0_S`.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple, get_args, get_type_hints

import numpy as np

from datasets.errors import DataError
from datasets.media.sound import Samples
from datasets.media.streams import SAMPLE_RATE
from datasets.pitch import HOP, Estimator, Wave, estimate_f0, f0_in_pieces, fill_unvoiced, row_count

WINDOW = 400  # samples: 25 ms
ROWS_PER_FRAME = 4
SHORTEST = WINDOW + (ROWS_PER_FRAME - 1) * HOP  # samples of one video frame; less sound is continued with silence
FEATURES = 41  # of the paper
EMBEDDING_FEATURES = 24  # more, where a speech embedding (96 values a frame) is laid over the four rows
MFCC, FILTERBANK, PITCH, VOICED = slice(0, 13), slice(13, 39), 39, 40  # columns
LOG_ENERGY = 0  # the first MFCC is replaced by it

SILENCE_PEAK = 3  # 16-bit steps about the mean (-81 dB): below it there is only rounding noise, no speech; ours
SPECTRUM_ROWS = 6_000  # rows (1 minute) of spectrum at a time: about 40 MB
WHOLE_F0_S = 10  # F0 of so many seconds is found in one go, to the last bit as the released code does


@dataclass(frozen=True)
class AudioFeatureConfig:
    """How sound becomes features. The defaults are the paper's and the released model's; the rest is ours.

    A corpus is prepared with one setting (`datasets.clips.load_audio_features`), networks trained on it are stored with
    it, and inference computes what they have learned from.
    """

    f0: Estimator = "harvest"  # dio: WORLD's DIO, refined by StoneMask; some 50 times as fast
    # removed: each MFCC, filterbank band and the F0 of voiced rows less its mean over the whole sound, so that neither
    # voice, microphone nor loudness is in them. A stream can only take off a running mean.
    mean: Literal["kept", "removed"] = "kept"
    # speech: 96 values a frame of a pretrained network (`datasets.speech_embedding`), 24 more columns of its four rows
    embedding: Literal["none", "speech"] = "none"

    @property
    def count(self) -> int:
        """Number of features F of a row."""
        return FEATURES + (EMBEDDING_FEATURES if self.embedding == "speech" else 0)

    def __str__(self) -> str:
        return f"f0={self.f0} mean={self.mean} embedding={self.embedding}"


PAPER = AudioFeatureConfig()


def add_setting(parser: argparse.ArgumentParser) -> None:
    """The options that `setting_of` reads: one for each field of the setting."""
    for name, kind in get_type_hints(AudioFeatureConfig).items():
        parser.add_argument(
            f"--{name}",
            choices=get_args(kind),
            default=getattr(PAPER, name),
            help=f"sound features: {name} (default {getattr(PAPER, name)}, the paper's; datasets/audio.py)",
        )


def setting_of(arguments: argparse.Namespace) -> AudioFeatureConfig:
    return AudioFeatureConfig(**{name: getattr(arguments, name) for name in asdict(PAPER)})


# ---- features


def frame_count(samples: int) -> int:
    """Number T of video frames of so many samples: whole groups of four 25 ms windows, at least 1."""
    return max(1, _row_count(samples) // ROWS_PER_FRAME)


def features(pcm: Samples, config: AudioFeatureConfig = PAPER) -> np.ndarray:
    """Features of each video frame, float32 [T, A=4, F]: F is 41, or what `config` makes it.

    Sound too short for one video frame (under 721 samples, 45 ms) is continued with silence to exactly one frame.
    Silent sound (`is_silent`) gives the features of digital silence: finite, unvoiced, F0 zero.

    Raises:
        DataError: no sample at all.
    """
    if len(pcm) and _row_count(len(pcm)) < ROWS_PER_FRAME:
        pcm = np.pad(pcm[:], (0, SHORTEST - len(pcm)))
    rows_RF = feature_rows(pcm, config)
    frames = len(rows_RF) // ROWS_PER_FRAME
    features_TAF = rows_RF[: frames * ROWS_PER_FRAME].reshape(frames, ROWS_PER_FRAME, FEATURES)
    if config.embedding == "none":
        return features_TAF
    return np.concatenate([features_TAF, speech_embedding(pcm, level_of(pcm), frames)], axis=2)


def speech_embedding(pcm: Samples, level: Level, frames: int, first_frame: int = 0) -> np.ndarray:
    """The speech embedding of frames `first_frame` to `frames` - 1, laid over their rows, [T, A=4, 24]."""
    from datasets.speech_embedding import frame_embeddings  # brings torch

    embedding_TE = frame_embeddings(pcm, max(level.peak, SILENCE_PEAK), frames, first_frame)
    return embedding_TE.reshape(frames - first_frame, ROWS_PER_FRAME, -1)


def feature_rows(pcm: Samples, config: AudioFeatureConfig = PAPER) -> np.ndarray:
    """One row of features each 10 ms, float32 [R, F=41], before grouping by four (R = 1 for up to 400 samples).

    Raises:
        DataError: no sample at all.
    """
    if len(pcm) == 0:
        raise DataError("the sound holds no sample; use a recording of 0.1 s or longer")
    level = level_of(pcm)
    wave = scaled_wave(pcm, level)
    rows_RF = np.empty((_row_count(len(pcm)), FEATURES), np.float32)
    for first in range(0, len(rows_RF), SPECTRUM_ROWS):
        last = min(first + SPECTRUM_ROWS, len(rows_RF))
        rows_RF[first:last, : FILTERBANK.stop] = spectral_rows(wave, first, last, len(pcm))
    f0_R = np.zeros(row_count(len(pcm))) if level.peak < SILENCE_PEAK else _f0(wave, len(pcm), config.f0)
    filled_R, voiced_R = fill_unvoiced(f0_R)
    rows_RF[:, PITCH] = filled_R[: len(rows_RF)]
    rows_RF[:, VOICED] = voiced_R[: len(rows_RF)]
    if config.mean == "removed":
        _remove_mean(rows_RF)
    return rows_RF


def _remove_mean(rows_RF: np.ndarray) -> None:
    """Take the mean over all rows off MFCC and filterbank, that over the voiced rows off F0; in place."""
    spectrum_RF = rows_RF[:, : FILTERBANK.stop]
    spectrum_RF -= spectrum_RF.mean(axis=0, dtype=np.float64).astype(np.float32)
    voiced_R = rows_RF[:, VOICED] > 0
    if voiced_R.any():
        rows_RF[:, PITCH] -= rows_RF[voiced_R, PITCH].mean(dtype=np.float64).astype(np.float32)


def is_silent(pcm: Samples) -> bool:
    """Whether the sound never leaves its mean by `SILENCE_PEAK` 16-bit steps."""
    return level_of(pcm).peak < SILENCE_PEAK


def _row_count(samples: int) -> int:
    return 1 if samples <= WINDOW else 1 + -(-(samples - WINDOW) // HOP)


class Level(NamedTuple):
    """What sound is scaled by, in 16-bit steps."""

    mean: float
    peak: float  # largest distance from the mean


def level_of(pcm: Samples) -> Level:
    """Mean, and the largest distance from it; sums of integers are exact, so pieces give what the whole gives."""
    total, low, high = 0, 0, 0
    for piece in range(0, len(pcm), 60 * SAMPLE_RATE):
        pcm_N = pcm[piece : piece + 60 * SAMPLE_RATE]
        low = min(low, int(pcm_N.min())) if piece else int(pcm_N.min())
        high = max(high, int(pcm_N.max())) if piece else int(pcm_N.max())
        total += int(pcm_N.sum(dtype=np.int64))
    mean = total / max(1, len(pcm))
    return Level(mean, max(high - mean, mean - low))


def scaled_wave(pcm: Samples, level: Level) -> Wave:
    """Samples as the released code scales them: mean 0, largest magnitude 1, float64; silence is 0."""

    def wave(start: int, stop: int) -> np.ndarray:
        wave_N = pcm[start:stop].astype(np.float64)
        return np.zeros_like(wave_N) if level.peak < SILENCE_PEAK else (wave_N - level.mean) / level.peak

    return wave


def spectral_rows(wave: Wave, first: int, last: int, samples: int) -> np.ndarray:
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


def _f0(wave: Wave, samples: int, estimator: Estimator) -> np.ndarray:
    """F0 of a whole sound, float64 [samples // 160 + 1]."""
    if samples <= WHOLE_F0_S * SAMPLE_RATE:
        return estimate_f0(wave(0, samples), estimator)
    return np.concatenate(list(f0_in_pieces(wave, samples, estimator)))
