"""An mp4 that plays while it is written: in a file that grows, or down a pipe."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from datasets import provenance
from datasets.errors import DataError
from datasets.files import make_folder, output_file
from datasets.media.video_writer import VideoWriter

FRAGMENT_S = 0.2  # each fragment of the file can be played by itself once it is there
KEYFRAMES = 50  # frames from one to the next: 2 s, to which a player can jump


class StreamWriter(VideoWriter):
    """As VideoWriter, but every fifth of a second is written at once, and nothing is moved at the end.

    The marks stand at the beginning, so whatever part of it is kept carries them; a file that broke off plays up to
    there. It cannot be signed, which takes the whole file.

    Args:
        path: the file to write, or where `target` leads, for messages.
        target: write into this and not into a file; it stays open.
    """

    CONTAINER: ClassVar[dict[str, str]] = {
        "movflags": "use_metadata_tags+frag_keyframe+empty_moov+default_base_moof",
        "frag_duration": str(round(FRAGMENT_S * 1e6)),
        "flush_packets": "1",
    }
    ENCODER: ClassVar[dict[str, str]] = {"tune": "zerolatency", "g": str(KEYFRAMES)}

    def __init__(self, path: str | Path, target: BinaryIO | None = None, **settings: Any) -> None:
        super().__init__(path, **settings)
        self._into = target

    def _open_target(self) -> None:
        into = self._into
        if into is None:
            path = output_file(self.path)
            make_folder(path.parent)
            into = self._stack.enter_context(path.open("ab", buffering=0))
            self._hold(into)
            into.truncate(0)
        self._target = _Marked(into)

    def _hold(self, file: BinaryIO) -> None:
        """Keep other processes from writing the same file; not where files cannot be locked."""
        with contextlib.suppress(ImportError):  # Windows
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DataError(f"{self.path} is being written by another process; name another file") from error
            except OSError:  # some network drives lock nothing
                pass

    def _translated(self, error: BaseException) -> BaseException:
        return super()._translated(self._target.failure or error)  # what PyAV makes of it says less

    def _complete(self) -> None:
        pass


class _Marked:
    """Passes bytes of an mp4 on, the XMP packet after its header: a box of its own, between `moov` and the rest."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._header: bytearray | None = bytearray()  # until it is whole
        self.failure: OSError | None = None  # of the file

    def write(self, data: bytes) -> int:
        if self._header is None:
            self._pass_on(data)
        else:
            self._header += data
            end = _header_end(self._header)
            if end is not None:
                self._pass_on(bytes(self._header[:end]) + provenance.xmp_box() + bytes(self._header[end:]))
                self._header = None
        return len(data)

    def _pass_on(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
            self._file.flush()
        except OSError as error:
            self.failure = error
            raise


def _header_end(data: bytearray) -> int | None:
    """Where the box `moov` ends, None as long as it has not come whole."""
    at = 0
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        at += size
        if kind == b"moov":
            return at if at <= len(data) else None
    return None
