"""HE and KE against values by hand."""

import numpy as np
import pytest

from datasets.pose import PoseRange
from evaluation.scores import motion_error


def test_head_pose_error_is_in_units_of_half_a_range():
    pose_range = PoseRange((-1, -1, -1, 0, 0, 200), (1, 1, 1, 100, 100, 400))
    true = np.tile(np.float32([0, 0, 0, 50, 50, 300]), (5, 1))
    moved = true + np.float32([0.5, 0, 0, 25, 0, 100])  # a half, a half and a whole of half a range
    assert motion_error.head_pose_error(moved, true, pose_range) == pytest.approx((0.5 + 0.5 + 1) / 6)


def test_keypoint_error_is_the_mean_over_coordinates():
    true = np.zeros((4, 10, 2), np.float32)
    assert motion_error.keypoint_error(true + np.float32([0.2, -0.4]), true) == pytest.approx(0.3)
