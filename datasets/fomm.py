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

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"repeats is {self.repeats}, wanted at least 1")
        if self.drawn < 2:
            raise ValueError(f"drawn is {self.drawn}, wanted at least 2, of which a pair can be made")


class FommBatch(NamedTuple):
    """One pair. Pictures are RGB uint8, a quarter of what float32 would be to copy; `floats` makes them [0, 1].

    The box of a mouth is (left, top, right, bottom) in [-1, 1], turned by `turn` about its centre; all 0 if unknown.
    """

    source_CHW: Tensor
    driving_CHW: Tensor
    source_mouth_4: Tensor
    driving_mouth_4: Tensor
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
        mouth_T4 = clip.mouth()
        drawn = random.integers(clip.frames, size=self.config.drawn)  # with replacement, as FOMM
        drawn = drawn[np.argsort(np.nan_to_num(mouth_T4[drawn, 3]), kind="stable")]  # an unknown mouth counts as closed
        pair = np.sort(drawn[[0, -1]])  # in order: as FOMM
        pictures_NHWC = clip.read_frames(pair, self.size)
        mouths_N4, turn = mouth_boxes(mouth_T4[pair]), 0.0
        if self.config.augment:
            if random.random() < 0.5:
                pictures_NHWC, mouths_N4 = pictures_NHWC[::-1], mouths_N4[::-1]
            elif random.random() < 0.5:
                pictures_NHWC, mouths_N4 = pictures_NHWC[:, :, ::-1], mouths_N4[:, [2, 1, 0, 3]] * [-1, 1, -1, 1]
            pictures_NHWC = self.config.jitter(pictures_NHWC, random)
            pictures_NHWC, mouths_N4, turn = self.config.placement(pictures_NHWC, mouths_N4, random)
        pictures_NCHW = np.ascontiguousarray(pictures_NHWC.transpose(0, 3, 1, 2))
        source_CHW, driving_CHW = torch.from_numpy(pictures_NCHW)
        source_4, driving_4 = torch.from_numpy(np.ascontiguousarray(mouths_N4, np.float32))
        return FommBatch(source_CHW, driving_CHW, source_4, driving_4, np.float32(turn), clip.index, n)
