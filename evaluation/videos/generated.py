"""Makes the videos of every row from a prepared corpus, through the code of inference (`animation`).

Letters: T video frame, P pose value, H W C picture, B batch.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from animation.full_size import FullSize, Geometry
from animation.generate import Animator
from animation.models import load_models
from animation.options import AnimationOptions
from animation.weights import NETWORKS, RUN_WEIGHTS, TRAINED_BY, read_weights
from datasets.audio import is_silent
from datasets.face.upright import Frame
from datasets.files import file_digest
from datasets.media.image import resized
from evaluation import EvaluationError
from evaluation.rows import STAGE_ONE, Row, VariantPaths
from evaluation.videos.candidate import Candidate, filmed
from evaluation.videos.frames import detect
from evaluation.videos.truth import Footage, Truth, shortened
from modules.keypoints import Keypoints

SPEED = ("device", "batch_size", "compile")  # options that change how fast numbers come, not which


class Generated:
    """The networks of every row, on one device."""

    def __init__(
        self, rows: list[Row], checkpoints: list[Path], variants: VariantPaths, options: AnimationOptions, rank: int
    ) -> None:
        """Load them.

        Args:
            checkpoints: merged, as for inference.py. variants: checkpoints of the rows that replace a network.
            rank: of this process on its machine, which decides the GPU.

        Raises:
            CheckpointError, EvaluationError: a checkpoint cannot be read, or does not hold what its row needs.
        """
        self.options = options
        self.device = options.chosen_device(rank)
        needed = tuple(name for name in NETWORKS if name in STAGE_ONE or any(name in row.networks for row in rows))
        self.checkpoints = {row.name: list(checkpoints) for row in rows}
        self.base = Animator(load_models(checkpoints, self.device, needed), options)
        self.variants: dict[str, Animator] = {}
        for row in rows:
            if row.replaces is not None:
                path = Path(getattr(variants, row.key))
                check_holds_only(path, row.replaces, f"variants.{row.key}")
                self.checkpoints[row.name].append(path)
                models = load_models(self.checkpoints[row.name], self.device, needed)
                self.variants[row.name] = Animator(models, options)
        paths = {str(path): path for row in rows for path in self.checkpoints[row.name]}
        self.weights = {name: file_digest(weights_file(path)) for name, path in paths.items()}

    @property
    def size(self) -> int:
        """Of the frames that are scored, pixels."""
        return self.own_size if self.options.size == "native" else self.options.size

    @property
    def own_size(self) -> int:
        """Of the pictures that the networks see and N_I draws, pixels."""
        return self.base.models.image_config.image_size

    def made_with(self, row: Row, clip_id: str) -> dict[str, str]:
        """Everything of this class that decides the numbers of a row's clip, by what it is called."""
        options = {name: str(value) for name, value in asdict(self.options).items() if name not in SPEED}
        options["precision"] = str(self.base.dtype or torch.float32).removeprefix("torch.")
        return {
            "weights": " ".join(self.weights[str(path)] for path in self.checkpoints[row.name]),
            **{name.replace("_", " "): value for name, value in options.items()},
        }

    def candidate(self, row: Row, truth: Truth, other: Truth | None) -> Candidate:
        """The video of a row. `other`: a clip of another identity, for the rows that need one."""
        if other is not None:
            truth = shortened(truth, len(other))
        self.detected(truth)
        if row.frames != "generated":
            return filmed(row, truth, other)
        if row.keypoints == "predicted":
            heard = other if row.sound == "other" else truth
            return self._from_sound(row, truth, heard)
        return self._from_keypoints(truth, other if row.keypoints == "other" else truth)

    def detected(self, truth: Truth) -> Keypoints:
        """What N_D finds in the true frames, on the CPU; it looks once."""
        if truth.keypoints is None:
            seen_THWC = np.stack([self._seen(frame) for frame in truth.footage.frames_THWC])
            truth.keypoints = detect(self.base.models.keypoint_detector, seen_THWC, self.device)
        return truth.keypoints

    def _from_sound(self, row: Row, truth: Truth, heard: Truth) -> Candidate:
        """As `inference.py` does: the first frame moved by a sound, with N_H's head poses or the true ones."""
        animator = self.variants.get(row.name, self.base)
        image_BCHW, source = self._source(truth)
        features_TAF = heard.features(animator.models.audio_features)[: len(truth)]
        silent = is_silent(heard.pcm)
        pose_TP = truth.pose_TP if row.poses == "true" else None
        with torch.inference_mode():
            plan = animator.motion_of(image_BCHW, source, [features_TAF], silent, pose_TP)
            driving = Keypoints.cat(plan.chunks)
        return self._rendered(animator, truth, image_BCHW, source, driving, plan.head_pose_TP)

    def _from_keypoints(self, truth: Truth, moving: Truth) -> Candidate:
        """The first frame moved by what N_D finds in the true frames of a clip, with that clip's head poses."""
        image_BCHW, source = self._source(truth)
        driving = self.detected(moving).cut(0, len(truth)).to(self.device)
        return self._rendered(self.base, truth, image_BCHW, source, driving, moving.pose_TP[: len(truth)])

    def _source(self, truth: Truth) -> tuple[Tensor, Keypoints]:
        """The first frame as a picture in [0, 1] and its keypoints, on the device."""
        picture = torch.from_numpy(self._seen(truth.footage.frames_THWC[0])).to(self.device)
        image_BCHW = picture.permute(2, 0, 1)[None].float() / 255  # as Animator has it, to the last bit
        with torch.inference_mode():
            return image_BCHW, self.base.models.keypoint_detector(image_BCHW).keypoints

    def _seen(self, frame_HWC: np.ndarray) -> np.ndarray:
        """A true frame as the networks see it."""
        return resized(frame_HWC, self.own_size, self.own_size)

    def _rendered(
        self,
        animator: Animator,
        truth: Truth,
        image_BCHW: Tensor,
        source: Keypoints,
        driving: Keypoints,
        pose_TP: np.ndarray,
    ) -> Candidate:
        driving = next(animator.moved(iter([driving]), source))
        full_size = None
        if self.options.size != "native":
            first_HWC, config = truth.footage.frames_THWC[0], animator.models.image_config
            whole = Frame((-0.5, -0.5), (first_HWC.shape[1], 0), (0, first_HWC.shape[0]))
            geometry = Geometry(whole.matrix(config.image_size), config.image_size, config.align_corners)
            full_size = FullSize(first_HWC, geometry, self.device)
        renderer = animator.renderer(image_BCHW, source, len(truth), full_size)
        frames_THWC = np.concatenate([frames.copy() for frames in renderer.frames(iter([driving]))])
        footage = Footage(frames_THWC, truth.footage.finder)
        return Candidate(footage, truth.pcm, truth.sound, pose_TP, driving.to("cpu"))


def weights_file(path: Path) -> Path:
    """The file whose hash names a checkpoint's weights: of a run folder, that inside it."""
    return path / RUN_WEIGHTS if path.is_dir() else path


def check_holds_only(path: Path, network: str, key: str) -> None:
    """Raise EvaluationError unless the checkpoint that `key` names holds the network that it replaces, and no other."""
    held = sorted(read_weights([path]).states)
    if held != [network]:
        raise EvaluationError(
            f"{key}: {path} holds {', '.join(held)}; give a run of {TRAINED_BY[network]}, which holds {network} alone"
        )
