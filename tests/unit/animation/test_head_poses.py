"""Head poses: padding, scaling, and what may be given instead of N_H's."""

import numpy as np
import pytest

from animation.head_poses import HeadPoses, given_head_poses, read_head_pose
from datasets.errors import DataError


def ramp(frames: int) -> np.ndarray:
    return np.arange(6 * frames, dtype=np.float32).reshape(frames, 6)


def test_past_the_end_stands_the_pose_for_after():
    poses = HeadPoses(ramp(3), np.full(6, 9.0))
    assert np.array_equal(poses.slice(1, 5), [ramp(3)[1], ramp(3)[2], np.full(6, 9.0), np.full(6, 9.0)])
    assert np.array_equal(poses.reference_P, ramp(3)[0])


def test_scaling_is_about_the_first_pose_and_keeps_the_pictures_own():
    poses = HeadPoses(ramp(3), ramp(4)[3], np.full(6, 7.0))
    still, twice = poses.scaled(0.0), poses.scaled(2.0)
    assert np.array_equal(still.frames_TP, np.repeat(ramp(1), 3, axis=0)) and np.array_equal(still.after_P, ramp(1)[0])
    assert np.array_equal(twice.frames_TP[2], ramp(1)[0] + 2 * (ramp(3)[2] - ramp(1)[0]))
    assert np.array_equal(twice.reference_P, np.full(6, 7.0))


@pytest.mark.parametrize("frames", [2, 5])
def test_given_poses_are_cut_or_go_on_with_the_last(frames):
    poses = given_head_poses(ramp(3), frames)
    expected = ramp(3)[[min(i, 2) for i in range(frames)]]
    assert np.array_equal(poses.frames_TP, expected) and np.array_equal(poses.after_P, expected[-1])


@pytest.mark.parametrize("arrays", [{"pose": ramp(3)}, {"head_pose": ramp(3)[:, :5]}, {"head_pose": ramp(3)[:0]}])
def test_a_file_without_poses_is_refused(tmp_path, arrays):
    np.savez(tmp_path / "pose.npz", **arrays)
    with pytest.raises(DataError, match=r"pose.npz should hold an array head_pose \[T, 6\]"):
        read_head_pose(tmp_path / "pose.npz")
