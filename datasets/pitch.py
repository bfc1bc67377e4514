"""F0 of speech by WORLD, of a whole sound at once or of parts of it, which find what the whole finds.

WORLD takes the mean off all that it is given, lowers the rate on a grid that depends on the length, and otherwise looks
only some tenths of a second around. So a part is given a margin on both sides, keeps the whole's grid, and has beyond
the margin a constant that makes its mean the whole's, 0. In 15,384 rows of recorded speech voicing was then that of the
whole, and F0 within 0.001 Hz. (Without the constant Harvest is now and then off by some Hz, where two candidates are
nearly as good.)

Letters: N samples (16 kHz), R rows (one each 10 ms).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Literal

import numpy as np

from datasets.media.streams import SAMPLE_RATE

HOP = 160  # samples: 10 ms, one row
GRID = 4  # samples: Harvest keeps every second one, DIO every fourth, counted from the end
PIECE = 2 * SAMPLE_RATE  # of a sound that is searched in pieces
BEGINNING = 2 * PIECE  # of the sound, shared out among the workers in shorter pieces, so that its frames come early
SHORTEST = SAMPLE_RATE  # of those; with less around them they now and then find another F0
MARGIN = SAMPLE_RATE // 4  # found on both sides of a part, but not kept
LEVELLING = SAMPLE_RATE // 10  # of the constant beyond it

Estimator = Literal["harvest", "dio"]
Wave = Callable[[int, int], np.ndarray]  # samples `start` to `stop` - 1 of a sound of mean 0, float64


def row_count(samples: int) -> int:
    return samples // HOP + 1


def estimate_f0(wave_N: np.ndarray, estimator: Estimator) -> np.ndarray:
    """F0 in Hz each 10 ms, 0 where unvoiced, float64 [N // 160 + 1] (WORLD Harvest, Morise 2017; or DIO, 2009)."""
    import pyworld

    period_ms = 1000 * HOP / SAMPLE_RATE
    if estimator == "harvest":
        return pyworld.harvest(wave_N, SAMPLE_RATE, frame_period=period_ms)[0]
    return pyworld.stonemask(wave_N, *pyworld.dio(wave_N, SAMPLE_RATE, frame_period=period_ms), SAMPLE_RATE)


def f0_of_part(wave: Wave, samples: int, first: int, last: int, estimator: Estimator, ended: bool = True) -> np.ndarray:
    """F0 of rows `first` to `last` - 1, and after them of the rows in the margin, which are less sure.

    Args:
        samples: how many there are by now.
        ended: whether the sound ends with them; else the whole's length is taken for a multiple of `GRID`.
    """
    start, stop = max(0, first * HOP - MARGIN), min(samples, last * HOP + MARGIN)
    goes_on = stop < samples or not ended
    if goes_on:
        stop -= (stop - start - (samples if ended else 0)) % GRID
    wave_N = wave(start, stop)
    before, after = LEVELLING * (start > 0), LEVELLING * goes_on
    if before or after:
        wave_N = np.pad(wave_N, (before, after), constant_values=-wave_N.sum() / (before + after))
    skipped = first + (before - start) // HOP
    return estimate_f0(wave_N, estimator)[skipped : row_count(stop) + (before - start) // HOP]


def f0_in_pieces(wave: Wave, samples: int, estimator: Estimator, workers: int = 1) -> Iterator[np.ndarray]:
    """F0 of a whole sound, piece by piece, [samples // 160 + 1] in all.

    So many threads work ahead of what is asked for, on a piece each (WORLD runs without Python's lock). Memory does not
    grow with the length.
    """

    def search(first: int, last: int) -> np.ndarray:
        return f0_of_part(wave, samples, first, last, estimator)[: last - first]

    with ThreadPoolExecutor(workers) as pool:
        found = (pool.submit(search, *piece) for piece in _pieces(row_count(samples), workers))
        ahead = deque(islice(found, workers))
        while ahead:
            f0_R = ahead.popleft().result()
            ahead.extend(islice(found, 1))
            yield f0_R


def _pieces(rows: int, workers: int) -> Iterator[tuple[int, int]]:
    """First row of each piece, and the one after its last."""
    short = min(PIECE, max(SHORTEST, BEGINNING // workers))
    first = 0
    while first < rows:
        last = first + (short if first * HOP < BEGINNING else PIECE) // HOP
        yield first, last
        first = last


def fill_unvoiced(f0_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(F0 without holes, voiced flag 0/1): zeros between voiced rows are filled linearly, others by the nearest row."""
    voiced_R = f0_R > 0
    rows = np.arange(len(f0_R))
    filled_R = np.interp(rows, rows[voiced_R], f0_R[voiced_R]) if voiced_R.any() else np.zeros_like(f0_R)
    return filled_R, voiced_R.astype(f0_R.dtype)


class PitchTrack:
    """F0 without holes and voiced flags of consecutive rows, made from `f0_in_pieces` as they are asked for."""

    def __init__(self, pieces: Iterator[np.ndarray]) -> None:
        self.pieces = pieces
        self.held_R, self.first = np.zeros(0), 0  # F0 from row `first` on, which is voiced or the sound's first

    def rows(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Of rows `first` to `last` - 1, which come in order; as many pieces are found as these depend on."""
        while not self.held_R[max(0, last - 1 - self.first) :].any():
            piece_R = next(self.pieces, None)
            if piece_R is None:
                break
            self.held_R = np.concatenate([self.held_R, piece_R])
        filled_R, voiced_R = (each[first - self.first : last - self.first] for each in fill_unvoiced(self.held_R))
        past = np.flatnonzero(self.held_R[: last - self.first])
        if len(past):
            self.held_R, self.first = self.held_R[past[-1] :], self.first + past[-1]
        return filled_R, voiced_R
