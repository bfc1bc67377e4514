"""The endless order of a training set: item n, for any n >= 0, without state.

Epoch e holds the items n = e * items ... (e + 1) * items - 1 in an order drawn from (seed, e); every random choice
inside item n comes from `choices(seed, n)`. So training resumes exactly by starting at n = steps * batch, and neither
the number of workers nor of ranks changes what is seen.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from datasets.clips import Clip


@lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, items: int) -> np.ndarray:
    return np.random.default_rng([seed, 0, epoch]).permutation(items)


def shuffled(seed: int, n: int, items: int) -> int:
    """Which of `items` stands at place n of the endless order."""
    return int(_epoch(seed, n // items, items)[n % items])


def choices(seed: int, n: int) -> np.random.Generator:
    """The random numbers of place n."""
    return np.random.default_rng([seed, 1, n])


def grouped(clips: Sequence[Clip], by_identity: bool) -> list[list[Clip]]:
    """What an epoch goes through: speakers, each with all of its clips, or single clips.

    By speaker everybody comes equally often, however many clips there are of each (FOMM's "id sampling").
    """
    if not by_identity:
        return [[clip] for clip in clips]
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        groups.setdefault(clip.row.identity, []).append(clip)
    return list(groups.values())


def at_most(clips: Sequence[Clip], most: int) -> list[Clip]:
    """At most `most` clips of each speaker, spread evenly over those there are, in the order given; 0: all."""
    kept: set[str] = set()
    for group in grouped(clips, by_identity=True):
        count = min(most or len(group), len(group))
        kept |= {group[place * len(group) // count].row.id for place in range(count)}
    return [clip for clip in clips if clip.row.id in kept]


def clamped(start: int, length: int, frames: int) -> np.ndarray:
    """Numbers start ... start+length-1 of a clip; past its end the last frame again."""
    return np.minimum(np.arange(start, start + length), frames - 1)


def padded(rows: np.ndarray, length: int, padding: str = "zeros") -> np.ndarray:
    """Rows continued up to a length, with zeros or ("edge") with the last row again."""
    after = rows[-1:] if padding == "edge" else np.zeros_like(rows[-1:])
    return np.concatenate([rows, np.repeat(after, length - len(rows), axis=0)])
