"""What a corpus adapter hands to `datasets.prepare`: which stretches of which files, and how to frame the face.

Adapters live in `datasets/prepare/corpora/`, one corpus a file, and only look at names and lists; they open no video.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

ID_BYTES = 160  # of an id in UTF-8: file systems allow names of 255, and temporary names and suffixes are longer
FOMM_NAME = re.compile(r"(?P<person>[^#]+)#(?P<video>.+)#(?P<first>\d+)#(?P<last>\d+)")
VIDEO_SUFFIXES = frozenset(".mp4 .mpg .mpeg .avi .mov .mkv .webm .wmv .m4v .flv .3gp .ts".split())  # noqa: SIM905


@dataclass(frozen=True)
class WholePicture:
    """The source is already cropped: keep all of it (the middle square, if it is not square)."""


@dataclass(frozen=True)
class HeadBox:
    """A box around the head, as fractions of the picture's width and height; its square is the crop."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class FaceBoxes:
    """The union of face boxes and their median height, in pixels of a download whose height the list does not say.

    The height is the one at which the boxes cover the face in the file (`framing.listed_square`).
    """

    left: float
    top: float
    right: float
    bottom: float
    face_height: float


@dataclass(frozen=True)
class OneFace:
    """Find the face; the stretch stays whole."""


@dataclass(frozen=True)
class FaceTracks:
    """Find and follow the face; cut the stretch where it is lost, joined by another, or the shot changes."""


Framing = WholePicture | HeadBox | FaceBoxes | OneFace | FaceTracks


@dataclass(frozen=True)
class Stretch:
    """A part of a file that should become one clip (with FaceTracks: any number of clips)."""

    id: str  # of the clip; of several clips, how their ids begin
    framing: Framing
    start_s: float = 0.0  # in the file
    end_s: float | None = None  # None: the file's end
    offset_s: float = 0.0  # how much later than its picture the sound lies in the file, seconds


@dataclass(frozen=True)
class Source:
    """One file of the raw corpus and what to make of it: the unit of work, of resuming and of sharding."""

    path: Path
    identity: str
    split: str
    stretches: tuple[Stretch, ...] = field(repr=False)

    @property
    def id(self) -> str:
        """Name for the journal: the id of the first stretch."""
        return self.stretches[0].id


class Corpus(Protocol):
    """A corpus adapter: a module with these names. The first line of its docstring is its help."""

    __doc__: str
    MIN_FRAMES: int  # the shortest clip worth keeping, where the user names none
    FIXED_RANGE: bool  # whether poses are scaled by the released model's limits instead of this corpus's own
    ARGUMENTS: dict[str, dict[str, Any]]  # options of this corpus alone: name -> what argparse wants to know
    sources: Callable[..., list[Source]]  # (root, and the values of ARGUMENTS by name) -> the files and their clips


def find_videos(root: Path) -> list[Path]:
    """All videos below a folder, sorted; linked folders are entered, hidden files left out."""
    return sorted(
        Path(folder, name)
        for folder, _, names in os.walk(root, followlinks=True)
        for name in names
        if Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".")
    )


def safe_id(*parts: str) -> str:
    """Parts joined to a name that file systems and shells take: letters of any script, digits, . _ - only.

    Other ASCII characters become "-". Where a name would lose more than that (signs outside ASCII, or all that exceeds
    `ID_BYTES`), a digest of the parts is added, so that different names stay different.
    """
    parts = tuple(unicodedata.normalize("NFC", part) for part in parts)
    id = "_".join("".join(c if _is_letter(c) or c in ".-_" else "-" for c in part) for part in parts)
    lost = any(not c.isascii() and not _is_letter(c) for part in parts for c in part)
    if lost or len(id.encode()) > ID_BYTES:
        id = id.encode()[:ID_BYTES].decode(errors="ignore") + "-" + short_digest(*parts)
    return id


def short_digest(*parts: str) -> str:
    """Eight hexadecimal digits that stand for some names."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:8]


def person(name: str) -> str:
    """The name of a speaker as it stands in the manifest: as the user wrote it, letters with accents in one form."""
    return unicodedata.normalize("NFC", name)


def fomm_person(stem: str) -> str | None:
    """The speaker in a file name of FOMM's preprocessing, `PERSON#VIDEO#FIRST#LAST`; None for other names."""
    match = FOMM_NAME.fullmatch(stem)
    return match and match["person"]


def _is_letter(c: str) -> bool:
    """Letters and digits of any script, and the marks that belong to letters in many."""
    return c.isalnum() or unicodedata.category(c).startswith("M")
