"""Sound and picture streams of any media file, decoded by the FFmpeg libraries inside PyAV."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from datasets.errors import DataError
from datasets.files import require_file

SAMPLE_RATE = 16_000  # Hz: of all sound that networks hear
FPS = 25  # of all video that networks see or make, frames a second

BROKEN_SHARE = 0.1  # a file with more undecodable packets is corrupt; ours: stray tags in mp3 files stay below
MISSING_SHARE = 0.02  # a file whose header promises this much more sound than can be read is truncated; ours
MISSING_S = 0.1
PLACEHOLDER_BYTES = 2**16  # a size so near to 2 or 4 GiB is no size; ours
EXACT_HEADERS = {"w64", "aiff", "flac", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}  # others estimate, or do not say


@contextlib.contextmanager
def open_media(path: str | Path, kind: Literal["audio", "video"], what: str) -> Iterator[tuple[Any, Any]]:
    """(container, its best stream of a kind); `what` is what the file should be, for messages.

    Raises:
        DataError: not a readable media file, or no such stream in it.
    """
    import av

    path = require_file(path, what)
    try:  # "file:" keeps names with colons or dashes from being read as addresses or options
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        raise _unreadable(path, what, error) from error
    with container, ffmpeg_errors(path, what):
        stream: Any = container.streams.best(kind)
        if stream is None:
            raise DataError(f"{path} has no {'sound track' if kind == 'audio' else 'video track'}; name another file")
        stream.thread_type = "AUTO"
        yield container, stream


@contextlib.contextmanager
def ffmpeg_errors(path: str | Path, what: str) -> Iterator[None]:
    """Turns whatever FFmpeg raises in the block, while `path` is opened, decoded or filtered, into a DataError.

    Args:
        what: what the file should be, for the message.
    """
    import av

    try:
        yield
    except av.error.FFmpegError as error:
        raise _unreadable(path, what, error) from error


def _unreadable(path: str | Path, what: str, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read as {what} ({_reason(error)}); it is damaged, cut off or of another kind: "
        "copy it again or convert it to a common format"
    )


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
    if not good and not broken:
        raise DataError(
            f"{path} is cut off before its first {'sound' if stream.type == 'audio' else 'picture'}; copy it again"
        )
    if broken > BROKEN_SHARE * (good + broken):
        raise DataError(f"{path} is damaged: {broken} parts of it cannot be decoded, {good} can; copy it again")


def _packets(container: Any, stream: Any, path: str | Path) -> Iterator[Any]:
    import av

    try:
        yield from container.demux(stream)
    except av.error.FFmpegError as error:
        raise DataError(f"{path} breaks off ({_reason(error)}); copy or download it again") from error


def require_whole(container: Any, stream: Any, end_s: float, path: str | Path) -> None:
    """Raise DataError if the header promises clearly more than the `end_s` seconds that were decoded."""
    promised_s = _promised_s(container, stream, Path(path))
    if promised_s - end_s > max(MISSING_S, MISSING_SHARE * promised_s):
        raise DataError(
            f"{path} is cut off: its header promises {promised_s:.1f} s, only {end_s:.1f} s are there; copy it again"
        )


def _promised_s(container: Any, stream: Any, path: Path) -> float:
    """Duration that the file's header states, 0 where it does not or FFmpeg fits it to what is there."""
    if container.format.name == "wav":
        return _wav_data_bytes(path) * 8 / max(1, stream.codec_context.bit_rate or 0)
    with open(path, "rb") as file:
        start = file.read(2**20)
    counted_mp3 = container.format.name == "mp3" and (b"Xing" in start or b"Info" in start)
    if container.format.name not in EXACT_HEADERS and not counted_mp3:
        return 0.0
    if stream.duration:
        return float(stream.duration * stream.time_base)
    # matroska states one duration for all tracks, counted from 0 even if the first sound comes later; only with a
    # single track is it this one's
    late = max(0, container.start_time or 0)
    return (container.duration - late) / 1e6 if container.duration and len(container.streams) == 1 else 0.0


def _wav_data_bytes(path: Path) -> int:
    """Size that the header of a wav gives its samples, 0 where it is unknown (written to a pipe) or over 4 GB.

    A program that writes to a pipe cannot come back to put the size in; it leaves one near the limit of signed or of
    unsigned 32-bit numbers: 0x7FFFF000 (sox, espeak-ng), 0x7FFFFFFF, 0x80000000 (arecord), 0xFFFFFFFF (ffmpeg).
    """
    with open(path, "rb") as file:
        file.seek(12)  # RIFF, size, WAVE
        while len(header := file.read(8)) == 8:
            size = int.from_bytes(header[4:], "little")
            if header[:4] == b"data":
                return 0 if min(abs(size - 2**31), abs(size - 2**32)) <= PLACEHOLDER_BYTES else size
            file.seek(size + size % 2, 1)
    return 0


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
