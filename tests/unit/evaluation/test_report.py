"""Tables, and the numbers of whole sets of clips."""

import json
from pathlib import Path

import numpy as np

from evaluation import report
from evaluation.rows import ROWS, TRUTH
from evaluation.scores.networks import Networks
from evaluation.store import Store
from evaluation.videos.candidate import Candidate
from evaluation.videos.truth import Footage
from tests.unit.evaluation.toys import (
    CPU,
    noise,
    result,
)


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
    assert summaries["full"].missing["pose_velocity"] == "the true heads do not move"
    facts = {"identities": 3, "data": "toys", "notes": ["a note"]}
    report.write_reports(tmp_path, summaries, {"l1": "needs A"}, results, facts)
    text = (tmp_path / "results.md").read_text()
    assert "| | PSNR dB ↑ | SSIM ↑ |" in text and "LPIPS ↓" in text
    assert "| full | 21.00 [20.00, 22.00] (2 of 3) | ? |" in text and "| truth | – | – |" in text
    assert "- FID: not computed: needs INCEPTION" in text and "- l1: not computed: needs A" in text
    assert "- LPIPS: not computed: needs FILE" in text and "- a note" in text
    assert "0.900 [0.900, 0.900]" in text
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["protocol"] == "audio2head-evaluation/2" and len(document["clips"]["full"]) == 3
    assert (tmp_path / "plots" / "psnr.png").stat().st_size > 1000
    assert not (tmp_path / "plots" / "ssim.png").exists()
