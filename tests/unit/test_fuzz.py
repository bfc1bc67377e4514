"""The short run of the fuzzer: some damaged files for every reader. `python tests/fuzz.py --cases 2000` is the long."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_damaged_files_are_read_rightly_or_refused_in_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "tests/fuzz.py", "--cases", "25", "--keep", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) >= 25  # a line for each reader
