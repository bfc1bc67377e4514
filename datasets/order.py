"""The endless order of a training set: item n, for any n >= 0, without state.

Epoch e holds the items n = e * items ... (e + 1) * items - 1 in an order drawn from (seed, e); every random choice
inside item n comes from `choices(seed, n)`. So training resumes exactly by starting at n = steps * batch, and neither
the number of workers nor of ranks changes what is seen.
"""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, items: int) -> np.ndarray:
    return np.random.default_rng([seed, 0, epoch]).permutation(items)


def shuffled(seed: int, n: int, items: int) -> int:
    """Which of `items` stands at place n of the endless order."""
    return int(_epoch(seed, n // items, items)[n % items])


def choices(seed: int, n: int) -> np.random.Generator:
    """The random numbers of place n."""
    return np.random.default_rng([seed, 1, n])
