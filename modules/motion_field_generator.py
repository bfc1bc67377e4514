"""Motion field generator N_M (Sec. 3.3, Fig. 4): image, head pose boxes and audio of a window -> its keypoints.

It has one of two heads. The paper's finds each keypoint anew in every frame (a heatmap whose mean is the position);
ours (`relative_head`) moves the reference picture's own keypoints, which takes far less data and training.

Letters: B batch, T frame of a window (64; 32 for LRW), A audio window in a frame (4), F audio feature (41),
K keypoint, C channel, H W picture, M side of the maps that enter Hourglass-3D (64), P pose value (6).
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.blocks import AntiAliasDownsample
from modules.face_points import LIPS
from modules.hourglass import Hourglass3d
from modules.keypoints import identity_jacobian_, soft_argmax, spatial_softmax, weighted_jacobian
from modules.limits import at_least
from modules.relative_head import AUDIO_MAP_SIZE, MotionField, Reference, RelativeHead, TemporalHead

BOX_SIZE = 256  # pixels; head pose boxes are always drawn at this size


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
    # features of Hourglass-3D around each, instead of finding them by heatmaps. Before training nothing moves, but
    # (without Hourglass-3D) what the head carries. Hourglass-3D then also sees the head pose box of the reference.
    relative_head: bool = False
    # Ours: False leaves Hourglass-3D out. Temporal convolutions over sound and the reference's keypoints, which the
    # head's pose carries along (itself: no picture of a box is looked at), are then all of N_M, a hundredth of its
    # work; only with relative_head.
    hourglass: bool = True
    # Ours, without Hourglass-3D: so many networks hear the sound, each trained on its own share of every batch (of a
    # rank's, where there are several); their mean follows unknown voices better than one of them.
    listeners: int = 1
    # Ours: the relative head moves lips from a closed mouth, not from that of the reference picture, so that sound says
    # how far a mouth is open and not how much further than in some picture. For a stage one that ties keypoints to the
    # lips (`train_fomm.py`, weights.lips).
    closed_lips: bool = False
    # Ours, off in the paper: scale each audio feature to mean 0 and deviation 1 (running statistics) before E_A, whose
    # inputs otherwise range from 0.1 (voicing) to 800 (F0 in Hz).
    normalise_audio: bool = False

    def __post_init__(self) -> None:
        at_least(1, self, "image_size", "num_keypoints", "num_features", "block_expansion", "max_features")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be more than 0, found {self.temperature}")
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
        if self.listeners < 1 or (self.hourglass and self.listeners > 1):
            raise ValueError(
                f"listeners must be 1, or more with hourglass: false, found {self.listeners}"
                f" with hourglass: {str(self.hourglass).lower()}"
            )
        if self.closed_lips and not (self.relative_head and self.num_keypoints > LIPS):
            raise ValueError(
                f"closed_lips: true needs relative_head: true and more than the {LIPS} keypoints of the lips, found"
                f" relative_head: {str(self.relative_head).lower()} and num_keypoints: {self.num_keypoints}"
            )
        if self.num_features < 33 or self.num_features % 2 == 0:
            raise ValueError(f"num_features must be odd and 33 or more, found {self.num_features}")


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
            self.relative_head = TemporalHead(
                config.num_features, config.num_keypoints, config.jacobians, config.closed_lips, config.listeners
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

        Without Hourglass-3D, poses [B, T, 6] (rad, mm) stay what they are.
        """
        if not self.hourglass:
            return head_BT
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
            return self.relative_head(audio_BT2HW, pose_BTMM, reference.head[:, None], reference.keypoints)
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
        logits, maps = self._heads(features)
        heatmap = spatial_softmax(logits, self.temperature)
        jacobian = None if maps is None else weighted_jacobian(maps, heatmap).unflatten(0, (-1, frames))
        return MotionField(
            soft_argmax(heatmap).unflatten(0, (-1, frames)),
            jacobian,
            heatmap.unflatten(0, (-1, frames)),
        )

    def _heads(self, features_BCTMM: Tensor) -> tuple[Tensor, Tensor | None]:
        """E_kp's logits and E_J's maps, the frames of all windows in a row."""
        if self.kp is self.jacobian:  # one module computes both, as `modules.fuse` has it
            logits, *maps = self.kp(features_BCTMM)
            return logits, maps[0] if maps else None
        logits = self.kp(features_BCTMM).transpose(1, 2).flatten(0, 1)
        if self.jacobian is None:
            return logits, None
        return logits, self.jacobian(features_BCTMM.transpose(1, 2).flatten(0, 1))

    def forward(
        self, image_BCHW: Tensor, audio_BTAF: Tensor, head_BT: Tensor, reference: Reference | None = None
    ) -> MotionField:
        """Args: reference image, sound, and head boxes or poses as `pose_map` takes them."""
        maps = self.image_map(image_BCHW), self.audio_map(audio_BTAF), self.pose_map(head_BT)
        return self.from_maps(*maps, reference)
