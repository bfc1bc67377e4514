"""Frames -> a short animated GIF: a preview for pages that show no video.

Frames are uint8 [H, W, 3], RGB; batches of them uint8 [N, H, W, 3].
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from datasets import provenance
from datasets.errors import DataError
from datasets.files import written_beside
from datasets.media.streams import FPS

LONGEST_S = 10.0  # a GIF is several times as large as the video
LARGEST_SIDE = 480  # pixels
STEP = 2  # every second frame
SAMPLED = 10  # frames that the palette is made of, about


def in_few_colours(frames: list[np.ndarray]) -> np.ndarray:
    """Frames in 256 colours that are the same for all of them: what stands still then costs nothing -> [N, H, W, 3].

    Measured on a portrait of 84 frames: a twelfth of the size that a palette for each frame gives.
    """
    from PIL import Image

    sample = np.concatenate(frames[:: max(1, len(frames) // SAMPLED)])
    palette = Image.fromarray(sample).quantize(256, dither=Image.Dither.NONE)
    few = (Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    return np.stack([np.asarray(frame.convert("RGB")) for frame in few])


class GifWriter:
    """Writes an animated GIF of the first LONGEST_S seconds: no sound, at most LARGEST_SIDE pixels, every second frame.

    A context manager, used as VideoWriter is. The file appears under its name, marked as synthetic in its comment, when
    the block ends without an error. Memory is bounded by LONGEST_S.

    Args:
        path: the .gif to write.
        fps: frames a second that `write` is given.
        label: draw in a small "synthetic" label.
        signature: signs the finished file with a C2PA manifest.

    Raises:
        DataError: the target cannot be written, or there was no frame.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float = FPS,
        label: bool = False,
        signature: provenance.Signature | None = None,
    ) -> None:
        self.path, self.frames = Path(path), 0
        self._fps, self._label, self._signature = fps, label, signature
        self._kept: list[np.ndarray] = []

    def __enter__(self) -> GifWriter:
        self._stack = contextlib.ExitStack()
        self._temporary = self._stack.enter_context(written_beside(self.path))
        return self

    @property
    def is_cut(self) -> bool:
        """Whether frames came that are not in the file."""
        return self.frames > LONGEST_S * self._fps

    def write(self, frames_NHW3: np.ndarray) -> None:
        """Take a batch of frames; all have one size."""
        for frame_HW3 in frames_NHW3:
            if self.frames % STEP == 0 and self.frames < LONGEST_S * self._fps:
                scale = min(1.0, LARGEST_SIDE / max(frame_HW3.shape[:2]))
                small = cv2.resize(frame_HW3, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                self._kept.append(provenance.draw_label(small[None])[0] if self._label else small)
            self.frames += 1

    def finish(self) -> None:
        """Write what was taken; the end of the block does it too."""
        import imageio.v3

        if not self._kept:
            return
        frames_NHW3, self._kept = in_few_colours(self._kept), []
        comment = "; ".join(f"{key}: {value}" for key, value in provenance.metadata().items())
        options: dict[str, Any] = {
            "is_batch": True,
            "duration": round(1000 * STEP / self._fps),
            "loop": 0,
            "comment": comment.encode(),
        }
        with imageio.v3.imopen(self._temporary, "w", plugin="pillow", extension=".gif") as file:
            file.write(frames_NHW3, **options)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._stack:  # removes the temporary file after an error, else renames it
                if error is not None:
                    raise error
                if self.frames == 0:
                    raise DataError(f"{self.path}: no frame to write; the sound or the motion is empty")
                self.finish()
                if self._signature is not None:
                    self._signature.sign(self._temporary)
        except OSError as full:
            raise DataError(f"{self.path} cannot be written ({full.strerror or full}); free some space") from full
