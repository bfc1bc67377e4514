"""The keypoints of every frame of a clip, from the frozen detector: the targets of N_M (Eq. 5), computed once and kept.

    DIR/KEY/PICTURES.npz    position [F, K, 2] and jacobian [F, K, 2, 2], float32;
                            heatmap_0, heatmap_1 ... uint8 [<= 32, K, H, W], which our relative head does without

KEY names the detector's weights and the pictures' size, so that targets of two detectors never mix; PICTURES names the
clip and what it shows (`ClipRow.pictures`), so that those of two corpora never do. A heatmap is 134 kB in float32
(10 x 58 x 58), too much for a large corpus; it is kept as round(255 sqrt(h)) and deflated, in blocks of 32 frames, so
that a window does not unpack a whole clip. Decoded, a heatmap is off by at most 2 h^0.5 / 510 in a cell.

Letters: F frame of a clip, T frame of a window, N frame, K keypoint, H W heatmap or picture, C colour.
"""

import zipfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.clips import Clip
from datasets.errors import DataError
from datasets.files import DAMAGED, written_beside

BLOCK = 32  # frames
NO_HEATMAPS = np.zeros((0, 0, 0, 0), np.uint8)


class Targets(NamedTuple):
    """Keypoints of some frames; heatmaps as stored, see `decode_heatmap`."""

    position_TK2: np.ndarray
    jacobian_TK22: np.ndarray
    heatmap_TKHW: np.ndarray


def encode_heatmap(heatmap: Tensor) -> Tensor:
    """Values in [0, 1] -> uint8, finer where they are small; on the device, so that a quarter is copied from it."""
    return (255 * heatmap.sqrt()).round().to(torch.uint8)


def decode_heatmap(code):
    """Inverse of `encode_heatmap`, for arrays and tensors of a floating type."""
    return (code / 255) ** 2


class FrameBlocks(Dataset):
    """All frames of some clips in order, at most `length` of one clip at a time: uint8 RGB [n, H, W, 3]."""

    def __init__(self, clips: Sequence[Clip], size: int, length: int) -> None:
        self.clips, self.size = clips, size
        self.blocks = [
            (number, range(first, min(first + length, clip.frames)))
            for number, clip in enumerate(clips)
            for first in range(0, clip.frames, length)
        ]

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, n: int) -> np.ndarray:
        number, frames = self.blocks[n]
        return self.clips[number].read_frames(frames, self.size)


class TargetStore:
    """The targets of one detector, by the name of a clip's pictures."""

    def __init__(self, folder: str | Path, key: str) -> None:
        self.folder = Path(folder) / key

    def path(self, pictures: str) -> Path:
        return self.folder / f"{pictures}.npz"

    def has(self, pictures: str, heatmaps: bool) -> bool:
        """Whether a clip's targets are kept, with heatmaps where they are wanted; a damaged file counts as none."""
        try:
            with zipfile.ZipFile(self.path(pictures)) as file:
                return not heatmaps or "heatmap_0.npy" in file.namelist()
        except DAMAGED:
            return False

    def fill(
        self,
        clips: Sequence[Clip],
        detect: Callable[[np.ndarray], Targets],
        image_size: int,
        batch_size: int,
        heatmaps: bool,
        load: Callable[[Dataset], Iterable[np.ndarray]] = iter,
        progress: Callable[[list[Clip]], Iterable[Clip]] = iter,
    ) -> int:
        """Keep the targets of every frame of every clip that has none here yet -> how many clips these were.

        A thread writes a clip while the next one is looked at: packing takes about as long as detecting on a GPU.

        Args:
            detect: uint8 frames_NHWC of a clip -> their targets, heatmaps encoded.
            image_size: of the frames, pixels.
            batch_size: frames that `detect` is given at a time.
            heatmaps: whether `detect` gives them; targets that were kept without are then not enough.
            load: hands the items of a dataset over in order; with several processes decoding is no bottleneck.
            progress: hands the clips on and shows how many are done (tqdm).
        """
        todo = [clip for clip in clips if not self.has(clip.row.pictures, heatmaps)]
        loaded = iter(load(FrameBlocks(todo, image_size, batch_size)))
        written: Future | None = None
        with ThreadPoolExecutor(1) as writer:
            for clip in progress(todo):
                parts = [detect(next(loaded)) for _ in range(0, clip.frames, batch_size)]
                if written is not None:
                    written.result()
                targets = Targets(*(np.concatenate(part) for part in zip(*parts, strict=True)))
                written = writer.submit(self.write, clip.row.pictures, targets)
            if written is not None:
                written.result()
        return len(todo)

    def write(self, pictures: str, targets: Targets) -> None:
        """Keep all frames of a clip, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        blocks: dict[str, Any] = {
            f"heatmap_{first // BLOCK}": targets.heatmap_TKHW[first : first + BLOCK]
            for first in range(0, len(targets.heatmap_TKHW), BLOCK)
        }
        with written_beside(self.path(pictures)) as partial:
            np.savez_compressed(partial, position=targets.position_TK2, jacobian=targets.jacobian_TK22, **blocks)

    def read(self, pictures: str, frames: Sequence[int] | np.ndarray, heatmaps: bool) -> Targets:
        """Targets of some frames; without `heatmaps` that array is empty (0, 0, 0, 0).

        Raises:
            DataError: the file is missing or damaged.
        """
        rows = np.asarray(frames)
        try:
            with np.load(self.path(pictures)) as file:
                heatmap = NO_HEATMAPS
                if heatmaps:
                    blocks = {block: file[f"heatmap_{block}"] for block in np.unique(rows // BLOCK)}
                    heatmap = np.stack([blocks[row // BLOCK][row % BLOCK] for row in rows])
                return Targets(file["position"][rows], file["jacobian"][rows], heatmap)
        except (*DAMAGED, IndexError) as error:
            raise DataError(
                f"{self.path(pictures)}: cannot be read ({error}); delete it, it is computed again when training starts"
            ) from error
