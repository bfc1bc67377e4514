"""Ours: N_M's relative head, which moves the reference picture's own keypoints instead of finding them in every frame.

Letters: B batch, T frame of a window, A audio window in a frame (4), F audio feature, S all features of a frame,
K keypoint, V value of a keypoint's change, C channel, H W M side of a map, P pose value (6).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from modules.face_points import apart_when_closed, lip_motion, with_closed_lips, with_lips_apart
from modules.keypoints import Keypoints, coordinate_grid, gaussian_heatmaps
from modules.rigid import on_head, seen

# Of head poses (rad, mm), and of how far a keypoint lies before or behind the head's middle. What is learned of them
# needs no large weights then, for which there are too few steps.
POSE_UNITS = (0.035, 0.035, 0.035, 3.5, 3.5, 3.5)
DEPTH_MM = 300.0
PLACE_MM = 100.0  # of where a keypoint lies on the head
MOST_SHARE = 1.25  # that a keypoint has in the head's motion
AUDIO_MAP_SIZE = 32  # side of E_A's map before it is enlarged to M


class MotionField(NamedTuple):
    """Keypoints of every frame of a window; the heatmaps are those of Eq. 5, None from the relative head."""

    position_BTK2: Tensor
    jacobian_BTK22: Tensor | None
    heatmap_BTKHW: Tensor | None

    @property
    def keypoints(self) -> Keypoints:
        """All of them, [B, T, K, ...]."""
        return Keypoints(self.position_BTK2, self.jacobian_BTK22)

    def frames(self, chosen_BR: Tensor) -> Keypoints:
        """Keypoints of R chosen frames of each window, as one batch of B * R sets."""
        rows = torch.arange(len(chosen_BR), device=chosen_BR.device)[:, None]
        return self.keypoints.map(lambda part: part[rows, chosen_BR].flatten(0, 1))

    def window(self, index: int) -> Keypoints:
        """The T keypoint sets of one window of the batch."""
        return self.keypoints.map(lambda part: part[index])


class Reference(NamedTuple):
    """What the relative head goes on from: N_D's keypoints of the reference picture, and its head pose."""

    keypoints: Keypoints
    head: Tensor  # box [B, 256, 256] of 0 and 255, or pose [B, 6], as those of the window


def box_moments(map_BTMM: Tensor) -> Tensor:
    """Where a pose box lies and how far it spreads: mean x, y and covariance xx, yy, xy of its lines -> [B, T, 5].

    Coordinates are those of keypoints, [-1, 1]. They show a head's shift, distance and roll directly, turns less so.
    Float32 in any case.
    """
    weight = map_BTMM.float()
    weight = weight / weight.sum((-2, -1), keepdim=True).clamp(min=1e-6)
    grid = coordinate_grid(*map_BTMM.shape[-2:], like=weight)
    mean = (weight[..., None] * grid).sum((2, 3))  # (B, T, 2)
    x, y = (grid - mean[:, :, None, None]).unbind(-1)
    spread = torch.stack([x * x, y * y, x * y], dim=-1)
    return torch.cat([mean, (weight[..., None] * spread).sum((2, 3))], dim=-1)


def _temporal_path(width: int, told: int, outputs: int, dropout: float) -> tuple[nn.Sequential, nn.Conv1d]:
    """The path over time of both heads: convolutions (16 frames to each side) over what is heard and what is told
    beside it (so many values), and the layer that reads the change off their result and the latter.

    The layer is zero before training.
    """
    layers: list[nn.Module] = []
    for n, dilation in enumerate((1, 2, 4, 1)):
        inputs = width + told if n == 0 else width
        conv = nn.Conv1d(inputs, width, 5, padding=2 * dilation, dilation=dilation)
        layers += [conv, nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)]
    change = nn.Conv1d(width + told, outputs, 1)
    nn.init.zeros_(change.weight)
    nn.init.zeros_(change.bias)
    return nn.Sequential(*layers), change


def _mouth(reference: Keypoints, closed_lips: bool, frames: int) -> Tensor:
    """How far the reference's mouth is open, for lips that start closed, [B, 1, T], the same in each of so many frames;
    otherwise [B, 0, T].
    """
    position = reference.position_BK2
    if not closed_lips:
        return position.new_zeros(len(position), 0, frames)
    return (lip_motion(position)[:, 0] - apart_when_closed(position))[:, None, None].expand(-1, 1, frames)


