"""Frames of a video at 25 a second, by time and not by number: any frame rate, also a changing one.

Letters: H W picture.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from datasets.clips import FPS
from datasets.errors import DataError
from datasets.media.video_writer import VideoReader

Frame = TypeVar("Frame")

SEEK_FROM_S, SEEK_BACK_S = 10.0, 5.0  # a stretch that starts late is found by seeking, this much before it
GAP_S = 0.5  # a picture further than this from the time it stands for is a hole in the file


def at_rate(
    timed_frames: Iterable[tuple[float, Frame]], start_s: float, end_s: float | None, path: Path
) -> Iterator[Frame]:
    """The frame nearest in time to start_s + k / 25, for k = 0, 1, ... until end_s or the last frame's end.

    Args:
        timed_frames: (time_s, frame) in order of time; a frame may be anything.
        end_s: exclusive; None: the end of the video, where the last frame lasts as long as the one before it.
        path: for messages.

    Raises:
        DataError: a hole of more than GAP_S in the pictures.
    """
    frames = iter(timed_frames)
    current = next(frames, None)
    following = next(frames, None)
    duration_s = 1 / FPS
    number = 0
    while current is not None:
        time_s = start_s + number / FPS
        if end_s is not None and time_s >= end_s - 1e-6:
            return
        while following is not None and abs(following[0] - time_s) < abs(current[0] - time_s):
            duration_s = min(max(following[0] - current[0], 1e-3), GAP_S)
            current, following = following, next(frames, None)
        if following is None and time_s > current[0] + duration_s - 0.5 / FPS:
            return
        if abs(current[0] - time_s) > GAP_S:
            raise DataError(
                f"{path}: no picture between {current[0]:.2f} s and {following[0]:.2f} s; copy the file again"
            )
        yield current[1]
        number += 1


def frames_of(path: Path, start_s: float = 0.0, end_s: float | None = None) -> Iterator[np.ndarray]:
    """Pictures of a video at 25 a second, uint8 RGB [H, W, 3], upright; see `at_rate`.

    Times count from the start of the file, as `datasets.audio.load_pcm`'s samples do.

    Raises:
        DataError: no video, damaged, or a hole in it.
    """
    with VideoReader(path) as reader:
        if start_s > SEEK_FROM_S:
            reader.start_near(start_s - SEEK_BACK_S)
        last, picture = None, None
        for frame in at_rate(reader.frames(), start_s, end_s, path):
            if frame is not last:  # a frame shown twice is converted once
                last, picture = frame, reader.to_rgb(frame)
            yield picture
