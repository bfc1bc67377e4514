"""VoxCeleb, in the three forms in which people have it on disk.

(a) FOMM's: chunks named `VIDEO#CHUNK#FIRST-LAST.mp4`, or whole videos `VIDEO.mp4`, with head boxes in a
    `vox-metadata.csv` (video_id, start, end, bbox, fps, width, height, partition, person_id).
(b) VoxCeleb1's `txt/ID/VIDEO/CHUNK.txt`: a face box a frame and the A/V `Offset`, for chunks or whole videos.
    Chunks without a csv, cropped already, are `ID#VIDEO#FIRST#LAST.mp4`, usually below `train/` and `test/`.
(c) VoxCeleb2's: `ID/VIDEO/CLIP.mp4`, already cropped. So is every file that no list knows: all of it is kept, or its
    middle square.

Where there are both lists, the csv gives the crop, which is the better one, and the txt the offset.

Splits are those of the folders `dev` and `test`, then the csv's, then VoxCeleb1's own test people. FOMM's csv has two
people in train and in test: they count as test. None of these names people to validate with, so every twentieth of the
training people is held out as `val`, by the hash of the name: the same on every machine, whatever else is there.
"""

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from datasets.clips import SPLITS
from datasets.errors import DataError
from datasets.files import read_table
from datasets.prepare.sources import (
    FaceBoxes,
    FaceTracks,
    Framing,
    HeadBox,
    Source,
    Stretch,
    WholePicture,
    find_videos,
    fomm_person,
    person,
    safe_id,
)

MIN_FRAMES = 64  # as FOMM's vox preprocessing, with at most 1024
FIXED_RANGE = True
ARGUMENTS: dict[str, dict[str, Any]] = {
    "metadata": {
        "type": Path,
        "action": "append",
        "default": [],
        "help": "a vox-metadata.csv outside the input folder; may be given several times",
    },
    "txt": {"type": Path, "help": "the txt tree (default INPUT/txt)"},
}
TXT_FPS = 25.0
MOST_NUMBER = 10**7  # of a frame or pixel in a txt file: beyond is damage; ours
CHUNK = re.compile(r"(?P<video>.+)#(?P<chunk>\d+)#(?P<first>\d+)-(?P<last>\d+)")
HELD_OUT = 20  # one training person in so many validates, where no list says who does
TEST = frozenset(f"id{n}" for n in range(10270, 10310))  # VoxCeleb1's verification test: names that start with E


@dataclass(frozen=True)
class Listed:
    """What a list says about one stretch of a video; frames are counted at `fps`."""

    identity: str
    split: str | None
    first: int
    last: int
    fps: float
    framing: Framing
    offset_s: float = 0.0


def sources(root: Path, metadata: list[Path], txt: Path | None) -> list[Source]:
    """Everything below a folder.

    Args:
        metadata: FOMM-style lists; those in `root` are found by themselves.
        txt: the VoxCeleb1 `txt` tree; default `root/txt`.
    """
    boxes: dict[str, list[Listed]] = defaultdict(list)
    for path in [*metadata, *sorted(root.glob("*metadata*.csv"))]:
        for video, row in read_metadata(path):
            boxes[video].append(row)
    offsets: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in sorted((txt or root / "txt").rglob("*.txt")):
        offsets[path.parent.name][path.stem] = path
    found = [_source(root, path, boxes, offsets) for path in find_videos(root)]
    listed = [(row.identity, row.split) for rows in boxes.values() for row in rows if row.split]
    split_of = one_split_each([*listed, *((source.identity, source.split) for source in found)])
    if "val" not in split_of.values():
        held_out = held_out_people({source.identity for source in found if split_of[source.identity] == "train"})
        split_of |= dict.fromkeys(held_out, "val")
    return [replace(source, split=split_of[source.identity]) for source in found]


def one_split_each(people: Iterable[tuple[str, str]]) -> dict[str, str]:
    """(identity, split) of clips -> the one split of each identity: test wins over val, val over train."""
    split_of: dict[str, str] = {}
    for identity, split in people:
        split_of[identity] = max(split, split_of.get(identity, split), key=SPLITS.index)
    return split_of


def held_out_people(training: set[str]) -> set[str]:
    """About one in HELD_OUT of the training identities; of few at least one, unless there is only one."""
    ordered = sorted(training, key=_hash)
    chosen = {identity for identity in ordered if _hash(identity) % HELD_OUT == 0}
    return chosen or set(ordered[: len(ordered) > 1])


def _hash(identity: str) -> int:
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8])