class RelativeHead(nn.Module):
    """Ours: how each of the reference's keypoints moves; zero before training.

    Two parts are added: one reads Hourglass-3D's features around each keypoint; the other is a short path of temporal
    convolutions (16 frames to each side) from E_A's maps and the box's motion, which learns from minutes of video.
    """

    def __init__(self, channels: int, num_keypoints: int, jacobians: bool, closed_lips: bool, width: int = 128):
        super().__init__()
        self.values = 6 if jacobians else 2  # x, y; then the 2x2 Jacobian, row-major
        self.closed_lips = closed_lips
        self.weight = nn.Parameter(torch.zeros(num_keypoints, channels, self.values))
        self.listen = nn.Linear(2 * AUDIO_MAP_SIZE**2, width)
        self.temporal, self.change = _temporal_path(width, 5 + closed_lips, num_keypoints * self.values, dropout=0.1)

    def forward(
        self, features_BCTHW: Tensor, audio_BT2HW: Tensor, pose_BTMM: Tensor, pose_B1MM: Tensor, reference: Keypoints
    ) -> MotionField:
        """-> keypoints of the window's frames.

        Args:
            features_BCTHW: of Hourglass-3D.
            audio_BT2HW, pose_BTMM, pose_B1MM: maps that went into it, the last of the reference's box.
            reference: keypoints of the reference picture, as N_D finds them.
        """
        height, width = features_BCTHW.shape[-2:]
        around_BKHW = gaussian_heatmaps(reference.position_BK2, height, width)
        around_BKHW = around_BKHW / around_BKHW.sum((-2, -1), keepdim=True)
        # A matrix product may run in bfloat16 here: these are features, not coordinates.
        pooled = torch.einsum("bcthw,bkhw->btkc", features_BCTHW, around_BKHW.to(features_BCTHW))
        change = torch.einsum("btkc,kcv->btkv", pooled, self.weight.to(pooled)).float()
        heard = self.listen(audio_BT2HW.flatten(2)).mT
        moved = (box_moments(pose_BTMM) - box_moments(pose_B1MM)).mT * 10
        told = torch.cat([moved, _mouth(reference, self.closed_lips, moved.shape[-1])], dim=1).to(heard)
        heard = self.temporal(torch.cat([heard, told], dim=1))
        direct = self.change(torch.cat([heard, told], dim=1)).float()
        change = change + direct.mT.unflatten(2, (-1, self.values))
        return moved_keypoints(reference, change, self.closed_lips)


class Listener(nn.Module):
    """Ours: what sound does to keypoints, by temporal convolutions (16 frames to each side); zero before training.

    It hears the features themselves, and is told how the reference's keypoints lie: whether its mouth is open, how
    large it is.
    """

    # In training: few voices are otherwise learned by heart.
    NOISE, DROPOUT = 1.0, 0.4  # noise on features of deviation 1

    def __init__(self, num_features: int, num_keypoints: int, values: int, closed_lips: bool, width: int = 160):
        super().__init__()
        self.listen = nn.Linear(4 * num_features, width)
        self.look = nn.Linear(2 * num_keypoints, width)
        self.temporal, self.change = _temporal_path(width, int(closed_lips), num_keypoints * values, self.DROPOUT)

    def forward(self, sound_BTS: Tensor, place_BV: Tensor, mouth_B1T: Tensor) -> Tensor:
        """Args: features, the reference's keypoints about their middle, its mouth -> changes [B, T, K * V]."""
        if self.training:
            sound_BTS = sound_BTS + self.NOISE * torch.randn_like(sound_BTS)
        heard = self.listen(sound_BTS) + self.look(place_BV)[:, None]
        mouth_B1T = mouth_B1T.to(heard)
        heard = self.temporal(torch.cat([heard.mT, mouth_B1T], dim=1))
        return self.change(torch.cat([heard, mouth_B1T], dim=1)).float().mT


