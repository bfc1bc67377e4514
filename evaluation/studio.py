"""Makes the videos of every row from a prepared corpus, through the code of inference (`animation`).

Letters: T video frame, K keypoint, P pose value, H W C picture, B batch.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from animation.generate import Animator
from animation.models import Models, load_models
from animation.motion import relative_to_source
from animation.options import AnimationOptions
from animation.weights import RUN_WEIGHTS, TRAINED_BY, read_weights
from datasets.audio import is_silent
from datasets.files import file_digest
from evaluation.candidate import Candidate
from evaluation.errors import EvaluationError
from evaluation.keypoint_sets import arrays, concatenated, cut, detect, on
from evaluation.rows import ALL, STAGE_ONE, Row
from evaluation.truth import Footage, Truth, shortened
from modules.keypoints import Keypoints


@dataclass(frozen=True)
class VariantPaths:
    """Checkpoints of the ablations of Sec. 5.4, each holding the one network that differs; empty: not computed.

    Attributes:
        l1, no_set: of train_headpose.py. no_jacobian, one_stage: of train_motionfield.py.
    """

    l1: str = ""
    no_set: str = ""
    no_jacobian: str = ""
    one_stage: str = ""

    def of(self, row: Row) -> str:
        """The path for a row that replaces a network."""
        return getattr(self, row.name.replace("-", "_"))


class Studio:
    """The networks of every row, on one device."""

    def __init__(
        self, rows: list[Row], checkpoints: list[Path], variants: VariantPaths, options: AnimationOptions, rank: int
    ) -> None:
        """Raises:
        CheckpointError, EvaluationError: a checkpoint cannot be read, or does not hold what its row needs.
        """
        device = options.chosen_device(rank)
        needed = [name for name in ALL if name in STAGE_ONE or any(name in row.needs for row in rows)]
        self.rows = rows
        self.options = options
        self.weights = {str(path): file_digest(weights_file(path)) for path in checkpoints}
        self.animators = {"full": Animator(load_models(checkpoints, device, tuple(needed)), options)}
        for row in rows:
            if row.replaces is not None:
                path = Path(variants.of(row))
                check_holds_only(path, row.replaces, row.name)
                self.animators[row.name] = Animator(load_models([*checkpoints, path], device, tuple(needed)), options)
                self.weights[str(path)] = file_digest(weights_file(path))
        self.variants = variants
        self.checkpoints = [str(path) for path in checkpoints]

    @property
    def models(self) -> Models:
        return self.animators["full"].models

    @property
    def size(self) -> int:
        """Of the pictures that N_I makes, pixels."""
        return self.models.image_config.image_size

    def made_with(self, row: Row, clip_id: str) -> dict[str, str]:
        """Everything of this class that decides the numbers of a row's clip, by what it is called."""
        paths = self.checkpoints + ([self.variants.of(row)] if row.replaces else [])
        dtype = self.animators["full"].dtype
        return {
            "weights": " ".join(self.weights[path] for path in paths),
            "precision": str(dtype or torch.float32).removeprefix("torch."),
            "keypoint mode": self.options.keypoint_mode,
            "head motion scale": str(self.options.head_motion_scale),
            "expression scale": str(self.options.expression_scale),
        }

    def candidate(self, row: Row, truth: Truth, other: Truth | None) -> Candidate:
        """The video of a row. `other`: a clip of another identity, for the rows that need one."""
        if other is not None:
            truth = shortened(truth, len(other))
        match row.name:
            case "truth" | "wrong-audio" | "still":
                return filmed(row, truth, other, self.detected(truth))
            case "gt-head":
                return self._from_sound("full", truth, truth, truth.pose_TP)
            case "gt-keypoint":
                return self._from_keypoints(truth, truth)
            case "other-keypoints":
                return self._from_keypoints(truth, other)
            case "wrong-audio-generated":
                return self._from_sound("full", truth, other, None)
            case "full" | "l1" | "no-set" | "no-jacobian" | "one-stage":
                return self._from_sound(row.name if row.replaces else "full", truth, truth, None)
        raise AssertionError(row.name)

    def detected(self, truth: Truth) -> Keypoints:
        """What N_D finds in the true frames, on the CPU."""
        if truth.keypoints is None:
            truth.keypoints = detect(self.models.keypoint_detector, truth.footage.frames_THWC, self.models.device)
        return truth.keypoints

    def _from_sound(self, name: str, truth: Truth, heard: Truth, pose_TP: np.ndarray | None) -> Candidate:
        """As `inference.py` does: the first frame and the sound of `heard`, or given head poses."""
        animator = self.animators[name]
        image_BCHW, source = self._source(truth)
        frames, silent = len(truth), is_silent(heard.pcm)
        with torch.inference_mode():
            plan = animator.motion_of(image_BCHW, source, heard.features()[:frames], silent, pose_TP)
            chunks = list(plan.chunks)
        return self._rendered(animator, truth, image_BCHW, source, concatenated(chunks), plan.head_pose_TP)

    def _from_keypoints(self, truth: Truth, moving: Truth) -> Candidate:
        """The first frame moved by what N_D finds in the true frames of a clip, with that clip's head poses."""
        image_BCHW, source = self._source(truth)
        found = on(self.models.device, cut(self.detected(moving), len(truth)))
        return self._rendered(self.animators["full"], truth, image_BCHW, source, found, moving.pose_TP[: len(truth)])

    def _source(self, truth: Truth) -> tuple[Tensor, Keypoints]:
        """The first frame as a picture in [0, 1] and its keypoints, on the device."""
        picture = torch.from_numpy(truth.footage.frames_THWC[0]).to(self.models.device)
        image_BCHW = picture.permute(2, 0, 1)[None].float() / 255  # as Animator has it, to the last bit
        with torch.inference_mode():
            return image_BCHW, self.models.keypoint_detector(image_BCHW).keypoints

    def _rendered(
        self, animator: Animator, truth: Truth, image_BCHW: Tensor, source: Keypoints, driving: Keypoints, pose_TP
    ) -> Candidate:
        if self.options.keypoint_mode == "relative":
            driving = concatenated(list(relative_to_source(iter([driving]), source)))
        renderer = animator.renderer(image_BCHW, source, len(truth))
        frames_THWC = np.concatenate([frames.copy() for frames in renderer.frames(iter([driving]))])
        footage = Footage(frames_THWC, truth.footage.finder)
        return Candidate(footage, truth.pcm, truth.sound, pose_TP, *arrays(driving))


