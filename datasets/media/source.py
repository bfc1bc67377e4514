"""The picture that is brought to life: a picture file, or the first frame of a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.errors import DataError
from datasets.media.image import read_image
from datasets.media.video_reader import VideoReader

# FFmpeg would also draw a text file as a film of letters, so the name must say that it is a video.
VIDEO_ENDINGS = (
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".wmv",
    ".flv",
    ".3gp",
    ".ts",
    ".ogv",
)


def read_source(path: str | Path, background: str = "white") -> tuple[np.ndarray, list[str]]:
    """-> uint8 [H, W, 3] RGB, upright, and what the user should know about it.

    Raises:
        DataError: as `read_image`, where the file is no video either.
    """
    try:
        return read_image(path, background), []
    except DataError as no_picture:
        if Path(path).suffix.lower() not in VIDEO_ENDINGS:
            raise
        try:
            with VideoReader(path) as frames:
                _, first_HW3 = next(iter(frames))
        except (DataError, StopIteration):
            raise no_picture from None
    return first_HW3, [f"{path} is a video; its first frame is the picture"]
