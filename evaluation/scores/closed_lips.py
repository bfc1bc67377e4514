"""Do the lips close where they must? p, b and m shut the mouth for a moment, whoever speaks (ours).

Where the words of a clip and their times are known (GRID's alignments), the moments of p, b and m are; the truth then
says whether the lips were shut there, and the generated mouth is asked for the same. A mouth that is always nearly shut
would pass, so the reverse is measured beside it: where the true mouth is open, is the generated one?

Letters: T video frame.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from datasets.media.streams import FPS
from evaluation.videos.words import Word

# GRID's vocabulary has 51 words; of these the lips are shut at the beginning (p, b) or at the end (m). "Seven", "five"
# and "f" bring the lip to the teeth, which is no closure.
SHUT_AT_START = frozenset({"bin", "place", "blue", "by", "please", "b", "p"})
SHUT_AT_END = frozenset({"m"})
# From a word's edge, in frames. Over 509 words of GRID the median opening is least from one frame before it to one
# after it (at the start), from one before it to the edge itself (at the end).
AT_START, AT_END = (-2, 2), (-2, 1)
CLOSED = 0.05  # opening by width, below which lips touch: true in 98 % of GRID's p, b and m
OPEN = 0.10  # and above which they are plainly apart


class Closure(NamedTuple):
    """Shares of the truth's moments that the generated mouth agrees with, NaN where there is none; and their number."""

    shut: float  # of the moments of p, b, m in which the true lips touch, those in which the generated ones do
    open: float  # of the frames in which the true mouth is plainly open, those in which the generated lips do not touch
    moments: int
    frames: int


def shut_moments(words: Sequence[Word], frames: int) -> list[slice]:
    """The frames around each p, b and m that begin or end a word; those beyond the clip are left out."""
    found = []
    for word in words:
        at_start = word.text in SHUT_AT_START
        if not at_start and word.text not in SHUT_AT_END:
            continue
        edge = round((word.start_s if at_start else word.end_s) * FPS)
        before, after = AT_START if at_start else AT_END
        moment = slice(max(0, edge + before), min(frames, edge + after + 1))
        if moment.start < moment.stop:
            found.append(moment)
    return found


def closure(opening_T: np.ndarray, true_T: np.ndarray, moments: Sequence[slice]) -> Closure:
    """How far a generated mouth closes and opens where the true one does.

    Args:
        opening_T, true_T: distance of the inner lips by the mouth's width, NaN where no face was found.
        moments: of `shut_moments`.

    Raises:
        ValueError: the two differ in length.
    """
    if len(opening_T) != len(true_T):
        raise ValueError(f"{len(opening_T)} frames are compared with {len(true_T)} true ones")
    known_T = np.isfinite(opening_T) & np.isfinite(true_T)
    touching = [
        np.nanmin(np.where(known_T, opening_T, np.nan)[moment]) < CLOSED
        for moment in moments
        if known_T[moment].any() and np.nanmin(np.where(known_T, true_T, np.nan)[moment]) < CLOSED
    ]
    open_T = known_T & (true_T > OPEN)
    apart_T = opening_T[open_T] >= CLOSED
    return Closure(
        float(np.mean(touching)) if touching else float("nan"),
        float(apart_T.mean()) if len(apart_T) else float("nan"),
        len(touching),
        len(apart_T),
    )
