"""Motion kept in a file and rendered again."""

import numpy as np
import pytest
import torch

from animation.motion_file import MotionRecorder, Plan, load_motion, saved_plan
from datasets.errors import DataError
from modules.keypoints import Keypoints


def some(count: int, jacobians: bool = True) -> Keypoints:
    torch.manual_seed(count)
    return Keypoints(torch.rand(count, 3, 2), torch.rand(count, 3, 2, 2) if jacobians else None)


def recorded(path, source: Keypoints, driving: Keypoints) -> None:
    recorder = MotionRecorder(source)
    plan = Plan(30.0, 4, recorder.record(iter([driving.cut(0, 3), driving.cut(3, 4)])), [np.zeros((4, 6), np.float32)])
    for _ in plan.chunks:
        pass
    recorder.motion(plan).save(path)


def test_motion_comes_back_as_it_was(tmp_path):
    source, driving = some(1), some(4)
    recorded(tmp_path / "m.npz", source, driving)
    plan = saved_plan(tmp_path / "m.npz", source)
    (again,) = plan.chunks
    assert plan.fps == 30 and plan.frames == 4 and plan.head_pose_TP.shape == (4, 6)
    assert torch.equal(again.position_BK2, driving.position_BK2)
    assert torch.equal(again.jacobian_BK22, driving.jacobian_BK22)


def test_without_jacobians_the_file_holds_identities(tmp_path):
    recorded(tmp_path / "m.npz", some(1, False), some(4, False))
    motion = load_motion(tmp_path / "m.npz")
    assert np.array_equal(motion.jacobians, np.tile(np.eye(2, dtype=np.float32), (4, 3, 1, 1)))
    (again,) = saved_plan(tmp_path / "m.npz", some(1, False)).chunks
    assert again.jacobian_BK22 is None


def test_motion_of_another_number_of_keypoints_is_refused(tmp_path):
    recorded(tmp_path / "m.npz", some(1), some(4))
    source = Keypoints(torch.zeros(1, 5, 2), torch.zeros(1, 5, 2, 2))
    with pytest.raises(DataError, match="has 3 keypoints, this model 5"):
        saved_plan(tmp_path / "m.npz", source)
