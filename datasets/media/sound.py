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

from datasets.errors import DataError, DiskFullError
from datasets.files import written_beside
from datasets.media.streams import SAMPLE_RATE, decoded_frames, open_media, require_whole

LARGEST_SAMPLE = 1e6  # of float sound, whose full scale is 1: beyond there is no sound, only damage; ours
# Layouts that FFmpeg knows how to mix; of others, the mean of all channels is taken.
MIXABLE = frozenset(
    "mono stereo downmix 2.1 3.0 3.0(back) 3.1 4.0 quad quad(side) 4.1 5.0 5.0(side) 5.1 5.1(side) 6.0 6.0(front) "  # noqa: SIM905
    "hexagonal 6.1 6.1(back) 6.1(front) 7.0 7.0(front) 7.1 7.1(wide) 7.1(wide-side) octagonal".split()
)
MOST_UNNAMED_CHANNELS = 8  # of a layout without a name: up to here FFmpeg has one in mind for each count
MOST_PLANES = 7  # that PyAV 18 makes a frame of
OPPOSITE_POWER = 0.01  # of the louder of two channels: a mono mix that is this faint has cancelled itself out; ours


class Samples(Protocol):
    """16 kHz mono int16 samples: a numpy array, or `PcmFile` for any length."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


class PcmFile:
    """16 kHz mono int16 samples in a temporary file; a slice is read when asked for, nothing stays in memory.

    Threads may read at the same time.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="audio2head-", suffix=".pcm")  # noqa: SIM115
        self._length = 0
        self.notes: list[str] = []  # what the listener should know about the sound, a sentence each

    def clear(self) -> None:
        """Forget all samples."""
        self._file.truncate(0)
        self._length = 0

    def append(self, pcm: np.ndarray) -> None:
        self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(np.ascontiguousarray(pcm, dtype=np.int16).tobytes())
            self._file.flush()
        except OSError as error:
            raise DiskFullError(
                f"the temporary folder {tempfile.gettempdir()} cannot hold the sound ({error.strerror}); free some "
                "space, or name another folder in TMPDIR"
            ) from error
        self._length += len(pcm)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, step = part.indices(self._length)
        assert step == 1, part
        return np.frombuffer(os.pread(self._file.fileno(), 2 * max(0, stop - start), 2 * start), dtype=np.int16)

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
        levels = Levels()
        for piece_N in decode(path, levels):
            pcm.append(piece_N)
        if levels.opposite:
            pcm.clear()
            for piece_N in decode(path, Levels(), channel=levels.louder):
                pcm.append(piece_N)
        pcm.notes = levels.notes(path)
        yield pcm
    finally:
        pcm.close()


def load_pcm(path: str | Path) -> np.ndarray:
    """The sound of any media file as int16 [N], 16 kHz mono (32 kB a second: for clips; `open_pcm` for hours).

    Raises:
        DataError: as `open_pcm`.
    """
    with open_pcm(path) as pcm:
        return pcm[:].copy()


class Levels:
    """What is met while a sound is decoded: the power of two channels and of their mix, samples that are no numbers."""

    def __init__(self) -> None:
        self.damaged = 0  # samples that are not finite, or beyond `LARGEST_SAMPLE`
        self._power_2 = np.zeros(2)  # sums of squares of the two channels of stereo
        self._mix_power = 0.0  # that of their mean

    def count(self, planes_CN: np.ndarray) -> None:
        """Take in some samples, one row a channel."""
        if len(planes_CN) == 2:
            planes_CN = planes_CN.astype(np.float64) - (128 if planes_CN.dtype == np.uint8 else 0)
            self._power_2 += (planes_CN**2).sum(axis=1)
            self._mix_power += float((planes_CN.mean(axis=0) ** 2).sum())

    @property
    def louder(self) -> int:
        """Number of the louder channel of stereo."""
        return int(self._power_2.argmax())

    @property
    def opposite(self) -> bool:
        """Whether two channels cancel each other out: the mix of both would be (nearly) silent, each alone is not."""
        return self._mix_power < OPPOSITE_POWER * float(self._power_2.max())

    def notes(self, path: str | Path) -> list[str]:
        """A sentence for each oddity."""
        notes = []
        if self.damaged:
            count = (
                "1 sample is no finite number" if self.damaged == 1 else f"{self.damaged} samples are no finite numbers"
            )
            notes.append(f"{path}: {count}; taken as silence")
        if self.opposite:
            side = ("left", "right")[self.louder]
            notes.append(f"{path}: its two channels are in opposite phase; only the {side} one is heard")
        return notes


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


