"""Head poses: padding, scaling, and what may be given instead of N_H's."""

import numpy as np
import pytest

from animation.head_poses import (
    GivenHeadPoses,
    HeadPoses,
    KeptHeadPoses,
    ReturningHeadPoses,
    ScaledHeadPoses,
    read_head_pose,
)
from datasets.errors import DataError


def ramp(frames: int) -> np.ndarray:
    return np.arange(6 * frames, dtype=np.float32).reshape(frames, 6)


def sound(frames: int) -> np.ndarray:
    return np.zeros((frames, 4, 41), np.float32)


def test_scaling_is_about_the_first_pose_and_keeps_the_pictures_own():
    def made(scale: float) -> tuple[np.ndarray, HeadPoses]:
        poses = ScaledHeadPoses(GivenHeadPoses(ramp(3), after_P=np.full(6, 9.0)), scale)
        return np.concatenate([poses.follow(sound(2)), poses.follow(sound(1))]), poses

    (still_TP, still), (twice_TP, twice) = made(0.0), made(2.0)
    assert np.array_equal(still_TP, np.repeat(ramp(1), 3, axis=0)) and np.array_equal(still.after_P, ramp(1)[0])
    assert np.array_equal(twice_TP[2], ramp(1)[0] + 2 * (ramp(3)[2] - ramp(1)[0]))
    assert np.array_equal(twice.after_P, 18 - ramp(1)[0]) and np.array_equal(twice.reference_P, ramp(1)[0])


def test_heads_come_back_from_where_they_have_gone_and_still_nod():
    """A step to a wrong place is gone after some of the given seconds, a fast sway stays; pieces change nothing."""
    step_TP = np.full((200, 6), 5, np.float32)
    step_TP[0] = 1
    poses = ReturningHeadPoses(GivenHeadPoses(step_TP), seconds=2.0)
    back_TP = np.concatenate([poses.follow(sound(n)) for n in (1, 60, 139)])
    assert (back_TP[0] == 1).all() and back_TP[1].min() > 4.8
    np.testing.assert_allclose(back_TP[51], 1 + 4 * np.exp(-1), atol=0.1)  # after two seconds
    np.testing.assert_allclose(back_TP[199], 1, atol=0.1)
    np.testing.assert_allclose(poses.after_P, back_TP[199], atol=1e-5)
    np.testing.assert_array_equal(back_TP, ReturningHeadPoses(GivenHeadPoses(step_TP), 2.0).follow(sound(200)))
    assert step_TP[1:].min() == 5  # the poses that were given are as they were
    nod_TP = np.sin(2 * np.pi * np.arange(200) / 25)[:, None].astype(np.float32).repeat(6, 1)  # one a second
    kept_TP = ReturningHeadPoses(GivenHeadPoses(nod_TP), 2.0).follow(sound(200))
    assert kept_TP[100:].std() > 0.95 * nod_TP[100:].std()


@pytest.mark.parametrize("frames", [2, 5])
def test_given_poses_are_cut_or_go_on_with_the_last(frames):
    kept = []
    poses = KeptHeadPoses(GivenHeadPoses(ramp(3)), kept)
    found = np.concatenate([poses.follow(sound(1)), poses.follow(sound(frames - 1))])
    expected = ramp(3)[[min(i, 2) for i in range(frames)]]
    assert np.array_equal(found, expected) and np.array_equal(poses.after_P, expected[-1])
    assert np.array_equal(np.concatenate(kept), expected)


@pytest.mark.parametrize("arrays", [{"pose": ramp(3)}, {"head_pose": ramp(3)[:, :5]}, {"head_pose": ramp(3)[:0]}])
def test_a_file_without_poses_is_refused(tmp_path, arrays):
    np.savez(tmp_path / "pose.npz", **arrays)
    with pytest.raises(DataError, match=r"pose.npz should hold an array head_pose \[T, 6\]"):
        read_head_pose(tmp_path / "pose.npz")
