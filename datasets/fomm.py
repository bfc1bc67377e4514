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
from datasets.clips import load_manifest, mouth_boxes
from datasets.sampling import choices, grouped, shuffled


@dataclass(frozen=True)
class FommDataConfig:
    """Which pairs are drawn from which corpus. The defaults are FOMM's for VoxCeleb."""

    root: str = "data/vox"  # the prepared corpus
    split: str = "train"  # train, val or test
    identity_sampling: bool = True  # an item is a speaker and then one of its clips; else a clip
    repeats: int = 75  # how often each item comes in an epoch (FOMM's num_repeats)
    augment: bool = True  # swap, mirror and jitter colours as FOMM, and `placement`; off for validation
    jitter: ColorJitter = ColorJitter()  # how far colours are varied
    placement: PlacementJitter = PlacementJitter()  # how far place and size of the face are varied (ours; off)
    # Draw this many frames and take the two whose mouths differ most (ours; FOMM takes any two). Mouths are closed most
    # of the time, and a generator that mostly sees closed ones learns open ones late.
    drawn: int = 2
    by_eyes: float = 0.0  # share of the pairs whose eyes differ most instead (ours)

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"repeats is {self.repeats}, wanted at least 1")
        if self.drawn < 2:
            raise ValueError(f"drawn is {self.drawn}, wanted at least 2, of which a pair can be made")
        if not 0 <= self.by_eyes <= 1:
            raise ValueError(f"by_eyes is {self.by_eyes}, wanted a share from 0 to 1")


class FommBatch(NamedTuple):
    """One pair. Pictures are RGB uint8, a quarter of what float32 would be to copy; `floats` makes them [0, 1].

    The box of a mouth is (left, top, right, bottom) in [-1, 1], turned by `turn` about its centre; all 0 if unknown.
    Boxes of eyes likewise, that of the left one in the picture first.
    """

    source_CHW: Tensor
    driving_CHW: Tensor
    source_mouth_4: Tensor
    driving_mouth_4: Tensor
    source_eyes_24: Tensor
    driving_eyes_24: Tensor
    turn: np.float32  # radians, clockwise
    clip: int  # row in the manifest
    index: int  # type: ignore[assignment]  # the item's number n; hides tuple.index

    def floats(self) -> "FommBatch":
        """The same with pictures in float32, [0, 1]; call it on the device."""
        return self._replace(source_CHW=self.source_CHW.float() / 255, driving_CHW=self.driving_CHW.float() / 255)


class FommData(Dataset):
    """Endless pairs: `data[n]` is the same for the same arguments and n, for any n >= 0; `len(data)` is one epoch.

    Args:
        seed: of the order and of every random choice.
        size: of the pictures, pixels.
    """

    def __init__(self, config: FommDataConfig, seed: int, size: int) -> None:
        self.config, self.seed, self.size = config, seed, size
        self.groups = grouped(load_manifest(config.root, config.split), config.identity_sampling)

    def __len__(self) -> int:
        return len(self.groups) * self.config.repeats

    def __getitem__(self, n: int) -> FommBatch:
        random = choices(self.seed, n)
        group = self.groups[shuffled(self.seed, n, len(self)) % len(self.groups)]
        clip = group[random.integers(len(group))]
        mouth_T4, eyes_T24 = clip.mouth(), clip.eyes()
        drawn = random.integers(clip.frames, size=self.config.drawn)  # with replacement, as FOMM
        by_eyes = self.config.by_eyes and random.random() < self.config.by_eyes
        opening_T = eyes_T24[..., 3].sum(1) if by_eyes else mouth_T4[:, 3]
        drawn = drawn[np.argsort(np.nan_to_num(opening_T[drawn]), kind="stable")]  # an unknown one counts as closed
        pair = np.sort(drawn[[0, -1]])  # in order: as FOMM
        pictures_NHWC = clip.read_frames(pair, self.size)
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
        pictures_NCHW = np.ascontiguousarray(pictures_NHWC.transpose(0, 3, 1, 2))
        source_CHW, driving_CHW = torch.from_numpy(pictures_NCHW)
        boxes = torch.from_numpy(np.ascontiguousarray(boxes_N34, np.float32))
        (source_4, driving_4), (source_24, driving_24) = boxes[:, 0], boxes[:, 1:]
        return FommBatch(
            source_CHW, driving_CHW, source_4, driving_4, source_24, driving_24, np.float32(turn), clip.index, n
        )
