"""Results of single clips as files, so that ranks share the work and an interrupted evaluation goes on.

OUTPUT/clips/ROW/CLIP.json       the numbers of one clip and all that decided them; written last
OUTPUT/videos/ROW/CLIP.mp4       the generated video with the sound it was scored with, marked as synthetic
OUTPUT/motion/ROW/CLIP.npz       head_pose [T, 6] (rad, mm), position [T, K, 2], jacobian [T, K, 2, 2], where known
OUTPUT/inception/ROW/CLIP.npy    features of every frame but the first, [T - 1, 2048] float32, for FID
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from animation.options import AnimationOptions
from datasets.files import make_folder, read_array, read_npz, written_beside
from datasets.media.video_writer import VideoWriter
from evaluation import EvaluationError
from evaluation.videos.candidate import Candidate

KINDS = {"clips": "json", "videos": "mp4", "motion": "npz", "inception": "npy"}  # folders and endings of what is kept


@dataclass(frozen=True)
class ClipResult:
    """The numbers of one clip in one row."""

    clip: str
    identity: str
    frames: int  # scored, the first included
    metrics: dict[str, float]  # name -> number
    missing: dict[str, str]  # name -> why there is none
    notes: list[str]  # what the reader should know, a sentence each
    made_with: dict[str, str]  # everything that decided the numbers, by what it is called


class Store:
    """The output folder."""

    def __init__(self, output: Path) -> None:
        self.output = output

    def read(self, row: str, clip: str, made_with: dict[str, str], kinds: tuple[str, ...] = ()) -> ClipResult | None:
        """The result of a clip, or None if there is none yet, or what goes with it is gone.

        Args:
            kinds: what goes with it, of KINDS.

        Raises:
            EvaluationError: it is there, but was made with something else.
        """
        path = self._path("clips", row, clip)
        try:
            result = TypeAdapter(ClipResult).validate_json(path.read_bytes(), strict=True)
        except FileNotFoundError:
            return None
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise EvaluationError(f"{path} is no result of a clip ({reason}); delete it and start again") from error
        different = [name for name in made_with | result.made_with if made_with.get(name) != result.made_with.get(name)]
        if different:
            name = different[0]
            raise EvaluationError(
                f"{path} was made with another {name} ({result.made_with.get(name) or 'none'}, "
                f"now {made_with.get(name) or 'none'}); choose another --output, or delete this one"
            )
        return result if all(self._path(kind, row, clip).is_file() for kind in kinds) else None

    def write(self, row: str, result: ClipResult) -> None:
        """Keep the result of a clip, whole or not at all."""
        path = self._path("clips", row, result.clip)
        with written_beside(path) as temporary:
            temporary.write_text(json.dumps(asdict(result), indent=1), encoding="utf-8")

    def write_video(self, row: str, clip: str, candidate: Candidate, options: AnimationOptions) -> None:
        """Keep a generated video, marked as synthetic."""
        path = self._path("videos", row, clip)
        with VideoWriter(path, sound=candidate.sound, crf=options.crf, label=options.label) as writer:
            writer.write(candidate.footage.frames_THWC)

    def write_motion(self, row: str, clip: str, candidate: Candidate) -> None:
        """Keep head poses and keypoints, as far as they are known."""
        position_TK2, jacobian_TK22 = candidate.keypoints or (None, None)
        arrays = {"head_pose": candidate.pose_TP, "position": position_TK2, "jacobian": jacobian_TK22}
        known = {name: np.asarray(array, np.float32) for name, array in arrays.items() if array is not None}
        with written_beside(self._path("motion", row, clip)) as temporary, temporary.open("wb") as file:
            np.savez(file, **known)

    def write_inception(self, row: str, clip: str, features_TF: np.ndarray) -> None:
        """Keep what FID needs of a clip."""
        with written_beside(self._path("inception", row, clip)) as temporary, temporary.open("wb") as file:
            np.save(file, features_TF)

    def inception(self, row: str, clips: list[str]) -> list[np.ndarray]:
        """Features of some clips, [T - 1, 2048] each."""
        arrays = [read_array(self._path("inception", row, clip), "Inception features") for clip in clips]
        for clip, array in zip(clips, arrays, strict=True):
            if array.dtype != np.float32 or array.ndim != 2:
                path = self._path("inception", row, clip)
                raise EvaluationError(f"{path} holds no Inception features; delete this --output and start again")
        return arrays

    def head_poses(self, row: str, clips: list[str]) -> list[np.ndarray] | None:
        """Head poses of some clips, [T, 6] each, rad and mm; None if one is not known."""
        poses = []
        for clip in clips:
            poses.append(read_npz(self._path("motion", row, clip), "motion").get("head_pose"))
        return None if any(pose is None for pose in poses) else poses

    def _path(self, kind: str, row: str, clip: str) -> Path:
        path = self.output / kind / row / f"{clip}.{KINDS[kind]}"
        make_folder(path.parent)
        return path
