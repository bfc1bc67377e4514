"""Settings of sound features: what each changes, and that corpus, weights and inference agree."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from animation.models import load_models
from animation.weights import read_weights
from datasets import audio, clips, features, inspect, speech_embedding
from datasets.audio import AudioFeatureConfig
from datasets.errors import DataError
from datasets.headpose import HeadPoseData, HeadPoseDataConfig
from datasets.join import join
from datasets.media.streams import SAMPLE_RATE
from datasets.motionfield import MotionFieldData, MotionFieldDataConfig
from datasets.prepare.clip import Options
from datasets.prepare.corpus import prepare
from engine.checkpoint import CheckpointError, save_weights
from engine.config import to_dict
from modules.motion_field_generator import MotionFieldGenerator, MotionFieldGeneratorConfig
from tests.black_corpus import black_corpus

GOLDEN = Path(__file__).parents[2] / "golden" / "speech_embedding.npz"
OURS = AudioFeatureConfig(f0="dio", mean="removed", embedding="speech")


def voice(seconds: float, pitch_hz: float = 140.0, level: float = 6000.0) -> np.ndarray:
    """A buzz whose pitch and loudness sway."""
    time_N = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    phase_N = 2 * np.pi * (pitch_hz * time_N + 3 * np.sin(2 * np.pi * 0.7 * time_N))
    buzz_N = sum(np.sin(n * phase_N) / n for n in range(1, 12))
    return (level * buzz_N * (0.6 + 0.4 * np.sin(2 * np.pi * 2 * time_N))).astype(np.int16)


def corpus(root: Path, *names: str) -> Path:
    """Clips of voices of several pitches."""
    return black_corpus(root, {name: voice(0.85, 110 + 20 * number) for number, name in enumerate(names)})


def test_dio_finds_the_pitch_that_harvest_finds() -> None:
    pcm = voice(1.5)
    one_RF, other_RF = audio.feature_rows(pcm), audio.feature_rows(pcm, AudioFeatureConfig(f0="dio"))
    both_R = (one_RF[:, audio.VOICED] > 0) & (other_RF[:, audio.VOICED] > 0)
    assert both_R.mean() > 0.8
    assert np.abs(one_RF - other_RF)[both_R, audio.PITCH].max() < 4  # Hz
    np.testing.assert_array_equal(one_RF[:, : audio.FILTERBANK.stop], other_RF[:, : audio.FILTERBANK.stop])


def test_without_their_mean_features_do_not_know_the_microphone() -> None:
    """Recordings of one voice by two microphones, one of which is shrill, become alike."""
    setting = AudioFeatureConfig(f0="dio", mean="removed")
    hiss_N = np.random.default_rng(0).normal(0, 500, 32_000)
    pcm = (voice(2.0, level=3000) + hiss_N).astype(np.int16)
    filtered = np.convolve(pcm.astype(float), [0.6, -0.4], mode="same").astype(np.int16)
    kept, kept_filtered = audio.feature_rows(pcm), audio.feature_rows(filtered)
    free, free_filtered = audio.feature_rows(pcm, setting), audio.feature_rows(filtered, setting)
    columns = audio.FILTERBANK
    assert np.abs(kept - kept_filtered)[:, columns].mean() > 5 * np.abs(free - free_filtered)[:, columns].mean()
    assert np.abs(free[:, : columns.stop].mean(0)).max() < 1e-4
    assert abs(free[free[:, audio.VOICED] > 0, audio.PITCH].mean()) < 1e-3


def test_the_embedding_is_the_networks_own() -> None:
    """Mels and embeddings recorded from the package's own runtime."""
    golden = np.load(GOLDEN)
    found_TE = speech_embedding._network()(torch.from_numpy(golden["mels"]))
    np.testing.assert_allclose(found_TE, golden["embeddings"], atol=1e-3)  # deviation 17


def test_without_its_package_the_embedding_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_embedding, "PACKAGE", "no_such_package")
    speech_embedding._network.cache_clear()
    with pytest.raises(DataError, match=r"pip install pyopen-wakeword==1\.1\.0"):
        audio.features(voice(0.5), OURS)
    speech_embedding._network.cache_clear()


def test_embeddings_of_long_sound_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    pcm, frames = voice(2.0), 49
    whole_TE = speech_embedding.frame_embeddings(pcm, 12_000, frames)
    monkeypatch.setattr(speech_embedding, "BLOCK_FRAMES", 7)
    np.testing.assert_allclose(speech_embedding.frame_embeddings(pcm, 12_000, frames), whole_TE, atol=1e-4)


def test_a_frames_embedding_hears_what_is_around_it() -> None:
    """Sound 0.6 s before or 0.35 s after a frame changes nothing in it, sound 0.2 s away does."""
    pcm, frame = voice(3.0), 40
    here = speech_embedding.frame_embeddings(pcm, 12_000, 60)[frame]
    for seconds, heard in ((-0.6, False), (-0.2, True), (0.2, True), (0.35, False)):
        changed = pcm.copy()
        middle = round((frame / 25 + 0.02 + seconds) * SAMPLE_RATE)
        changed[middle - 800 : middle + 800] = 0
        there = speech_embedding.frame_embeddings(changed, 12_000, 60)[frame]
        assert (np.abs(there - here).max() > 0.05) == heard, seconds


