"""The prepared corpus: a folder of clips of one format, and the manifest that lists them.

    PREPARED/manifest.csv        one row a clip (the fields of `ClipRow`), sorted by id
    PREPARED/rejected.csv        what was left out, and why
    PREPARED/pose_range.json     limits that scale a pose to [-1, 1] for this corpus
    PREPARED/settings.json       how it was prepared; `audio`: the setting of its features (absent: the paper's)
    PREPARED/clips/ID/frames.zip     000000.jpg ... at 25 fps, stored (not compressed again)
    PREPARED/clips/ID/audio.wav      16 kHz mono s16, in sync with the frames
    PREPARED/clips/ID/features.npy   [T, 4, F] float32, `datasets.audio.features` of audio.wav; F is 41 in the paper
    PREPARED/clips/ID/pose.npy       [T, 6] float32, rad and mm in the camera of `datasets.pose`
    PREPARED/clips/ID/mouth.npy      [T, 4] float32, mouth centre x, y, width and opening in pixels of a 256x256 frame
    PREPARED/clips/ID/eyes.npy       [T, 2, 4] float32, the same of both eyes, the left one in the picture first
    PREPARED/clips/ID/clip.json      this clip's row of the manifest

A clip's folder is written beside its place and renamed, so that a folder under `clips/` is always whole.
Reading needs numpy and OpenCV only: a training machine may lack the libraries that prepare.

Letters: T video frame (25 fps), N frames asked for, A audio window in a frame (4), F audio feature (41), P pose value,
H W picture.
"""

import csv
import io
import json
import math
import os
import struct
import wave
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import cv2
import numpy as np

from datasets.audio import PAPER, VOICED, AudioFeatureConfig
from datasets.errors import DataError
from datasets.files import (
    DAMAGED,
    file_digest,
    folder_written_beside,
    read_array,
    read_json,
    read_table,
    write_atomically,
)
from datasets.media.image import resized
from datasets.media.streams import FPS, SAMPLE_RATE
from datasets.pose import RELEASED_RANGE, PoseRange

SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
SPLITS = ("train", "val", "test")
JPEG_QUALITY = 95
MANIFEST, REJECTED, POSE_RANGE, SETTINGS = "manifest.csv", "rejected.csv", "pose_range.json", "settings.json"
RUNNING = ".running"  # held (`datasets.files.alone`) while clips are prepared, or their features computed anew
CHECKED = ("frames.zip", "audio.wav", "features.npy", "pose.npy")  # files whose digest the manifest holds ...
DIGEST = 16  # ... this many hexadecimal digits of it
DATA_DESCRIPTOR = 0x08  # flag of a zip entry that is followed by more than the next one's header
# A zip's end, and an entry of its directory for a name like 000000.jpg (.ZIP File Format Specification, 4.3.16 and 12).
ZIP_END = struct.Struct("<4s4H2LH")
ZIP_ENTRY = np.dtype(
    [
        ("mark", "S4"),
        ("versions", "<u4"),
        ("flags", "<u2"),
        ("method", "<u2"),
        ("time", "<u4"),
        ("crc", "<u4"),
        ("packed", "<u4"),
        ("size", "<u4"),
        ("path_length", "<u2"),
        ("extra", "<u2"),
        ("comment", "<u2"),
        ("disk", "<u2"),
        ("internal", "<u2"),
        ("external", "<u4"),
        ("offset", "<u4"),
        ("path", "S10"),
    ]
)
MOST_FRAMES, MOST_PIXELS = 1_000_000, 8192  # of a clip, half a day, and of a side: more is damage; ours
FEATURE_TAIL_SAMPLES = 400 - 160 - 159  # sound past the last frame that still completes its fourth 25 ms window


