"""Frames and sound -> a marked mp4, or frames -> PNG files.

Frames are uint8 [H, W, 3], RGB; batches of them uint8 [N, H, W, 3].
"""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from datasets import provenance
from datasets.errors import DataError, DiskFullError
from datasets.files import is_full, make_folder, written_beside
from datasets.media.image import write_png
from datasets.media.live_sound import LiveSound
from datasets.media.sound import Levels, is_mixable, resampled, sound_frames
from datasets.media.streams import FPS, decoded_frames, ffmpeg_errors, open_media
from datasets.media.video_reader import CONVERSION

CRF = 17  # x264 quality: hardly told from the original; the released code's default is 23
# Measured on drawn frames at 512x512, one core: 3.1 ms a frame and 134 KB at CRF 17, 0.3 dB below "faster" at CRF 18,
# which took 4.6 ms and 140 KB.
PRESET = "veryfast"
BT601: dict[str, Any] = {"dst_colorspace": "ITU601", "dst_color_range": "MPEG"}  # of 8-bit video: limited range
QUEUED_BATCHES = 2  # frames waiting for the encoder: enough to overlap, bounded
FRAME_NAMES = "[0-9]" * 6 + ".png"  # of `write_frames`
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
AAC_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
AAC_FRAME = 1024  # samples
AAC_BITS_PER_SAMPLE = 2.2  # of one channel: 97 kbit/s at 44.1 kHz


