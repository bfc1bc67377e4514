"""Features of sound that is still coming (ours): the same as `datasets.audio.features`, a few frames at a time.

What a stream cannot know of the sound to come:

- Its mean and its loudest sample, by which everything is scaled. A stream goes by those so far, and by `QUIETEST_PEAK`
  as long as nothing louder came; where the level is known beforehand (`Level`, a file), it is used from the start.
- The mean of its features, where the setting takes it off: a stream goes by the mean so far.
- The next voiced row, towards which F0 is drawn through unvoiced ones. A stream holds the last voiced F0 where the next
  is further away than it has heard.

Everything else needs little of the sound around it (`datasets.pitch`). Memory does not grow.

Letters: N samples, R feature rows (one each 10 ms), T video frames, A rows a video frame (4), F features (41).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np

from datasets.audio import (
    FEATURES,
    FILTERBANK,
    PAPER,
    PITCH,
    ROWS_PER_FRAME,
    SHORTEST,
    VOICED,
    WINDOW,
    AudioFeatureConfig,
    Level,
    features,
    frame_count,
    level_of,
    scaled_wave,
    spectral_rows,
    speech_embedding,
)
from datasets.media.sound import Samples
from datasets.media.streams import SAMPLE_RATE
from datasets.pitch import HOP, MARGIN, Estimator, PitchTrack, f0_in_pieces, f0_of_part

# What F0 and the speech embedding need, in samples: whole rows of the past, and of what is to come.
BEFORE = 60 * HOP  # 0.6 s
AHEAD = MARGIN  # 0.25 s
MOST_WORKERS = 16  # on a file's F0
QUIETEST_PEAK = 3277  # 16-bit steps, -20 dB: of speech into a microphone that is set up


def streamed_features(
    blocks: Iterable[np.ndarray],
    sizes: Iterable[int],
    config: AudioFeatureConfig = PAPER,
    level: Level | None = None,
    pitch: PitchTrack | None = None,
) -> Iterator[np.ndarray]:
    """Features of consecutive video frames, float32 [t, A=4, F].

    How the sound is cut into blocks changes nothing. Sound too short for one video frame is continued with silence.

    Args:
        blocks: the sound as it comes, 16 kHz mono int16 [n] each, n of any size.
        sizes: how many frames to give at a time, without end; the last pieces are what is left. Frames are given
            `AHEAD` samples after their end.
        level, pitch: of all the sound, if they are known.
    """
    sound, means = _Sound(iter(blocks), level), _Means()
    track = pitch or _HeardPitch(sound, config.f0)
    frame = 0
    for size in sizes:
        stop = frame + size
        sound.hear_until(stop * ROWS_PER_FRAME * HOP + AHEAD)
        if sound.ended:
            stop = min(stop, frame_count(sound.samples) if sound.samples else 0)
        if stop <= frame:
            return
        first, last = frame * ROWS_PER_FRAME, stop * ROWS_PER_FRAME
        rows_RF = np.empty((last - first, FEATURES), np.float32)
        rows_RF[:, : FILTERBANK.stop] = spectral_rows(sound.wave, first, last, sound.needed(last))
        rows_RF[:, PITCH], rows_RF[:, VOICED] = track.rows(first, last)
        if config.mean == "removed":
            means.take_off(rows_RF)
        features_TAF = rows_RF.reshape(stop - frame, ROWS_PER_FRAME, FEATURES)
        if config.embedding == "speech":
            embedding_TAF = speech_embedding(sound, sound.level, stop, frame)
            features_TAF = np.concatenate([features_TAF, embedding_TAF], axis=2)
        yield features_TAF
        frame = stop
        sound.forget(last * HOP - BEFORE)


def feature_pieces(pcm: Samples, sizes: Iterable[int], config: AudioFeatureConfig = PAPER) -> Iterator[np.ndarray]:
    """`datasets.audio.features` of a whole sound, piece by piece: the first are there before all of it was heard.

    Only features without their mean need all of the sound, and come in one piece. F0 agrees to 1e-4 Hz.

    Args:
        sizes: as in `streamed_features`.
    """
    if config.mean == "removed" or len(pcm) < SHORTEST:
        yield features(pcm, config)
        return
    level = level_of(pcm)
    blocks = (pcm[start : start + SAMPLE_RATE] for start in range(0, len(pcm), SAMPLE_RATE))
    workers = min(MOST_WORKERS, os.cpu_count() or 1)
    pitch = PitchTrack(f0_in_pieces(scaled_wave(pcm, level), len(pcm), config.f0, workers))
    yield from streamed_features(blocks, sizes, config, level, pitch)


class _Sound:
    """Samples that have come and are still needed, and their level."""

    def __init__(self, blocks: Iterator[np.ndarray], level: Level | None) -> None:
        self.blocks, self.known = blocks, level
        self.level = level or Level(0.0, QUIETEST_PEAK)
        self.measured, self.total = 0, 0  # samples that the level was taken from so far, and their sum
        self.held_N, self.first = np.zeros(0, np.int16), 0  # samples from number `first` on
        self.ended = False

    @property
    def samples(self) -> int:
        """How many have come."""
        return self.first + len(self.held_N)

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, part: slice) -> np.ndarray:
        """Samples by their numbers from the start; those that were forgotten may not be asked for."""
        assert part.start >= self.first, (part, self.first)
        return self.held_N[part.start - self.first : part.stop - self.first]

    def hear_until(self, sample: int) -> None:
        """Take blocks until this many samples have come, or the sound ends; then scale by what was heard."""
        taken = [self.held_N]
        count = self.samples
        while count < sample and not self.ended:
            block_N = next(self.blocks, None)
            self.ended = block_N is None
            if block_N is not None:
                taken.append(block_N)
                count += len(block_N)
        if self.ended and 0 < count < SHORTEST:
            taken.append(np.zeros(SHORTEST - count, np.int16))
        self.held_N = np.concatenate(taken)
        if self.known is None:  # no further than asked for: blocks may be of any size
            new_N = self.held_N[max(0, self.measured - self.first) : max(0, sample - self.first)].astype(np.int64)
            self.measured, self.total = self.measured + len(new_N), self.total + int(new_N.sum())
            mean = self.total / max(1, self.measured)
            self.level = Level(mean, max(self.level.peak, float(np.abs(new_N - mean).max(initial=0))))

    def needed(self, rows: int) -> int:
        """Number of samples there, but for more than these rows see."""
        return min(self.samples, (rows - 1) * HOP + WINDOW)

    def wave(self, start: int, stop: int) -> np.ndarray:
        """As `scaled_wave` says; silence after the end."""
        wave_N = scaled_wave(self, self.level)(start, min(stop, self.samples))
        return np.pad(wave_N, (0, stop - start - len(wave_N)))

    def forget(self, sample: int) -> None:
        """Drop the samples before this one."""
        drop = min(max(0, sample - self.first), len(self.held_N))
        self.held_N, self.first = self.held_N[drop:], self.first + drop


class _HeardPitch:
    """F0 without holes and voiced flags, found in what was heard by now; remembers the last voiced row."""

    def __init__(self, sound: _Sound, estimator: Estimator) -> None:
        self.sound, self.estimator = sound, estimator
        self.last: tuple[int, float] | None = None  # row and Hz

    def rows(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Of rows `first` to `last` - 1, which come in order."""
        sound = self.sound
        f0_R = f0_of_part(sound.wave, sound.samples, first, last, self.estimator, sound.ended)
        voiced = np.flatnonzero(f0_R > 0)
        at, hz = [*voiced + first], [*f0_R[voiced]]
        if self.last is not None:
            at, hz = [self.last[0], *at], [self.last[1], *hz]
        count = last - first
        filled_R = np.interp(np.arange(first, last), at, hz) if at else np.zeros(count)
        here = voiced[voiced < count]
        if len(here):
            self.last = int(here[-1]) + first, float(f0_R[here[-1]])
        flags_R = np.zeros(count)
        flags_R[here] = 1
        return filled_R, flags_R


class _Means:
    """Means over the rows so far, for features without theirs."""

    def __init__(self) -> None:
        self.sum_F, self.rows = np.zeros(FILTERBANK.stop), 0
        self.hz, self.voiced = 0.0, 0

    def take_off(self, rows_RF: np.ndarray) -> None:
        """Off MFCC and filterbank the mean over all rows, off F0 that over the voiced ones; in place."""
        self.sum_F += rows_RF[:, : FILTERBANK.stop].sum(axis=0, dtype=np.float64)
        self.rows += len(rows_RF)
        rows_RF[:, : FILTERBANK.stop] -= (self.sum_F / self.rows).astype(np.float32)
        voiced_R = rows_RF[:, VOICED] > 0
        self.hz += float(rows_RF[voiced_R, PITCH].sum(dtype=np.float64))
        self.voiced += int(voiced_R.sum())
        rows_RF[:, PITCH] -= self.hz / max(1, self.voiced)
