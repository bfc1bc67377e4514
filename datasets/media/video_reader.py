"""Frames of a video: as they are in the file (`VideoReader`), or 25 a second (`frames_of`).

The 25 a second are chosen by time and not by number: any frame rate will do, also a changing one.

Letters: H W picture.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from datasets.errors import DataError
from datasets.media import wide_colour
from datasets.media.streams import FPS, decoded_frames, open_media, require_whole

Frame = TypeVar("Frame")

# swscale: bicubic, full-size chroma, accurate rounding. Measured there and back: 50.3 dB; its defaults 41.6 dB and one
# level of 255 off.
CONVERSION = 0x4 | 0x2000 | 0x40000
SEEK_FROM_S, SEEK_BACK_S = 10.0, 5.0  # a stretch that starts late is found by seeking, this much before it
MOST_STRETCH = 4.0  # of a pixel's width by its height, or the other way round: the widest in use is about 2; ours
GAP_S = 0.5  # a picture further than this from the time it stands for is a hole in the file


class VideoReader:
    """Frames of a video in order of time, as a player shows them: upright (rotation marks of phones are applied), with
    square pixels (DVDs and DV have others), and in the colours of 8-bit video (`wide_colour`).

    Use as a context manager and iterate once: (time in s from the start of the file, uint8 [H, W, 3] RGB).

    Raises:
        DataError: no such file, not a video, damaged, or cut off.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> VideoReader:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()  # one for all frames: making one costs more than using it
        self._container, self._stream = self._stack.enter_context(open_media(self.path, "video", "video"))
        self.stretch = float(self._stream.sample_aspect_ratio or 1) or 1.0  # width of the file's pixels by their height
        if not 1 / MOST_STRETCH <= self.stretch <= MOST_STRETCH:
            self._stack.close()
            raise DataError(
                f"{self.path} says that its pixels are {self.stretch:.3g} times as wide as high, which cannot be; "
                "convert it to a video of square pixels"
            )
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.__exit__(*exception)

    @property
    def fps(self) -> float:
        """Average frame rate, as the file states it (25 if it does not)."""
        return float(self._stream.average_rate or FPS)

    def start_near(self, time_s: float) -> None:
        """Begin at a key frame before a time (s from the start of the file); call before reading."""
        start = self._container.start_time or 0
        self._container.seek(start + int(max(0.0, time_s) * 1_000_000))

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        for time_s, frame in self.frames():
            yield time_s, self.to_rgb(frame)

    def to_rgb(self, frame: Any) -> np.ndarray:
        """PyAV frame -> uint8 [H, W, 3] RGB, upright, with square pixels: the shorter side of a pixel is stretched."""
        width, height = frame.width, frame.height
        size = (round(width * max(1.0, self.stretch)), round(height * max(1.0, 1 / self.stretch)))
        wide = wide_colour.is_wide(frame)
        if wide and frame.colorspace in (wide_colour.ICTCP, wide_colour.IPT):
            raise DataError(f"{self.path} has Dolby Vision's own colours, which cannot be converted; export it as SDR")
        rgb_HW3 = self._reformatter.reformat(
            frame, *size, format="rgb48le" if wide else "rgb24", interpolation=CONVERSION
        ).to_ndarray()
        if wide:
            rgb_HW3 = wide_colour.to_common(rgb_HW3, frame.color_trc, frame.color_primaries)
        quarter_turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(rgb_HW3, quarter_turns)) if quarter_turns else rgb_HW3

    def frames(self) -> Iterator[tuple[float, Any]]:
        """(time in s, PyAV frame): `to_rgb` makes the picture of those that are wanted."""
        end_s = 0.0
        for frame in decoded_frames(self._container, self._stream, self.path):
            time_s = float(frame.pts * frame.time_base) if frame.pts is not None else end_s
            end_s = max(end_s, time_s + 1 / self.fps)
            yield time_s, frame
        require_whole(self._container, self._stream, end_s, self.path)


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
            if following is None or time_s < current[0]:  # the hole is before the first picture
                before_s, after_s = time_s, current[0]
            else:
                before_s, after_s = current[0], following[0]
            raise DataError(f"{path}: no picture between {before_s:.2f} s and {after_s:.2f} s; copy the file again")
        yield current[1]
        number += 1


def frames_of(path: Path, start_s: float = 0.0, end_s: float | None = None) -> Iterator[np.ndarray]:
    """Pictures of a video at 25 a second, uint8 RGB [H, W, 3], upright; see `at_rate`.

    Times count from the start of the file, as `datasets.media.sound.load_pcm`'s samples do.

    Raises:
        DataError: no video, damaged, or a hole in it.
    """
    with VideoReader(path) as reader:
        if start_s > SEEK_FROM_S:
            reader.start_near(start_s - SEEK_BACK_S)
        last = None
        for frame in at_rate(reader.frames(), start_s, end_s, path):
            if frame is not last:  # a frame shown twice is converted once
                last, picture = frame, reader.to_rgb(frame)
            yield picture
