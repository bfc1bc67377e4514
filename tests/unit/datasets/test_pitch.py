"""F0 in parts is the F0 of the whole, wherever it is cut."""

from pathlib import Path

import numpy as np
import pytest

from datasets import pitch
from datasets.audio import level_of, scaled_wave
from datasets.media.sound import load_pcm
from datasets.pitch import PitchTrack, estimate_f0, f0_in_pieces, fill_unvoiced, row_count

RATE = 16_000
SPEECH = Path(__file__).resolve().parents[3] / "assets" / "speech.wav"


@pytest.fixture(scope="module")
def wave():
    pcm = load_pcm(SPEECH)
    return scaled_wave(pcm, level_of(pcm))


@pytest.mark.parametrize("estimator", ["harvest", "dio"])
@pytest.mark.parametrize("samples", [56_000, 56_001, 56_002, 56_003])  # the lowered rate's grid depends on the length
def test_pieces_find_what_the_whole_finds(wave, estimator, samples, monkeypatch):
    monkeypatch.setattr(pitch, "PIECE", RATE)
    wave_N = wave(0, samples) + 0.01  # the whole's mean does not matter
    whole_R = estimate_f0(wave_N - wave_N.mean(), estimator)
    pieces = list(f0_in_pieces(lambda start, stop: (wave_N - wave_N.mean())[start:stop], samples, estimator, workers=2))
    assert [len(piece) for piece in pieces] == [100, 100, 100, 51]
    found_R = np.concatenate(pieces)
    np.testing.assert_array_equal(found_R > 0, whole_R > 0)
    np.testing.assert_allclose(found_R, whole_R, atol=0.1)  # Hz; an artificial voice has next to silent rows


@pytest.mark.parametrize(
    ("workers", "lengths"), [(1, [200, 200, 200, 69]), (3, [133] * 4 + [137]), (64, [100] * 4 + [200, 69])]
)
def test_the_first_pieces_are_shared_out_so_that_they_come_early(wave, workers, lengths):
    samples = 6 * RATE + 11_000  # the whole of what is spoken
    pieces = list(f0_in_pieces(wave, samples, "dio", workers))
    assert [min(len(piece), row_count(samples)) for piece in pieces] == lengths
    np.testing.assert_allclose(np.concatenate(pieces), estimate_f0(wave(0, samples), "dio"), atol=1e-3)


def test_holes_are_filled():
    f0_R = np.array([0, 0, 100, 0, 0, 160, 0.0])
    filled_R, voiced_R = fill_unvoiced(f0_R)
    np.testing.assert_allclose(filled_R, [100, 100, 100, 120, 140, 160, 160])
    np.testing.assert_array_equal(voiced_R, [0, 0, 1, 0, 0, 1, 0])


@pytest.mark.parametrize("step", [1, 3, 7, 40])
def test_a_track_fills_holes_as_if_it_knew_the_whole(step):
    f0_R = np.zeros(40)
    f0_R[[5, 6, 18, 30, 31]] = [100, 110, 150, 120, 90]
    track = PitchTrack(iter(np.split(f0_R, [4, 10, 11, 25])))
    rows = [track.rows(first, min(first + step, 40)) for first in range(0, 40, step)]
    filled_R, voiced_R = (np.concatenate(each) for each in zip(*rows, strict=True))
    np.testing.assert_array_equal(filled_R, fill_unvoiced(f0_R)[0])
    np.testing.assert_array_equal(voiced_R, fill_unvoiced(f0_R)[1])


def test_a_track_finds_no_more_than_it_needs_and_forgets():
    asked = []

    def pieces():
        for n in range(100):
            asked.append(n)
            yield np.full(10, 100.0 + n)

    track = PitchTrack(pieces())
    for first in range(0, 200, 20):
        track.rows(first, first + 20)
        assert len(asked) == (first + 20) // 10 and len(track.held_R) <= 11


def test_a_track_without_voice_is_zero():
    filled_R, voiced_R = PitchTrack(iter([np.zeros(8)])).rows(0, 8)
    assert not filled_R.any() and not voiced_R.any()