class VideoWriter:
    """Writes an mp4 while its frames are computed: H.264 yuv420p, with the sound of another file as AAC.

    A context manager. When the block ends without an error, the file appears under its name, marked as synthetic; after
    an error or Ctrl-C nothing is left of it. Encoding runs in a thread of its own, a few batches behind `write`.

    The sound is decoded from its file piece by piece, keeps its rate and channels (the next ones AAC knows), and is cut
    or continued with silence to the length of the picture. Odd widths and heights get one more column or row, a copy of
    the last. Colours are BT.601, limited range, and say so.

    Args:
        path: the mp4 to write.
        sound: a media file whose sound goes with the frames, sound that is still coming, or None.
        fps: frames a second.
        crf: x264's constant rate factor, 0 (lossless) to 51.
        label: burn in a small "synthetic" label.
        signature: signs the finished file with a C2PA manifest.

    Raises:
        DataError: the target cannot be written, the disk is full, or the sound cannot be read. Errors of the thread are
            raised by the next `write` or at the end of the block.
    """

    CONTAINER: ClassVar[dict[str, str]] = {"movflags": "use_metadata_tags+faststart"}
    ENCODER: ClassVar[dict[str, str]] = {}  # more options of x264

    def __init__(
        self,
        path: str | Path,
        sound: str | Path | LiveSound | None = None,
        fps: float = FPS,
        crf: int = CRF,
        label: bool = False,
        signature: provenance.Signature | None = None,
    ) -> None:
        self.path = Path(path)
        self.frames = 0  # taken so far
        self._sound_from, self._crf, self._label, self._signature = sound, crf, label, signature
        self._fps = Fraction(fps).limit_denominator(1001)
        self._stack = contextlib.ExitStack()
        self._batches: queue.Queue[np.ndarray | None] = queue.Queue(QUEUED_BATCHES)
        self._cancelled = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="video-encoder", daemon=True)

    def __enter__(self) -> Self:
        with self._stack:
            self._open_target()
            self._sound: tuple[Iterator[Any], Any, str | Path] | None = None
            if isinstance(self._sound_from, LiveSound):
                self._sound = self._sound_from.passed(), self._sound_from, self._sound_from.name
            elif self._sound_from is not None:
                container, stream = self._stack.enter_context(open_media(self._sound_from, "audio", "sound"))
                frames = sound_frames(decoded_frames(container, stream, self._sound_from), Levels())
                self._sound = frames, stream.codec_context, self._sound_from
            self._stack = self._stack.pop_all()
        self._thread.start()
        return self

    def write(self, frames_NHW3: np.ndarray) -> None:
        """Queue a batch of frames; waits while the encoder is behind. All frames have one size."""
        assert frames_NHW3.dtype == np.uint8 and frames_NHW3.ndim == 4 and frames_NHW3.shape[3] == 3, frames_NHW3.shape
        assert self._thread.is_alive() or self._error is not None, "write after finish, or outside the with block"
        self.frames += len(frames_NHW3)
        self._put(frames_NHW3)

    def finish(self) -> None:
        """Wait until all frames are encoded; the end of the block does it too."""
        if self._thread.is_alive():
            self._put(None)
            self._thread.join()
        if self._error is not None:
            raise self._translated(self._error) from self._error

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        try:
            with self._stack:  # on an error, in here or before, removes the temporary file; otherwise renames it
                if kind is not None:
                    self._cancelled.set()
                    self._thread.join()
                    raise _Cancelled
                try:
                    self.finish()
                except BaseException:  # Ctrl-C while waiting, too: the encoder must be gone before its file goes
                    self._cancelled.set()
                    self._thread.join()
                    raise
                self._complete()
        except _Cancelled:
            pass  # the caller's own error goes on

    def _open_target(self) -> None:
        """Say in `_target` what PyAV writes to; what the stack is given ends with the block."""
        self._temporary = self._stack.enter_context(written_beside(self.path))
        self._target: Any = f"file:{self._temporary}"

    def _complete(self) -> None:
        """What follows when all is encoded."""
        provenance.append_xmp(self._temporary)
        if self._signature is not None:
            self._signature.sign(self._temporary)

    def _put(self, batch: np.ndarray | None) -> None:
        while True:
            if self._error is not None:
                raise self._translated(self._error) from self._error
            with contextlib.suppress(queue.Full):
                return self._batches.put(batch, timeout=0.2)

    def _translated(self, error: BaseException) -> BaseException:
        import av

        if isinstance(error, (OSError, av.error.FFmpegError)) and not isinstance(error, BrokenPipeError):
            reason = error.strerror or error
            kind = DiskFullError if isinstance(error, OSError) and is_full(error) else DataError
            return kind(f"{self.path} cannot be written ({reason}); free some space or choose another folder")
        return error

    # the encoder's thread

    def _work(self) -> None:
        try:
            self._encode_all()
        except _Cancelled:
            pass
        except BaseException as error:  # handed over to the caller's thread
            self._error = error

    def _next_batch(self) -> np.ndarray | None:
        while not self._cancelled.is_set():
            with contextlib.suppress(queue.Empty):
                return self._batches.get(timeout=0.2)
        raise _Cancelled

    def _encode_all(self) -> None:
        import av

        batch_NHW3 = self._next_batch()
        if batch_NHW3 is None:
            raise DataError(f"{self.path}: no frame to write; the sound or the motion is empty")
        with av.open(self._target, "w", format="mp4", options=self.CONTAINER) as output:
            output.metadata.update(provenance.metadata())
            picture = _PictureTrack(output, batch_NHW3.shape[1:3], self._fps, self._crf, self.ENCODER)
            sound = _SoundTrack(output, *self._sound) if self._sound is not None else None
            while batch_NHW3 is not None:
                if self._label:
                    batch_NHW3 = provenance.draw_label(batch_NHW3)
                for frame_HW3 in batch_NHW3:
                    output.mux(picture.encode(frame_HW3))
                    if sound is not None:
                        output.mux(sound.encode_until(picture.frames / self._fps, last=False))
                batch_NHW3 = self._next_batch()
            output.mux(picture.finish())
            if sound is not None:
                output.mux(sound.encode_until(picture.frames / self._fps, last=True))


class _Cancelled(Exception):
    """The block ended with an error: the encoder stops, the temporary file goes."""


@functools.cache
def _x264_limits() -> dict[str, str]:
    """Options that keep x264 from using AVX-512, with which equal frames gave other videos from run to run.

    Measured with PyAV 18.1: 36 different videos of 60 with AVX-512, one without.
    """
    cpu = Path("/proc/cpuinfo")
    has_it = cpu.is_file() and "avx512" in cpu.read_text()
    return {"x264-params": "asm=avx2"} if has_it else {}


