"""Features of sound that is still coming (ours): the same as `datasets.audio.features`, a few frames at a time.

What a stream cannot know of the sound to come:

- Its mean and its loudest sample, by which everything is scaled. A stream goes by those so far, and by `QUIETEST_PEAK`
  as long as nothing louder came; where the level is known beforehand (`Level`, a file), it is used from the start.
- The next voiced row, towards which F0 is drawn through unvoiced ones. A stream holds the last voiced F0 where the next
  is further away than it has heard.

Everything else needs little of the sound around it: a row of the spectrum 25 ms, F0 the margins below. Memory does not
grow.

Letters: N samples, R feature rows (one each 10 ms), T video frames, A rows a video frame (4), F features (41).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from datasets.audio import (
    FEATURES,
    FILTERBANK,
    HOP,
    PITCH,
    ROWS_PER_FRAME,
    SHORTEST,
    SILENCE_PEAK,
    VOICED,
    WHOLE_F0_S,
    WINDOW,
    Level,
    estimate_f0,
    features,
    frame_count,
    level_of,
    spectral_rows,
)
from datasets.media.sound import Samples
from datasets.media.streams import SAMPLE_RATE

BEFORE = SAMPLE_RATE // 2  # samples of the past that F0 is found with; whole rows
AHEAD = SAMPLE_RATE // 5  # samples to come that it is found with
QUIETEST_PEAK = 3277  # 16-bit steps, -20 dB: of speech into a microphone that is set up


def streamed_features(
    blocks: Iterable[np.ndarray], sizes: Iterable[int], level: Level | None = None
) -> Iterator[np.ndarray]:
    """Features of consecutive video frames, float32 [t, A=4, F=41].

    How the sound is cut into blocks changes nothing. Sound too short for one video frame is continued with silence.

    Args:
        blocks: the sound as it comes, 16 kHz mono int16 [n] each, n of any size.
        sizes: how many frames to give at a time, without end; the last pieces are what is left. Frames are given
            `AHEAD` samples after their end.
        level: of all the sound, if it is known.
    """
    sound, f0 = _Sound(iter(blocks), level), _F0()
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
        rows_RF[:, PITCH], rows_RF[:, VOICED] = f0.rows(sound, first, last)
        yield rows_RF.reshape(stop - frame, ROWS_PER_FRAME, FEATURES)
        frame = stop
        sound.forget(last * HOP - BEFORE)


def feature_pieces(pcm: Samples, sizes: Iterable[int]) -> Iterator[np.ndarray]:
    """`datasets.audio.features` of a whole sound, piece by piece: the first are there before all of it was heard.

    F0 of up to a minute is found in one go, exactly as the released code does; of longer sound as in a stream.

    Args:
        sizes: as in `streamed_features`.
    """
    if len(pcm) <= WHOLE_F0_S * SAMPLE_RATE:
        yield features(pcm)
        return
    blocks = (pcm[start : start + SAMPLE_RATE] for start in range(0, len(pcm), SAMPLE_RATE))
    yield from streamed_features(blocks, sizes, level_of(pcm))


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
        """Samples as the released code scales them: mean 0, largest magnitude 1, float64; silence after the end."""
        wave_N = self.held_N[start - self.first : stop - self.first].astype(np.float64)
        wave_N = np.pad(wave_N, (0, stop - start - len(wave_N)), constant_values=self.level.mean)
        if self.level.peak < SILENCE_PEAK:
            return np.zeros_like(wave_N)
        return (wave_N - self.level.mean) / self.level.peak

    def forget(self, sample: int) -> None:
        """Drop the samples before this one."""
        drop = min(max(0, sample - self.first), len(self.held_N))
        self.held_N, self.first = self.held_N[drop:], self.first + drop


class _F0:
    """F0 row by row, unvoiced rows filled in; remembers the last voiced one."""

    def __init__(self) -> None:
        self.last: tuple[int, float] | None = None  # row and Hz

    def rows(self, sound: _Sound, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """(F0 in Hz, voiced flag 0/1) of rows first to last - 1."""
        start = max(0, first * HOP - BEFORE)
        f0_R = estimate_f0(sound.wave(start, min(sound.samples, last * HOP + AHEAD)))[first - start // HOP :]
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
