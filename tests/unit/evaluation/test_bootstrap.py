"""Intervals against values by hand."""

import numpy as np
import pytest

from evaluation import bootstrap


def test_interval_draws_identities_not_clips():
    values = np.repeat([0.0, 1.0], 50)
    identities = ["a"] * 50 + ["b"] * 50
    assert bootstrap.interval(values, identities, 500) == (0.0, 1.0)  # drawing clips would give about 0.4 to 0.6
    low, high = bootstrap.interval(values, [str(n) for n in range(100)], 2000)
    assert low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.02) and high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.02)


def test_interval_is_of_the_mean_over_clips():
    """Identities with more clips weigh more: three of five clips are 1, in one identity."""
    low, high = bootstrap.interval(np.array([0, 0, 1, 1, 1.0]), ["a", "a", "b", "b", "b"], 4000)
    assert (low, high) == (0, 1)
    values, identities = np.array([0.0, *[1.0] * 9, *[0.5] * 10]), ["a", *["b"] * 9, *["c"] * 10]
    low, high = bootstrap.interval(values, identities, 4000)
    assert high == 1.0 and low == 0.0
    assert bootstrap.interval(values, ["a"] * 20, 100) is None