@dataclass(frozen=True)
class ClipRow:
    """One line of the manifest."""

    id: str  # name of the clip and of its folder
    identity: str  # the speaker; no identity may appear in two splits
    split: str  # train, val or test
    frames: int  # number of frames T (25 fps)
    size: int  # height and width of the frames, pixels
    source: str  # the file the clip was made from, relative to the raw corpus
    start_s: float  # time in the source of frame 0, seconds
    crop: str  # "x y side", the square of the source picture that was kept, in its pixels
    offset_s: float  # how much later the sound was taken than the picture, seconds (corrects the source's A/V offset)
    pose_source: str  # landmarks, openface, openface-csv or synthetic
    pose_success: float  # share of frames whose pose was measured; the others are interpolated
    voiced: float  # share of audio windows with pitch
    sha256: str  # first DIGEST hex digits of the SHA-256 of each file in CHECKED, in this order

    @property
    def pictures(self) -> str:
        """Names the clip's pictures: no others are called so, whatever the corpus."""
        return f"{self.id}.{self.sha256.split()[CHECKED.index('frames.zip')]}"

    @property
    def sound(self) -> str:
        """Names the clip's sound, as `pictures` does."""
        return f"{self.id}.{self.sha256.split()[CHECKED.index('audio.wav')]}"

    @property
    def contents(self) -> str:
        """Names all that is kept of the clip."""
        return f"{self.id} {self.sha256}"

    @staticmethod
    def of(values: Mapping[str, Any]) -> "ClipRow":
        """The row that these values make, which may be text. Raises ValueError where they cannot be a clip's."""
        if values.keys() != (wanted := {field.name for field in fields(ClipRow)}):
            raise ValueError(f"columns {sorted(values)}, wanted {sorted(wanted)}")
        try:
            row = ClipRow(**{field.name: field.type(values[field.name]) for field in fields(ClipRow)})  # type: ignore
        except (TypeError, OverflowError) as error:
            raise ValueError(str(error)) from error
        if row.id in ("", ".", "..") or set(row.id) & set("/\\\0\n\r"):
            raise ValueError(f"{row.id!r} is no name of a clip")  # a path could lead out of the corpus
        if row.split not in SPLITS or not 0 < row.frames <= MOST_FRAMES or not 0 < row.size <= MOST_PIXELS:
            raise ValueError(f"{row.id} has split {row.split!r}, {row.frames} frames of {row.size} pixels")
        numbers = (row.start_s, row.offset_s, row.pose_success, row.voiced)
        if not all(map(math.isfinite, numbers)) or len(row.sha256.split()) != len(CHECKED):
            raise ValueError(f"{row.id} has numbers that are not finite, or not {len(CHECKED)} check sums")
        return row


