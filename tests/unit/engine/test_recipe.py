"""A recipe's steps: which they are, how they are run, and what happens when one fails."""

import sys
from pathlib import Path

import pytest

from engine import recipe
from engine.config import ConfigError
from tests.in_process import status_of

DEMO = Path(__file__).parents[3] / "config" / "demo"


def test_the_steps_are_in_the_order_of_their_numbers_and_bases_are_read(tmp_path: Path) -> None:
    (tmp_path / "02_fomm_more.yaml").write_text("base: 01_fomm.yaml\ninitial_weights: runs/a\n")
    (tmp_path / "01_fomm.yaml").write_text("run: {dir: runs/a, max_steps: 5}\n")
    (tmp_path / "03_headpose.yaml").write_text("run: {dir: runs/h}\n")
    (tmp_path / "animation.yaml").write_text("keypoint_mode: relative\n")
    steps = recipe.steps_of(tmp_path)
    assert [(step.config.name[:2], step.stage, step.run) for step in steps] == [
        ("01", "fomm", "runs/a"),
        ("02", "fomm", "runs/a"),
        ("03", "headpose", "runs/h"),
    ]
    assert steps[2].command(["run.max_steps=1"])[1:] == [
        "train_headpose.py",
        "--config",
        str(tmp_path / "03_headpose.yaml"),
        "run.max_steps=1",
    ]


def test_numbers_are_not_text(tmp_path: Path) -> None:
    for name in ("2_fomm", "10_headpose"):
        (tmp_path / f"{name}.yaml").write_text("run: {dir: a}\n")
    assert [step.config.stem for step in recipe.steps_of(tmp_path)] == ["2_fomm", "10_headpose"]
    (tmp_path / "02_motionfield.yaml").write_text("run: {dir: a}\n")
    with pytest.raises(ConfigError, match=r"2_fomm\.yaml and 02_motionfield\.yaml have the same number"):
        recipe.steps_of(tmp_path)


@pytest.mark.parametrize("override", ["run.dir=x", "run={dir: x, max_steps: 1}"])
def test_one_folder_for_all_steps_is_refused(tmp_path: Path, override: str, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "01_fomm.yaml").write_text("run: {dir: a}\n")
    assert status_of(recipe.main, tmp_path, tmp_path / "w.safetensors", override) == 2
    assert f"error: {override} would put all steps into one folder" in capsys.readouterr().err


def test_the_file_to_write_may_stand_anywhere_and_is_looked_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "01_fomm.yaml").write_text("run: {dir: a}\n")
    ran, written = [], []
    monkeypatch.setattr(recipe, "run_steps", lambda steps, overrides: ran.append(overrides))
    monkeypatch.setattr(recipe, "put_together", lambda steps, folder, weights: written.append(weights))
    file = tmp_path / "w.safetensors"
    assert status_of(recipe.main, tmp_path, "data.root=x", file) == 0 == status_of(recipe.main, tmp_path, "a.b=c")
    assert ran == [["data.root=x"], ["a.b=c"]] and written == [file]
    for refused in (tmp_path, tmp_path / "no" / "w.safetensors"):
        assert status_of(recipe.main, tmp_path, refused) == 2
        assert "cannot be written; name a file in a folder that is there" in capsys.readouterr().err
    assert status_of(recipe.main, tmp_path, file, "more") == 2 and len(ran) == 2
    assert "more is neither key=value nor the file to write" in capsys.readouterr().err


def test_what_is_no_recipe_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no steps"):
        recipe.steps_of(tmp_path)
    for text in ("data: {root: a}", "run:", "run: x", "run: {dir: 3}"):
        (tmp_path / "01_fomm.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"01_fomm\.yaml: run\.dir is missing"):
            recipe.steps_of(tmp_path)
    (tmp_path / "01_fomm.yaml").rename(tmp_path / "first.yaml")
    with pytest.raises(ConfigError, match="NN_STAGE_WHAT"):
        recipe.steps_of(tmp_path)


def test_a_step_that_fails_ends_the_recipe_and_an_interrupted_one_interrupts_it() -> None:
    recipe.process([sys.executable, "-c", ""], "01")
    with pytest.raises(recipe.StepFailed, match="01 ended with exit code 2"):
        recipe.process([sys.executable, "-c", "raise SystemExit(2)"], "01")
    with pytest.raises(KeyboardInterrupt):
        recipe.process([sys.executable, "-c", "raise SystemExit(130)"], "01")


def test_the_last_run_of_each_stage_is_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(recipe, "process", lambda command, name: asked.append(command[2:]))
    recipe.put_together(recipe.steps_of(DEMO), DEMO, tmp_path / "w.safetensors")
    (command,) = asked
    runs = [step.run for step in recipe.steps_of(DEMO)]
    assert command[:2] == ["animation.convert", "--half"] and command[-1] == str(tmp_path / "w.safetensors")
    assert [word for word in command if word.startswith("runs/")] == [
        max(run for run in runs if f"_{stage}" in run) for stage in ("fomm", "headpose", "motionfield")
    ]
