"""Head pose from a face mesh: rigid alignment of all 468 points with a face model in millimetres.

The mesh is a weak-perspective picture of the face: pixels = scale * R * model + place. The similarity is solved in
closed form (Procrustes), and the pinhole camera gives the distance, f / scale. Last, the rotation is turned from the
line of sight to the camera's axis: otherwise a head beside the picture's middle seems to look aside (yaw against
OpenFace: correlation 0.40 without this turn, 0.99 with it).

The model (`face_model.csv`) is the symmetric mean mesh of 12 GRID speakers (CC BY 4.0). Its scale, its origin and its
frontal tilt are OpenFace's, fitted on two videos that OpenFace had measured: see `benchmarks/pose_agreement.py`.
Axes as OpenFace's: x right, y down, z away from the camera; rotation as Euler angles, R = Rx(rx) Ry(ry) Rz(rz).

Letters: T video frame, P pose value (rx, ry, rz in rad, tx, ty, tz in mm).
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from datasets.pose import BOX_SIZE, FOCAL_LENGTH

SMOOTHING_S = 0.04  # standard deviation: one frame at 25 fps


@lru_cache
def face_model() -> np.ndarray:
    """[468, 3] mm, in the head's frame."""
    return np.loadtxt(Path(__file__).with_name("face_model.csv"), delimiter=",", skiprows=1)


def align(mesh_TN3: np.ndarray, model_N3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares similarity of centred points: mesh = scale * R * model -> scale [T], R [T, 3, 3]."""
    model, mesh = model_N3 - model_N3.mean(axis=0), mesh_TN3 - mesh_TN3.mean(axis=1, keepdims=True)
    u, singular, vt = np.linalg.svd(np.einsum("tni,nj->tij", mesh, model))
    sign = np.ones_like(singular)
    sign[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotation = (u * sign[:, None]) @ vt
    return (singular * sign).sum(axis=1) / (model**2).sum(), rotation


def pose_of(
    mesh_TN3: np.ndarray, focal: float = FOCAL_LENGTH, centre: tuple[float, float] = (BOX_SIZE / 2,) * 2
) -> np.ndarray:
    """Meshes [T, 468, 3], all found -> pose [T, 6], rad and mm. `focal` and `centre` in the mesh's pixels."""
    scale, rotation = align(mesh_TN3.astype(np.float64), face_model())
    middle = mesh_TN3.mean(axis=1)
    sight = np.column_stack(
        [(middle[:, 0] - centre[0]) / focal, (middle[:, 1] - centre[1]) / focal, np.ones(len(middle))]
    )
    rotation = _turn_to(sight) @ rotation
    place = sight * (focal / scale)[:, None] - rotation @ face_model().mean(axis=0)
    return np.concatenate([euler(rotation), place], axis=1)


def _turn_to(sight_T3: np.ndarray) -> np.ndarray:
    """The shortest rotations [T, 3, 3] from the camera's axis to lines of sight (Rodrigues' formula)."""
    x, y, z = (sight_T3 / np.linalg.norm(sight_T3, axis=1, keepdims=True)).T
    zero = np.zeros_like(x)
    cross = np.stack([np.stack([zero, zero, x]), np.stack([zero, zero, y]), np.stack([-x, -y, zero])]).transpose(
        2, 0, 1
    )
    return np.eye(3) + cross + cross @ cross / (1 + z)[:, None, None]


def euler(rotation_T33: np.ndarray) -> np.ndarray:
    """Rotation matrices -> OpenFace's angles (rx, ry, rz) [T, 3] rad, R = Rx Ry Rz."""
    r = rotation_T33
    return np.stack(
        [
            np.arctan2(-r[:, 1, 2], r[:, 2, 2]),
            np.arcsin(np.clip(r[:, 0, 2], -1, 1)),
            np.arctan2(-r[:, 0, 1], r[:, 0, 0]),
        ],
        axis=1,
    )


def fill_gaps(value_TP: np.ndarray) -> np.ndarray:
    """Rows of NaN -> interpolated in time; ends are held. At least one row must be whole."""
    missing = ~np.isfinite(value_TP).all(axis=1)
    time = np.arange(len(value_TP))
    filled = value_TP.copy()
    for column in filled.T:
        column[missing] = np.interp(time[missing], time[~missing], column[~missing])
    return filled


def smooth(pose_TP: np.ndarray, fps: float = 25.0) -> np.ndarray:
    """Gaussian in time, standard deviation SMOOTHING_S; ends are held."""
    from scipy.ndimage import gaussian_filter1d  # slow to import

    return gaussian_filter1d(pose_TP, SMOOTHING_S * fps, axis=0, mode="nearest")


def to_other_camera(
    pose_TP: np.ndarray,
    focal: float,
    centre: tuple[float, float],
    corner: tuple[float, float],
    zoom: float,
) -> np.ndarray:
    """A pose measured in a whole picture -> the pose of the same head in a crop of it, in the released camera.

    The crop shows picture point p at zoom * (p - corner). Weak perspective: position and size in the crop, and the
    rotation relative to the line of sight, stay what they are in the picture.

    Args:
        pose_TP: [T, 6] in a camera of `focal` and `centre` (pixels of the picture).
    """
    place = pose_TP[:, 3:]
    sight = place / place[:, 2:]
    pixel = sight[:, :2] * focal + centre
    depth = place[:, 2] * FOCAL_LENGTH / (focal * zoom)
    crop_sight = np.column_stack([((pixel - corner) * zoom - BOX_SIZE / 2) / FOCAL_LENGTH, np.ones(len(pose_TP))])
    rotation = _turn_to(crop_sight) @ _turn_to(sight).transpose(0, 2, 1) @ rotation_matrix(pose_TP[:, :3])
    return np.concatenate([euler(rotation), crop_sight * depth[:, None]], axis=1)


def rotation_matrix(angle_T3: np.ndarray) -> np.ndarray:
    """OpenFace's angles (rx, ry, rz) -> R = Rx Ry Rz, [T, 3, 3]. Inverse of `euler`."""
    (a, b, c), (d, e, f) = np.cos(angle_T3).T, np.sin(angle_T3).T
    return np.stack(
        [
            np.stack([b * c, -b * f, e]),
            np.stack([a * f + d * e * c, a * c - d * e * f, -d * b]),
            np.stack([d * f - a * e * c, d * c + a * e * f, a * b]),
        ]
    ).transpose(2, 0, 1)
