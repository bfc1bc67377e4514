"""Videos of another system, matched with references by stem: nothing is generated, only measured.

Letters: T video frame, H W C picture.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from animation.models import load_models
from animation.options import AnimationOptions
from datasets.clips import MANIFEST, load_manifest
from datasets.errors import DataError
from datasets.files import file_digest
from datasets.media.image import resized
from datasets.media.sound import sound_of
from datasets.media.video_reader import frames_of
from datasets.prepare.sources import VIDEO_SUFFIXES
from evaluation import EvaluationError
from evaluation.rows import STAGE_ONE, Row
from evaluation.videos.candidate import Candidate, filmed
from evaluation.videos.frames import detect
from evaluation.videos.generated import weights_file
from evaluation.videos.truth import Footage, Item, PreparedItem, Truth, VideoItem, read_video, shortened
from modules.keypoint_detector import KeypointDetector
from modules.keypoints import Keypoints

ASPECT_TOLERANCE = 0.02  # a picture of another shape than its reference's shows something else: refused beyond this
LENGTH_TOLERANCE = 1  # frames by which encoders commonly differ; more is noted
NAMED = 5  # stems in a message


@dataclass(frozen=True)
class Matches:
    """Given videos and their references."""

    items: list[Item]  # references that have a given video, by id
    videos: dict[str, Path]  # stem -> given video
    missing: list[str]  # references without a given video
    extra: list[str]  # given videos without a reference
    unusable: list[str] = field(default_factory=list)  # why, a sentence for each pair that is left out

    def notes(self) -> list[str]:
        """A sentence each for what has no partner."""
        notes = []
        if self.missing:
            notes.append(f"{len(self.missing)} references have no generated video: {_some(self.missing)}")
        if self.extra:
            notes.append(f"{len(self.extra)} generated videos have no reference: {_some(self.extra)}")
        if self.unusable:
            notes.append(f"{len(self.unusable)} pairs cannot be used and are left out: {_some(self.unusable)}")
        return notes


def match(generated: Path, reference: Path, split: str, alignments: str = "") -> Matches:
    """Pair videos below two folders; `reference` may be a prepared corpus, of which `split` counts.

    Args:
        alignments: the folder of a prepared corpus's words (`words_of`).

    Raises:
        DataError: a folder is missing, or two videos below it share a stem.
        EvaluationError: nothing matches.
    """
    videos = _by_stem(generated, "--generated")
    if (reference / MANIFEST).is_file():
        clips = load_manifest(reference, split)
        items: dict[str, Item] = {clip.row.id: PreparedItem(clip, alignments) for clip in clips}
    else:
        paths = _by_stem(reference, "--reference")
        items = {stem: VideoItem(path, _identity(path, reference)) for stem, path in paths.items()}
    both = sorted(videos.keys() & items.keys())
    missing, extra = sorted(items.keys() - videos.keys()), sorted(videos.keys() - items.keys())
    if not both:
        raise EvaluationError(
            f"no video of {generated} has the stem of one of {reference}: "
            f"{_some(extra)} against {_some(missing)}; rename them alike"
        )
    return Matches([items[stem] for stem in both], videos, missing, extra)


def usable(matches: Matches) -> Matches:
    """Those pairs of which both videos can be read to their end and have one shape, and the reference has sound.

    Raises:
        EvaluationError: there is none.
    """
    items, reasons = [], []
    for item in matches.items:
        try:
            shape = _shape(matches.videos[item.id])
            if isinstance(item, VideoItem):
                _require_alike(matches.videos[item.id], shape, _shape(item.path))
                sound_of(item.path)
            items.append(item)
        except DataError as error:
            reasons.append(str(error))
    if not items:
        raise EvaluationError(f"none of the {len(reasons)} pairs can be used: {_some(reasons)}")
    return replace(matches, items=items, unusable=reasons)


def _shape(path: Path) -> tuple[int, int]:
    """Height and width of a video's pictures, after reading it to its end. Raises DataError."""
    shape = (0, 0)
    for picture in frames_of(path):
        shape = picture.shape[:2]
    if shape == (0, 0):
        raise DataError(f"{path} holds no picture; copy it again")
    return shape


