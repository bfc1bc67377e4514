"""Windows of sound, head boxes and frames, for the motion field generator N_M (Sec. 3.3; T = 64, LRW 32).

Letters: T video frame, A audio window in a frame (4), F audio feature (41), C H W picture or heatmap, K keypoint.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.augment import ColorJitter, jitter_voice
from datasets.clips import Clip, load_audio_features, load_manifest, mouth_boxes
from datasets.media.image import to_float
from datasets.pose import shown_head
from datasets.sampling import at_most, choices, clamped, grouped, padded, shuffled
from datasets.targets import TargetStore
from datasets.voices import HIGHEST, LOWEST, VoiceStore


@dataclass(frozen=True)
class MotionFieldDataConfig:
    """Which windows are drawn from which corpus."""

    root: str = "data/vox"  # the prepared corpus
    split: str = "train"  # train, val or test
    random_start: bool = True  # window and reference anywhere in the clip; else (validation) both at its first frame
    identity_sampling: bool = False  # an item is a speaker and then one of its clips; else a clip
    repeats: int = 1  # how often each item comes in an epoch
    most_clips: int = 0  # of one speaker, spread evenly over the manifest (0: all): targets of many alike take long
    # Jitter the reference picture's colours and the voice's pitch and level (ours; off in the paper's settings, meant
    # for few speakers).
    augment: bool = False
    # Besides by its own voice a clip is spoken as often by others, so many times as high, throat and all (ours, for few
    # speakers: `datasets.voices`). Their features are computed once, before training.
    voices: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not all(LOWEST <= factor <= HIGHEST for factor in self.voices):
            raise ValueError(f"voices are {self.voices}, wanted factors from {LOWEST} to {HIGHEST}")
        if self.repeats < 1:
            raise ValueError(f"repeats is {self.repeats}, wanted at least 1")
        if self.most_clips < 0:
            raise ValueError(f"most_clips is {self.most_clips}, wanted 0 (all) or more")


class MotionFieldBatch(NamedTuple):
    """One window that starts at frame `start` of a clip.

    A clip shorter than the window (LRW: 29 of 32) is padded at its end: audio as `audio_padding` says; heads, frames
    and mouths with the last one. `valid_T` is False there.
    """

    reference_CHW: Tensor  # another frame of the clip (random), or its first; RGB float32 [0, 1]
    reference_head: Tensor  # of that frame, as head_T
    audio_TAF: Tensor  # features, float32
    head_T: Tensor  # the true poses: head boxes, uint8 [T, 256, 256] of 0 or 255, or themselves, float32 [T, 6]
    frames_TCHW: Tensor  # the frames that were read, RGB uint8: R of the T, or all
    chosen_R: Tensor  # their numbers in the window, rising
    mouth_T4: Tensor  # the mouth's box (left, top, right, bottom) in [-1, 1], 0 where it is not known
    valid_T: Tensor  # True for real frames
    clip: int  # row in the manifest
    index: int  # type: ignore[assignment]  # the item's number n; hides tuple.index
    start: int  # number of the window's first frame ...
    reference: int  # ... and of the reference, in the clip


class MotionFieldData(Dataset):
    """Endless windows: `data[n]` is the same for the same arguments and n, for any n >= 0; `len(data)` is one epoch.

    Args:
        seed: of the order and of every random choice.
        size: of the pictures, pixels.
        window: frames T in an item (Sec. 3.3: 64; Sec. 4.2: 32 for LRW).
        audio_padding: what follows the sound of a clip shorter than the window: its last frame again, or zeros as in
            the released inference.
        pictures: how many of the window's real frames are read, chosen at random (None: all T; the first phase of N_M
            needs none, the second a few).
        boxes: whether head poses are drawn as boxes (Sec. 3.3), or given as they are, for N_M without Hourglass-3D.
        kept: folder of features in the other voices that `config` names (None: `targets/` of the corpus).
    """

    def __init__(
        self,
        config: MotionFieldDataConfig,
        seed: int,
        size: int,
        window: int,
        audio_padding: Literal["edge", "zeros"] = "edge",
        pictures: int | None = None,
        boxes: bool = True,
        kept: Path | None = None,
    ) -> None:
        assert window >= 1, window
        self.config, self.seed, self.size = config, seed, size
        self.window, self.audio_padding, self.pictures, self.boxes = window, audio_padding, pictures, boxes
        self.clips = at_most(load_manifest(config.root, config.split), config.most_clips)
        self.groups = grouped(self.clips, config.identity_sampling)
        self.audio_features = load_audio_features(config.root)
        self.voices = VoiceStore(kept or Path(config.root) / "targets", config.voices, self.audio_features)
        self.jitter = ColorJitter()

    def __len__(self) -> int:
        return len(self.groups) * self.config.repeats

    def __getitem__(self, n: int) -> MotionFieldBatch:
        window = self.window
        random = choices(self.seed, n)
        group = self.groups[shuffled(self.seed, n, len(self)) % len(self.groups)]
        clip = group[random.integers(len(group))]
        start = reference = 0
        if self.config.random_start:
            start = int(random.integers(max(clip.frames - window, 0) + 1))
            reference = int(random.integers(clip.frames))
        rows = clamped(start, window, clip.frames)
        real = rows[: clip.frames - start]
        if self.pictures is None:
            chosen = np.arange(window)
        else:
            chosen = np.sort(random.choice(len(real), self.pictures, replace=len(real) < self.pictures))
        wanted, place = np.unique(rows[chosen], return_inverse=True)  # padding repeats the last frame: read it once
        pictures_NHWC = clip.read_frames([reference, *wanted], self.size)
        frames_RHWC = pictures_NHWC[1:][place]
        reference_1HWC, audio_TAF = pictures_NHWC[:1], self._heard(clip, random)[real]
        if self.config.augment:
            reference_1HWC = self.jitter(reference_1HWC, random)
            audio_TAF = jitter_voice(audio_TAF, random, self.audio_features.mean)
        head_T = shown_head(clip.pose()[[reference, *rows]], self.boxes)
        return MotionFieldBatch(
            reference_CHW=to_float(reference_1HWC)[0],
            reference_head=torch.from_numpy(head_T[0]),
            audio_TAF=torch.from_numpy(padded(audio_TAF, window, self.audio_padding)),
            head_T=torch.from_numpy(head_T[1:]),
            frames_TCHW=torch.from_numpy(np.ascontiguousarray(frames_RHWC.transpose(0, 3, 1, 2))),
            chosen_R=torch.from_numpy(chosen),
            mouth_T4=torch.from_numpy(mouth_boxes(clip.mouth()[rows]).astype(np.float32)),
            valid_T=torch.arange(start, start + window) < clip.frames,
            clip=clip.index,
            index=n,
            start=start,
            reference=reference,
        )

    def _heard(self, clip: Clip, random: np.random.Generator) -> np.ndarray:
        """Features of the whole clip, in one of its voices."""
        voice = int(random.integers(1 + len(self.config.voices))) if self.config.voices else 0
        return self.voices.read(clip, voice - 1) if voice else clip.features()


class Item(NamedTuple):
    """A window with what N_D finds in its frames (`datasets.targets`)."""

    window: MotionFieldBatch
    position_TK2: Tensor
    jacobian_TK22: Tensor
    reference_position_K2: Tensor
    reference_jacobian_K22: Tensor
    heatmap_TKHW: Tensor  # as it is stored, see `decode_heatmap`; empty where heatmaps count no more
    clip: int
    index: int  # type: ignore[assignment]  # the item's number n; hides tuple.index


class Windows(Dataset):
    """Windows of the corpus with N_D's targets. `heatmaps_until`: items from this one on carry no heatmaps."""

    def __init__(self, data: MotionFieldData, store: TargetStore, heatmaps_until: int) -> None:
        self.data, self.store, self.heatmaps_until = data, store, heatmaps_until
        self.pictures = {clip.index: clip.row.pictures for clip in data.clips}
        self.last = {clip.index: clip.frames - 1 for clip in data.clips}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, n: int) -> Item:
        window = self.data[n]
        rows = np.minimum(window.start + np.arange(len(window.valid_T)), self.last[window.clip])
        pictures = self.pictures[window.clip]
        targets = self.store.read(pictures, rows.tolist(), heatmaps=n < self.heatmaps_until)
        reference = self.store.read(pictures, [window.reference], heatmaps=False)
        return Item(
            window,
            position_TK2=torch.from_numpy(targets.position_TK2),
            jacobian_TK22=torch.from_numpy(targets.jacobian_TK22),
            reference_position_K2=torch.from_numpy(reference.position_TK2[0]),
            reference_jacobian_K22=torch.from_numpy(reference.jacobian_TK22[0]),
            heatmap_TKHW=torch.from_numpy(targets.heatmap_TKHW),
            clip=window.clip,
            index=n,
        )