@dataclass(frozen=True)
class Clip:
    """One prepared clip: its row of the manifest, its position in the manifest, and its folder."""

    row: ClipRow
    index: int
    folder: Path

    @property
    def frames(self) -> int:
        """Number of frames T."""
        return self.row.frames

    def read_frames(self, indices: Sequence[int] | np.ndarray, size: int | None = None) -> np.ndarray:
        """Frames by number -> uint8 RGB [N, H, W, 3], resized to `size` pixels if they are of another one.

        Raises:
            DataError: a frame is missing or damaged; names the file.
        """
        path = self.folder / "frames.zip"
        frames = []
        try:
            places = _frame_places(path)
            with path.open("rb") as archive:
                for index in indices:
                    offset, length = places[index]
                    archive.seek(offset)
                    picture = cv2.imdecode(np.frombuffer(archive.read(length), np.uint8), cv2.IMREAD_COLOR)
                    if picture is None:
                        raise DataError(f"{path}: frame {index} is not a readable JPEG; prepare the clip again")
                    if size is not None:
                        picture = _resized(picture, size, path)
                    frames.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
        except DataError:
            raise
        except (*DAMAGED, IndexError, cv2.error) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{path}: cannot read frames {list(indices)[:4]}: {reason}; prepare the clip again"
            ) from error
        if len({frame.shape for frame in frames}) > 1:
            raise DataError(f"{path}: its frames are of several sizes; prepare the clip again")
        return np.stack(frames)

    def features(self) -> np.ndarray:
        """Audio features [T, 4, F] float32; F follows the corpus's setting (`load_audio_features`)."""
        return self._array("features.npy", (self.frames, 4, None))

    def pose(self) -> np.ndarray:
        """Head pose [T, 6] float32: rad, mm."""
        return self._array("pose.npy", (self.frames, 6))

    def mouth(self) -> np.ndarray:
        """Mouth centre x, y, width and opening of the inner lips, pixels of a 256x256 frame; NaN if unknown.

        float32 [T, 4].
        """
        return self._array("mouth.npy", (self.frames, 4))

    def eyes(self) -> np.ndarray:
        """Centre x, y, width and opening of both eyes [T, 2, 4] float32, the left one in the picture first, as `mouth`.

        All NaN in a corpus that was prepared before eyes were measured.
        """
        if not (self.folder / "eyes.npy").is_file():
            return np.full((self.frames, 2, 4), np.nan, np.float32)
        return self._array("eyes.npy", (self.frames, 2, 4))

    def pcm(self) -> np.ndarray:
        """Sound, int16 mono 16 kHz; as long as the frames plus FEATURE_TAIL_SAMPLES."""
        path = self.folder / "audio.wav"
        try:
            with wave.open(str(path)) as file:
                return np.frombuffer(file.readframes(file.getnframes()), np.int16)
        except (OSError, EOFError, ValueError, RuntimeError, wave.Error) as error:
            raise DataError(f"{path}: cannot be read: {error}; prepare the clip again") from error

    def _array(self, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
        path = self.folder / name
        array = read_array(path, "numbers of a prepared clip")
        if array.dtype != np.float32:
            raise DataError(f"{path}: holds {array.dtype}, not float32; prepare the clip again")
        if array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
            raise DataError(f"{path}: shape {array.shape}, the manifest says {shape}; prepare the clip again")
        return array


def _resized(picture_HWC: np.ndarray, size: int, path: Path) -> np.ndarray:
    try:
        return resized(picture_HWC, size, size)
    except cv2.error as error:
        raise DataError(f"a frame of {path} has no room in memory at {size} pixels; choose a smaller size") from error


@lru_cache(maxsize=4096)
def _frame_places(path: Path) -> np.ndarray:
    """Where the JPEG of each frame lies in the stored zip: (offset, length) in bytes, int64 [T, 2].

    Remembered (a few kB a clip). In a zip as `_write_frames` writes it all entries of the directory are alike and are
    read as one array, in a twentieth of the time that zipfile takes.
    """
    entries_T, end = _directory(path)
    in_order = entries_T["offset"][1:] > entries_T["offset"][:-1]
    named_in_order = entries_T["path"][1:] > entries_T["path"][:-1]
    if len(entries_T) and (in_order & named_in_order).all():
        sizes_T = entries_T["size"].astype(np.int64)
        return np.stack([np.append(entries_T["offset"][1:], end) - sizes_T, sizes_T], axis=1)
    return _places_by_zipfile(path)


def _directory(path: Path) -> tuple[np.ndarray, int]:
    """The directory of a stored zip whose entries are all like `_write_frames`'s, and where it begins; else nothing."""
    nothing = np.empty(0, ZIP_ENTRY), 0
    with path.open("rb") as file:
        if file.seek(0, io.SEEK_END) < ZIP_END.size:
            return nothing
        file.seek(-ZIP_END.size, io.SEEK_END)
        mark, _, _, _, count, size, start, comment = ZIP_END.unpack(file.read())
        if mark != b"PK\5\6" or comment or size != count * ZIP_ENTRY.itemsize:
            return nothing
        file.seek(start)
        listed = file.read(size)
    if len(listed) != size:
        return nothing
    entries_T = np.frombuffer(listed, ZIP_ENTRY)
    alike = entries_T["mark"] == b"PK\1\2"
    for field, value in (("method", zipfile.ZIP_STORED), ("path_length", 10), ("extra", 0), ("comment", 0)):
        alike &= entries_T[field] == value
    alike &= (entries_T["flags"] & DATA_DESCRIPTOR) == 0
    return (entries_T, start) if alike.all() else nothing


def _places_by_zipfile(path: Path) -> np.ndarray:
    """`_frame_places` for any stored zip."""
    with zipfile.ZipFile(path) as archive:
        entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
        ends = [*(entry.header_offset for entry in entries[1:]), archive.start_dir]
    if any(entry.flag_bits & DATA_DESCRIPTOR or entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise zipfile.BadZipFile("not a stored zip as datasets.prepare writes it")
    # A picture ends where the next entry begins, so its own header need not be read: one read a clip, not one a frame.
    places = {
        entry.filename: (end - entry.file_size, entry.file_size) for entry, end in zip(entries, ends, strict=True)
    }
    return np.array([places[name] for name in sorted(places)], np.int64)


def mouth_boxes(mouth_N4: np.ndarray) -> np.ndarray:
    """Centre, width and opening [..., 4] (pixels of 256) -> box (left, top, right, bottom) in [-1, 1]; 0 if unknown.

    The box is 1.5 mouths wide and as high as one mouth's width plus the opening: lips and some chin. Eyes likewise.
    """
    x, y, width, opening = np.moveaxis(mouth_N4, -1, 0)
    half_width, half_height = 0.75 * width, (width + opening) / 2
    box = np.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)
    return np.nan_to_num((box + 0.5) / 128 - 1, nan=0.0) * np.isfinite(mouth_N4).all(axis=-1, keepdims=True)


def load_manifest(root: str | Path, split: str | None = None) -> list[Clip]:
    """Clips of one split (None: of all), in the manifest's order.

    Raises:
        DataError: no manifest, a damaged one, no clip of this split, or a joined corpus whose parts have changed.
    """
    root = Path(root)
    path = root / MANIFEST
    if split is not None and split not in SPLITS:
        raise DataError(f"split is {split!r}, wanted one of {', '.join(SPLITS)}")
    if not path.is_file():
        raise DataError(
            f"{path} not found: make a prepared corpus with python -m datasets.prepare (or datasets.synthetic)"
        )
    clips = [Clip(row, index, root / "clips" / row.id) for index, row in enumerate(read_rows(path))]
    _refuse_stale(root, clips)
    clips = [clip for clip in clips if split is None or clip.row.split == split]
    if not clips:
        raise DataError(f"{path} lists no clip" + (f" of split {split!r}" if split else ""))
    return clips


def _refuse_stale(root: Path, clips: list[Clip]) -> None:
    """Raise DataError where a joined corpus (`datasets.join`) links to clips that have changed since it was joined."""
    kept: dict[Path, set[str]] = {}  # contents of each part's clips
    for clip in clips:
        if not clip.folder.is_symlink():
            return  # all are links, or none is
        part = Path(os.readlink(clip.folder)).parents[1]
        if part not in kept:
            if not (part / MANIFEST).is_file():
                return  # links that somebody else has made
            load_audio_features(part)  # refuses a part whose features are being computed
            kept[part] = {row.contents for row in read_rows(part / MANIFEST)}
        if clip.row.contents not in kept[part]:
            raise DataError(
                f"{part} has changed since {root} was joined (clip {clip.row.id}); join it again with "
                "python -m datasets.join"
            )


def load_pose_range(root: str | Path) -> PoseRange:
    """The limits stored with a prepared corpus; the released model's where none are stored."""
    path = Path(root) / POSE_RANGE
    if not path.is_file():
        return RELEASED_RANGE
    stored = read_json(path, "pose range")
    try:
        low, high = (tuple(map(float, stored[side])) for side in ("minimum", "maximum"))
        if len(low) != 6 or len(high) != 6 or not all(map(math.isfinite, (*low, *high))):
            raise ValueError(f"minimum {low}, maximum {high}; wanted six numbers each")
        return PoseRange(low, high)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path} holds no limits of head poses ({error}); prepare the corpus again") from error