class CarriedByHead(nn.Module):
    """Ours: keypoints as points of a rigid head, seen by the camera of its poses.

    A keypoint lies in the picture, and so far before or behind the head's middle as is learned for where it lies on the
    head; its Jacobian follows the pose by a learned linear map. Unlike a map from poses to positions this holds for
    heads of any size at any place, and for wide turns. What of a keypoint's motion is not the head's is learned for its
    place, too: one may lie in the hair of one person and on the shoulders of another.
    """

    def __init__(self, num_keypoints: int, jacobians: bool):
        super().__init__()
        # Of 1, x, y, x^2, y^2, xy: depth in DEPTH_MM, behind the head's middle is more; and what the share lacks of 1.
        self.by_place = nn.Parameter(torch.zeros(num_keypoints, 6, 2))
        self.turn = nn.Linear(len(POSE_UNITS), num_keypoints * 4, bias=False) if jacobians else None
        if jacobians:
            nn.init.zeros_(self.turn.weight)
        self.register_buffer("units", torch.tensor(POSE_UNITS), persistent=False)

    def forward(self, pose_BTP: Tensor, pose_B1P: Tensor, position_BK2: Tensor) -> Tensor:
        """Poses of frames and reference (rad, mm), the reference's positions -> changes [B, T, K, 2 or 6]."""
        pose_BTP, pose_B1P = pose_BTP.float(), pose_B1P.float()
        depth_BK, share_BK = self.of_places(position_BK2, pose_B1P[:, 0])
        place_BK3 = on_head(position_BK2, depth_BK, pose_B1P[:, 0])
        change = share_BK[:, None, :, None] * (seen(place_BK3, pose_BTP) - position_BK2[:, None])
        if self.turn is None:
            return change
        turn = self.turn((pose_BTP - pose_B1P) / self.units).float().unflatten(2, (-1, 4))
        return torch.cat([change, turn], dim=-1)

    def of_places(self, position_BK2: Tensor, pose_BP: Tensor) -> tuple[Tensor, Tensor]:
        """Depth (mm) and share in the head's motion, [B, K] each, quadratic in the keypoint's place on the head."""
        flat_BK3 = on_head(position_BK2, torch.zeros_like(position_BK2[..., 0]), pose_BP)
        x, y = (flat_BK3[..., :2] / PLACE_MM).clamp(-2, 2).unbind(-1)
        powers_BK6 = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], dim=-1)
        depth_BK, less_BK = (powers_BK6[..., None] * self.by_place).sum(2).unbind(-1)  # float32 under autocast
        return depth_BK * DEPTH_MM, (1 - less_BK).clamp(0, MOST_SHARE)


class TemporalHead(nn.Module):
    """Ours: how each of the reference's keypoints moves, without Hourglass-3D.

    The head carries keypoints along (`CarriedByHead`); from the picture of its pose box a small network does not learn
    that (where the head turns, the mean of the box's lines moves against the face). What sound adds is the mean of some
    listeners that learn apart, each from its share of a batch: what one of them has by heart of few voices is not what
    the others have. How far lips are apart is for the sound alone to say: poses are measured in a mesh that an open
    mouth deforms, so true poses tell of mouths what predicted ones do not.
    """

    def __init__(self, num_features: int, num_keypoints: int, jacobians: bool, closed_lips: bool, listeners: int):
        super().__init__()
        self.values = 6 if jacobians else 2  # x, y; then the 2x2 Jacobian, row-major
        self.closed_lips = closed_lips
        self.listeners = nn.ModuleList(
            Listener(num_features, num_keypoints, self.values, closed_lips) for _ in range(listeners)
        )
        self.carry = CarriedByHead(num_keypoints, jacobians)

    def forward(self, audio_BTAF: Tensor, pose_BTP: Tensor, pose_B1P: Tensor, reference: Keypoints) -> MotionField:
        """Args: features (normalised), poses of the frames and of the reference (rad, mm), the reference's keypoints.

        In training a batch has at least as many windows as there are listeners.
        """
        sound_BTS = audio_BTAF.flatten(2)
        place_BK2 = reference.position_BK2 - reference.position_BK2.mean(1, keepdim=True)
        told = sound_BTS, place_BK2.flatten(1) / 0.3, _mouth(reference, self.closed_lips, sound_BTS.shape[1])
        if self.training:
            shares = zip(*(part.tensor_split(len(self.listeners)) for part in told), strict=True)
            spoken = torch.cat([listen(*share) for listen, share in zip(self.listeners, shares, strict=True)])
        else:
            spoken = sum(listen(*told) for listen in self.listeners) / len(self.listeners)
        spoken = spoken.unflatten(2, (-1, self.values))
        carried = self.carry(pose_BTP, pose_B1P, reference.position_BK2)
        field = moved_keypoints(reference, spoken + carried, self.closed_lips)
        if not self.closed_lips:
            return field
        apart_BT = lip_motion(moved_keypoints(reference, spoken, self.closed_lips).position_BTK2)[..., 0]
        return field._replace(position_BTK2=with_lips_apart(field.position_BTK2, apart_BT))


def moved_keypoints(reference: Keypoints, change_BTKV: Tensor, closed_lips: bool) -> MotionField:
    """The reference's keypoints, its lips closed or as they are, with changes of x, y and, where there are Jacobians,
    of their four entries.
    """
    start_BK2 = with_closed_lips(reference.position_BK2) if closed_lips else reference.position_BK2
    position = start_BK2[:, None] + change_BTKV[..., :2]
    if change_BTKV.shape[-1] == 2 or reference.jacobian_BK22 is None:
        return MotionField(position, None, None)
    turn = change_BTKV[..., 2:].unflatten(3, (2, 2))
    return MotionField(position, reference.jacobian_BK22[:, None] + turn, None)
