"""`make gpu-check`: what it says without a GPU, what it reads from the tests, and its whole way, tiny, on the CPU."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check


def test_without_a_gpu_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main(["--output", str(tmp_path / "none")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1 and not (tmp_path / "none").exists()


def test_the_whole_way_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests themselves aside, which `tests/gpu` tries with GPU_CHECK_DEVICE=cpu."""
    outcomes = [{"test": "a", "outcome": "failed", "why": "b"}, {"test": "c", "outcome": "passed", "why": ""}]
    monkeypatch.setattr(gpu_check, "run_tests", lambda kind, limit_s: outcomes)
    monkeypatch.setattr(gpu_check, "data_wait", lambda *_: {"samples_per_s": 1.0, "data_wait": 0.25})
    monkeypatch.setattr(gpu_check, "STAGES", ("headpose", "motionfield"))  # all four are in tests/gpu
    monkeypatch.setattr(gpu_check, "MODES", dict(list(gpu_check.MODES.items())[:1]))
    assert gpu_check.main(["--device", "cpu", "--output", str(tmp_path)]) == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert {row["stage"] for row in report["training"]} == set(gpu_check.STAGES)
    assert report["rendering"][0]["ratio"] == 1.0 and all(row["gflop_per_s"] > 0 for row in report["rendering"])
    assert report["end_to_end"]["frames_per_s"] > 0 and "rendering" in report["end_to_end"]["seconds"]
    page = (tmp_path / "report.md").read_text()
    assert f"{report['end_to_end']['real_time']} x real time" in page
    assert "1 passed, 1 failed" in page and "failed: a: b" in page and "25.0%" in page


def test_outcomes_are_read_from_pytests_file(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    cases = '<testcase name="x"/><testcase name="y"><failure message="no&#10;more"/></testcase>'
    path.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    found = [(test["test"], test["outcome"], test["why"]) for test in gpu_check.read_results(path)]
    assert found == [("x", "passed", ""), ("y", "failed", "no")]
    assert gpu_check.read_results(tmp_path / "none")[0]["outcome"] == "failed"
