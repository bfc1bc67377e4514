"""Given videos and their references, matched by stem."""

from pathlib import Path

import numpy as np
import pytest

from datasets.errors import DataError
from datasets.media.sound import write_wav
from datasets.media.video_writer import VideoWriter
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


def film(path: Path, size: tuple[int, int] = (32, 32)) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(path.with_suffix(".wav"), np.zeros(8000, np.int16))
    with VideoWriter(path, sound=path.with_suffix(".wav")) as writer:
        writer.write(np.random.default_rng(0).integers(0, 255, (12, *size, 3), np.uint8))
    return path.read_bytes()


def test_pairs_that_cannot_be_used_are_left_out_and_named(tmp_path):
    whole = film(tmp_path / "generated" / "a.mp4")
    film(tmp_path / "generated" / "wide.mp4", (32, 64))
    for name in ("a", "cut", "text", "wide", "reference"):
        film(tmp_path / "reference" / f"{name}.mp4")
    (tmp_path / "generated" / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "generated" / "text.mp4").write_text("no video")
    (tmp_path / "generated" / "reference.mp4").write_bytes(whole)
    (tmp_path / "reference" / "reference.mp4").write_text("no video")
    matches = given.usable(given.match(tmp_path / "generated", tmp_path / "reference", "test"))
    assert [item.id for item in matches.items] == ["a"]
    (note,) = matches.notes()
    assert note.startswith("4 pairs cannot be used") and "wide.mp4 is 64x32" in note and "text.mp4" in note
    for name in ("a.mp4", "a.wav"):
        (tmp_path / "generated" / name).unlink()
    with pytest.raises(EvaluationError, match="none of the 4 pairs can be used"):
        given.usable(given.match(tmp_path / "generated", tmp_path / "reference", "test"))
