"""How the commands of datasets/ end: a mistake is one sentence and exit code 2; Ctrl-C is one sentence and 130."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("prepare grid --input {}/missing --output {}/out", "--input"),
        ("prepare grid --input {} --output {}/out", "no video of grid"),
        ("join {}/missing --output {}/out", "manifest.csv not found"),
        ("inspect {}/missing", "manifest.csv not found"),
        ("provenance {}/missing.mp4", "no such media file"),
        ("synthetic --output {}/out --seconds -1", "seconds -1"),
        ("synthetic --output {}/file/below", "file/below"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, arguments, words):
    (tmp_path / "file").touch()
    (tmp_path / "poses").mkdir()
    command, *rest = arguments.format(*[tmp_path] * 2).split()
    if command == "prepare":  # so that no estimator is asked for
        rest += ["--pose", "openface-csv", "--openface-csv", str(tmp_path / "poses")]
    done = subprocess.run(
        [sys.executable, "-m", f"datasets.{command}", *rest], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and words in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_an_option_of_another_corpus_is_refused(tmp_path):
    line = ["-m", "datasets.prepare", "grid", "--input", str(tmp_path), "--output", str(tmp_path), "--txt", "a"]
    done = subprocess.run([sys.executable, *line], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "unrecognized arguments: --txt" in done.stderr


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_says_how_to_go_on(tmp_path, signal_number):
    """The signal goes to the command and its workers, as a terminal sends Ctrl-C."""
    line = ["-m", "datasets.synthetic", "--output", str(tmp_path), "--clips", "40", "--size", "64", "--seconds", "1"]
    process = subprocess.Popen(
        [sys.executable, *line],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored, where these tests run with `&`
    )
    limit = time.monotonic() + 120
    while time.monotonic() < limit and not list((tmp_path / "clips").glob("[!.]*")):
        time.sleep(0.02)
    os.killpg(process.pid, signal_number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said == "interrupted; the same command continues\n", said
