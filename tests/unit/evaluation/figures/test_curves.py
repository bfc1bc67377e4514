"""Head motion in one dimension, on motions whose direction is known."""

import numpy as np

from datasets.pose import RELEASED_RANGE
from evaluation.figures.curves import PLOT_WIDTH, TRUTH, different, in_one_dimension, liveliest, plot_curves


def along(direction: np.ndarray, curve: np.ndarray) -> np.ndarray:
    return RELEASED_RANGE.denormalise(curve[:, None] * direction)


def test_principal_motion_recovers_a_known_curve():
    curve = np.sin(np.arange(100) / 7)
    direction = np.array([0.6, 0, 0, -0.8, 0, 0])
    across = np.array([0.8, 0, 0, 0.6, 0, 0])
    curves, share = in_one_dimension(
        {TRUTH: along(direction, curve), "full": along(direction, 0.5 * curve), "l1": along(across, curve)},
        RELEASED_RANGE,
    )
    assert share > 0.999
    np.testing.assert_allclose(curves[TRUTH], -(curve - curve.mean()), atol=1e-4)  # the largest part, tx, is positive
    np.testing.assert_allclose(curves["full"], -(0.5 * curve - curve.mean()), atol=1e-4)
    assert np.ptp(curves["l1"]) < 1e-4  # what moves across the truth's direction shows nothing


def test_principal_motion_is_fitted_on_the_truth_alone():
    curve = np.sin(np.arange(50) / 5)
    true = along(np.array([1.0, 0, 0, 0, 0, 0]), curve)
    alone, _ = in_one_dimension({TRUTH: true}, RELEASED_RANGE)
    wild = along(np.array([0, 1.0, 0, 0, 0, 0]), 50 * curve)
    with_wild, _ = in_one_dimension({TRUTH: true, "full": wild}, RELEASED_RANGE)
    np.testing.assert_array_equal(alone[TRUTH], with_wild[TRUTH])


def test_liveliest_second():
    curve = np.zeros(100)
    curve[60:80] = np.sin(np.arange(20))
    start, stop = liveliest(curve)
    assert stop - start == 25 and start <= 60 and stop >= 80
    assert liveliest(np.arange(10.0)) == (0, 10)
    assert liveliest(np.zeros(1)) == (0, 1)


def test_variants_that_move_alike_share_a_panel():
    a, b = np.arange(5.0), np.ones(5)
    names = [names for names, _ in different({TRUTH: a, "full": b, "gt-head": a, "one-stage": b})]
    assert names == [[TRUTH, "gt-head"], ["full", "one-stage"]]
    one, two = (plot_curves(curves, 0.5, np.zeros(5)) for curves in ({TRUTH: a, "l1": a}, {TRUTH: a, "l1": b}))
    assert one.shape[0] < two.shape[0] and one.shape[1] == two.shape[1] == PLOT_WIDTH
