"""Motion field generator N_M (Sec. 3.3, Fig. 4): image, head pose boxes and audio of a window -> its keypoints.

It has one of two heads. The paper's finds each keypoint anew in every frame (a heatmap whose mean is the position);
ours (`relative_head`) moves the reference picture's own keypoints, which takes far less data and training.

Letters: B batch, T frame of a window (64; 32 for LRW), A audio window in a frame (4), F audio feature (41),
K keypoint, C channel, H W picture, M side of the maps that enter Hourglass-3D (64), P pose value (6).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.blocks import AntiAliasDownsample
from modules.face_points import LIPS, apart_when_closed, lip_motion, with_closed_lips, with_lips_apart
from modules.hourglass import Hourglass3d
from modules.keypoints import (
    Keypoints,
    coordinate_grid,
    gaussian_heatmaps,
    identity_jacobian_,
    soft_argmax,
    spatial_softmax,
    weighted_jacobian,
)

BOX_SIZE = 256  # pixels; head pose boxes are always drawn at this size
# Without Hourglass-3D, head poses are measured in these (rad, mm): some deviations of a head that speaks.
POSE_UNITS = (0.07, 0.07, 0.07, 7.0, 7.0, 7.0)
AUDIO_MAP_SIZE = 32  # side of E_A's map before it is enlarged to M


@dataclass(frozen=True)
class MotionFieldGeneratorConfig:
    """Sizes of N_M; the defaults are the paper's (Sec. 3.3) and the released model's."""

    image_size: int = 256  # pixels, square (Sec. 4.1)
    num_keypoints: int = 10
    num_features: int = 41  # F, of a window of sound (Sec. 3.2); other settings of sound features have more
    window: int = 64  # T; 32 for LRW (Sec. 4.2)
    map_size: int = 64  # W = H
    jacobians: bool = True  # False: the paper's ablation "w/o Jacobians" (Sec. 5.4)
    temperature: float = 0.1
    block_expansion: int = 32
    max_features: int = 512
    num_blocks: int = 5
    # What follows the last audio frame inside a window: "edge" repeats it (ours), "zeros" as in the released program.
    audio_padding: Literal["edge", "zeros"] = "edge"
    # Of a line in the pose picture, which Hourglass-3D sees: the paper says "binary", the released model reads 0/255.
    box_value: float = 255.0
    # Ours, off in the paper: predict how far the reference picture's own keypoints (found by N_D) move, from the
    # features of Hourglass-3D around each, instead of finding them by heatmaps. Before training nothing moves.
    # Hourglass-3D then also sees the head pose box of the reference.
    relative_head: bool = False
    # Ours: False leaves Hourglass-3D out. Temporal convolutions over sound, head poses (themselves: no picture of a box
    # is looked at) and the reference's keypoints are then all of N_M, a hundredth of its work; only with relative_head.
    hourglass: bool = True
    # Ours: the relative head moves lips from a closed mouth, not from that of the reference picture, so that sound says
    # how far a mouth is open and not how much further than in some picture. For a stage one that ties keypoints to the
    # lips (`train_fomm.py`, weights.lips).
    closed_lips: bool = False
    # Ours, off in the paper: scale each audio feature to mean 0 and deviation 1 (running statistics) before E_A, whose
    # inputs otherwise range from 0.1 (voicing) to 800 (F0 in Hz).
    normalise_audio: bool = False

    def __post_init__(self) -> None:
        if self.map_size not in (32, 64, 128, 256) or self.image_size % self.map_size:
            raise ValueError(
                f"map_size {self.map_size} must be 32, 64, 128 or 256 and divide image_size {self.image_size}"
            )
        if not 1 <= self.num_blocks <= 8:
            raise ValueError(f"num_blocks must be 1 to 8, found {self.num_blocks}")
        step = 2**self.num_blocks
        if self.window < 1 or self.window % step or self.map_size % step:
            raise ValueError(
                f"window {self.window} and map_size {self.map_size} must be multiples of 2^num_blocks = {step}"
            )
        if not (self.hourglass or self.relative_head):
            raise ValueError("hourglass: false needs relative_head: true, which goes on from the reference's keypoints")
        if self.closed_lips and not (self.relative_head and self.num_keypoints > LIPS):
            raise ValueError(
                f"closed_lips: true needs relative_head: true and more than the {LIPS} keypoints of the lips, found"
                f" relative_head: {str(self.relative_head).lower()} and num_keypoints: {self.num_keypoints}"
            )
        if self.num_features < 33 or self.num_features % 2 == 0:
            raise ValueError(f"num_features must be odd and 33 or more, found {self.num_features}")


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


class TemporalHead(nn.Module):
    """Ours: how each of the reference's keypoints moves, without Hourglass-3D; zero before training.

    Temporal convolutions (16 frames to each side) hear the features themselves, and are told how the reference's
    keypoints lie: whether its mouth is open, how large it is. The head carries keypoints along by its pose's motion,
    almost linearly; from the picture of its box a small network does not learn that (where the head turns, the mean of
    the box's lines moves against the face). How far lips are apart is for the sound alone to say: poses are measured in
    a mesh that an open mouth deforms, so true poses tell of mouths what predicted ones do not.
    """

    # In training: few voices are otherwise learned by heart.
    NOISE, DROPOUT = 0.6, 0.3  # noise on features of deviation 1

    def __init__(self, num_features: int, num_keypoints: int, jacobians: bool, closed_lips: bool, width: int = 160):
        super().__init__()
        self.values = 6 if jacobians else 2  # x, y; then the 2x2 Jacobian, row-major
        self.closed_lips = closed_lips
        self.listen = nn.Linear(4 * num_features, width)
        self.look = nn.Linear(2 * num_keypoints, width)
        self.temporal, self.change = _temporal_path(width, int(closed_lips), num_keypoints * self.values, self.DROPOUT)
        self.carry = nn.Linear(len(POSE_UNITS), num_keypoints * self.values, bias=False)
        nn.init.zeros_(self.carry.weight)

    def forward(self, audio_BTAF: Tensor, pose_BTP: Tensor, pose_B1P: Tensor, reference: Keypoints) -> MotionField:
        """Args: features (normalised), poses of the frames and of the reference (scaled), the reference's keypoints."""
        sound = audio_BTAF.flatten(2)
        if self.training:
            sound = sound + self.NOISE * torch.randn_like(sound)
        place_BK2 = reference.position_BK2 - reference.position_BK2.mean(1, keepdim=True)
        heard = self.listen(sound) + self.look(place_BK2.flatten(1) / 0.3)[:, None]
        told = _mouth(reference, self.closed_lips, sound.shape[1]).to(heard)
        heard = self.temporal(torch.cat([heard.mT, told], dim=1))
        spoken = self.change(torch.cat([heard, told], dim=1)).float().mT.unflatten(2, (-1, self.values))
        carried = self.carry(pose_BTP - pose_B1P).float().unflatten(2, (-1, self.values))
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


class MotionFieldGenerator(nn.Module):
    """V = [audio map, image, pose box] -> Hourglass-3D -> E_kp and E_J, or the relative head."""

    def __init__(self, config: MotionFieldGeneratorConfig):
        super().__init__()
        self.temperature = config.temperature
        self.map_size = config.map_size
        self.box_value = config.box_value
        self.hourglass = config.hourglass
        self.audio_norm = nn.BatchNorm1d(config.num_features, affine=False) if config.normalise_audio else None
        self.relative_head = self.kp = self.jacobian = None
        if not config.hourglass:
            self.register_buffer("pose_units", torch.tensor(POSE_UNITS), persistent=False)
            self.relative_head = TemporalHead(
                config.num_features, config.num_keypoints, config.jacobians, config.closed_lips
            )
            return
        self.down_id = AntiAliasDownsample(3, config.map_size / config.image_size)
        self.down_pose = AntiAliasDownsample(config.window, config.map_size / BOX_SIZE)
        surplus = config.num_features + 13 - AUDIO_MAP_SIZE  # columns that the transposed convolution leaves over
        self.embedding = nn.Sequential(  # the audio encoder of Fig. 4: [4, 41] -> [32, 32]
            nn.ConvTranspose2d(1, 8, (29, 14), padding=(0, surplus // 2)),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 2, 13, padding=6),
        )
        self.predictor = Hourglass3d(
            7 if config.relative_head else 6, config.block_expansion, config.max_features, config.num_blocks
        )
        channels = self.predictor.out_channels
        if config.relative_head:
            self.down_reference_pose = AntiAliasDownsample(1, config.map_size / BOX_SIZE)
            self.relative_head = RelativeHead(channels, config.num_keypoints, config.jacobians, config.closed_lips)
            return
        self.kp = nn.Conv3d(channels, config.num_keypoints, 7, padding=(3, 0, 0))  # E_kp
        if config.jacobians:
            self.jacobian = nn.Conv2d(channels, 4 * config.num_keypoints, 7)  # E_J
            identity_jacobian_(self.jacobian.weight, self.jacobian.bias)

    def image_map(self, image_BCHW: Tensor) -> Tensor:
        """One frame of V_I: the reference image [0, 1] at the maps' size -> [B, 3, M, M]."""
        return self.down_id(image_BCHW) if self.hourglass else image_BCHW[..., :1, :1]  # not looked at

    def pose_map(self, head_BT: Tensor) -> Tensor:
        """V_S: boxes [B, T, 256, 256] of 0 and 255 (uint8 or float) -> [B, T, M, M] of 0 to `box_value`.

        Without Hourglass-3D, poses [B, T, 6] (rad, mm) -> the same in POSE_UNITS.
        """
        if not self.hourglass:
            return head_BT / self.pose_units
        return self.down_pose(head_BT) * (self.box_value / 255.0)

    def audio_map(self, audio_BTAF: Tensor) -> Tensor:
        """V_A before enlargement: [B, T, 4, F] -> [B, T, 2, 32, 32]; without Hourglass-3D the (normalised) features."""
        if self.audio_norm is not None:
            flat = self.audio_norm(audio_BTAF.flatten(0, 2))
            audio_BTAF = flat.view_as(audio_BTAF)
        if not self.hourglass:
            return audio_BTAF
        frames = self.embedding(audio_BTAF.flatten(0, 1)[:, None])
        return frames.unflatten(0, audio_BTAF.shape[:2])

    def from_maps(
        self, image_B3MM: Tensor, audio_BT2HW: Tensor, pose_BTMM: Tensor, reference: Reference | None = None
    ) -> MotionField:
        """Hourglass-3D and its head on the maps of a window; only the relative head needs `reference`."""
        if not self.hourglass:
            return self.relative_head(
                audio_BT2HW, pose_BTMM, self.pose_map(reference.head[:, None]), reference.keypoints
            )
        frames, enlarge = audio_BT2HW.shape[1], self.map_size // audio_BT2HW.shape[-1]
        audio = audio_BT2HW.transpose(1, 2)
        audio = F.interpolate(audio, scale_factor=(1, enlarge, enlarge), mode="nearest")
        image = image_B3MM[:, :, None].expand(-1, -1, frames, -1, -1)
        maps = [audio, image, pose_BTMM[:, None]]
        if self.relative_head is not None:
            reference_B1MM = self.down_reference_pose(reference.head[:, None]) * (self.box_value / 255.0)
            maps.append(reference_B1MM[:, :, None].expand(-1, -1, frames, -1, -1))
        volume = torch.cat(maps, dim=1)  # V: (B, 6 or 7, T, M, M)
        features = self.predictor(volume)  # (B, C, T, M, M)
        if self.relative_head is not None:
            return self.relative_head(features, audio_BT2HW, pose_BTMM, reference_B1MM, reference.keypoints)
        logits = self.kp(features).transpose(1, 2).flatten(0, 1)
        heatmap = spatial_softmax(logits, self.temperature)
        jacobian = None
        if self.jacobian is not None:
            maps = self.jacobian(features.transpose(1, 2).flatten(0, 1))
            jacobian = weighted_jacobian(maps, heatmap).unflatten(0, (-1, frames))
        return MotionField(
            soft_argmax(heatmap).unflatten(0, (-1, frames)),
            jacobian,
            heatmap.unflatten(0, (-1, frames)),
        )

    def forward(
        self, image_BCHW: Tensor, audio_BTAF: Tensor, head_BT: Tensor, reference: Reference | None = None
    ) -> MotionField:
        """Args: reference image, sound, and head boxes or poses as `pose_map` takes them."""
        maps = self.image_map(image_BCHW), self.audio_map(audio_BTAF), self.pose_map(head_BT)
        return self.from_maps(*maps, reference)
