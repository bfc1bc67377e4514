"""One raw file -> its clips: cut, find and frame the face, measure head and mouth, write.

Letters: T video frame (25 fps), N mesh point, P pose value.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from datasets.audio import PAPER, AudioFeatureConfig, features
from datasets.clips import FEATURE_TAIL_SAMPLES, SAMPLES_PER_FRAME, ClipRow, existing_row, write_clip
from datasets.errors import DataError, DiskFullError
from datasets.face.finder import find_faces
from datasets.face.mesh import LandmarkFinder, available, eyes_of, mouth_of
from datasets.face.openface import default_camera, read_csv, run_feature_extraction
from datasets.face.rigid_pose import fill_gaps, pose_of, smooth, to_other_camera
from datasets.media.image import resized
from datasets.media.sound import sound_of
from datasets.media.streams import FPS, SAMPLE_RATE
from datasets.media.video_reader import VideoReader, frames_of
from datasets.pose import BOX_SIZE
from datasets.prepare.framing import (
    Square,
    crop,
    face_square,
    find_face,
    find_spans,
    head_square,
    listed_square,
    middle_square,
)
from datasets.prepare.sources import FaceBoxes, FaceTracks, HeadBox, OneFace, Source, Stretch, WholePicture

MISSING_SOUND_S = 0.08  # the sound may end this much before the picture; the rest is silence
SILENT_PEAK = 64  # of 32767: a clip in which nothing is louder is silent
# Up to so many frames (about half a second) without a measured pose are interpolated; a longer gap cuts the clip.
MAX_POSE_GAP = 12
MIN_POSE_SUCCESS = 0.7
FRAMINGS = ("corpus", "whole")


@dataclass(frozen=True)
class Options:
    """What decides the result; stored as settings.json beside it, so that one corpus is prepared in one way."""

    size: int = 256  # height and width of the frames, pixels
    margin: float = 1.85  # side of the crop in heights of the face (brows to chin)
    min_frames: int = 64  # shortest ...
    max_frames: int = 1024  # ... and longest clip
    min_face: int = 64  # lowest face in the source, pixels
    framing: str = "corpus"  # one of FRAMINGS; whole: clips are cropped already and kept as they are
    pose: str = "landmarks"  # landmarks, openface-csv or openface
    openface_csv: str = ""  # folder of CSV files named like the videos, for openface-csv
    openface_program: str = "FeatureExtraction"  # for openface
    audio: AudioFeatureConfig = PAPER  # how sound becomes features
    val_identities: str = ""  # comma-separated and sorted; with test_identities they replace the corpus's own split
    test_identities: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of one source: one line of the journal."""

    source: str  # its id
    rows: list[ClipRow]  # of the manifest
    rejected: list[tuple[str, str]]  # (id, reason) of what was left out

    def to_json(self) -> str:
        return json.dumps({"source": self.source, "rows": [asdict(r) for r in self.rows], "rejected": self.rejected})

    @staticmethod
    def from_json(line: str) -> "Outcome":
        """Raises ValueError for a line that is damaged."""
        try:
            data = json.loads(line)
            rejected = [(str(id), str(reason)) for id, reason in data["rejected"]]
            return Outcome(str(data["source"]), [ClipRow.of(row) for row in data["rows"]], rejected)
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"no line of a journal: {error!r}") from error


def prepare_source(source: Source, root: Path, output: Path, options: Options) -> Outcome:
    """Every clip of one file. Bad input becomes a rejection, never an exception.

    Raises:
        DiskFullError: there is no room for a clip, or for the sound while it is decoded.
    """
    rows, rejected = [], []
    for stretch in source.stretches:
        if options.framing == "whole":
            stretch = replace(stretch, framing=WholePicture())
        if not isinstance(stretch.framing, FaceTracks) and (row := existing_row(output, stretch.id)):
            rows.append(row)
            continue
        try:
            _sound(source.path)  # first: a missing sound is noticed sooner than a missing face
            for id, start_s, end_s, square in _framed(source.path, stretch, options):
                try:
                    row = existing_row(output, id)
                    rows.append(
                        row or _prepare_clip(source, stretch, root, output, options, id, start_s, end_s, square)
                    )
                except DiskFullError:
                    raise
                except (DataError, OSError, cv2.error) as error:
                    rejected.append((id, _reason(error, source.path)))
        except DiskFullError:
            raise
        except (DataError, OSError, cv2.error) as error:
            rejected.append((stretch.id, _reason(error, source.path)))
    return Outcome(source.id, rows, rejected)


