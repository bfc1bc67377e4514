"""evaluate.py's choices: rows that can be made, clips, configurations."""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import evaluate
from datasets.clips import load_manifest, load_pose_range
from datasets.errors import DataError
from datasets.pose import RELEASED_RANGE
from datasets.synthetic import SyntheticConfig
from engine.command import Place
from engine.config import ConfigError, load
from evaluation.rows import ROWS, VariantPaths
from tests.in_process import status_of
from tests.unit.evaluation.toys import item

CONFIGS = Path(__file__).resolve().parents[2] / "config"


def test_rows_that_cannot_be_made_say_what_they_need():
    rows, missing = evaluate.choose_rows(("full", "l1", "no-jacobian", "wrong-audio"), [item("1", "a")], VariantPaths())
    assert [row.name for row in rows] == ["truth", "full"]
    assert missing == {
        "l1": "needs variants.l1=RUN of train_headpose.py",
        "no-jacobian": "needs variants.no_jacobian=RUN of train_motionfield.py",
        "wrong-audio": "needs clips of two identities",
    }
    two = [item("1", "a"), item("2", "b")]
    assert not evaluate.choose_rows(("no-set", "wrong-audio"), two, VariantPaths(no_set="x"))[1]


def test_other_ranks_wait_for_the_corpus_that_rank_0_draws(tmp_path):
    drawn = SyntheticConfig(clips=2, speakers=2, duration_s=0.4, size=64)
    with ThreadPoolExecutor() as pool:
        second = pool.submit(evaluate.draw_or_wait, tmp_path, drawn, Place(1, 2, 1))
        time.sleep(0.5)
        assert not second.done()
        evaluate.draw_or_wait(tmp_path, drawn, Place(0, 2, 0))
        second.result(timeout=10)
    assert len(load_manifest(tmp_path)) == 2 and load_pose_range(tmp_path) != RELEASED_RANGE


def test_a_corpus_that_is_not_drawn_is_not_waited_for(tmp_path):
    evaluate.draw_or_wait(tmp_path, None, Place(1, 2, 1))
    with pytest.raises(DataError, match=r"manifest\.csv not found"):
        load_manifest(tmp_path)


def test_clips_are_spread_evenly():
    assert evaluate.spread(list(range(10)), 5) == [0, 2, 4, 6, 8]
    assert evaluate.spread(list(range(3)), 5) == evaluate.spread(list(range(3)), 0) == [0, 1, 2]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("evaluate_*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_is_valid(path):
    assert set(load(evaluate.Config, path).rows) == set(ROWS)


def test_a_wrong_key_or_row_is_named():
    with pytest.raises(ConfigError, match=r"unknown key variants\.no_jacobians; did you mean variants\.no_jacobian\?"):
        load(evaluate.Config, None, ["variants.no_jacobians=x"])
    with pytest.raises(ConfigError, match=r"rows.*'gt-head'.*found 'gt-heads'"):
        load(evaluate.Config, None, ["rows=[gt-heads]"])
    with pytest.raises(ConfigError, match="rows names full twice"):
        load(evaluate.Config, None, ["rows=[full, still, full]"])


@pytest.mark.parametrize("override", ["max_clips=-1", "bootstrap.samples=0", "bootstrap.seed=-1"])
def test_a_number_out_of_its_limits_is_named(override):
    key, value = override.split("=")
    with pytest.raises(ConfigError, match=f"{key}: .*greater than or equal to ., found {value}"):
        load(evaluate.Config, None, [override])


def test_options_of_inference_are_nested_and_none_is_ignored():
    config = load(evaluate.Config, None, ["animation.expression_scale=2", "animation.device=cpu"])
    assert config.animation.expression_scale == 2 and config.animation.crop == "none"
    with pytest.raises(ConfigError, match=r"animation\.crop.*found 'auto'"):
        load(evaluate.Config, None, ["animation.crop=auto"])
    with pytest.raises(ConfigError, match=r"unknown key animation\.expresion_scale; did you mean"):
        load(evaluate.Config, None, ["animation.expresion_scale=2"])


@pytest.fixture
def given_form(tmp_path):
    """Checks settings against --generated and a reference that is a folder of videos, or with a manifest a corpus."""

    def check(*overrides: str, prepared: bool = True) -> evaluate.Config:
        (tmp_path / "reference").mkdir(exist_ok=True)
        if prepared:
            (tmp_path / "reference" / "manifest.csv").touch()
        config = load(evaluate.Config, None, overrides)
        evaluate.check_settings(argparse.Namespace(generated=tmp_path, reference=tmp_path / "reference"), config)
        return config

    return check


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("animation.expression_scale=5", "animation.expression_scale"),
        ("animation.size=128", "animation.size"),
        ("variants.l1=x", "variants.l1"),
        ("rows=[full, still]", "row full"),
        ("synthetic={clips: 4}", "synthetic"),
    ],
)
def test_settings_that_say_how_videos_are_made_are_refused_with_given_ones(given_form, override, named):
    with pytest.raises(ConfigError, match=f"{named}: --generated only measures videos; leave out"):
        given_form(override)


def test_settings_that_count_for_given_videos_are_taken(given_form, tmp_path):
    given_form()
    given_form("animation.device=cpu", "animation.label=true", "animation.crf=20", "rows=[still]", "max_clips=1")
    given_form("split=train", f"alignments={tmp_path}")
    (tmp_path / "reference" / "manifest.csv").unlink()
    for override in ("split=train", f"alignments={tmp_path}"):
        with pytest.raises(ConfigError, match=f"{override.split('=')[0]}: .*reference is no prepared corpus"):
            given_form(override, prepared=False)


def test_a_folder_of_alignments_that_is_missing_is_refused(given_form, tmp_path):
    given_form(f"alignments={tmp_path}")
    config = load(evaluate.Config, None, ["alignments=/nope"])
    for form in (None, tmp_path):
        with pytest.raises(ConfigError, match="alignments=/nope is not a folder"):
            evaluate.check_settings(argparse.Namespace(generated=form, reference=tmp_path), config)


@pytest.mark.parametrize("option", ["data", "generated", "reference"])
def test_results_never_lie_among_what_is_read(option, tmp_path, monkeypatch, capsys):
    """Refused before anything is written; a folder beside or above what is read is none of these."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "read").mkdir()
    (tmp_path / "link").symlink_to("read")
    others = {"data": ("--checkpoint", "x"), "generated": ("--reference", "ref"), "reference": ("--generated", "gen")}
    for output, read in (("read", "read"), ("link/out", "read"), ("read/../read/out", "link"), ("out", "out/videos/a")):
        assert status_of(evaluate.main, f"--{option}", read, *others[option], "--output", output) == 2
        assert f"--output {output}: results would lie among what is read, --{option} {read};" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["link", "read"]
    for output, read in ((".", "read"), ("reading", "read")):
        places = {"data": None, "generated": None, "reference": None} | {option: Path(read)}
        evaluate.check_places(argparse.Namespace(output=Path(output), **places))
