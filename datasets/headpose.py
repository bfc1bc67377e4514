"""Sound and head poses with a first frame, for the head motion predictor N_H (Sec. 3.2: window T = 256).

Letters: T video frame, A audio window in a frame (4), F audio feature (41), P pose value (6), C H W picture.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.augment import ColorJitter, PlacementJitter, jitter_voice
from datasets.clips import load_audio_features, load_manifest, load_pose_range
from datasets.media.image import to_float
from datasets.pose import moved_with_picture
from datasets.sampling import choices, clamped, grouped, padded, shuffled

MIRROR = np.array([1, -1, -1, -1, 1, 1], np.float32)  # what a mirrored picture does to (rx, ry, rz, tx, ty, tz)


@dataclass(frozen=True)
class HeadPoseDataConfig:
    """Which windows are drawn from which corpus."""

    root: str = "data/vox"  # the prepared corpus
    split: str = "train"  # train, val or test
    window: int = 256  # frames T in an item (Sec. 3.2)
    random_start: bool = True  # the window starts anywhere in a longer clip; else (validation) at its first frame
    identity_sampling: bool = False  # an item is a speaker and then one of its clips; else a clip
    repeats: int = 1  # how often each item comes in an epoch
    # Mirror picture and poses, jitter the picture's colours and the voice's pitch and level (ours; off in the paper's
    # settings, meant for few speakers).
    augment: bool = False
    # With `augment`: scale and move picture and poses alike (ours; off). Where few speakers' heads rest differently,
    # N_H else learns where whose head rests, and draws an unseen face's there, away from where its picture has it.
    placement: PlacementJitter = PlacementJitter()

    def __post_init__(self) -> None:
        if self.placement != PlacementJitter() and not self.augment:
            raise ValueError("placement needs augment: true")
        if self.placement.turn:
            raise ValueError(
                "placement.turn must be 0: head poses can be scaled and moved with the picture, not turned"
            )
        if self.window < 1 or self.repeats < 1:
            raise ValueError(f"window is {self.window} and repeats {self.repeats}, wanted at least 1 each")


class HeadPoseBatch(NamedTuple):
    """One window that starts at frame s of a clip."""

    image_CHW: Tensor  # frame s, RGB float32 [0, 1]
    audio_TAF: Tensor  # features of frames s ... s+T-1; zeros past the clip's end, as the released inference pads
    # Normalised poses of frames s ... s+T: T+1 rows. Row 0 belongs to the image, row i+1 is what audio i leads to (the
    # released model's order). Past the end the last pose is repeated.
    pose_TP: Tensor
    valid_T: Tensor  # True where audio i and pose row i+1 are both real
    clip: int  # row in the manifest
    index: int  # type: ignore[assignment]  # the item's number n; hides tuple.index


class HeadPoseData(Dataset):
    """Endless windows: `data[n]` is the same for the same arguments and n, for any n >= 0; `len(data)` is one epoch.

    Args:
        seed: of the order and of every random choice.
        size: of the picture, pixels.
    """

    def __init__(self, config: HeadPoseDataConfig, seed: int, size: int) -> None:
        self.config, self.seed, self.size = config, seed, size
        self.clips = load_manifest(config.root, config.split)
        self.groups = grouped(self.clips, config.identity_sampling)
        self.pose_range = load_pose_range(config.root)
        self.audio_features = load_audio_features(config.root)
        self.jitter = ColorJitter()

    def __len__(self) -> int:
        return len(self.groups) * self.config.repeats

    def __getitem__(self, n: int) -> HeadPoseBatch:
        window = self.config.window
        random = choices(self.seed, n)
        group = self.groups[shuffled(self.seed, n, len(self)) % len(self.groups)]
        clip = group[random.integers(len(group))]
        last_start = max(clip.frames - window - 1, 0)
        start = int(random.integers(last_start + 1)) if self.config.random_start else 0
        picture_1HWC = clip.read_frames([start], self.size)
        audio_TAF = clip.features()[start : start + window]
        pose_TP = clip.pose()[clamped(start, window + 1, clip.frames)]
        if self.config.augment:
            if random.random() < 0.5:
                picture_1HWC, pose_TP = picture_1HWC[:, :, ::-1], pose_TP * MIRROR
            picture_1HWC = self.jitter(picture_1HWC, random)
            audio_TAF = jitter_voice(audio_TAF, random, self.audio_features.mean)
            picture_1HWC, box_14, _ = self.config.placement(picture_1HWC, np.array([[-1.0, -1.0, 1.0, 1.0]]), random)
            pose_TP = moved_with_picture(pose_TP, box_14[0])
        return HeadPoseBatch(
            image_CHW=to_float(picture_1HWC)[0],
            audio_TAF=torch.from_numpy(padded(audio_TAF, window)),
            pose_TP=torch.from_numpy(self.pose_range.normalise(pose_TP)),
            valid_T=torch.arange(start + 1, start + window + 1) < clip.frames,
            clip=clip.index,
            index=n,
        )
