"""Tables, and the numbers of whole sets of clips."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation import report
from evaluation.rows import ROWS, TRUTH
from evaluation.scores.networks import Networks
from evaluation.store import Store
from evaluation.videos.candidate import Candidate
from evaluation.videos.truth import Footage
from tests.unit.evaluation.toys import CPU, noise, result


def test_the_table_has_arrows_intervals_and_reasons(tmp_path):
    class Run:
        rows = (TRUTH, ROWS["full"])
        networks = Networks(CPU, missing={"fid": "needs INCEPTION"})
        store = Store(tmp_path)

    for row in ("truth", "full"):
        for clip in "xyz":
            candidate = Candidate(Footage(noise(0, 4, 8, 8, 3), None), np.zeros(0), Path(), np.zeros((4, 6)))
            Run.store.write_motion(row, clip, candidate)
    results = {
        "truth": [result(clip, clip, opening_loudness=0.9) for clip in "xyz"],
        "full": [result("x", "x", psnr=20.0), result("y", "y", psnr=22.0), result("z", "z")],
    }
    summaries = report.summarise(Run, results, report.BootstrapConfig())
    assert summaries["full"].numbers["psnr"] == report.Number(21.0, 20.0, 22.0, 2)
    assert summaries["full"].missing["pose_velocity"].startswith("the true heads do not move")
    facts = {"identities": 3, "data": "toys", "notes": ["a note"]}
    report.write_reports(tmp_path, summaries, {"l1": "needs A"}, results, facts)
    text = (tmp_path / "results.md").read_text()
    assert "| | PSNR dB ↑ | SSIM ↑ |" in text and "LPIPS ↓" in text
    assert "| full | 21.00 [20.00, 22.00] (2 of 3) | ? |" in text and "| truth | – | – |" in text
    assert "- FID: not computed: needs INCEPTION" in text and "- l1: not computed: needs A" in text
    assert "- LPIPS: not computed: needs FILE" in text and "- a note" in text
    assert "0.900 [0.900, 0.900]" in text
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["protocol"] == "audio2head-evaluation/6" and len(document["clips"]["full"]) == 3
    assert (tmp_path / "plots" / "psnr.png").stat().st_size > 1000
    assert not (tmp_path / "plots" / "ssim.png").exists()


def test_a_shorter_row_is_held_against_as_much_of_the_truth(tmp_path):
    """Clips of a row may be shorter than the true ones: frames of the truth past their ends do not count in a set."""
    random = np.random.default_rng(0)
    pose, features = random.normal(size=(2, 40, 6)), random.normal(size=(2, 39, 16)).astype(np.float32)
    pose[:, 20:] *= 9  # what lies past the row's end is another motion, and other pictures
    features[:, 19:] += 5

    class Run:
        rows = (TRUTH, ROWS["other-keypoints"])
        networks = Networks(CPU)
        store = Store(tmp_path)

    for row, frames in ((TRUTH.name, 40), ("other-keypoints", 20)):
        for number, clip in enumerate("xy"):
            footage = Footage(noise(0, frames, 8, 8, 3), None)
            Run.store.write_motion(row, clip, Candidate(footage, np.zeros(0), Path(), pose[number, :frames]))
            Run.store.write_inception(row, clip, features[number, : frames - 1])
    results = {row.name: [result(clip, clip) for clip in "xy"] for row in Run.rows}
    numbers = report.summarise(Run, results, report.BootstrapConfig())["other-keypoints"].numbers
    assert numbers["fid"].mean == pytest.approx(0, abs=1e-4)
    assert numbers["pose_velocity"].mean == pytest.approx(0, abs=1e-6)


def test_of_a_set_of_single_frames_the_reason_is_that_there_are_no_others(tmp_path):
    class Run:
        rows = (TRUTH, ROWS["full"])
        networks = Networks(CPU)
        store = Store(tmp_path)

    def missing(*frames: int) -> dict[str, str]:
        for row in Run.rows:
            for number, count in enumerate(frames):
                candidate = Candidate(Footage(noise(0, count, 8, 8, 3), None), np.zeros(0), Path(), np.ones((count, 6)))
                Run.store.write_motion(row.name, str(number), candidate)
                Run.store.write_inception(row.name, str(number), np.ones((count - 1, 16), np.float32))
        clips = [replace(result(str(number)), frames=count) for number, count in enumerate(frames)]
        clips[0].missing["psnr"] = "another reason"
        summary = report.summarise(Run, {row.name: clips for row in Run.rows}, report.BootstrapConfig())["full"]
        assert summary.missing["psnr"] == ("another reason" if len(frames) == 1 else "needs FILE")  # the commonest
        return {name: summary.missing[name] for name in ("fid", "pose_velocity")}

    assert set(missing(1, 1, 1).values()) == {"no frame beside the given one"}
    assert missing(2)["fid"] == "fewer than two frames beside the given ones"
