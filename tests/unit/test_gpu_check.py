"""`make gpu-check`: what it says without a GPU, what it reads from the tests, and its whole way, tiny, on the CPU."""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import psutil
import pytest
import torch

from benchmarks import full_size, gpu_check, inference


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
    monkeypatch.setattr(gpu_check, "MODES", {"plain fp32": gpu_check.PLAIN})
    assert gpu_check.main(["--device", "cpu", "--output", str(tmp_path)]) == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert list(report)[-5:] == ["tests", "data", "end_to_end", "rendering", "training"]  # what may come short is last
    assert {row["stage"] for row in report["training"]} == set(gpu_check.STAGES)
    assert report["rendering"][0]["ratio"] == 1.0 and all(row["gflop_per_s"] > 0 for row in report["rendering"])
    assert report["end_to_end"]["frames_per_s"] > 0 and "rendering" in report["end_to_end"]["seconds"]
    page = (tmp_path / "report.md").read_text()
    assert f"{report['end_to_end']['real_time']} x real time" in page
    assert "1 passed, 1 failed" in page and "failed: a: b" in page and "25.0%" in page


TESTS = """
import subprocess, sys, time
import pytest

pytestmark = pytest.mark.gpu

def test_good(): pass

def test_bad(): assert 1 == 2, "no"

@pytest.mark.skip(reason="one GPU")
def test_left_out(): pass

def test_long():
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    worker = subprocess.Popen(command, start_new_session=True)
    open(PLACE, "w").write(str(worker.pid))
    time.sleep(600)
"""


def test_what_tests_found_before_their_time_was_up_is_kept_and_all_they_started_is_ended(tmp_path: Path) -> None:
    place = tmp_path / "worker"
    (tmp_path / "test_four.py").write_text(TESTS.replace("PLACE", repr(str(place))))
    start = time.monotonic()
    found = gpu_check.run_tests("cpu", 12, tmp_path)
    assert time.monotonic() - start < 40
    assert [(test["test"], test["outcome"]) for test in found] == [
        ("test_good", "passed"),
        ("test_bad", "failed"),
        ("test_left_out", "skipped"),
        ("tests/gpu", "failed"),
    ]
    assert "no" in found[1]["why"] and "one GPU" in found[2]["why"] and found[3]["why"] == "not done after 12 s"
    with contextlib.suppress(psutil.NoSuchProcess):
        assert psutil.Process(int(place.read_text())).status() == psutil.STATUS_ZOMBIE


def test_a_test_run_that_breaks_down_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "test_two.py").write_text(TESTS.split("@")[0].replace("assert 1 == 2", "import os; os._exit(9)"))
    found = gpu_check.run_tests("cpu", 60, tmp_path)
    assert [(test["outcome"], test["why"]) for test in found] == [("passed", ""), ("failed", "pytest ended with 9")]
    assert gpu_check.run_tests("cpu", 60, tmp_path / "none")[0]["outcome"] == "failed"


def compiling(count: int) -> list[gpu_check.Mode]:
    """The first modes of rendering; from the second on they count as compiled, as only large ones do."""
    modes = gpu_check.rendering(torch.device("cpu"), tiny=True)[:count]
    return [mode._replace(precision="fp32", compiled=number > 0) for number, mode in enumerate(modes)]


def filled() -> tuple[list[dict], list[str]]:
    """The table of rendering, and what was left out of it."""
    table, left_out = gpu_check.Rows(), []
    for compiled in (False, True):
        gpu_check.fill(table, "rendering", torch.device("cpu"), True, compiled, gpu_check.Clock(3), left_out)
    return gpu_check.compared(table), left_out


def test_compiled_modes_are_measured_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpu_check.TABLES, "rendering", lambda device, tiny: compiling(2))
    rows, left_out = filled()
    assert [row["ratio"] > 0 and row["gflop_per_s"] > 0 for row in rows] == [True, True] and not left_out


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (subprocess.TimeoutExpired("compile", 7), "not done after 7 s"),
        (subprocess.CalledProcessError(1, "compile", stderr="Traceback\nno compiler"), "no compiler"),
    ],
)
def test_a_mode_that_compiles_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch, error: Exception, why: str) -> None:
    def elsewhere(table: str, number: int, device: torch.device, limit_s: float) -> dict:
        assert number == 1 and 0 < limit_s <= 60 * 3
        raise error

    monkeypatch.setitem(gpu_check.TABLES, "rendering", lambda device, tiny: compiling(2))
    monkeypatch.setattr(gpu_check, "measured_elsewhere", elsewhere)
    rows, left_out = filled()
    assert len(rows) == 1 and len(left_out) == 1 and left_out[0].endswith(why)


def test_without_the_first_mode_there_is_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(mode: gpu_check.Mode, device: torch.device, tiny: bool) -> dict:
        if mode.labels["mode"].startswith("plain fp32"):
            raise torch.OutOfMemoryError
        return {"per_s": 2.0, "gflop": None, "peak_memory_gb": None}

    modes = [mode._replace(precision="fp32") for mode in gpu_check.rendering(torch.device("cpu"), tiny=True)]
    monkeypatch.setitem(gpu_check.TABLES, "rendering", lambda device, tiny: modes)
    monkeypatch.setattr(gpu_check, "measured", measured)
    rows, left_out = filled()
    assert [row["ratio"] for row in rows] == [None, None] and left_out[0].endswith("out of memory")
    report = {"machine": {}, "aims": "", "left_out": left_out, "tests": [], "rendering": rows}
    assert "| 2.0 | - | - | - |" in gpu_check.markdown(report)


def test_only_trainings_let_cudnn_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """As engine.run does, and inference does not."""
    cpu = torch.device("cpu")
    assert all(mode.cudnn_tries for mode in gpu_check.training(cpu, tiny=True))
    assert not any(mode.cudnn_tries for mode in gpu_check.rendering(cpu, tiny=True))
    seen = []
    monkeypatch.setattr(gpu_check, "rates", lambda *_: seen.append(torch.backends.cudnn.benchmark))
    for tries in (True, False):
        gpu_check.measured(gpu_check.Mode({}, lambda: None, cudnn_tries=tries), cpu, tiny=True)
    assert seen == [True, False]


def test_the_report_names_card_and_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 570.86.15\necho 570.86.15\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    card = SimpleNamespace(name="NVIDIA H200", total_memory=150e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: card)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    found = gpu_check.machine(torch.device("cuda"))
    assert (found["card"], found["driver"]) == ("NVIDIA H200", "570.86.15")
    monkeypatch.setenv("PATH", "")
    assert gpu_check.driver() == "unknown"


class Loading(Exception):
    """Networks are about to be loaded."""


@pytest.mark.parametrize("script", [inference, full_size])
def test_benchmarks_make_their_device_ready_first(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or float32 would be TF32 on a GPU."""

    def load_models(*_: object) -> None:
        raise Loading

    seen: list[torch.device] = []
    monkeypatch.setattr(script, "use", seen.append)
    monkeypatch.setattr(script, "load_models", load_models)
    arguments = ["--data", "none"] if script is full_size else ["--precisions", "fp32"]
    monkeypatch.setattr(sys, "argv", ["script", "--device", "cpu", "--checkpoint", "none", *arguments])
    with pytest.raises(Loading):
        script.main()
    assert seen == [torch.device("cpu")]
