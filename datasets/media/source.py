"""The picture that is brought to life: a picture file, or the first frame of a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.errors import DataError
from datasets.media.image import read_image
from datasets.media.video_reader import VideoReader


def read_source(path: str | Path, background: str = "white") -> tuple[np.ndarray, list[str]]:
    """-> uint8 [H, W, 3] RGB, upright, and what the user should know about it.

    Raises:
        DataError: as `read_image`, where the file is no video either.
    """
    try:
        return read_image(path, background), []
    except DataError as no_picture:
        try:
            with VideoReader(path) as frames:
                _, first_HW3 = next(iter(frames))
        except (DataError, StopIteration):
            raise no_picture from None
    return first_HW3, [f"{path} is a video; its first frame is the picture"]
