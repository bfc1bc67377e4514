"""Sound and picture streams of any media file, decoded by the FFmpeg libraries inside PyAV."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets.errors import DataError
from datasets.files import require_file

BROKEN_SHARE = (
    0.1  # a file with more undecodable packets than this is corrupt; ours: stray tags in mp3 files stay below
)
MISSING_SHARE = 0.02  # a file whose header promises this much more sound than can be read is truncated; ours
MISSING_S = 0.25
EXACT_HEADERS = {"wav", "w64", "aiff", "flac", "mov,mp4,m4a,3gp,3g2,mj2"}  # others only estimate their duration


@contextlib.contextmanager
def open_media(path: str | Path, kind: str, what: str) -> Iterator[tuple[Any, Any]]:
    """(container, its best stream of a kind: "audio" or "video"); `what` is what the file should be, for messages.

    Raises:
        DataError: not a readable media file, or no such stream in it.
    """
    import av

    path = require_file(path, what)
    try:  # "file:" keeps names with colons or dashes from being read as addresses or options
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as {what} ({_reason(error)}); it is damaged, cut off or of another kind: "
            "copy it again or convert it to a common format"
        ) from error
    with container:
        stream = container.streams.best(kind)
        if stream is None:
            raise DataError(f"{path} has no {'sound track' if kind == 'audio' else 'video track'}; name another file")
        stream.thread_type = "AUTO"
        yield container, stream


def decoded_frames(container: Any, stream: Any, path: str | Path) -> Iterator[Any]:
    """Decoded frames of a stream, time stamps counted from the start of the file (as the ffmpeg program does).

    Broken packets are left out, as players do, unless there are many.

    Raises:
        DataError: nothing, or only a small part, can be decoded.
    """
    import av

    offset_s = container.start_time / av.time_base if container.start_time is not None else 0.0
    good = broken = 0
    packets = _packets(container, stream, path)
    for packet in packets:
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            broken += 1
            continue
        for frame in frames:
            good += 1
            if frame.pts is not None:
                frame.pts -= round(offset_s / frame.time_base)
            yield frame
    if not good or broken > BROKEN_SHARE * (good + broken):
        raise DataError(f"{path} is damaged: {broken} parts of it cannot be decoded, {good} can; copy it again")


def _packets(container: Any, stream: Any, path: str | Path) -> Iterator[Any]:
    import av

    try:
        yield from container.demux(stream)
    except av.error.FFmpegError as error:
        raise DataError(f"{path} breaks off ({_reason(error)}); copy or download it again") from error


def require_whole(container: Any, stream: Any, end_s: float, path: str | Path) -> None:
    """Raise DataError if the header promises clearly more than the `end_s` seconds that were decoded."""
    if container.format.name not in EXACT_HEADERS or not stream.duration:
        return
    promised_s = float(stream.duration * stream.time_base)
    if promised_s - end_s > max(MISSING_S, MISSING_SHARE * promised_s):
        raise DataError(
            f"{path} is cut off: its header promises {promised_s:.1f} s, only {end_s:.1f} s are there; copy it again"
        )


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
