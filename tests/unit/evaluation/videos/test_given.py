"""Given videos and their references, matched by stem."""

from pathlib import Path

import pytest

from datasets.errors import DataError
from evaluation import EvaluationError
from evaluation.videos import given


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def test_stems_without_a_partner_are_named(tmp_path):
    for name in ("a", "b", "x", "y"):
        touch(tmp_path / "generated" / f"{name}.mp4")
    for name in ("anna/a", "anna/b", "bert/c", "d"):
        touch(tmp_path / "reference" / f"{name}.avi")
    matches = given.match(tmp_path / "generated", tmp_path / "reference", "test")
    assert [(item.id, item.identity) for item in matches.items] == [("a", "anna"), ("b", "anna")]
    assert (matches.missing, matches.extra) == (["c", "d"], ["x", "y"])
    assert matches.notes() == [
        "2 references have no generated video: c, d",
        "2 generated videos have no reference: x, y",
    ]
    assert given.match(tmp_path / "reference", tmp_path / "reference", "test").items[-1].identity == "d"


def test_folders_that_cannot_be_matched_are_sentences(tmp_path):
    touch(tmp_path / "generated" / "a.mp4")
    touch(tmp_path / "reference" / "b.mp4")
    with pytest.raises(EvaluationError, match=r"no video of .* has the stem of one of .*: a against b"):
        given.match(tmp_path / "generated", tmp_path / "reference", "test")
    touch(tmp_path / "generated" / "more" / "a.mkv")
    with pytest.raises(DataError, match="have the same stem"):
        given.match(tmp_path / "generated", tmp_path / "reference", "test")
    with pytest.raises(DataError, match="is not a folder"):
        given.match(tmp_path / "nowhere", tmp_path / "reference", "test")
