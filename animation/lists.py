"""Many videos in one go: rows of a CSV, or a folder of pictures with one sound (or the other way round).

A list is judged as a whole before anything is made. Then each row stands for itself: one that fails is one sentence,
and the others are made.
"""

import contextlib
import difflib
import json
import os
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from animation.job import Job
from animation.options import AnimationOptions, override
from datasets import provenance
from datasets.errors import DataError
from datasets.files import make_folder, output_file, read_table
from datasets.media.streams import open_media
from datasets.media.video_writer import FRAME_NAMES
from engine.config import ConfigError, load

UNREADABLE = "backslashreplace"  # bytes of a name that are no UTF-8 become \udcXX; JSON reads that as Python does
WANTED = ("image", "audio", "output")
FILES = tuple(each.name for each in fields(Job))
FOR_ALL_ROWS = ("device", "precision", "batch_size", "compile", "seed")  # decided once, when the networks are loaded
OPTIONS = tuple(each.name for each in fields(AnimationOptions) if each.name not in FOR_ALL_ROWS)
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".jp2", ".heic"})
SOUNDS = frozenset({".wav", ".mp3", ".flac", ".m4a", ".aac", ".ogg", ".opus", ".aif", ".aiff", ".wma", ".mka", ".mp4"})


@dataclass(frozen=True)
class Row:
    """One video to make."""

    job: Job
    options: AnimationOptions


@dataclass
class Result:
    """What became of a row: a line of the report."""

    output: str
    image: str
    audio: str | None
    status: str  # made, there (it was whole already) or failed
    frames: int = 0
    seconds: float = 0.0  # that making it took
    notes: tuple[str, ...] = ()
    reason: str | None = None  # of a failure
    log: str | None = None  # the file with its traceback, where the cause is unknown


def read_pairs(
    path: Path, config: Path | None, overrides: list[str], carried: dict[str, Any] | None = None
) -> list[Row]:
    """Rows of a CSV with the columns image,audio,output and, if wanted, any of the files and options by name.

    Names are relative to the current folder; an empty cell is as if the column were not there.

    Args:
        config, overrides: the options that count where a row has none, as for `engine.config.load`.
        carried: options that the weights carry; they count least.

    Raises:
        DataError: no such list, a column or value that cannot be, a file that two rows write, or that
            one writes and one reads.
    """
    columns, numbered = read_table(path, "list")
    _check_columns(path, columns)
    if not numbered:
        raise DataError(f"{path} has no row below its header")
    rows = []
    for line, row in numbered:
        where = f"{path}, line {line}"
        cells = {name: value.strip() for name, value in row.items() if value.strip()}
        if not {"image", "output"} <= cells.keys() or not {"audio", "motion"} & cells.keys():
            raise DataError(f"{where}: image, audio and output must all be given")
        own = [override(name, value) for name, value in cells.items() if name in OPTIONS]
        try:
            options = load(AnimationOptions, config, [*overrides, *own], below=carried)
        except ConfigError as error:
            raise DataError(f"{where}: {error}") from error
        rows.append(Row(Job(**{name: Path(value) for name, value in cells.items() if name in FILES}), options))
    check_outputs([row.job for row in rows], path)
    return rows


def rows_of_folder(image: Path, audio: Path, output: Path, options: AnimationOptions) -> list[Row]:
    """A row for every picture of a folder with one sound, or for every sound of a folder with one picture.

    Videos are named like the files of the folder; `output` is the folder to put them into.

    Raises:
        DataError: both are folders, or there is nothing in the one that is.
    """
    if image.is_dir() and audio.is_dir():
        raise DataError(f"{image} and {audio} are both folders; give --pairs a list that says which goes with which")
    folder, suffixes, what = (image, PICTURES, "picture") if image.is_dir() else (audio, SOUNDS, "sound")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))
    if not found:
        raise DataError(f"{folder} is a folder without a {what} file; name a {what} or a folder of them")
    if output.exists() and not output.is_dir():
        raise DataError(f"{output} is a file; with a folder of {what}s, --output names the folder for the videos")
    stems = [path.stem for path in found]
    rows = []
    for path in found:
        video = output / f"{path.stem if stems.count(path.stem) == 1 else path.name}.mp4"
        job = Job(path, video, audio) if image.is_dir() else Job(image, video, path)
        rows.append(Row(job, options))
    check_outputs([row.job for row in rows], folder)
    return rows


