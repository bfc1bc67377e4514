"""Features of small generated waves: their shape, silence, parity with the packages they come from, pieces."""

import numpy as np
import pytest

from datasets import audio
from datasets.errors import DataError
from datasets.media.sound import open_pcm, write_wav
from datasets.media.streams import SAMPLE_RATE as RATE


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    """int16 [N]: pulses of a wandering pitch with pauses and a little noise; to a pitch finder, almost speech."""
    samples = round(seconds * RATE)
    time_s = np.arange(samples) / RATE
    phase = np.cumsum(130 + 40 * np.sin(2 * np.pi * 0.7 * time_s)) / RATE
    tone = sum(np.sin(2 * np.pi * k * phase) / k for k in range(1, 20))
    noise = np.random.default_rng(seed).normal(0, 0.02, samples)
    return (6000 * (tone * (np.sin(2 * np.pi * 0.5 * time_s) > -0.3) + noise)).clip(-32768, 32767).astype(np.int16)


@pytest.mark.parametrize(
    ("samples", "frames"), [(1, 1), (300, 1), (720, 1), (721, 1), (1600, 2), (16000, 24), (96000, 149)]
)
def test_frame_count_and_shape(samples, frames):
    pcm = voice(6.0)[:samples]
    assert audio.frame_count(samples) == frames
    features_TAF = audio.features(pcm)
    assert features_TAF.shape == (frames, 4, 41) and features_TAF.dtype == np.float32
    assert np.isfinite(features_TAF).all()


def test_no_sample_is_an_error():
    with pytest.raises(DataError, match=r"0\.1 s or longer"):
        audio.features(np.zeros(0, np.int16))


@pytest.mark.parametrize("level", [0, 7, -32768])
def test_silence_is_finite_unvoiced_and_known(level):
    """The released code divides 0 by 0 here; also rounding noise of a lossy silence counts as silence."""
    pcm = np.full(8000, level, np.int16)
    pcm[::2] += level == 0
    features_TAF = audio.features(pcm)
    assert audio.is_silent(pcm) and not audio.is_silent(voice(0.2))
    assert np.isfinite(features_TAF).all()
    assert (features_TAF[..., audio.PITCH :] == 0).all()
    np.testing.assert_array_equal(features_TAF, np.broadcast_to(features_TAF[0, 0], features_TAF.shape))


def test_features_are_python_speech_features_and_harvest():
    """Column by column against the two libraries called as the released code calls them."""
    import python_speech_features as psf
    import pyworld

    pcm = voice(2.3, seed=1)[:36_777]
    wave = pcm.astype(np.float64) - pcm.mean()
    wave /= np.abs(wave).max()
    rows_RF = audio.feature_rows(pcm)
    np.testing.assert_allclose(rows_RF[:, audio.MFCC], psf.mfcc(wave, RATE), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(rows_RF[:, audio.FILTERBANK], psf.logfbank(wave, RATE), rtol=1e-6, atol=1e-6)
    f0_R = pyworld.harvest(wave, RATE, frame_period=10)[0][: len(rows_RF)]
    assert 0.2 < (f0_R > 0).mean() < 1  # the test voice has pauses
    np.testing.assert_array_equal(rows_RF[:, audio.VOICED], f0_R > 0)
    np.testing.assert_allclose(rows_RF[f0_R > 0, audio.PITCH], f0_R[f0_R > 0], rtol=1e-6)


def test_spectrum_in_pieces_equals_the_whole(monkeypatch):
    pcm = voice(1.0)[:15_001]
    whole_RF = audio.feature_rows(pcm)
    monkeypatch.setattr(audio, "SPECTRUM_ROWS", 37)
    np.testing.assert_allclose(audio.feature_rows(pcm), whole_RF, rtol=1e-6, atol=1e-6)


def test_pitch_of_long_sound_is_that_of_the_whole(monkeypatch):
    pcm = voice(3.1)
    whole_RF = audio.feature_rows(pcm)
    monkeypatch.setattr(audio, "WHOLE_F0_S", 1)
    np.testing.assert_allclose(audio.feature_rows(pcm), whole_RF, atol=1e-3)


def test_features_of_a_file_in_pieces_are_those_of_the_array(tmp_path):
    pcm = voice(1.3)
    write_wav(tmp_path / "a.wav", pcm)
    with open_pcm(tmp_path / "a.wav") as opened:
        np.testing.assert_array_equal(audio.features(opened), audio.features(pcm))


def test_mean_and_peak_of_long_sound():
    pcm = np.random.default_rng(0).integers(-9000, 12_000, 61 * RATE).astype(np.int16)  # longer than one piece
    pcm[-1] = 30_000
    mean, peak = audio.level_of(pcm)
    assert mean == pcm.astype(np.float64).mean() and peak == 30_000 - mean