def _require_alike(path: Path, shape: tuple[int, int], wanted: tuple[int, int]) -> None:
    """Raise DataError if a given video has another aspect ratio than its reference."""
    if abs(shape[1] / shape[0] * wanted[0] / wanted[1] - 1) > ASPECT_TOLERANCE:
        raise DataError(
            f"{path} is {shape[1]}x{shape[0]}, its reference {wanted[1]}x{wanted[0]}: "
            "crop both alike, then they can be compared"
        )


class Given:
    """The given videos; with a checkpoint, its N_D finds keypoints in them and in the references."""

    size = None  # pictures are compared at the size of their reference

    def __init__(self, matches: Matches, checkpoints: list[Path], options: AnimationOptions, rank: int) -> None:
        """`rank`: of this process on its machine, which decides the GPU. Raises CheckpointError."""
        self.matches = matches
        self.options = options
        self.device = options.chosen_device(rank)
        self.detector: KeypointDetector | None = None
        self.weights = {str(path): file_digest(weights_file(path)) for path in checkpoints}
        if checkpoints:
            self.detector = load_models(checkpoints, self.device, STAGE_ONE).keypoint_detector

    def made_with(self, row: Row, clip_id: str) -> dict[str, str]:
        """Everything of this class that decides the numbers of a row's clip, by what it is called."""
        decided_by = {"weights": " ".join(self.weights.values())}
        if row.frames == "given":
            decided_by["generated video"] = file_digest(self.matches.videos[clip_id])
        return decided_by

    def candidate(self, row: Row, truth: Truth, other: Truth | None) -> Candidate:
        """The video of a row. `other`: a clip of another identity, for the rows that need one."""
        if other is not None:
            truth = shortened(truth, len(other))
        self.detected(truth)
        if row.frames != "given":
            return filmed(row, truth, other)
        frames_THWC, notes = fitted(self.matches.videos[truth.id], truth)
        footage = Footage(frames_THWC, truth.footage.finder)
        keypoints = None if self.detector is None else detect(self.detector, frames_THWC, self.device)
        return Candidate(footage, truth.pcm, truth.sound, footage.pose_TP, keypoints, notes)

    def detected(self, truth: Truth) -> Keypoints | None:
        """What N_D finds in the true frames, on the CPU; it looks once. None without a checkpoint."""
        if truth.keypoints is None and self.detector is not None:
            truth.keypoints = detect(self.detector, truth.footage.frames_THWC, self.device)
        return truth.keypoints


def fitted(path: Path, truth: Truth) -> tuple[np.ndarray, tuple[str, ...]]:
    """Frames of a given video, scaled to the size of its reference and cut to its length -> (frames, notes).

    Frame i is held against frame i: both videos start together. Of two lengths the shorter counts.

    Raises:
        DataError: the picture has another shape than the reference.
    """
    frames_THWC = read_video(path)
    height, width = truth.footage.frames_THWC.shape[1:3]
    given_height, given_width = frames_THWC.shape[1:3]
    _require_alike(path, (given_height, given_width), (height, width))
    notes = []
    if (given_height, given_width) != (height, width):
        notes.append(f"scaled from {given_width}x{given_height} to {width}x{height}")
    if abs(len(frames_THWC) - len(truth)) > LENGTH_TOLERANCE:
        notes.append(f"{len(frames_THWC)} frames, the reference has {len(truth)}: the shorter counts")
    return np.stack([resized(frame, height, width) for frame in frames_THWC[: len(truth)]]), tuple(notes)


def _by_stem(folder: Path, option: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{option} {folder} is not a folder")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and not p.name.startswith("."))
    if not paths:
        raise DataError(f"{option} {folder} holds no video ({' '.join(sorted(VIDEO_SUFFIXES))})")
    by_stem: dict[str, Path] = {}
    for path in paths:
        if path.stem in by_stem:
            raise DataError(f"{option}: {by_stem[path.stem]} and {path} have the same stem; only one may be there")
        by_stem[path.stem] = path
    return by_stem


def _identity(path: Path, root: Path) -> str:
    """The first folder below the root names the speaker; a file at the top is its own."""
    parts = path.relative_to(root).parts
    return parts[0] if len(parts) > 1 else path.stem


def _some(stems: list[str]) -> str:
    return ", ".join(stems[:NAMED]) + (f" and {len(stems) - NAMED} more" if len(stems) > NAMED else "")