def check_outputs(jobs: Iterable[Job], source: Path) -> None:
    """Every file is written by one row only, and none that a row writes is read by any. Raises DataError."""
    jobs = list(jobs)
    read = {file.resolve() for job in jobs for file in job.inputs}
    read |= {file.parent for file in read if file.match(FRAME_NAMES)}  # `remove_frames` may not see them
    written: set[Path] = set()
    for job in jobs:
        for file in job.outputs:
            target = file if file == job.frames_dir else output_file(file)
            target = target.resolve()
            if target in written:
                raise DataError(f"{source} names the output {file} twice; every row needs its own")
            if target in read:
                raise DataError(f"{source} names {file} as an input and as an output; give the output another name")
            written.add(target)


GIF_END = b";"  # its last byte; unlike an mp4 it does not tell how many pictures there are


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read()


def is_whole(path: Path) -> bool:
    """Whether a file is a video of this project with all its pictures."""
    import av

    if not path.is_file():
        return False
    try:
        if not provenance.read_marks(path) or (path.suffix.lower() == ".gif" and _last_byte(path) != GIF_END):
            return False
        with open_media(path, "video", "video") as (container, stream):
            packets = sum(packet.size > 0 and not packet.is_corrupt for packet in container.demux(stream))
            return 0 < packets == stream.frames
    except (DataError, OSError, av.error.FFmpegError):
        return False


class Report:
    """What became of the rows: a table for the screen and, if wanted, a file with a JSON object a line."""

    def __init__(self, path: Path | None, rank: int, taken: Iterable[Path]) -> None:
        """Begin, or go on with a file that is there.

        Args:
            rank: of this process; each one but the first has a file of its own, named after it.
            taken: files that the list reads or writes.

        Raises:
            DataError: the file cannot be written, or is one of `taken`.
        """
        self.results: list[Result] = []
        self._file = None
        if path is not None:
            path = output_file(path.with_name(f"{path.stem}.rank{rank}{path.suffix}") if rank else path, taken)
            make_folder(path.parent)
            self._file = path.open("a", encoding="utf-8", errors=UNREADABLE)

    def add(self, result: Result) -> None:
        """Keep a result; its line is in the file at once."""
        self.results.append(result)
        if self._file is not None:
            self._file.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")
            self._file.flush()

    def count(self, status: str) -> int:
        return sum(result.status == status for result in self.results)

    def table(self) -> Iterator[str]:
        """A line for each row."""
        width = max((len(result.output) for result in self.results), default=0)
        for result in self.results:
            made = f"{result.frames} frames, {result.seconds:.1f} s" if result.status == "made" else ""
            yield f"{result.status:6}  {result.output:{width}}  {result.reason or made}".rstrip()


def log_of(error: BaseException, output: Path) -> Path:
    """Write the traceback of an error nobody foresaw beside the output of its row (or, if that cannot be, into the
    system's temporary folder) -> the file."""
    text = "".join(traceback.format_exception(error))
    with contextlib.suppress(OSError, DataError):
        path = output_file(output.with_name(f"{output.name}.error.log"))
        path.write_text(text, encoding="utf-8", errors=UNREADABLE)
        return path
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", errors=UNREADABLE, prefix="audio2head-", suffix=".error.log", delete=False
    ) as file:
        file.write(text)
    return Path(file.name)


def _check_columns(path: Path, columns: list[str]) -> None:
    missing = [name for name in WANTED if name not in columns and not (name == "audio" and "motion" in columns)]
    if missing:
        raise DataError(f"{path} lacks the column {missing[0]}; its first line must name image,audio,output")
    known = (*FILES, *OPTIONS)
    for name in columns:
        if name in FOR_ALL_ROWS:
            raise DataError(f"{path}: {name} counts for the whole list; give it on the command line, not as a column")
        if name not in known:
            near: list[Any] = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise DataError(f"{path} has an unknown column {name!r}; {hint}")
