"""Sound, features and resizing against numbers of the released code (optional recordings; README.md)."""

import numpy as np
import pytest

from datasets import audio
from datasets.media.image import read_image, resize_square
from datasets.media.sound import load_pcm

WAVES = ("intro_20_21p237", "silence_pad", "noise_only", "tone_dc", "short_1600", "tiny_640", "tiny_300")


@pytest.fixture(scope="module")
def extra(extra_data):
    return np.load(extra_data / "reference" / "golden_extra.npz")


@pytest.fixture(scope="module")
def paint(extra_data):
    return np.load(extra_data / "reference" / "golden_paint.npz")


def test_features_of_the_demo_recording(extra_data, paint):
    pcm = load_pcm(extra_data / "reference" / "intro_0_6.wav")
    np.testing.assert_array_equal(pcm, paint["pcm16"])
    features_TAF = audio.features(pcm)
    np.testing.assert_allclose(features_TAF.reshape(-1, 41), paint["audio_features"], rtol=1e-6, atol=1e-6)
    rows_RF = audio.feature_rows(pcm)
    assert len(rows_RF) == paint["audio_features_n_rows"]
    np.testing.assert_allclose(rows_RF[:, audio.PITCH], paint["audio_features_f0_f64"], rtol=1e-6)


@pytest.mark.parametrize("name", WAVES)
def test_features_of_special_waves(extra, name):
    rows_RF = audio.feature_rows(extra[f"feat_{name}_pcm16"])
    np.testing.assert_allclose(rows_RF, extra[f"feat_{name}"], rtol=1e-6, atol=1e-6)


def test_filling_of_the_pitch(extra):
    for case in range(int(extra["pitch_num_cases"])):
        filled_R, voiced_R = audio.fill_unvoiced(extra[f"pitch_{case}_in"])
        np.testing.assert_allclose(filled_R, extra[f"pitch_{case}_out"], atol=1e-9)
        np.testing.assert_array_equal(voiced_R, extra[f"pitch_{case}_flag"])


def test_resampling_is_that_of_ffmpeg_5(extra_data, extra):
    pcm = load_pcm(extra_data / "reference" / "stereo44k.wav")
    assert len(pcm) == len(extra["resample44k_ffmpeg5"])
    assert np.abs(pcm.astype(int) - extra["resample44k_ffmpeg5"]).max() == 0
    assert np.abs(pcm.astype(int) - extra["resample44k_ffmpeg9"]).max() <= 2


@pytest.mark.parametrize("case", ["down_nonsquare", "up_crop"])
def test_resizing(extra, case):
    np.testing.assert_array_equal(resize_square(extra[f"resize_{case}_in"], 256), extra[f"resize_{case}_out"])


def test_picture(extra_data, paint):
    np.testing.assert_array_equal(read_image(extra_data / "reference" / "paint.jpg"), paint["image_u8"])
