"""Tests see no GPU unless those that need one are asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = "import os\n\ndef test_probe():\n    print('sees', repr(os.environ['CUDA_VISIBLE_DEVICES']))\n"


@pytest.mark.parametrize(
    ("options", "sees"), [([], "''"), (["-m", "not slow and not gpu"], "''"), (["-m", "gpu"], "'0'")]
)
def test_no_test_but_those_marked_gpu_sees_one(tmp_path: Path, options: list[str], sees: str) -> None:
    (tmp_path / "test_probe.py").write_text(
        PROBE if sees == "''" else f"import pytest\npytestmark = pytest.mark.gpu\n{PROBE}"
    )
    conftest = Path(__file__).parents[1] / "conftest.py"
    (tmp_path / "conftest.py").write_text(conftest.read_text())
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-c", os.devnull, "--rootdir", str(tmp_path)]
    command += ["-p", "no:cacheprovider", "-W", "ignore", str(tmp_path), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": "0"})
    assert done.returncode == 0 and f"sees {sees}" in done.stdout, done.stdout + done.stderr
