"""Lips that must close at p, b and m."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from datasets.errors import DataError
from evaluation.scores.closed_lips import closure, shut_moments
from evaluation.videos.words import Word, read_alignment, words_of

WORDS = [
    Word(0.4, 0.6, "bin"),
    Word(0.8, 1.0, "red"),
    Word(1.2, 1.4, "at"),
    Word(1.6, 2.0, "m"),
    Word(2.2, 2.6, "five"),
]


def mouth(*shut: int, frames: int = 75) -> np.ndarray:
    """A mouth that is open but for three frames around each of those given."""
    opening_T = np.full(frames, 0.2)
    for frame in shut:
        opening_T[frame - 1 : frame + 2] = 0.01
    return opening_T


def test_moments_are_those_of_the_lips_own_sounds() -> None:
    assert shut_moments(WORDS, 75) == [slice(8, 13), slice(48, 52)]  # "bin" begins, "m" ends; "five" only touches teeth
    assert shut_moments(WORDS, 50) == [slice(8, 13), slice(48, 50)]
    assert shut_moments(WORDS, 40) == [slice(8, 13)]


def test_a_mouth_that_closes_with_the_truth_has_all_of_both() -> None:
    moments = shut_moments(WORDS, 75)
    assert closure(mouth(10, 50), mouth(10, 50), moments) == (1.0, 1.0, 2, 69)
    assert closure(mouth(11, 30), mouth(10, 50), moments) == (
        0.5,
        pytest.approx(65 / 69),
        2,
        69,
    )  # a frame late; a wrong one


def test_neither_an_open_nor_a_shut_mouth_passes() -> None:
    moments, true_T = shut_moments(WORDS, 75), mouth(10, 50)
    assert closure(np.full(75, 0.2), true_T, moments)[:2] == (0.0, 1.0)
    assert closure(np.full(75, 0.02), true_T, moments)[:2] == (1.0, 0.0)


def test_only_what_is_known_and_what_the_truth_closes_counts() -> None:
    true_T = mouth(10)  # at "m" this speaker's lips did not touch
    true_T[60:] = np.nan
    opening_T = mouth(10)
    opening_T[:9] = np.nan
    found = closure(opening_T, true_T, shut_moments(WORDS, 75))
    assert (found.shut, found.moments, found.frames) == (1.0, 1, 48)
    assert np.isnan(closure(opening_T, true_T, [])[0])
    with pytest.raises(ValueError, match="74 frames are compared with 75"):
        closure(opening_T[:74], true_T, [])


def test_alignments_are_read_and_others_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.align"
    path.write_text("0 23750 sil\n23750 29500 bin\n29500 34000 blue\n34000 74500 sil\n")
    assert read_alignment(path) == [Word(0.95, 1.18, "bin"), Word(1.18, 1.36, "blue")]
    path.write_text("no alignment\n")
    with pytest.raises(DataError, match="is no alignment"):
        read_alignment(path)


def test_words_of_a_clip_count_from_its_first_frame(tmp_path: Path) -> None:
    folder = tmp_path / "s7"
    folder.mkdir()
    (folder / "bbae6n.align").write_text("0 23750 sil\n23750 29500 bin\n")
    row = SimpleNamespace(identity="s7", source="raw/s7/bbae6n.mpg", start_s=0.2)
    (word,) = words_of(SimpleNamespace(row=row), str(tmp_path))
    assert word == (pytest.approx(0.75), pytest.approx(0.98), "bin")
    assert words_of(SimpleNamespace(row=row), "") is None
    assert words_of(SimpleNamespace(row=SimpleNamespace(identity="s8", source="a.mpg")), str(tmp_path)) is None
