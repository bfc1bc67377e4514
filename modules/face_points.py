"""Keypoints that stage one ties to lips and lids (ours; FOMM leaves all of them free): where they lie, how far apart.

Letters: B batch, K keypoint, N wanted distance.
"""

import torch
from torch import Tensor

LIPS = 4  # keypoints that can be tied to the mouth: its left and right corner in the picture, upper and lower lip
LIDS = 4  # before those, that can be tied to the eyes: upper and lower lid of the left one in the picture, of the right
LIP_UNIT = 0.05  # in [-1, 1]; about three deviations of the opening in speech, where a face fills the picture
# Of the way by which lips part, the upper one's and the lower one's (measured on N_D's keypoints of 65 people).
LIP_SHARES = (0.4, 0.6)


def lip_points(box_B4: Tensor, turn_B: Tensor, gain: float = 1.0) -> Tensor:
    """Corners of a mouth and the middles of its lips, [B, 4, 2] in [-1, 1], from its box (left, top, right, bottom).

    The box (of `datasets.clips.mouth_boxes`) is rotated by `turn_B` (radians, clockwise in the picture), 1.5 mouths
    wide, and as high as the mouth is wide plus its opening. An eighth of the mouth's width is taken for half the
    thickness of both lips, so that the points of a closed mouth do not coincide. `gain`: how much further apart the lip
    points are than the lips. From the box of an eye come its corners and the middles of its lids.
    """
    centre_B2 = (box_B4[:, :2] + box_B4[:, 2:]) / 2
    width_B = (box_B4[:, 2] - box_B4[:, 0]) / 1.5
    opening_B = box_B4[:, 3] - box_B4[:, 1] - width_B
    side_B, lip_B, none_B = width_B / 2, gain * opening_B / 2 + width_B / 8, torch.zeros_like(width_B)
    x_B4 = torch.stack([-side_B, side_B, none_B, none_B], dim=1)
    y_B4 = torch.stack([none_B, none_B, -lip_B, lip_B], dim=1)
    cos_B1, sin_B1 = turn_B.cos()[:, None], turn_B.sin()[:, None]
    turned_B42 = torch.stack([x_B4 * cos_B1 - y_B4 * sin_B1, x_B4 * sin_B1 + y_B4 * cos_B1], dim=-1)
    return centre_B2[:, None] + turned_B42


def lid_points(box_B24: Tensor, turn_B: Tensor, gain: float = 1.0) -> Tensor:
    """The middles of the lids in the order of LIDS, [B, 4, 2] in [-1, 1], from both eyes' boxes (`lip_points`)."""
    return torch.cat([lip_points(box_B24[:, eye], turn_B, gain)[:, 2:] for eye in (0, 1)], dim=1)


def with_openings(position_BK2: Tensor, lips_B42: Tensor, lids_B42: Tensor, chosen_B: Tensor) -> Tensor:
    """Keypoints whose lips and lids are as far apart as given ones, about the middles that they have (ours).

    Corners of the mouth, and what all other keypoints say, stay.

    Args:
        position_BK2: the last keypoints are tied to lids (4) and lips (4).
        lips_B42, lids_B42: of `lip_points` and `lid_points`.
        chosen_B: 1 where it is done, 0 where nothing changes.
    """
    lids = position_BK2.shape[1] - LIPS - LIDS
    corners, lips = lids + LIDS, lids + LIDS + 2
    parted_B62 = torch.cat([position_BK2[:, lids:corners], position_BK2[:, lips:]], dim=1)
    pairs_B322 = parted_B62.unflatten(1, (3, 2))  # upper and lower, three times
    wanted_B322 = torch.cat([lids_B42, lips_B42[:, 2:]], dim=1).unflatten(1, (3, 2))
    moved_B322 = pairs_B322.mean(2, keepdim=True) + wanted_B322 - wanted_B322.mean(2, keepdim=True)
    moved_B322 = torch.where(chosen_B[:, None, None, None] > 0, moved_B322, pairs_B322)
    moved_lids_B42, moved_lips_B22 = moved_B322.flatten(1, 2).split([LIDS, 2], dim=1)
    return torch.cat([position_BK2[:, :lids], moved_lids_B42, position_BK2[:, corners:lips], moved_lips_B22], dim=1)


def lip_motion(position_K2: Tensor) -> Tensor:
    """How far lips and corners that `losses.place_l1` has tied are apart, in units of 0.05: [..., K, 2] -> [..., 2].

    Width is the corners' distance, opening the lips' distance at right angles to it, so a tilted head changes neither.
    """
    left, right, upper, lower = position_K2[..., -LIPS:, :].unbind(-2)
    across, down = right - left, lower - upper
    width = (across.square().sum(-1) + 1e-12).sqrt()  # the root of 0 has no gradient
    opening = (across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]) / width
    return torch.stack([opening, width], dim=-1) / LIP_UNIT


def lid_motion(position_42: Tensor) -> Tensor:
    """How far the lids of each eye are apart, in units of 0.05: [..., 4, 2] -> [..., 2]."""
    apart = position_42[..., 1::2, :] - position_42[..., ::2, :]
    return (apart.square().sum(-1) + 1e-12).sqrt() / LIP_UNIT


def apart_when_closed(position_K2: Tensor) -> Tensor:
    """How far the lips' keypoints are apart in a closed mouth so wide, in units of 0.05: [..., K, 2] -> [...]."""
    return lip_motion(position_K2)[..., 1] / 4  # as `lip_points` has them


def with_lips_apart(position_K2: Tensor, apart: Tensor) -> Tensor:
    """Keypoints whose lips are so far apart, in units of 0.05; the corners of the mouth and all others stay.

    Args:
        position_K2: [..., K, 2], the last four tied to the lips.
        apart: [...], as the first of `lip_motion`.
    """
    opening, width = lip_motion(position_K2).unbind(-1)
    across = (position_K2[..., 1 - LIPS, :] - position_K2[..., -LIPS, :]) / (width * LIP_UNIT)[..., None]
    down = torch.stack([-across[..., 1], across[..., 0]], dim=-1)
    step = ((apart - opening) * LIP_UNIT)[..., None] * down
    upper, lower = position_K2[..., -2, :] - LIP_SHARES[0] * step, position_K2[..., -1, :] + LIP_SHARES[1] * step
    return torch.cat([position_K2[..., :-2, :], torch.stack([upper, lower], dim=-2)], dim=-2)


def with_closed_lips(position_K2: Tensor) -> Tensor:
    """Keypoints [..., K, 2], the last four tied to the lips, of the same face with its mouth closed."""
    return with_lips_apart(position_K2, apart_when_closed(position_K2))
