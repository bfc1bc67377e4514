"""evaluate.py's choices: rows that can be made, clips, configurations."""

from pathlib import Path

import pytest

import evaluate
from engine.config import ConfigError, load
from evaluation.rows import ROWS, VariantPaths
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
