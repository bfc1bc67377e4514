"""A rigid head before the camera: the camera and the angles are those of the data."""

import numpy as np
import torch

from datasets.face.rigid_pose import rotation_matrix
from datasets.pose import BOX_SIZE, FOCAL_LENGTH
from modules.rigid import FOCAL, on_head, rotation, seen


def test_camera_and_angles_are_those_of_the_data():
    assert FOCAL_LENGTH / (BOX_SIZE / 2) == FOCAL
    angles = np.random.default_rng(0).uniform(-1, 1, (20, 3))
    assert np.allclose(rotation(torch.from_numpy(angles)).numpy(), rotation_matrix(angles))


def test_points_are_seen_where_they_were_found():
    torch.manual_seed(0)
    position, pose = torch.rand(3, 5, 2) - 0.5, torch.randn(3, 6) * 0.1 + torch.tensor([0, 0, 0, 9, -9, 300.0])
    place = on_head(position, torch.linspace(-40, 40, 5), pose)
    assert torch.allclose(place[..., 2], torch.linspace(-40, 40, 5).expand(3, -1), atol=1e-3)
    assert torch.allclose(seen(place, pose[:, None])[:, 0], position, atol=1e-5)
