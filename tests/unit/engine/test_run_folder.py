"""engine.run_folder: which checkpoints are kept, and which may be gone on from."""

import json
from pathlib import Path

import pytest
import torch

from engine.checkpoint import CheckpointError, Weights, load_weights
from engine.run import RunConfig
from engine.run_folder import MAY_CHANGE, Best, RunFolder, State, differences, fingerprint

CONFIG = {"run": {"seed": 0, "dir": "a"}, "data": {"root": "b", "repeats": 1}}


def save(kept: RunFolder, step: int, improved: bool = False, config: dict = CONFIG) -> None:
    kept.begin(step)
    (kept.partial(step) / "tensors").touch()
    weights = Weights({"net": {"step": torch.tensor(step)}}, {})
    kept.complete(State("toy", step, Best(0.5, step), {"before": "abc"}, config), weights, improved)


def test_only_settings_without_influence_may_change() -> None:
    fields = {f"run.{name}" for name in RunConfig.__dataclass_fields__}
    assert fields - MAY_CHANGE == {
        f"run.{name}" for name in ("seed", "precision", "accumulate", "ema_decay", "channels_last", "compile")
    }
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}, set()) == ["a.b: 1 there, 3 here"]


def test_latest_best_and_multiples_are_kept(tmp_path: Path) -> None:
    kept = RunFolder(tmp_path, keep_every=4)
    for step in range(1, 8):
        save(kept, step, improved=step == 2)
    assert [path.name for path in kept.checkpoints()] == [f"step-000000{step}" for step in (2, 4, 7)]
    assert kept.newest() == kept.final(7) == (kept.folder / "latest").resolve()
    assert (kept.folder / "best").resolve() == kept.final(2)
    steps = (
        load_weights(tmp_path / name).states["net"]["step"] for name in ("weights.safetensors", "best.safetensors")
    )
    assert [int(step) for step in steps] == [7, 2]
    assert {path.name for path in kept.folder.iterdir()} == {"best", "latest", *(p.name for p in kept.checkpoints())}


def test_links_are_mended_that_a_killed_run_left_behind(tmp_path: Path) -> None:
    kept = RunFolder(tmp_path, keep_every=1)
    for step in (1, 2, 3):
        save(kept, step, improved=step == 1)
    for name in ("latest", "best"):
        (kept.folder / name).unlink()
        (kept.folder / name).symlink_to("step-0000001")
    weights = Weights({"net": {"step": torch.tensor(3)}}, {})
    kept.mend(3, Best(0.5, 2), weights)
    assert [(kept.folder / name).resolve().name[-1] for name in ("latest", "best")] == ["3", "2"]
    kept.mend(3, Best(0.5, 9), weights)  # gone
    assert (kept.folder / "best").resolve() == kept.final(2)


def test_weights_that_are_gone_are_written_again(tmp_path: Path) -> None:
    kept = RunFolder(tmp_path, keep_every=1)
    save(kept, 3, improved=True)
    files = [tmp_path / "weights.safetensors", tmp_path / "best.safetensors"]
    for best_step, wanted in ((2, files[:1]), (3, files)):  # those of an older best are not at hand
        for file in files:
            file.unlink(missing_ok=True)
        kept.mend(3, Best(0.5, best_step), Weights({"net": {"step": torch.tensor(3)}}, {}))
        assert [file for file in files if file.exists()] == wanted
        assert all(load_weights(file).states["net"]["step"] == 3 for file in wanted)


def test_what_was_begun_and_not_completed_is_no_checkpoint(tmp_path: Path) -> None:
    kept = RunFolder(tmp_path, keep_every=0)
    kept.begin(3)
    assert kept.newest() is None
    (tmp_path / ".weights.safetensors.abcdefgh.safetensors").touch()
    (kept.folder / ".latest").symlink_to("nowhere")
    kept.clear_leftovers()
    assert not list(kept.folder.iterdir()) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 9}, "no checkpoint of this version"),
        ({"step": "many"}, "run.json is damaged"),
        ({"config": None}, "run.json is damaged"),
        ({"best": [1]}, "run.json is damaged"),
    ],
)
def test_a_damaged_state_is_one_sentence(tmp_path: Path, change: dict, words: str) -> None:
    kept = RunFolder(tmp_path, keep_every=0)
    save(kept, 3)
    path = kept.final(3) / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=words):
        kept.read(kept.final(3), "toy", CONFIG, {"before": "abc"})


def test_a_run_goes_on_from_its_own_checkpoints_only(tmp_path: Path) -> None:
    kept = RunFolder(tmp_path, keep_every=0)
    save(kept, 3)
    state = kept.read(kept.newest(), "toy", CONFIG, {"before": "abc"})
    assert (state.step, state.best) == (3, Best(0.5, 3))
    elsewhere = CONFIG | {"run": {"seed": 0, "dir": "c"}}
    assert kept.read(kept.newest(), "toy", elsewhere, {"before": "abc"}) == state
    with pytest.raises(CheckpointError, match=r"data\.repeats: 1 there, 2 here"):
        kept.read(kept.newest(), "toy", CONFIG | {"data": {"root": "b", "repeats": 2}}, {"before": "abc"})
    with pytest.raises(CheckpointError, match="before: abc there, xyz here"):
        kept.read(kept.newest(), "toy", CONFIG, {"before": "xyz"})


def test_inputs_that_came_later_do_not_count_in_old_runs(tmp_path: Path) -> None:
    kept = RunFolder(tmp_path, keep_every=0)
    save(kept, 3)
    inputs = {"before": "abc", "corpus": fingerprint(["a 1", "b 2"])}
    assert kept.read(kept.newest(), "toy", CONFIG, inputs).step == 3
    kept.begin(4)
    kept.complete(State("toy", 4, None, inputs, CONFIG), Weights({}, {}), improved=False)
    assert kept.read(kept.newest(), "toy", CONFIG, inputs).step == 4
    with pytest.raises(CheckpointError, match=r"corpus: \w+ there, \w+ here"):
        kept.read(kept.newest(), "toy", CONFIG, inputs | {"corpus": fingerprint(["a 1", "b 3"])})


def test_keys_that_no_longer_exist_do_not_count_in_old_runs(tmp_path: Path) -> None:
    """But where a configuration still has the key (data.window of stage two), it does."""
    kept = RunFolder(tmp_path, keep_every=0)
    old = {"run": CONFIG["run"], "data": CONFIG["data"] | {"seed": 0, "size": 256, "window": 64}}
    save(kept, 3, config=old)
    assert kept.read(kept.newest(), "toy", CONFIG, {"before": "abc"}).step == 3
    with pytest.raises(CheckpointError, match=r"data\.window: 64 there, 32 here"):
        kept.read(kept.newest(), "toy", CONFIG | {"data": CONFIG["data"] | {"window": 32}}, {"before": "abc"})


def test_keys_that_came_later_do_not_count_in_old_runs(tmp_path: Path) -> None:
    kept = RunFolder(tmp_path, keep_every=0)
    save(kept, 3)
    later = CONFIG | {"head_motion_predictor": {"image_size": 0}, "motion_field_generator": {"listeners": 1}}
    assert kept.read(kept.newest(), "toy", later, {"before": "abc"}).step == 3
    save(kept, 4, config=later)  # a run that knows the key is held to it
    with pytest.raises(CheckpointError, match=r"image_size: 0 there, 64 here"):
        kept.read(kept.newest(), "toy", CONFIG | {"head_motion_predictor": {"image_size": 64}}, {"before": "abc"})