def _source(root: Path, path: Path, boxes: dict[str, list[Listed]], offsets: dict[str, dict[str, Path]]) -> Source:
    parts = path.relative_to(root).parts
    folder_identity = next((part for part in parts if re.fullmatch(r"id\d+", part)), None)
    folder_split = next(("train" if part == "dev" else part for part in parts if part in (*SPLITS, "dev")), None)
    if chunk := CHUNK.fullmatch(path.stem):
        video, number, first, last = chunk["video"], chunk["chunk"], int(chunk["first"]), int(chunk["last"])
        row = next((row for row in boxes.get(video, []) if (row.first, row.last) == (first, last)), None)
        listed = read_txt(offsets[video][number]) if number in offsets.get(video, {}) else None
        framing = row.framing if row else listed.framing if listed else FaceTracks()
        stretches = [Stretch(safe_id(video, number), framing, offset_s=listed.offset_s if listed else 0.0)]
        known = row or listed
    elif path.stem in boxes or path.stem in offsets:
        video = path.stem
        rows = {f"{row.first:06d}-{row.last:06d}": row for row in boxes.get(video, [])}
        if not rows:
            rows = {number: read_txt(file) for number, file in offsets[video].items()}
        stretches = [
            Stretch(safe_id(video, name), row.framing, row.first / row.fps, (row.last + 1) / row.fps, row.offset_s)
            for name, row in sorted(rows.items())
        ]
        known = next(iter(rows.values()))
    else:
        cropped_tree = len(parts) >= 3 and folder_identity
        listed = (
            read_txt(offsets[parts[-2]][path.stem])
            if cropped_tree and path.stem in offsets.get(parts[-2], {})
            else None
        )
        stretches = [Stretch(safe_id(*parts[-2:-1] if cropped_tree else (), path.stem), WholePicture())]
        if listed:
            stretches = [Stretch(stretches[0].id, listed.framing, offset_s=listed.offset_s)]
        known = listed
    identity = folder_identity or (known.identity if known else fomm_person(path.stem) or person(path.stem))
    split = folder_split or (known and known.split) or ("test" if identity in TEST else "train")
    prefix = "" if stretches[0].id == safe_id(identity) else f"{safe_id(identity)}_"
    return Source(path, identity, split, tuple(replace(stretch, id=prefix + stretch.id) for stretch in stretches))


def read_metadata(path: Path) -> list[tuple[str, Listed]]:
    """Rows of a FOMM-style list, with their video. The box is in pixels of width x height; a side may lie outside."""
    rows = []
    for number, row in read_table(path, "list")[1]:
        try:
            box = [_number(value) for value in row["bbox"].split("-")]
            width, height = _number(row["width"]), _number(row["height"])
            framing = HeadBox(box[0] / width, box[1] / height, box[2] / width, box[3] / height)
            listed = Listed(
                row["person_id"],
                row["partition"] if row["partition"] in SPLITS else None,
                int(row["start"]),
                int(row["end"]),
                _number(row["fps"]),
                framing,
            )
            if min(width, height, listed.fps) <= 0 or not 0 <= listed.first <= listed.last:
                raise ValueError("a size, rate or stretch that cannot be")
            rows.append((row["video_id"], listed))
        except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
            raise DataError(f"{path}, line {number}: not a row of a FOMM-style list ({error!r})") from error
    return rows


def _number(text: str) -> float:
    """A finite number. Raises ValueError."""
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is no finite number")
    return value


def read_txt(path: Path) -> Listed:
    """One VoxCeleb1 txt file: header `Name : value`, then FRAME X Y W H.

    `Offset` is SyncNet's, in frames: picture i belongs to sound i - Offset. Measured on 1zcIwhmdeo4/00001 (Offset -5):
    the mouth's opening follows the sound 3 to 4 frames further on, in other videos of these folders 0 to 1.
    """
    header: dict[str, str] = {}
    rows = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            if ":" in line:
                name, value = line.split(":", 1)
                header[name.strip()] = value.strip()
            elif line[:1].isdigit():
                rows.append([int(value) for value in line.split()])
        offset_s = -_number(header.get("Offset", "0")) / TXT_FPS
        if not rows or any(len(row) != 5 or max(map(abs, row)) > MOST_NUMBER for row in rows):
            raise ValueError("no FRAME X Y W H rows")
    except ValueError as error:
        raise DataError(f"{path} is no VoxCeleb1 txt file ({error})") from error
    frame, x, y, w, h = np.array(rows).T
    framing = FaceBoxes(float(x.min()), float(y.min()), float((x + w).max()), float((y + h).max()), float(np.median(h)))
    return Listed(
        header.get("Identity", path.parts[-3]),
        None,
        int(frame[0]),
        int(frame[-1]),
        TXT_FPS,
        framing,
        offset_s=offset_s,
    )