def _reason(error: Exception, path: Path) -> str:
    return str(error).replace(f"{path.absolute()}: ", "").replace(str(path.absolute()), path.name).splitlines()[0]


def _framed(path: Path, stretch: Stretch, options: Options) -> Iterator[tuple[str, float, float | None, Square]]:
    """(clip id, start, end, square) of each clip in a stretch.

    Raises:
        DataError: no face, or no span with one.
    """
    frames = frames_of(path, stretch.start_s, stretch.end_s)
    height, width = _picture_size(path)
    match stretch.framing:
        case WholePicture():
            square = middle_square(height, width)
        case HeadBox():
            square = head_square(stretch.framing, height, width)
        case FaceBoxes():
            square = listed_square(stretch.framing, frames, _find_boxes, options.margin, height, width)
        case OneFace():
            boxes_N4 = find_face(frames, _find_boxes, options.min_face)
            square = face_square(boxes_N4, options.margin, height, width)
        case FaceTracks():
            limits = (options.margin, options.min_face, options.min_frames, options.max_frames)
            spans = list(find_spans(frames, _find_boxes, *limits))
            for span in spans:
                id = f"{stretch.id}_{round(span.start_s * FPS):06d}"
                yield id, stretch.start_s + span.start_s, stretch.start_s + span.end_s, span.square
            if not spans:
                wanted = f"one face of {options.min_face} pixels or more"
                raise DataError(f"no {options.min_frames} frames in a row with {wanted}")
            return
    yield stretch.id, stretch.start_s, stretch.end_s, square


def _prepare_clip(
    source: Source,
    stretch: Stretch,
    root: Path,
    output: Path,
    options: Options,
    id: str,
    start_s: float,
    end_s: float | None,
    square: Square,
) -> ClipRow:
    """Cut, measure and write one clip.

    Raises:
        DataError: too short, silent, no sound, no face, or damaged.
    """
    pcm = _sound(source.path)
    start_s = max(start_s, -stretch.offset_s)  # pictures before this have no sound
    sound_s = len(pcm) / SAMPLE_RATE - start_s - stretch.offset_s + MISSING_SOUND_S
    limit = min(options.max_frames, int(sound_s * FPS + 1e-6))
    pictures = itertools.islice(frames_of(source.path, start_s, end_s), max(limit, 0))
    frames = [crop(picture, square, max(options.size, BOX_SIZE)) for picture in pictures]
    if len(frames) < options.min_frames:
        raise DataError(f"too short: {len(frames)} frames with sound, wanted at least {options.min_frames}")

    pose_TP, mouth_T4, eyes_T24 = _pose(source.path, frames, start_s, square, options)
    measured_T = np.isfinite(pose_TP).all(axis=1)
    first, last = _usable(measured_T)
    if last - first < options.min_frames or measured_T[first:last].mean() < MIN_POSE_SUCCESS:
        raise DataError(
            f"no head pose: found in {measured_T.sum()} of {len(frames)} frames, the longest run is too short"
        )
    keep = slice(first, last)
    length = last - first
    start_s += first / FPS

    sample = round((start_s + stretch.offset_s) * SAMPLE_RATE)
    sound = pcm[sample : sample + length * SAMPLES_PER_FRAME + FEATURE_TAIL_SAMPLES]
    if np.abs(sound.astype(int)).max() < SILENT_PEAK:
        raise DataError("silent: no sample is louder than -54 dB")
    sound = np.pad(sound, (0, length * SAMPLES_PER_FRAME + FEATURE_TAIL_SAMPLES - len(sound)))

    return write_clip(
        output,
        id=id,
        identity=source.identity,
        split=source.split,
        frames=[resized(frame, options.size, options.size) for frame in frames[keep]],
        pcm=sound,
        features_TAF=features(sound, options.audio),
        pose_TP=smooth(fill_gaps(pose_TP[keep])),
        mouth_T4=mouth_T4[keep],
        eyes_T24=eyes_T24[keep],
        source=source.path.relative_to(root).as_posix(),
        start_s=start_s,
        crop=f"{square.x} {square.y} {square.side}",
        offset_s=stretch.offset_s,
        pose_source=options.pose,
        pose_success=measured_T[keep].mean(),
    )


