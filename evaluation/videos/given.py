"""Videos of another system, held against references: nothing is generated, only measured.

Letters: T video frame, H W C picture.
"""

from pathlib import Path

import numpy as np

from animation.models import load_models
from animation.options import AnimationOptions
from datasets.errors import DataError
from datasets.files import file_digest
from datasets.media.image import resized
from evaluation.rows import Row
from evaluation.videos.candidate import Candidate
from evaluation.videos.generated import filmed, weights_file
from evaluation.videos.keypoint_sets import arrays, detect
from evaluation.videos.matching import Matches
from evaluation.videos.truth import Footage, Truth, read_video, shortened
from modules.keypoint_detector import KeypointDetector
from modules.keypoints import Keypoints

ASPECT_TOLERANCE = 0.02  # a picture of another shape than its reference's shows something else: refused beyond this
LENGTH_TOLERANCE = 1  # frames by which encoders commonly differ; more is noted


class Folder:
    """The given videos; with a checkpoint, its N_D finds keypoints in them and in the references."""

    size = None  # pictures are compared at the size of their reference

    def __init__(self, matches: Matches, checkpoints: list[Path], options: AnimationOptions, rank: int) -> None:
        self.matches = matches
        self.device = options.chosen_device(rank)
        self.detector: KeypointDetector | None = None
        self.weights = {str(path): file_digest(weights_file(path)) for path in checkpoints}
        if checkpoints:
            models = load_models(checkpoints, self.device, ("keypoint_detector", "image_generator"))
            self.detector = models.keypoint_detector

    def made_with(self, row: Row, clip_id: str) -> dict[str, str]:
        """Everything of this class that decides the numbers of a row's clip, by what it is called."""
        given = {"weights": " ".join(self.weights.values())}
        if row.name == "generated":
            given["generated video"] = file_digest(self.matches.generated[clip_id])
        return given

    def candidate(self, row: Row, truth: Truth, other: Truth | None) -> Candidate:
        """The video of a row. `other`: a clip of another identity, for the rows that need one."""
        if other is not None:
            truth = shortened(truth, len(other))
        if row.name != "generated":
            return filmed(row, truth, other, self.detected(truth))
        path = self.matches.generated[truth.id]
        frames_THWC, notes = fitted(path, truth)
        footage = Footage(frames_THWC, truth.footage.finder)
        found = None if self.detector is None else detect(self.detector, frames_THWC, self.device)
        return Candidate(footage, truth.pcm, truth.sound, footage.pose_TP, *arrays(found), notes=notes)

    def detected(self, truth: Truth) -> Keypoints | None:
        """What N_D finds in the true frames, on the CPU; None without a checkpoint."""
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
    found = frames_THWC.shape[2] / frames_THWC.shape[1]
    if abs(found * height / width - 1) > ASPECT_TOLERANCE:
        raise DataError(
            f"{path} is {frames_THWC.shape[2]}x{frames_THWC.shape[1]}, its reference {width}x{height}: "
            "crop both alike, then they can be compared"
        )
    notes = []
    if frames_THWC.shape[1:3] != (height, width):
        notes.append(f"scaled from {frames_THWC.shape[2]}x{frames_THWC.shape[1]} to {width}x{height}")
    if abs(len(frames_THWC) - len(truth)) > LENGTH_TOLERANCE:
        notes.append(f"{len(frames_THWC)} frames, the reference has {len(truth)}: the shorter counts")
    return np.stack([resized(frame, height, width) for frame in frames_THWC[: len(truth)]]), tuple(notes)
