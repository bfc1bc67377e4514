"""Features of a stream are those of the whole sound, however it comes."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from datasets import audio
from datasets.audio_stream import AHEAD, QUIETEST_PEAK, feature_pieces, streamed_features
from datasets.media.sound import load_pcm

RATE = 16_000
DIO = audio.AudioFeatureConfig(f0="dio")
SPEECH = Path(__file__).resolve().parents[3] / "assets" / "speech.wav"


def blocks(pcm: np.ndarray, size: int):
    return (pcm[start : start + size] for start in range(0, len(pcm), size))


def streamed(pcm: np.ndarray, block: int, sizes=(64, 32), level=None, config=DIO) -> np.ndarray:
    endless = itertools.chain(sizes, itertools.repeat(sizes[-1]))
    return np.concatenate(list(streamed_features(blocks(pcm, block), endless, config, level)))


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return load_pcm(SPEECH)[: 4 * RATE + 77]


@pytest.mark.parametrize("config", [audio.PAPER, DIO])
def test_features_are_those_of_the_whole(speech, config):
    """But for F0 in pauses longer than what is heard, which the whole draws towards the next voice."""
    speech = speech[: 4 * RATE]  # WORLD lowers the rate on a grid that depends on the length
    whole_TAF = audio.features(speech, config)
    found_TAF = streamed(speech, 1000, level=audio.level_of(speech), config=config)
    assert found_TAF.shape == whole_TAF.shape and found_TAF.dtype == np.float32
    np.testing.assert_allclose(found_TAF[..., :39], whole_TAF[..., :39], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found_TAF[..., audio.VOICED], whole_TAF[..., audio.VOICED])
    voiced = whole_TAF[..., audio.VOICED] > 0
    pitch = np.abs(found_TAF - whole_TAF)[..., audio.PITCH]
    assert pitch[voiced].max() < 1e-3 and (pitch < 1e-3).mean() > 0.95  # Hz


def test_the_speech_embedding_is_that_of_the_whole(speech):
    pytest.importorskip("pyopen_wakeword", reason="no pyopen-wakeword: pip install -r requirements.txt")
    config, pcm = audio.AudioFeatureConfig(f0="dio", embedding="speech"), speech[: 2 * RATE]
    whole_TAF = audio.features(pcm, config)
    found_TAF = streamed(pcm, 500, (8,), audio.level_of(pcm), config)
    assert found_TAF.shape == whole_TAF.shape == (49, 4, config.count)
    np.testing.assert_allclose(found_TAF[..., audio.FEATURES :], whole_TAF[..., audio.FEATURES :], atol=1e-4)


def test_means_so_far_are_taken_off(speech):
    config = audio.AudioFeatureConfig(f0="dio", mean="removed")
    found_TAF, kept_TAF = streamed(speech, 500, (16,), config=config), streamed(speech, 500, (16,))
    np.testing.assert_allclose(found_TAF[:16, :, :39].mean(axis=(0, 1)), 0, atol=1e-4)
    last = (kept_TAF - found_TAF)[-1, 0, :39]
    np.testing.assert_allclose(last, kept_TAF[..., :39].mean(axis=(0, 1)), rtol=1e-3, atol=1e-3)


def test_how_the_sound_is_cut_changes_nothing(speech):
    pcm = speech[: 2 * RATE]
    assert np.array_equal(streamed(pcm, 1, (8, 4)), streamed(pcm, len(pcm), (8, 4)))


def test_features_come_as_soon_as_they_can_be_known(speech):
    heard = 0

    def microphone():
        nonlocal heard
        for block_N in blocks(speech, 160):
            heard += len(block_N)
            yield block_N

    pieces = streamed_features(microphone(), itertools.repeat(5), DIO)
    for end in (5, 10, 15):
        assert len(next(pieces)) == 5
        assert heard == end * 640 + AHEAD


def test_a_stream_is_scaled_by_the_loudest_so_far(speech):
    """Before the loudest sample the log spectrum is higher by what is missing to the whole's peak, and nothing else."""
    pcm = (speech[: 3 * RATE] * (5000 / np.abs(speech).max())).astype(np.int16)
    pcm[RATE + 1] = 25_000  # a click in frame 25
    above = (streamed(pcm, 1000, (10,)) - streamed(pcm, 1000, (10,), audio.level_of(pcm)))[..., audio.FILTERBANK]
    first = max(QUIETEST_PEAK, np.abs(pcm[: 10 * 640 + AHEAD].astype(int)).max())
    assert np.median(above[:10]) == pytest.approx(2 * np.log(25_000 / first), abs=0.01)
    assert np.median(np.abs(above[30:60])) < 0.01


@pytest.mark.parametrize("samples", [1, 400, 879, 880, 1600])
def test_short_sound_has_at_least_one_frame(samples, speech):
    pcm = speech[RATE : RATE + samples]
    assert streamed(pcm, 77).shape == audio.features(pcm, DIO).shape and np.isfinite(streamed(pcm, 77)).all()


def test_no_sound_has_no_frame():
    assert list(streamed_features([], itertools.repeat(4))) == []


@pytest.mark.parametrize("config", [audio.PAPER, DIO])
def test_a_file_comes_in_pieces_that_are_the_whole(speech, config):
    """Pauses, too: what a file's next voiced row is can be looked up."""
    paused = np.concatenate([speech[:RATE], np.zeros(3 * RATE, np.int16), speech])
    pieces = list(feature_pieces(paused, itertools.chain([64], itertools.repeat(32)), config))
    assert [len(piece) for piece in pieces] == [64, 32, 32, 32, 32, 7]
    np.testing.assert_allclose(np.concatenate(pieces), audio.features(paused, config), rtol=1e-5, atol=1e-3)


def test_memory_does_not_grow():
    """Ten minutes of sound in blocks: what is held at any time is less than ten seconds."""
    from datasets import audio_stream

    sound = audio_stream._Sound((np.zeros(1600, np.int16) for _ in range(6000)), None)
    most = 0
    for frame in range(32, 15_000, 32):
        sound.hear_until(frame * 640)
        most = max(most, len(sound.held_N))
        sound.forget(frame * 640 - 60 * 160)
    assert most < 10 * RATE
