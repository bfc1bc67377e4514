"""Confidence intervals of a mean over clips, drawn over identities.

Clips of one speaker are alike, so that drawing single clips would give intervals that are too narrow.
Letters: N clip, I identity, B bootstrap sample.
"""

import numpy as np


def interval(values_N: np.ndarray, identities: list[str], samples: int, seed: int = 0) -> tuple[float, float] | None:
    """95 % percentile interval of the mean over clips: identities are drawn with replacement, each with all its clips.

    Returns: None for fewer than two identities, about which nothing can be said.
    """
    names, place_N = np.unique(np.asarray(identities), return_inverse=True)
    if len(names) < 2:
        return None
    sum_I = np.bincount(place_N, values_N)
    count_I = np.bincount(place_N)
    drawn_BI = np.random.default_rng(seed).integers(len(names), size=(samples, len(names)))
    means_B = sum_I[drawn_BI].sum(1) / count_I[drawn_BI].sum(1)
    low, high = np.percentile(means_B, [2.5, 97.5])
    return float(low), float(high)