class _PictureTrack:
    def __init__(self, output: Any, size: tuple[int, int], fps: Fraction, crf: int, options: Mapping[str, str]) -> None:
        from av.video.reformatter import VideoReformatter

        height, width = size
        self.frames = 0
        self._reformatter = VideoReformatter()
        self._fps = fps
        self._pad = ((0, height % 2), (0, width % 2), (0, 0))
        self._size = size
        self._stream = output.add_stream(
            "libx264", rate=fps, options={"crf": str(crf), "preset": PRESET, **options, **_x264_limits()}
        )
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.color_range, context.colorspace, context.color_primaries, context.color_trc = (
            1,
            6,
            6,
            6,
        )  # limited, BT.601

    def encode(self, frame_HW3: np.ndarray) -> list[Any]:
        import av

        assert frame_HW3.shape[:2] == self._size, (frame_HW3.shape, self._size)
        if self._pad[0][1] or self._pad[1][1]:
            frame_HW3 = np.pad(frame_HW3, self._pad, mode="edge")
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HW3), format="rgb24")
        frame = self._reformatter.reformat(rgb, format="yuv420p", interpolation=CONVERSION, **BT601)
        frame.pts = self.frames
        frame.time_base = 1 / self._fps
        self.frames += 1
        return self._stream.encode(frame)

    def finish(self) -> list[Any]:
        return self._stream.encode(None)


class _SoundTrack:
    """Sound as AAC, as far as the picture goes.

    Args:
        frames: of PyAV.
        context: has their sample_rate, layout and number of channels.
        path: where they come from, for messages.
    """

    def __init__(self, output: Any, frames: Iterator[Any], context: Any, path: str | Path) -> None:
        self._rate = next((rate for rate in AAC_RATES if rate >= context.sample_rate), AAC_RATES[-1])
        self._layout = AAC_LAYOUTS.get(context.channels, "stereo") if is_mixable(context.layout) else "mono"
        self._stream = output.add_stream("aac", rate=self._rate, layout=self._layout)
        self._stream.bit_rate = int(AAC_BITS_PER_SAMPLE * self._rate * self._stream.codec_context.channels)
        self._path = path
        self._pieces = resampled(frames, "fltp", self._rate, self._layout)
        self._waiting_CN = np.zeros((self._stream.codec_context.channels, 0), np.float32)
        self._samples = 0  # encoded so far

    def encode_until(self, end_s: Fraction, last: bool) -> list[Any]:
        """Packets of the sound up to a time, in whole AAC frames; with `last` all of it, and the encoder's rest."""
        import av

        packets, end = [], round(end_s * self._rate)
        while self._samples + AAC_FRAME <= end or (last and self._samples < end):
            count = min(AAC_FRAME, end - self._samples)
            frame = av.AudioFrame.from_ndarray(self._take(count), format="fltp", layout=self._layout)
            frame.sample_rate, frame.pts, frame.time_base = self._rate, self._samples, Fraction(1, self._rate)
            self._samples += count
            packets += self._stream.encode(frame)
        return packets + (self._stream.encode(None) if last else [])

    def _take(self, count: int) -> np.ndarray:
        while self._waiting_CN.shape[1] < count:
            with ffmpeg_errors(self._path, "sound"):
                piece_CN = next(self._pieces, None)
            if piece_CN is None:  # the sound has ended: silence
                piece_CN = np.zeros((len(self._waiting_CN), AAC_FRAME), np.float32)
            self._waiting_CN = np.concatenate([self._waiting_CN, piece_CN], axis=1)
        taken_CN, self._waiting_CN = self._waiting_CN[:, :count], self._waiting_CN[:, count:]
        return np.ascontiguousarray(taken_CN)


def frame_file(folder: str | Path, index: int) -> Path:
    """Where `write_frames` writes a frame."""
    return Path(folder) / f"{index:06d}.png"


def remove_frames(folder: str | Path) -> None:
    """Make room for `write_frames` where it has been at work before; pictures without its marks stay."""
    for path in list(Path(folder).glob(FRAME_NAMES)):
        if provenance.read_marks(path):
            path.unlink()


def write_frames(folder: str | Path, first: int, frames_NHW3: np.ndarray) -> None:
    """Write frames first, first + 1, ... as 000000.png, 000001.png ..., each whole or not at all, marked as synthetic.

    Raises:
        DataError: the folder cannot be made or written to, or, with the first frame, already holds frames.
    """
    folder = make_folder(folder)
    if first == 0 and any(folder.glob(FRAME_NAMES)):
        raise DataError(f"{folder} already holds frames, which would mix with the new ones; empty it or name another")
    for index, frame_HW3 in enumerate(frames_NHW3, first):
        write_png(frame_file(folder, index), frame_HW3, provenance.png_marks())
