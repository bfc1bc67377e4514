"""A rigid head before the camera of its poses (`datasets.pose`): where points of the picture lie on it, and where they
are seen once it has moved.

Rotations are OpenFace's Euler angles, R = Rx Ry Rz; axes are x right, y down, z away from the camera. All of it is
written in sums by element, which stay in float32 under autocast and TF32.

Letters: B batch, T frame, K point, P pose value (rx, ry, rz in rad; tx, ty, tz in mm).
"""

import torch
from torch import Tensor

FOCAL = 233.333 / 128  # of the camera, for positions in [-1, 1]: a test holds it against `datasets.pose.FOCAL_LENGTH`
# A head in profile has no depth along a line of sight. So a point is sought no nearer and no further than by these
# parts of the head's distance, and nothing lies behind the camera, whatever the poses.
LEAST_SLOPE, NEAREST_PART, FARTHEST_PART, NEAREST_MM = 0.25, 0.5, 2.0, 10.0


def rotation(angle: Tensor) -> Tensor:
    """Angles [..., 3] -> R [..., 3, 3]."""
    (sx, sy, sz), (cx, cy, cz) = angle.sin().unbind(-1), angle.cos().unbind(-1)
    rows = (
        (cy * cz, -cy * sz, sy),
        (cx * sz + sx * sy * cz, cx * cz - sx * sy * sz, -sx * cy),
        (sx * sz - cx * sy * cz, sx * cz + cx * sy * sz, cx * cy),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _turned(rotation_33: Tensor, point_3: Tensor) -> Tensor:
    """R x, by element: [..., 3, 3] and [..., 3] -> [..., 3]."""
    return (rotation_33 * point_3[..., None, :]).sum(-1)


def on_head(position_BK2: Tensor, depth_BK: Tensor, pose_BP: Tensor) -> Tensor:
    """Where points of the picture lie in the head's own frame, mm [B, K, 3]; seen from there they are where they were.

    Args:
        position_BK2: in [-1, 1].
        depth_BK: their z in the head's frame, mm, which the picture does not tell.
        pose_BP: of the head in the picture.
    """
    back_B133 = rotation(pose_BP[:, :3]).mT[:, None]
    sight_BK3 = torch.cat([position_BK2 / FOCAL, torch.ones_like(position_BK2[..., :1])], dim=-1)
    sight_BK3 = _turned(back_B133, sight_BK3)
    middle_B13 = _turned(back_B133, pose_BP[:, None, 3:])
    away_BK = (depth_BK + middle_B13[..., 2]) / sight_BK3[..., 2].clamp(min=LEAST_SLOPE)
    head_B1 = pose_BP[:, 5:].clamp(min=2 * NEAREST_MM)
    away_BK = away_BK.clamp(NEAREST_PART * head_B1, FARTHEST_PART * head_B1)
    return away_BK[..., None] * sight_BK3 - middle_B13


def seen(place_BK3: Tensor, pose_BTP: Tensor) -> Tensor:
    """Points of the head's frame (mm), as poses show them: [B, T, K, 2] in [-1, 1]."""
    turn_BT133 = rotation(pose_BTP[..., :3])[:, :, None]
    point_BTK3 = _turned(turn_BT133, place_BK3[:, None]) + pose_BTP[:, :, None, 3:]
    return FOCAL * point_BTK3[..., :2] / point_BTK3[..., 2:].clamp(min=NEAREST_MM)
