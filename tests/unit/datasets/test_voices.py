"""Other voices say the same at the same time, higher or lower, throat and all."""

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter

from datasets.audio import FILTERBANK, LOG_ENERGY, PITCH, VOICED, AudioFeatureConfig, features
from datasets.errors import DataError
from datasets.motionfield import MotionFieldData, MotionFieldDataConfig
from datasets.voices import VoiceStore, features_in_voice
from engine.loading import in_order
from tests.black_corpus import black_corpus

RATE = 16_000
DIO, PAPER = AudioFeatureConfig(f0="dio"), AudioFeatureConfig()


def vowel(pitch_hz: float, formant_hz: float, seconds: float = 2.0) -> np.ndarray:
    """A buzz through one formant, with a pause in its third quarter."""
    clicks_S = np.zeros(round(seconds * RATE))
    clicks_S[:: round(RATE / pitch_hz)] = 1
    radius, angle = np.exp(-np.pi * 80 / RATE), 2 * np.pi * formant_hz / RATE
    sound_S = lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], clicks_S)
    sound_S[len(sound_S) // 2 : 3 * len(sound_S) // 4] *= 1e-3
    return (8000 * sound_S / np.abs(sound_S).max()).astype(np.int16)


def loudest_band(features_TAF: np.ndarray) -> float:
    return float(features_TAF[5:20, :, FILTERBANK].mean((0, 1)).argmax())


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_voice_is_higher_throat_and_all_and_says_the_same_at_the_same_time(factor):
    pcm = vowel(120, 1000)
    found_TAF, wanted_TAF = features_in_voice(pcm, factor, DIO, 49), features(vowel(120 * factor, 1000 * factor), DIO)
    assert found_TAF.shape == wanted_TAF.shape == (49, 4, 41) and found_TAF.dtype == np.float32
    assert np.median(found_TAF[5:20, :, PITCH]) == pytest.approx(120 * factor, rel=0.03)
    assert loudest_band(found_TAF) == pytest.approx(loudest_band(wanted_TAF), abs=1)
    assert loudest_band(found_TAF) != loudest_band(features(pcm, DIO))
    assert (found_TAF[..., VOICED] == wanted_TAF[..., VOICED]).mean() > 0.9  # the pause, too
    assert set(np.unique(found_TAF[..., VOICED])) == {0, 1}


@pytest.mark.parametrize("factor", [0.5, 0.87, 1.15, 2.0])
def test_no_voice_is_early_or_late(factor):
    """A vowel that swells and fades, loudest at 1.1 s: where its rows' energy lies, and its voiced rows."""
    clicks_S = np.zeros(2 * RATE)
    clicks_S[::100] = 1
    time_S = np.arange(2 * RATE) / RATE
    swell_S = np.exp(-((time_S - 1.1) ** 2) / (2 * 0.06**2))
    pcm = (20_000 * swell_S * lfilter([1], [1, -0.9], clicks_S - clicks_S.mean())).astype(np.int16)

    def middles_ms(features_TAF: np.ndarray) -> tuple[float, float]:
        rows_RF = features_TAF.reshape(-1, features_TAF.shape[2])
        power_R, ms_R = np.exp(rows_RF[:, LOG_ENERGY]), 10 * np.arange(len(rows_RF))
        return (ms_R * power_R).sum() / power_R.sum(), ms_R[rows_RF[:, VOICED] > 0].mean()

    found, wanted = middles_ms(features_in_voice(pcm, factor, PAPER, 49)), middles_ms(features(pcm)[:49])
    assert found[0] == pytest.approx(wanted[0], abs=1)
    assert found[1] == pytest.approx(wanted[1], abs=6)  # one row more or less at either end: 5 ms


def test_its_own_voice_is_its_own():
    pcm = vowel(140, 800)
    np.testing.assert_allclose(features_in_voice(pcm, 1.0, DIO, 49), features(pcm, DIO)[:49], rtol=1e-4, atol=1e-3)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return black_corpus(tmp_path / "corpus", {"ann": vowel(200, 900, 0.85), "bob": vowel(120, 900, 0.85)})


def data(root: Path, **settings) -> MotionFieldData:
    return MotionFieldData(MotionFieldDataConfig(root=str(root), repeats=20, **settings), seed=3, size=16, window=8)


@pytest.mark.parametrize("workers", [0, 2])
def test_clips_are_heard_in_all_voices_alike(corpus, workers):
    """Each as often as the clip's own; the pictures and which moments they show stay the same."""
    plain, heard = data(corpus), data(corpus, voices=(0.8, 1.25))
    assert heard.voices.fill(heard.clips, lambda made: in_order(made, workers)) == 2
    assert heard.voices.fill(heard.clips) == 0
    counts = dict.fromkeys((-1, 0, 1), 0)
    for n in range(60):
        item = heard[n]
        clip = heard.clips[item.clip]
        rows = slice(item.start, item.start + 8)
        known = {-1: clip.features(), **{voice: heard.voices.read(clip, voice) for voice in (0, 1)}}
        voice = next(v for v, known_TAF in known.items() if np.array_equal(known_TAF[rows], item.audio_TAF.numpy()))
        counts[voice] += 1
        assert (item.clip, item.start, item.reference) == (plain[n].clip, plain[n].start, plain[n].reference)
    assert min(counts.values()) > 10, counts


def test_corpora_that_share_a_folder_have_their_own_voices(tmp_path):
    found = []
    for pitch_hz in (110, 220):
        root = black_corpus(tmp_path / str(pitch_hz), {"ann": vowel(pitch_hz, 900, 0.85)})
        config = MotionFieldDataConfig(root=str(root), voices=(1.25,))
        heard = MotionFieldData(config, seed=3, size=16, window=8, kept=tmp_path / "kept")
        assert heard.voices.fill(heard.clips) == 1
        found.append(np.median(heard.voices.read(heard.clips[0], 0)[2:8, :, PITCH]))
    assert found == pytest.approx([137.5, 275], rel=0.05)


def test_a_damaged_file_is_named(corpus):
    heard = data(corpus, voices=(1.25,))
    heard.voices.fill(heard.clips)
    path = heard.voices.path(heard.clips[0])
    np.save(path, np.zeros((1, 20, 4, 7), np.float32))
    with pytest.raises(DataError, match=r"ann\.\w{16}\.npy: holds float32 \(1, 20, 4, 7\).*computed again"):
        heard.voices.read(heard.clips[0], 0)


def test_voices_of_other_factors_or_settings_do_not_mix(tmp_path):
    stores = [VoiceStore(tmp_path, (0.9,), DIO), VoiceStore(tmp_path, (1.1,), DIO), VoiceStore(tmp_path, (0.9,), PAPER)]
    assert len({store.folder for store in stores}) == 3


@pytest.mark.parametrize("voices", [(0.4,), (0.9, 2.1), (0.0,)])
def test_impossible_voices_are_refused(voices):
    with pytest.raises(ValueError, match=r"wanted factors from 0\.5 to 2\.0"):
        MotionFieldDataConfig(voices=voices)
