"""Frame pairs of one clip, for the keypoint detector N_D and image generator N_I (Sec. 4.2: trained as FOMM is).

Letters: C H W picture.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.augment import ColorJitter, PlacementJitter
from datasets.clips import load_manifest
from datasets.sampling import choices, grouped, shuffled


@dataclass(frozen=True)
class FommDataConfig:
    """Attributes:
    root: the prepared corpus.
    split: train, val or test.
    seed: of the order and of every random choice.
    identity_sampling: an item is a speaker and then one of its clips (FOMM's VoxCeleb setting); else a clip.
    repeats: how often each item comes in an epoch (FOMM's num_repeats for VoxCeleb).
    augment: swap, mirror and colour jitter as FOMM, and `placement`; off for validation.
    jitter, placement: how far colours, and place and size of the face (ours, off in the paper's settings), are varied.
    drawn: a pair is the widest and the least open mouth of so many random frames (ours; FOMM takes any two). Mouths are
        closed most of the time, and a generator that mostly sees closed ones learns open ones late.
    by_eyes: share of the pairs that are the widest and the least open eyes of the drawn instead (ours).
    size: of the pictures, pixels; the training script sets it, like seed, from its own configuration.
    """

    root: str = "data/vox"
    split: str = "train"
    seed: int = 0
    identity_sampling: bool = True
    repeats: int = 75
    augment: bool = True
    jitter: ColorJitter = ColorJitter()
    placement: PlacementJitter = PlacementJitter()
    drawn: int = 2
    by_eyes: float = 0.0
    size: int = 256

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"repeats is {self.repeats}, wanted at least 1")
        if self.drawn < 2:
            raise ValueError(f"drawn is {self.drawn}, wanted at least 2, of which a pair can be made")
        if not 0 <= self.by_eyes <= 1:
            raise ValueError(f"by_eyes is {self.by_eyes}, wanted a share from 0 to 1")


class FommBatch(NamedTuple):
    """One pair. Pictures are RGB float32 [0, 1]; `source_mouth_4` and `driving_mouth_4` are the mouth's box
    (left, top, right, bottom) in [-1, 1], all 0 where it is not known, askew by `turn` (radians) about its centre;
    `source_eyes_24` and `driving_eyes_24` are those of the eyes, the left one in the picture first; `clip` is the row in
    the manifest, `index` n."""

    source_CHW: Tensor
    driving_CHW: Tensor
    source_mouth_4: Tensor
    driving_mouth_4: Tensor
    source_eyes_24: Tensor
    driving_eyes_24: Tensor
    turn: np.float32
    clip: int
    index: int


class FommData(Dataset):
    """Endless pairs: `data[n]` is the same for the same (config, n), for any n >= 0; `len(data)` is one epoch."""

    def __init__(self, config: FommDataConfig):
        self.config = config
        self.groups = grouped(load_manifest(config.root, config.split), config.identity_sampling)

    def __len__(self) -> int:
        return len(self.groups) * self.config.repeats

    def __getitem__(self, n: int) -> FommBatch:
        random = choices(self.config.seed, n)
        group = self.groups[shuffled(self.config.seed, n, len(self)) % len(self.groups)]
        clip = group[random.integers(len(group))]
        mouth_T4, eyes_T24 = clip.mouth(), clip.eyes()
        drawn = random.integers(clip.frames, size=self.config.drawn)  # with replacement, as FOMM
        by_eyes = self.config.by_eyes and random.random() < self.config.by_eyes
        opening_T = eyes_T24[..., 3].sum(1) if by_eyes else mouth_T4[:, 3]
        drawn = drawn[np.argsort(np.nan_to_num(opening_T[drawn]), kind="stable")]  # an unknown one counts as closed
        pair = np.sort(drawn[[0, -1]])  # in order: as FOMM
        pictures_NHWC = clip.read_frames(pair, self.config.size)
        parts_N34 = np.concatenate([mouth_T4[pair, None], eyes_T24[pair]], axis=1)  # the mouth and both eyes
        boxes_N34, turn = mouth_boxes(parts_N34), 0.0
        if self.config.augment:
            if random.random() < 0.5:
                pictures_NHWC, boxes_N34 = pictures_NHWC[::-1], boxes_N34[::-1]
            elif random.random() < 0.5:
                pictures_NHWC = pictures_NHWC[:, :, ::-1]
                boxes_N34 = boxes_N34[:, [0, 2, 1]][..., [2, 1, 0, 3]] * [-1, 1, -1, 1]
            pictures_NHWC = self.config.jitter(pictures_NHWC, random)
            pictures_NHWC, boxes_M4, turn = self.config.placement(pictures_NHWC, boxes_N34.reshape(-1, 4), random)
            boxes_N34 = boxes_M4.reshape(boxes_N34.shape)
        source_CHW, driving_CHW = to_float(pictures_NHWC)
        boxes_N34 = torch.from_numpy(np.ascontiguousarray(boxes_N34, np.float32))
        mouths, eyes = boxes_N34[:, 0], boxes_N34[:, 1:]
        return FommBatch(source_CHW, driving_CHW, *mouths, *eyes, np.float32(turn), clip.index, n)


def to_float(frames_NHWC: np.ndarray) -> Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames_NHWC.transpose(0, 3, 1, 2))).float().div_(255)


def mouth_boxes(mouth_N4: np.ndarray) -> np.ndarray:
    """Centre, width and opening [..., 4] (pixels of 256) -> box (left, top, right, bottom) in [-1, 1]; 0 if unknown.

    The box is 1.5 mouths wide and as high as one mouth's width plus the opening: lips and some chin. Eyes likewise.
    """
    x, y, width, opening = np.moveaxis(mouth_N4, -1, 0)
    half_width, half_height = 0.75 * width, (width + opening) / 2
    box = np.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)
    return np.nan_to_num((box + 0.5) / 128 - 1, nan=0.0) * np.isfinite(mouth_N4).all(axis=-1, keepdims=True)