def test_silence_has_finite_features_under_every_setting() -> None:
    features_TAF = audio.features(np.zeros(8_000, np.int16), OURS)
    assert features_TAF.shape[1:] == (4, 65) == (4, OURS.count)
    assert np.isfinite(features_TAF).all()


def test_a_corpus_is_recomputed_whole_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    root = corpus(tmp_path / "a", "ann", "bob")
    assert clips.load_audio_features(root) == audio.PAPER
    with monkeypatch.context() as broken:

        def stopped(*arguments: object) -> None:
            raise KeyboardInterrupt

        broken.setattr(features, "write_rows", stopped)
        with pytest.raises(KeyboardInterrupt):
            features.recompute(root, OURS)
    with pytest.raises(DataError, match=r"only partly recomputed; run python -m datasets.features again"):
        clips.load_audio_features(root)
    with pytest.raises(DataError, match="only partly recomputed"):
        prepare([], root, root, Options(audio=OURS), 1, (0, 1), fixed_range=True)
    assert inspect.main([str(root)]) == 1 and "only partly recomputed" in capsys.readouterr().err
    features.main([str(root), "--f0", "dio", "--mean", "removed", "--embedding", "speech", "--workers", "1"])
    assert clips.load_audio_features(root) == OURS
    for clip in clips.load_manifest(root):
        np.testing.assert_array_equal(clip.features(), audio.features(clip.pcm(), OURS)[:20])
        assert list(clips.verify(clip)) == []


@pytest.mark.parametrize("mean", ["kept", "removed"])
def test_voices_are_made_louder_only_where_their_level_is_kept(tmp_path: Path, mean: str) -> None:
    root = str(corpus(tmp_path / "a", "ann"))
    features.recompute(Path(root), AudioFeatureConfig(f0="dio", mean=mean))
    (clip,) = clips.load_manifest(root)
    windows = MotionFieldDataConfig(root=root, random_start=False, augment=True)
    for data in (
        MotionFieldData(windows, seed=0, size=16, window=8),
        HeadPoseData(HeadPoseDataConfig(root=root, window=8, random_start=False, augment=True), seed=0, size=16),
    ):
        change_TAF = data[0].audio_TAF.numpy() - clip.features()[:8]
        assert (np.abs(change_TAF[..., audio.LOG_ENERGY]) > 0.02).all() == (mean == "kept")
        assert np.any(change_TAF[..., : audio.PITCH]) == (mean == "kept") and np.any(change_TAF[..., audio.PITCH])


def test_parts_of_different_settings_are_not_joined(tmp_path: Path) -> None:
    parts = [corpus(tmp_path / "a", "ann"), corpus(tmp_path / "b", "bob")]
    features.recompute(parts[1], OURS)
    with pytest.raises(DataError, match=r"a has the sound features f0=harvest .*bring them in line"):
        join(parts, tmp_path / "joined")
    features.recompute(parts[0], OURS)
    join(parts, tmp_path / "joined")
    assert clips.load_audio_features(tmp_path / "joined") == OURS
    with pytest.raises(DataError, match="joined corpus: recompute its parts"):
        features.recompute(tmp_path / "joined", audio.PAPER)


def test_an_unknown_setting_is_one_sentence(tmp_path: Path) -> None:
    root = corpus(tmp_path / "a", "ann")
    (root / clips.SETTINGS).write_text(json.dumps({"audio": {"f0": "crepe", "mean": "kept", "embedding": "none"}}))
    with pytest.raises(DataError, match="no setting of features that this version knows"):
        clips.load_audio_features(root)


def test_the_motion_field_generator_takes_more_features() -> None:
    config = MotionFieldGeneratorConfig(
        image_size=64, num_features=65, window=8, map_size=32, block_expansion=4, max_features=8, num_blocks=2
    )
    assert MotionFieldGenerator(config).audio_map(torch.rand(1, 3, 4, 65)).shape == (1, 3, 2, 32, 32)
    with pytest.raises(ValueError, match="num_features must be odd"):
        MotionFieldGeneratorConfig(num_features=64)


def test_weights_remember_what_their_networks_hear(tmp_path: Path, small_weights) -> None:
    weights = small_weights()
    assert load_models([_saved(weights, tmp_path / "a")], torch.device("cpu")).audio_features == audio.PAPER
    weights.configs["audio_features"] = to_dict(AudioFeatureConfig(f0="dio"))
    path = _saved(weights, tmp_path / "b")
    assert load_models([path], torch.device("cpu")).audio_features == AudioFeatureConfig(f0="dio")
    weights.configs["audio_features"] = to_dict(OURS)
    with pytest.raises(CheckpointError, match="takes 41 features of sound, but is stored with the setting f0=dio"):
        load_models([_saved(weights, tmp_path / "c")], torch.device("cpu"))
    del weights.states["head_motion_predictor"]
    with pytest.raises(CheckpointError, match="hear different features of sound"):
        read_weights([path, _saved(weights, tmp_path / "d")])


def _saved(weights, path: Path) -> Path:
    path = path.with_suffix(".safetensors")
    save_weights(path, weights)
    return path