def decode(path: str | Path, levels: Levels, channel: int | None = None) -> Iterator[np.ndarray]:
    """Pieces of the sound of any media file, int16 [n], 16 kHz mono.

    Exactly what `ffmpeg -i path -ac 1 -ar 16000 -c:a pcm_s16le -async 1` of version 5 gives: gaps in the time stamps
    and a late start become silence; 16 kHz mono 16-bit sound passes unchanged.

    Args:
        levels: counts what is met on the way.
        channel: take this channel instead of the mix of all.

    Raises:
        DataError: as `open_pcm`.
    """
    samples = 0
    with open_media(path, "audio", "sound") as (container, stream):
        frames = sound_frames(decoded_frames(container, stream, path), levels, channel)
        for piece_1N in resampled(frames, "s16", SAMPLE_RATE, "mono"):
            samples += piece_1N.shape[1]
            yield piece_1N[0]
        require_whole(container, stream, samples / SAMPLE_RATE, path)
    if not samples:
        raise DataError(f"{path} holds no sound (0 samples); name a longer recording")


def sound_frames(frames: Iterator[Any], levels: Levels, channel: int | None = None) -> Iterator[Any]:
    """Decoded sound frames that FFmpeg can filter and encode: finite samples, no more channels than it can mix.

    Args:
        levels: counts what is met on the way.
        channel: keep only this channel.
    """
    for frame in frames:
        mixable = is_mixable(frame.layout)
        if frame.format.name.startswith(("flt", "dbl")) or frame.layout.nb_channels == 2 or not mixable:
            planes_CN = _planes(frame)
            damaged_CN = np.zeros((0, 0), bool)
            if planes_CN.dtype.kind == "f":
                damaged_CN = ~(np.abs(planes_CN) <= LARGEST_SAMPLE)  # not > : true of NaN, too
                levels.damaged += int(damaged_CN.sum())
            if damaged_CN.any():
                planes_CN = np.where(damaged_CN, 0, planes_CN)
            levels.count(planes_CN)
            if channel is not None:
                frame = _with_planes(frame, planes_CN[channel : channel + 1], "mono")
            elif not mixable or (damaged_CN.any() and len(planes_CN) > MOST_PLANES):
                frame = _with_planes(frame, planes_CN.mean(axis=0, keepdims=True), "mono")
            elif damaged_CN.any():
                frame = _with_planes(frame, planes_CN, frame.layout.name)
        yield frame


def is_mixable(layout: Any) -> bool:
    """Whether FFmpeg can mix a PyAV channel layout; a plain wav names none, only how many channels it has."""
    count = layout.nb_channels
    return layout.name in MIXABLE or (layout.name == f"{count} channels" and count <= MOST_UNNAMED_CHANNELS)


def _planes(frame: Any) -> np.ndarray:
    """Samples of a PyAV frame, [channels, n], in its own number type."""
    samples = frame.to_ndarray()
    return samples if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels).T


def _with_planes(frame: Any, planes_CN: np.ndarray, layout: str) -> Any:
    """A frame like another with these samples and channels."""
    import av

    kind = frame.format.planar.name
    dtype = _planes(frame).dtype
    if dtype.kind != "f":
        planes_CN = np.rint(planes_CN)
    new = av.AudioFrame.from_ndarray(np.ascontiguousarray(planes_CN, dtype=dtype), format=kind, layout=layout)
    new.sample_rate, new.pts, new.time_base = frame.sample_rate, frame.pts, frame.time_base
    return new


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