def _pose(
    path: Path, frames: list[np.ndarray], start_s: float, square: Square, options: Options
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Head poses [T, 6], mouths [T, 4] and eyes [T, 2, 4] of a clip's square frames, NaN where not found."""
    scale = BOX_SIZE / frames[0].shape[0]
    mesh_TN3 = _finder().meshes(frames) * np.float32(scale) if available() else np.full((len(frames), 468, 3), np.nan)
    mouth_T4, eyes_T24 = mouth_of(mesh_TN3), eyes_of(mesh_TN3)
    if options.pose == "openface":
        return run_feature_extraction(options.openface_program, frames), mouth_T4, eyes_T24
    if options.pose == "openface-csv":
        with VideoReader(path) as reader:
            if reader.stretch != 1:
                raise DataError("its pixels are not square, which OpenFace does not see: convert it first")
        track = read_csv(_csv_of(path, Path(options.openface_csv)))
        focal, centre = default_camera(*_picture_size(path))
        pose_TP = track.at(start_s + np.arange(len(frames)) / FPS)
        return to_other_camera(pose_TP, focal, centre, square[:2], BOX_SIZE / square.side), mouth_T4, eyes_T24
    pose_TP = np.full((len(frames), 6), np.nan)
    measured_T = np.isfinite(mesh_TN3).all(axis=(1, 2))
    if measured_T.any():
        pose_TP[measured_T] = pose_of(mesh_TN3[measured_T])
    return pose_TP, mouth_T4, eyes_T24


def _csv_of(path: Path, folder: Path) -> Path:
    """The CSV of a video: the file's name with .csv, in the folder or below it."""
    paths = sorted(folder.rglob(f"{path.stem}.csv"))
    if not paths:
        raise DataError(f"no {path.stem}.csv in {folder}")
    return paths[0]


def _usable(measured_T: np.ndarray) -> tuple[int, int]:
    """The longest run [first, last) that starts and ends with a measured frame and has no gap above MAX_POSE_GAP."""
    at = np.flatnonzero(measured_T)
    if len(at) == 0:
        return 0, 0
    runs = np.split(at, np.flatnonzero(np.diff(at) > MAX_POSE_GAP + 1) + 1)
    best = max(runs, key=lambda run: run[-1] - run[0])
    return int(best[0]), int(best[-1]) + 1


@lru_cache(maxsize=1)
def _picture_size(path: Path) -> tuple[int, int]:
    """Height and width of a video's upright pictures."""
    for picture in frames_of(path):
        return picture.shape[:2]
    raise DataError(f"{path} holds no picture; copy it again")


@lru_cache(maxsize=1)
def _sound(path: Path) -> np.ndarray:
    return sound_of(path)  # several stretches of one file decode it once


@lru_cache(maxsize=1)
def _finder() -> LandmarkFinder:
    return LandmarkFinder().__enter__()


def _find_boxes(frame: np.ndarray) -> np.ndarray:
    """Face boxes of one picture: mediapipe's, or our finder's where `make pose-tools` has not been run."""
    if available():
        return _finder().boxes(frame)
    return np.array([face.box for face in find_faces(frame)], float).reshape(-1, 4)