def load_audio_features(root: str | Path) -> AudioFeatureConfig:
    """The setting that a prepared corpus's features were computed with: the paper's where none is stored.

    Raises:
        DataError: an unknown setting, or features that are being recomputed or were left half-way.
    """
    path = Path(root) / SETTINGS
    stored = read_json(path, "settings") if path.is_file() else {}
    if stored.get("recomputing"):
        raise DataError(f"{root}: its features are only partly recomputed; run python -m datasets.features again")
    setting = stored.get("audio", asdict(PAPER))
    known = get_type_hints(AudioFeatureConfig)
    if (
        not isinstance(setting, dict)
        or set(setting) != set(known)
        or any(setting[name] not in get_args(kind) for name, kind in known.items())
    ):
        raise DataError(
            f"{path}: audio {setting} is no setting of features that this version knows; prepare the corpus again"
        )
    return AudioFeatureConfig(**setting)


def save_pose_range(root: Path, pose_range: PoseRange, source: str) -> None:
    """Store the limits and a sentence that says where they come from."""
    content = {"minimum": list(pose_range.minimum), "maximum": list(pose_range.maximum), "source": source}
    write_atomically(root / POSE_RANGE, (json.dumps(content, indent=1) + "\n").encode())


def measure_pose_range(clips: Iterable[Clip]) -> PoseRange:
    """Limits of the given clips: percentiles 0.5 and 99.5 of each axis, widened by a tenth of their distance each side.

    Percentiles, because one bad frame would stretch plain extremes; the margin (ours) keeps nearly every frame inside
    [-1, 1]. A range is at least 0.05 rad or 5 mm wide, so that a still corpus does not blow up its noise.
    """
    pose_NP = np.concatenate([clip.pose() for clip in clips]).astype(np.float64)
    low, high = np.percentile(pose_NP, [0.5, 99.5], axis=0)
    margin = np.maximum(0.1 * (high - low), (np.array([0.05] * 3 + [5.0] * 3) - (high - low)) / 2)
    limits: list[Any] = [tuple(round(float(value), 4) for value in side) for side in (low - margin, high + margin)]
    return PoseRange(*limits)


