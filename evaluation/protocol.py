"""Goes through clips and rows: each rank its share, each clip once, whatever interrupted it.

docs/EVALUATION.md describes the protocol; its version changes whenever a number would.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from tqdm import tqdm

from animation.options import AnimationOptions
from datasets.face.mesh import LandmarkFinder
from datasets.pose import PoseRange
from engine.command import Place
from engine.device import float32_meaning
from evaluation.rows import TRUTH, Row
from evaluation.scores.fidelity import inception_features
from evaluation.scores.networks import Networks
from evaluation.scores.score import score_video
from evaluation.store import ClipResult, Store
from evaluation.videos.candidate import Candidate
from evaluation.videos.truth import Item, Truth
from modules.keypoints import Keypoints

PROTOCOL = "audio2head-evaluation/6"
WAIT_S = 0.5  # between looks for what other ranks have finished


class Videos(Protocol):
    """Where the videos of a row come from: `videos.generated` generates them, `videos.given` reads them."""

    size: int | None  # pixels of width that true frames are read with; None: as they are
    device: torch.device
    options: AnimationOptions
    weights: dict[str, str]  # path of each checkpoint -> SHA-256

    def made_with(self, row: Row, clip_id: str) -> dict[str, str]: ...
    def candidate(self, row: Row, truth: Truth, other: Truth | None) -> Candidate: ...
    def detected(self, truth: Truth) -> Keypoints | None: ...


@dataclass
class Evaluation:
    """Everything that an evaluation needs; `run` does it."""

    videos: Videos
    rows: list[Row]  # to be computed, the truth first
    items: list[Item]  # clips, by id
    networks: Networks
    pose_range: PoseRange  # scales head poses for HE
    landmarks: bool  # whether faces are looked for in the videos
    store: Store
    place: Place = Place(0, 1, 0)

    def __post_init__(self) -> None:
        self.others = strangers(self.items)

    def run(self) -> dict[str, list[ClipResult]]:
        """This rank's share; rank 0 waits for the others and returns the results of all clips, by row."""
        rank, ranks = self.place.rank, self.place.ranks
        with ExitStack() as stack:
            finder = stack.enter_context(LandmarkFinder()) if self.landmarks else None
            total, hidden = len(self.items) * len(self.rows), None if rank == 0 else True
            bar = stack.enter_context(tqdm(total=total, unit="video", disable=hidden))
            for item in self.items[rank::ranks]:
                self._clip(item, finder, bar)
            return self._collect(bar) if rank == 0 else {}

    def made_with(self, row: Row, item: Item) -> dict[str, str]:
        """Everything that decides the numbers of a clip in a row, by what it is called."""
        return {
            "protocol": PROTOCOL,
            "float32": float32_meaning(),
            "clip": item.digest,
            **({"other clip": self.others[item.id].digest} if row.needs_other else {}),
            **self.videos.made_with(row, item.id),
            "range of head poses": f"{self.pose_range.minimum} {self.pose_range.maximum}",
            "search for faces": "mediapipe" if self.landmarks else "",
            **{f"network {name}": digest for name, digest in self.networks.digests.items()},
        }

    def _inception(self, row: Row) -> nn.Module | None:
        """The network whose features of a row's clips are kept for FID, if they are wanted and it is there."""
        return self.networks.inception if row == TRUTH or "fid" not in row.exempt else None

    def _result(self, row: Row, item: Item, made_with: dict[str, str]) -> ClipResult | None:
        """What is kept of a clip, if all is there that numbers of whole sets are computed from."""
        kinds = ("motion",) if self._inception(row) is None else ("motion", "inception")
        return self.store.read(row.name, item.id, made_with, kinds)

    def _clip(self, item: Item, finder: LandmarkFinder | None, bar: tqdm) -> None:
        truth: Truth | None = None
        for row in self.rows:
            made_with = self.made_with(row, item)
            if self._result(row, item, made_with) is None:
                truth = truth or item.read(self.videos.size, finder)
                self._video(row, item, truth, finder, made_with)
            bar.update()

    def _video(
        self, row: Row, item: Item, truth: Truth, finder: LandmarkFinder | None, made_with: dict[str, str]
    ) -> None:
        other = self.others[item.id].read(self.videos.size, finder) if row.needs_other else None
        self.videos.detected(truth)  # before it may be shortened, so that every row finds the keypoints there
        candidate = self.videos.candidate(row, truth, other)
        scores = score_video(row, candidate, truth, self.networks, self.pose_range)
        if (inception := self._inception(row)) is not None:
            features_TF = inception_features(candidate.footage.frames_THWC[1:], inception, self.networks.device)
            self.store.write_inception(row.name, item.id, features_TF)
        self.store.write_motion(row.name, item.id, candidate)
        if row.ours:
            self.store.write_video(row.name, item.id, candidate, self.videos.options)
        self.store.write(
            row.name,
            ClipResult(
                clip=item.id,
                identity=item.identity,
                frames=len(candidate.footage),
                metrics=scores.metrics,
                missing=scores.missing,
                notes=[*candidate.notes, *scores.notes.values()],
                made_with=made_with,
            ),
        )

    def _collect(self, bar: tqdm) -> dict[str, list[ClipResult]]:
        """All results, as the ranks finish them.

        Where a rank dies, torchrun ends the others too; of processes started otherwise rank 0 waits for ever.
        """
        results: dict[str, list[ClipResult]] = {row.name: [] for row in self.rows}
        for number, item in enumerate(self.items):
            for row in self.rows:
                made_with = self.made_with(row, item)
                while (result := self._result(row, item, made_with)) is None:
                    time.sleep(WAIT_S)
                results[row.name].append(result)
                if number % self.place.ranks:
                    bar.update()
        return results


def strangers(items: list[Item]) -> dict[str, Item]:
    """For each clip the next one of another identity, going round; none for anybody if there is one identity only."""
    others: dict[str, Item] = {}
    stranger: Item | None = None
    after: Item | None = None
    for item in reversed(items + items):
        if after is not None and after.identity != item.identity:
            stranger = after
        if stranger is not None:
            others[item.id] = stranger
        after = item
    return others