def filmed(row: Row, truth: Truth, other: Truth | None, detected: Keypoints | None) -> Candidate:
    """Rows that need no generator: the true frames, with their own or another sound, or the first of them repeated."""
    footage, pose_TP, frames = truth.footage, truth.pose_TP, len(truth)
    if row.name == "still":
        footage = Footage(np.repeat(footage.frames_THWC[:1], frames, axis=0), footage.finder)
        pose_TP = None if pose_TP is None else np.repeat(pose_TP[:1], frames, axis=0)
        if detected is not None:
            detected = cut(detected, 1).repeated(frames)
    heard = other if row.name == "wrong-audio" else truth
    return Candidate(footage, heard.pcm, heard.sound, pose_TP, *arrays(detected))


def weights_file(path: Path) -> Path:
    """The file whose hash names a checkpoint's weights: of a run folder, that inside it."""
    return path / RUN_WEIGHTS if path.is_dir() else path


def check_holds_only(path: Path, network: str, row: str) -> None:
    """Raise EvaluationError unless a variant's checkpoint holds the network that it replaces, and no other."""
    found = sorted(read_weights([path]).states)
    if found != [network]:
        raise EvaluationError(
            f"variants.{row.replace('-', '_')}: {path} holds {', '.join(found)}; "
            f"give a run of {TRAINED_BY[network]}, which holds {network} alone"
        )
