"""Sound that is still coming, from a pipe: heard once, by the networks, and handed on to the video behind them."""

from __future__ import annotations

import itertools
import queue
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np

from datasets.errors import DataError
from datasets.media.sound import Levels, resampled, sound_frames
from datasets.media.streams import SAMPLE_RATE, decoded_frames

READ_BYTES = 4096  # at most, at a time: 0.13 s of 16 kHz mono
RATES = (1000, 384_000)  # Hz, of raw sound
CHANNELS = (1, 2)  # of raw sound
OTHERS = {  # how files begin that are no raw sound
    b"fLaC": "a FLAC file",
    b"OggS": "an Ogg file",
    b"ID3": "an MP3 file",
    b"FORM": "an AIFF file",
    b"\x1aE\xdf\xa3": "a Matroska or WebM file",
    b"\x89PNG": "a picture (PNG)",
    b"\xff\xd8\xff": "a picture (JPEG)",
}


class LiveSound:
    """A wav, or raw 16-bit little-endian samples, read from a pipe as it comes.

    `blocks` is for one listener; what it has taken, `passed` gives to one other, in another thread if need be.

    Args:
        file: binary, opened for reading; one that begins with `RIFF` or `RF64` is a wav.
        rate, channels: of raw samples; a wav says them itself.
        name: for messages.

    Raises:
        DataError: rate or channels out of range; nothing comes; no wav after its first four letters; another file.
    """

    def __init__(
        self, file: BinaryIO, rate: int = SAMPLE_RATE, channels: int = 1, name: str = "standard input"
    ) -> None:
        import av

        for what, value, (least, most) in (("rate", rate, RATES), ("channels", channels, CHANNELS)):
            if not least <= value <= most:
                raise DataError(f"{name}: {what} of raw sound must be from {least} to {most}, found {value}")
        self.name = name
        self._passed: queue.SimpleQueue[Any] = queue.SimpleQueue()
        pipe = _Pipe(file)
        start = pipe.beginning(max(map(len, OTHERS)))
        for word, kind in OTHERS.items():
            if start.startswith(word):
                raise DataError(f"{name} is {kind}; send a wav (ffmpeg -i FILE -f wav -) or raw samples")
        if start.startswith((b"RIFF", b"RF64")):
            try:
                container: Any = av.open(pipe, format="wav", metadata_errors="replace")
            except (av.error.FFmpegError, ValueError) as error:
                raise DataError(f"{name} begins like a wav and is none ({error}); send a wav or raw samples") from error
            stream = container.streams.audio[0]
            self.sample_rate, self.layout = stream.codec_context.sample_rate, stream.codec_context.layout
            self._frames: Iterator[Any] = decoded_frames(container, stream, name)
        else:
            self.sample_rate, self.layout = rate, av.AudioLayout("mono" if channels == 1 else "stereo")
            self._frames = _raw(pipe, rate, self.layout)
        self.channels = self.layout.nb_channels
        first = next(self._frames, None)
        if first is None:
            raise DataError(f"{name} has ended before any sound came; send a wav, or raw 16-bit samples")
        self._frames = itertools.chain([first], self._frames)

    def blocks(self) -> Iterator[np.ndarray]:
        """The sound as it comes, int16 [n], 16 kHz mono."""
        try:
            for block_1N in resampled(self._taken(), "s16", SAMPLE_RATE, "mono"):
                yield block_1N[0]
        finally:
            self._passed.put(None)

    def passed(self) -> Iterator[Any]:
        """The frames (of PyAV) that `blocks` has taken; waits for more until it ends."""
        yield from iter(self._passed.get, None)

    def _taken(self) -> Iterator[Any]:
        for frame in sound_frames(self._frames, Levels()):
            self._passed.put(frame)
            yield frame


class _Pipe:
    """A file that is read as far as there is something, and whose beginning can be looked at."""

    def __init__(self, file: BinaryIO) -> None:
        self._read = getattr(file, "read1", file.read)
        self._ahead = b""

    def beginning(self, size: int) -> bytes:
        """The first `size` bytes, fewer if there are no more; they are read again by `read`."""
        while len(self._ahead) < size and (more := self._read(READ_BYTES)):
            self._ahead += more
        return self._ahead[:size]

    def read(self, size: int = READ_BYTES) -> bytes:
        """Up to `size` bytes; none at the end."""
        if self._ahead:
            taken, self._ahead = self._ahead[:size], self._ahead[size:]
            return taken
        return self._read(min(size, READ_BYTES))


def _raw(pipe: _Pipe, rate: int, layout: Any) -> Iterator[Any]:
    """Frames of raw samples; a part of a sample at the end is dropped."""
    import av

    width, rest, samples = 2 * layout.nb_channels, b"", 0
    while data := pipe.read():
        data = rest + data
        whole = len(data) - len(data) % width
        rest = data[whole:]
        if whole:
            packed_1N = np.frombuffer(data[:whole], "<i2").astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(packed_1N, format="s16", layout=layout.name)
            frame.sample_rate, frame.pts, frame.time_base = rate, samples, Fraction(1, rate)
            samples += whole // width
            yield frame
