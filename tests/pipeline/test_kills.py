"""The short form of tests/kills.py: a few kills of the commands that take seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_commands_end_as_undisturbed_ones() -> None:
    command = [sys.executable, "tests/kills.py", "--kills", "2", "--command", "prepare", "headpose", "pairs"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
