"""Head pose of a face mesh: rigid alignment, cameras, smoothing."""

import numpy as np

from datasets.face.openface import default_camera
from datasets.face.rigid_pose import (
    _turn_to,
    align,
    euler,
    face_model,
    pose_of,
    rotation_matrix,
    smooth,
    to_other_camera,
)
from datasets.pose import CAMERA_MATRIX, FOCAL_LENGTH


def random_poses(count, seed=0):
    random = np.random.default_rng(seed)
    return np.concatenate(
        [random.uniform(-0.5, 0.5, (count, 3)), random.uniform([-60, -40, 200], [60, 40, 400], (count, 3))], axis=1
    )


def picture_mesh(pose_TP, focal=FOCAL_LENGTH, centre=(128.0, 128.0)):
    """What a mesh detector sees: a flat picture of the face, seen along the line of sight to its middle."""
    rotation = rotation_matrix(pose_TP[:, :3])
    middle = pose_TP[:, 3:] + rotation @ face_model().mean(axis=0)
    seen = _turn_to(middle / middle[:, 2:]).transpose(0, 2, 1) @ rotation
    scale = focal / middle[:, 2]
    points = np.einsum("t,tij,nj->tni", scale, seen, face_model() - face_model().mean(axis=0))
    points[..., :2] += (middle[:, :2] / middle[:, 2:] * focal + centre)[:, None]
    return points


def test_euler_angles_go_there_and_back():
    angles = random_poses(50)[:, :3]
    np.testing.assert_allclose(euler(rotation_matrix(angles)), angles, atol=1e-12)


def test_euler_angles_are_openface_s():
    """R = Rx Ry Rz: a point on the x axis under yaw alone goes away from the camera for positive ry."""
    turned = rotation_matrix(np.array([[0.0, 0.3, 0.0]]))[0] @ [1, 0, 0]
    np.testing.assert_allclose(turned, [np.cos(0.3), 0, -np.sin(0.3)], atol=1e-12)


def test_pose_of_a_projected_face_is_found():
    truth = random_poses(40)
    np.testing.assert_allclose(pose_of(picture_mesh(truth)), truth, atol=1e-6)
    other = pose_of(picture_mesh(truth, 500.0, (320.0, 240.0)), 500.0, (320.0, 240.0))
    np.testing.assert_allclose(other, truth, atol=1e-6)


def test_a_head_beside_the_middle_does_not_seem_to_look_aside():
    pose = np.array([[0.0, 0.0, 0.0, 70.0, 0.0, 250.0]])
    turned = picture_mesh(pose)
    assert abs(pose_of(turned)[0, 1]) < 1e-6
    assert abs(euler(align(turned, face_model())[1])[0, 1]) > 0.2  # what the turn to the line of sight is for


def test_face_model_is_symmetric_and_of_human_size():
    model = face_model()
    assert model.shape == (468, 3)
    width, height = np.ptp(model[:, 0]), np.ptp(model[:, 1])
    assert 115 < width < 155 and 145 < height < 190
    mirrored = model * [-1, 1, 1]
    nearest = np.linalg.norm(mirrored[:, None] - model[None], axis=-1).min(axis=1)
    assert nearest.max() < 0.01


def test_another_camera_shows_the_head_at_the_same_place():
    truth = random_poses(20, seed=1) * [1, 1, 1, 1, 1, 1.5]
    focal, centre = default_camera(480, 640)
    corner, zoom = (150.0, 60.0), 256 / 300
    moved = to_other_camera(truth, focal, centre, corner, zoom)
    there = (truth[:, 3:5] / truth[:, 5:] * focal + centre - corner) * zoom
    here = moved[:, 3:] @ CAMERA_MATRIX.T
    np.testing.assert_allclose(here[:, :2] / here[:, 2:], there, atol=1e-3)
    np.testing.assert_allclose(FOCAL_LENGTH / moved[:, 5], zoom * focal / truth[:, 5], rtol=1e-9)  # size in pixels
    same = to_other_camera(truth, FOCAL_LENGTH, (128, 128), (0, 0), 1.0)
    np.testing.assert_allclose(same, truth, atol=1e-9)


def test_smoothing_keeps_a_still_head_and_calms_noise():
    still = np.ones((20, 6))
    np.testing.assert_allclose(smooth(still), still)
    noise = np.random.default_rng(0).normal(size=(200, 6))
    assert np.diff(smooth(noise), 2, axis=0).std() < 0.4 * np.diff(noise, 2, axis=0).std()
