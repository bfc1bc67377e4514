"""animation.convert: where its output goes."""

from pathlib import Path

import pytest

from animation import convert
from engine.checkpoint import load_weights, save_weights
from tests.in_process import status_of


def test_a_weights_file_that_is_a_link_is_written_through(tmp_path: Path, small_weights) -> None:
    save_weights(tmp_path / "real.safetensors", small_weights(64))
    link = tmp_path / "link.safetensors"
    link.symlink_to("real.safetensors")
    assert status_of(convert.main, "--animation", "expression_scale=2", link, link) == 0
    assert link.is_symlink()
    assert load_weights(tmp_path / "real.safetensors").configs["animation"] == {"expression_scale": 2.0}


def test_a_forgotten_output_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    assert status_of(convert.main, tmp_path / "a", tmp_path / "b") == 2
    assert "b is a folder, but stands where the file to write belongs; name that one last" in capsys.readouterr().err
