"""Sound: any media file -> 16 kHz mono samples, and samples -> wav.

Memory does not grow with the length: samples of a long file lie in a temporary file (`open_pcm`).

Axes: N samples.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from datasets.errors import DataError
from datasets.files import written_beside
from datasets.media.streams import SAMPLE_RATE, decoded_frames, open_media, require_whole


class Samples(Protocol):
    """16 kHz mono int16 samples: a numpy array, or `PcmFile` for any length."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


class PcmFile:
    """16 kHz mono int16 samples in a temporary file; a slice is read when asked for, nothing stays in memory."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="audio2head-", suffix=".pcm")  # noqa: SIM115
        self._length = 0

    def append(self, pcm: np.ndarray) -> None:
        self._file.seek(0, os.SEEK_END)
        self._file.write(np.ascontiguousarray(pcm, dtype=np.int16).tobytes())
        self._length += len(pcm)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, step = part.indices(self._length)
        assert step == 1, part
        self._file.seek(2 * start)
        return np.frombuffer(self._file.read(2 * max(0, stop - start)), dtype=np.int16)

    def close(self) -> None:
        self._file.close()


@contextlib.contextmanager
def open_pcm(path: str | Path) -> Iterator[PcmFile]:
    """The sound of any media file as 16 kHz mono int16, decoded piece by piece into a temporary file.

    The file lies in the system's temporary folder (set by TMPDIR), 115 MB an hour, and is gone after the block.

    Raises:
        DataError: no such file, not a media file, no sound track, cut off, or no sample in it.
    """
    pcm = PcmFile()
    try:
        for piece_N in decode(path):
            pcm.append(piece_N)
        yield pcm
    finally:
        pcm.close()


def load_pcm(path: str | Path) -> np.ndarray:
    """The sound of any media file as int16 [N], 16 kHz mono (32 kB a second: for clips; `open_pcm` for hours).

    Raises:
        DataError: as `open_pcm`.
    """
    return np.concatenate(list(decode(path)))


def sound_of(path: str | Path) -> np.ndarray:
    """The sound of a video as int16 [N], 16 kHz mono; that of a .wav of the same name beside it, where it has none.

    Raises:
        DataError: neither has sound.
    """
    beside = Path(path).with_suffix(".wav")
    try:
        return load_pcm(path)
    except DataError:
        if not beside.is_file():
            raise
        return load_pcm(beside)


def decode(path: str | Path) -> Iterator[np.ndarray]:
    """Pieces of the sound of any media file, int16 [n], 16 kHz mono.

    Exactly what `ffmpeg -i path -ac 1 -ar 16000 -c:a pcm_s16le -async 1` of version 5 gives: gaps in the time stamps
    and a late start become silence; 16 kHz mono 16-bit sound passes unchanged.

    Raises:
        DataError: as `open_pcm`.
    """
    samples = 0
    with open_media(path, "audio", "sound") as (container, stream):
        for piece_1N in resampled(decoded_frames(container, stream, path), "s16", SAMPLE_RATE, "mono"):
            samples += piece_1N.shape[1]
            yield piece_1N[0]
        require_whole(container, stream, samples / SAMPLE_RATE, path)
    if not samples:
        raise DataError(f"{path} holds no sound (0 samples); name a longer recording")


def resampled(frames: Iterator[Any], sample_format: str, rate: int, layout: str) -> Iterator[np.ndarray]:
    """Decoded sound frames in one format, rate and channel layout: [1, n x channels], or [channels, n] if planar."""
    import av

    graph: Any = None
    source: Any = None
    sink: Any = None
    kind = None
    for frame in frames:
        frame_kind = (frame.format.name, frame.sample_rate, frame.layout.name)
        if frame_kind != kind:  # the first frame, or the stream changes on the way
            if graph is not None:
                source.push(None)
                yield from _pull(sink)
            kind = frame_kind
            # FFmpeg 5 filters sound of up to 16 bits in 16-bit integers, later versions in floats (up to 2 steps apart)
            inner = ":internal_sample_fmt=s16p" if sample_format == "s16" and frame.format.bytes <= 2 else ""
            first = "" if graph is not None else ":first_pts=0"
            graph = av.filter.Graph()
            source = graph.add_abuffer(
                sample_rate=frame.sample_rate, format=frame.format, layout=frame.layout, time_base=frame.time_base
            )
            resample = graph.add("aresample", f"async=1{first}{inner}")
            target = graph.add("aformat", f"sample_fmts={sample_format}:sample_rates={rate}:channel_layouts={layout}")
            sink = graph.add("abuffersink")
            graph.link_nodes(source, resample, target, sink).configure()
        source.push(frame)
        yield from _pull(sink)
    if graph is not None:
        source.push(None)
        yield from _pull(sink)


def _pull(sink: Any) -> Iterator[np.ndarray]:
    import av

    while True:
        try:
            yield sink.pull().to_ndarray()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def write_wav(path: str | Path, pcm: np.ndarray) -> None:
    """Write int16 [N] as a 16 kHz mono 16-bit wav, whole or not at all."""
    import soundfile

    assert pcm.dtype == np.int16 and pcm.ndim == 1, (pcm.dtype, pcm.shape)
    with written_beside(path) as temporary:
        soundfile.write(temporary, pcm, SAMPLE_RATE, subtype="PCM_16", format="WAV")