def read_rows(path: Path) -> list[ClipRow]:
    """Rows of a manifest. Raises DataError that names the line."""
    columns, lines = read_table(path, "manifest")
    if columns != (wanted := [field.name for field in fields(ClipRow)]):
        raise DataError(f"{path}: columns {columns}, wanted {wanted}; prepare the corpus again")
    rows = []
    for number, line in lines:
        try:
            rows.append(ClipRow.of(line))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
    return rows


def write_rows(path: Path, rows: Iterable[ClipRow]) -> None:
    """Write a manifest, sorted by id, in one move."""
    write_table(
        path, [field.name for field in fields(ClipRow)], (asdict(row) for row in sorted(rows, key=lambda r: r.id))
    )


def write_table(path: Path, columns: Sequence[str], rows: Iterable[dict]) -> None:
    """Write a CSV file in one move."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def existing_row(root: Path, clip_id: str) -> ClipRow | None:
    """The row of a clip whose folder is already there, or None. Raises DataError if it is damaged."""
    path = root / "clips" / clip_id / "clip.json"
    if not path.is_file():
        return None
    try:
        return ClipRow.of(read_json(path, "clip"))
    except ValueError as error:
        raise DataError(f"{path} describes no clip ({error}); delete {path.parent} and prepare again") from error


def write_clip(
    root: Path,
    *,
    id: str,
    identity: str,
    split: str,
    frames: Iterable[np.ndarray],
    pcm: np.ndarray,
    features_TAF: np.ndarray,
    pose_TP: np.ndarray,
    mouth_T4: np.ndarray,
    source: str,
    start_s: float = 0.0,
    crop: str = "",
    offset_s: float = 0.0,
    pose_source: str,
    pose_success: float = 1.0,
    eyes_T24: np.ndarray | None = None,
    extra: dict[str, np.ndarray] | None = None,
) -> ClipRow:
    """Write one clip's folder, whole or not at all.

    Args:
        frames: square uint8 RGB pictures [H, W, 3] of one size, T of them.
        pcm: int16 [>= T * 640], the sound from frame 0 on.
        features_TAF, pose_TP, mouth_T4: T rows each.
        eyes_T24: T rows, too; None: not measured.
        extra: further arrays, saved together as truth.npz.

    Returns: the clip's row of the manifest. A folder that is already there stays and its row is returned.
    """
    length = len(features_TAF)
    assert len(pose_TP) == len(mouth_T4) == length > 0, (len(pose_TP), len(mouth_T4), length)
    if row := existing_row(root, id):
        return row
    with folder_written_beside(root / "clips" / id) as partial:
        size = _write_frames(partial / "frames.zip", frames, length)
        with wave.open(str(partial / "audio.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(np.ascontiguousarray(pcm, np.int16).tobytes())
        np.save(partial / "features.npy", features_TAF.astype(np.float32))
        np.save(partial / "pose.npy", pose_TP.astype(np.float32))
        np.save(partial / "mouth.npy", mouth_T4.astype(np.float32))
        if eyes_T24 is not None:
            np.save(partial / "eyes.npy", eyes_T24.astype(np.float32))
        if extra:
            np.savez(partial / "truth.npz", **extra)  # type: ignore[arg-type]  # numpy keeps the name allow_pickle
        row = ClipRow(
            id=id,
            identity=identity,
            split=split,
            frames=length,
            size=size,
            source=source,
            start_s=round(float(start_s), 3),
            crop=crop,
            offset_s=round(float(offset_s), 4),
            pose_source=pose_source,
            pose_success=round(float(pose_success), 4),
            voiced=voiced_share(features_TAF),
            sha256=digests(partial),
        )
        (partial / "clip.json").write_text(json.dumps(asdict(row)))
    return row


def _write_frames(path: Path, frames: Iterable[np.ndarray], length: int) -> int:
    """JPEG pictures into a stored zip; returns their size."""
    sizes = set()
    count = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for count, frame in enumerate(frames, start=1):
            sizes.add(frame.shape[:2])
            encoded = cv2.imencode(
                ".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            )
            archive.writestr(zipfile.ZipInfo(f"{count - 1:06d}.jpg"), encoded[1].tobytes())  # ZipInfo: no clock inside
    assert count == length and len(sizes) == 1, (count, length, sizes)
    height, width = sizes.pop()
    assert height == width, (height, width)
    return height


def voiced_share(features_TAF: np.ndarray) -> float:
    """Share of audio windows with pitch, as `Row.voiced` has it."""
    return round(float(features_TAF[:, :, VOICED].mean()), 4)


def digests(folder: Path) -> str:
    """A clip's checksums, as `Row.sha256` has them."""
    return " ".join(file_digest(folder / name)[:DIGEST] for name in CHECKED)


def verify(clip: Clip) -> Iterator[str]:
    """What is wrong with a clip's files, one sentence each: checksums, shapes, numbers that are not finite."""
    for name, digest in zip(CHECKED, clip.row.sha256.split(), strict=True):
        if not (clip.folder / name).is_file():
            yield f"{clip.row.id}: {name} is missing"
        elif file_digest(clip.folder / name)[:DIGEST] != digest:
            yield f"{clip.row.id}: {name} is not the file that was prepared (checksum differs)"
    try:
        if not np.isfinite(clip.features()).all() or not np.isfinite(clip.pose()).all():
            yield f"{clip.row.id}: features or pose hold numbers that are not finite"
    except DataError as error:
        yield str(error)
