"""Clips, videos and results without files or networks, for the tests of this folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from animation.options import AnimationOptions
from datasets.clips import Clip, ClipRow
from evaluation.metrics import METRICS
from evaluation.store import ClipResult
from evaluation.videos.candidate import Candidate
from evaluation.videos.truth import Footage, PreparedItem, Truth
from modules.keypoints import Keypoints

CPU = torch.device("cpu")
MOUTH = np.array([128.0, 180.0, 40.0, 4.0])  # x, y, width, opening in pixels of 256


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


class Told:
    """Stands in for mediapipe: finds a given mesh in every frame, and counts the videos."""

    def __init__(self, mesh_TN3: np.ndarray) -> None:
        self.mesh_TN3, self.asked = mesh_TN3, 0

    def meshes(self, frames) -> np.ndarray:
        self.asked += 1
        return self.mesh_TN3[: len(frames)]


def speaking_mesh(opening_T: np.ndarray) -> np.ndarray:
    """468 points about the middle of a 64x64 picture whose inner lips (13, 14) are so far apart."""
    mesh = np.tile(np.random.default_rng(0).uniform(24, 40, (468, 3)).astype(np.float32), (len(opening_T), 1, 1))
    mesh[:, 33, :2], mesh[:, 263, :2] = (26, 28), (38, 28)
    mesh[:, 13, :2], mesh[:, 14, :2] = (32, 38), (32, 38)
    mesh[:, 14, 1] += opening_T
    return mesh


def loud(level_T: np.ndarray) -> np.ndarray:
    """Sound whose level in a frame is `level_T`, 0 to 1."""
    tone = np.sin(2 * np.pi * 200 * np.arange(640) / 16_000)
    return np.round(20_000 * np.concatenate([level * tone for level in level_T])).astype(np.int16)


OPENING = 1 + np.abs(np.sin(np.arange(40) / 3))


def a_truth(finder: Told | None) -> Truth:
    pose = np.float32([0, 0, 0, 50, 50, 300]) + np.random.default_rng(1).normal(0, 0.01, (40, 6)).astype(np.float32)
    keypoints = Keypoints(torch.zeros(40, 10, 2), None)
    frames = noise(8, 40, 64, 64, 3)
    mouth = np.tile(MOUTH, (40, 1))
    return Truth(
        "clip", "anna", Path("a.wav"), Footage(frames, finder), loud(OPENING / 2), pose, mouth, None, keypoints
    )


@dataclass(frozen=True)
class ToyItem:
    """A clip without files."""

    id: str
    identity: str
    digest: str = ""

    def read(self, size: int | None, finder: Told | None) -> Truth:
        frames = noise(int(self.id), 5, 16, 16, 3)
        mouth = np.full((5, 4), np.nan)
        return Truth(self.id, self.identity, Path("a.wav"), Footage(frames, None), loud(np.ones(5)), None, mouth)


class ToyVideos:
    """Makes every row by adding a few levels to the true frames."""

    size, device, weights = None, CPU, {}
    options = AnimationOptions()

    def __init__(self) -> None:
        self.made = []

    def made_with(self, row, clip_id: str) -> dict[str, str]:
        return {}

    def detected(self, truth: Truth) -> None:
        return None

    def candidate(self, row, truth: Truth, other: Truth | None) -> Candidate:
        self.made.append((row.name, truth.id, other and other.id))
        frames = truth.footage.frames_THWC // 2 + (0 if row.name == "truth" else 7)
        return Candidate(Footage(frames, truth.footage.finder), truth.pcm, truth.sound)


def item(id: str, identity: str) -> PreparedItem:
    row = ClipRow(id, identity, "test", 40, 64, "", 0.0, "", 0.0, "", 1.0, 0.5, "")
    return PreparedItem(Clip(row, 0, Path(id)))


def result(clip: str, identity: str = "a", made_with: dict | None = None, **metrics: float) -> ClipResult:
    missing = {name: "needs FILE" for name in METRICS if name not in metrics}
    return ClipResult(clip, identity, 40, metrics, missing, [], made_with or {"weights": "1"})
