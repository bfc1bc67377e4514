"""Clips and rows: what is made, and made once."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from datasets.pose import PoseRange
from evaluation import report
from evaluation.protocol import Evaluation, strangers
from evaluation.rows import ROWS, TRUTH
from evaluation.scores.identity import ArcFace
from evaluation.scores.networks import NetworkPaths, load_networks
from evaluation.store import Store
from evaluation.videos.truth import Footage, Truth
from tests.unit.evaluation.toys import CPU, OPENING, Told, ToyItem, ToyVideos, item, speaking_mesh


def test_a_clip_notes_how_many_of_its_frames_csim_is_of(tmp_path):
    mesh = speaking_mesh(OPENING[:5])
    mesh[2] = np.nan

    class Seen(ToyItem):
        def read(self, size: int | None, finder: Told | None) -> Truth:
            truth = super().read(size, finder)
            return replace(truth, footage=Footage(truth.footage.frames_THWC, Told(mesh)))

    networks = replace(load_networks(NetworkPaths(), CPU), arcface=ArcFace(18).eval().requires_grad_(False))
    del networks.missing["csim"]
    rows, items = [TRUTH, ROWS["wrong-audio"]], [Seen("1", "a"), Seen("2", "b")]
    results = Evaluation(ToyVideos(), rows, items, networks, PoseRange(), False, Store(tmp_path)).run()
    assert [clip.notes for clip in results["truth"]] == [["CSIM is of 3 of 4 frames: no face in the others"]] * 2
    assert [clip.notes for clip in results["wrong-audio"]] == [[], []]


def test_fid_is_of_all_frames_but_the_first_and_clips_are_made_once(tmp_path):
    class Pooled(torch.nn.Module):
        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            return frames.float().mean((2, 3))

    networks = replace(load_networks(NetworkPaths(), CPU), inception=Pooled(), digests={"inception": "1"})
    del networks.missing["fid"]
    rows = [TRUTH, replace(ROWS["full"], frames="given"), ROWS["wrong-audio"]]
    items = [ToyItem("1", "a"), ToyItem("2", "b"), ToyItem("3", "b")]
    videos = ToyVideos()
    evaluation = Evaluation(videos, rows, items, networks, PoseRange(), False, Store(tmp_path))
    summaries = report.summarise(evaluation, evaluation.run(), report.BootstrapConfig())
    assert summaries["full"].numbers["fid"].mean == pytest.approx(3 * 7**2, rel=1e-3)
    assert np.load(tmp_path / "inception" / "full" / "1.npy").shape == (4, 3)
    assert "fid" in summaries["wrong-audio"].exempt and not (tmp_path / "inception" / "wrong-audio").exists()
    assert [made for made in videos.made if made[0] == "wrong-audio"] == [
        ("wrong-audio", "1", "2"),
        ("wrong-audio", "2", "1"),
        ("wrong-audio", "3", "1"),
    ]
    videos.made.clear()
    evaluation.run()
    assert not videos.made
    (tmp_path / "motion" / "truth" / "1.npz").unlink()
    (tmp_path / "inception" / "full" / "2.npy").unlink()
    assert report.summarise(evaluation, evaluation.run(), report.BootstrapConfig()) == summaries
    assert [made[:2] for made in videos.made] == [("truth", "1"), ("full", "2")]  # made anew with what was gone


def test_the_other_clip_is_the_next_stranger():
    items = [item(str(number), identity) for number, identity in enumerate("aabbbc")]
    found = {id: other.id for id, other in strangers(items).items()}
    assert found == {"0": "2", "1": "2", "2": "5", "3": "5", "4": "5", "5": "0"}
    assert strangers(items[2:5]) == {}
