"""Reading sound and computing features: small generated waves, every kind of bad file."""

import numpy as np
import pytest

from datasets import audio
from datasets.errors import DataError
from datasets.media.sound import load_pcm, open_pcm, write_wav
from datasets.media.streams import SAMPLE_RATE

RATE = SAMPLE_RATE


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    """int16 [N]: pulses of a wandering pitch with pauses and a little noise; like speech to a pitch finder."""
    samples = round(seconds * RATE)
    time_s = np.arange(samples) / RATE
    phase = np.cumsum(130 + 40 * np.sin(2 * np.pi * 0.7 * time_s)) / RATE
    tone = sum(np.sin(2 * np.pi * k * phase) / k for k in range(1, 20))
    noise = np.random.default_rng(seed).normal(0, 0.02, samples)
    return (6000 * (tone * (np.sin(2 * np.pi * 0.5 * time_s) > -0.3) + noise)).clip(-32768, 32767).astype(np.int16)


def encode(path, codec: str, rate: int, layout: str, planes: np.ndarray):
    """Write float planes [channels, N] in -1..1 with any of FFmpeg's encoders."""
    import av

    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        context = stream.codec_context
        fifo = av.AudioResampler(
            format=context.format or "s16", layout=layout, rate=rate, frame_size=context.frame_size
        )
        frame = av.AudioFrame.from_ndarray(planes.astype(np.float32), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        for piece in [*fifo.resample(frame), *fifo.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return path


def tone(rate: int, channels: int, seconds: float = 1.0) -> np.ndarray:
    return np.tile(0.4 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate), (channels, 1))


# ---- reading


def test_16_khz_mono_wav_passes_unchanged(tmp_path):
    pcm = voice(0.7)
    write_wav(tmp_path / "a.wav", pcm)
    np.testing.assert_array_equal(load_pcm(tmp_path / "a.wav"), pcm)
    with open_pcm(tmp_path / "a.wav") as opened:
        assert len(opened) == len(pcm)
        np.testing.assert_array_equal(opened[100:2000], pcm[100:2000])
        np.testing.assert_array_equal(opened[len(pcm) - 5 : len(pcm) + 5], pcm[-5:])


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout", "channels"),
    [
        ("mono.wav", "pcm_s16le", 8000, "mono", 1),
        ("stereo.wav", "pcm_s24le", 48000, "stereo", 2),
        ("float.wav", "pcm_f32le", 96000, "mono", 1),
        ("surround.wav", "pcm_s16le", 44100, "5.1", 6),
        ("music.flac", "flac", 44100, "stereo", 2),
        ("film.m4a", "aac", 22050, "stereo", 2),
        ("call.opus", "libopus", 48000, "mono", 1),
        ("song.mp3", "libmp3lame", 44100, "stereo", 2),
        ("page.webm", "libopus", 48000, "stereo", 2),
    ],
)
def test_any_format_becomes_the_same_sound(tmp_path, name, codec, rate, layout, channels):
    pcm = load_pcm(encode(tmp_path / name, codec, rate, layout, tone(rate, channels)))
    assert pcm.dtype == np.int16 and pcm.ndim == 1
    assert abs(len(pcm) - RATE) < 0.06 * RATE  # encoders pad to whole frames
    spectrum = np.abs(np.fft.rfft(pcm[2000:14000].astype(float)))
    assert abs(np.argmax(spectrum) * RATE / 12000 - 440) < 2
    assert pcm[2000:14000].max() == pytest.approx(0.4 * 32767, rel=0.05) or layout == "5.1"  # 5.1 is mixed down quieter


def test_names_with_spaces_quotes_and_other_letters(tmp_path):
    pcm = voice(0.2)
    for name in ("two words.wav", 'it\'s "so".wav', "Grüße-你好.wav", "-dash.wav", "a:b.wav", "%03d.wav"):
        write_wav(tmp_path / name, pcm)
        np.testing.assert_array_equal(load_pcm(tmp_path / name), pcm)


def half(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def bad_sounds(folder):
    """(name, path, part of the message) of every kind of file that is no sound."""
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("no sound at all\n" * 100)
    (folder / "zeros.mp3").write_bytes(bytes(5000))
    (folder / "folder.wav").mkdir()
    for name, codec in (("cut.wav", "pcm_s16le"), ("cut.flac", "flac"), ("cut.m4a", "aac"), ("cut.mp3", "libmp3lame")):
        half(encode(folder / name, codec, 44100, "mono", tone(44100, 1, 3.0)))
    write_wav(folder / "nothing.wav", np.zeros(0, np.int16))
    from PIL import Image

    Image.new("RGB", (64, 64), "red").save(folder / "picture.jpg")
    return {
        "missing.wav": "no such sound file",
        "empty.wav": "is empty",
        "text.wav": "cannot be read as sound",
        "zeros.mp3": "cannot be read as sound",
        "folder.wav": "is a folder",
        "cut.wav": "is cut off",
        "cut.flac": "is cut off",
        "cut.m4a": "cannot be read as sound",
        "cut.mp3": "is cut off",
        "nothing.wav": "cut off before its first sound",
        "picture.jpg": "has no sound track",
    }


def test_bad_files_get_one_clear_sentence(tmp_path):
    for name, words in bad_sounds(tmp_path).items():
        with pytest.raises(DataError) as error:
            load_pcm(tmp_path / name)
            pytest.fail(f"{name} was read")
        assert words in str(error.value) and name in str(error.value), (name, str(error.value))
        assert "\n" not in str(error.value)


def test_unwritable_target_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        write_wav(tmp_path / "no folder" / "a.wav", voice(0.1))
    assert list(tmp_path.iterdir()) == []


# ---- features


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


def test_holes_in_the_pitch_are_filled():
    f0_R = np.array([0, 0, 100, 0, 0, 160, 0.0])
    filled_R, voiced_R = audio.fill_unvoiced(f0_R)
    np.testing.assert_allclose(filled_R, [100, 100, 100, 120, 140, 160, 160])
    np.testing.assert_array_equal(voiced_R, [0, 0, 1, 0, 0, 1, 0])


def test_spectrum_in_pieces_equals_the_whole(monkeypatch):
    pcm = voice(1.0)[:15_001]
    whole_RF = audio.feature_rows(pcm)
    monkeypatch.setattr(audio, "SPECTRUM_ROWS", 37)
    np.testing.assert_allclose(audio.feature_rows(pcm), whole_RF, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("samples", [48_000, 48_001])  # Harvest's halved grid depends on the parity of the length
def test_pitch_in_pieces_is_near_the_whole(monkeypatch, samples):
    pcm = voice(3.1)[:samples]
    whole_RF = audio.feature_rows(pcm)
    monkeypatch.setattr(audio, "WHOLE_F0_S", 1)
    monkeypatch.setattr(audio, "PIECE_F0_S", 1)
    pieces_RF = audio.feature_rows(pcm)
    np.testing.assert_array_equal(pieces_RF[:, audio.VOICED], whole_RF[:, audio.VOICED])
    assert np.abs(pieces_RF[:, audio.PITCH] - whole_RF[:, audio.PITCH]).max() < 0.1  # Hz


def test_features_of_a_file_in_pieces_are_those_of_the_array(tmp_path):
    pcm = voice(1.3)
    write_wav(tmp_path / "a.wav", pcm)
    with open_pcm(tmp_path / "a.wav") as opened:
        np.testing.assert_array_equal(audio.features(opened), audio.features(pcm))


def test_mean_and_peak_of_long_sound():
    pcm = np.random.default_rng(0).integers(-9000, 12_000, 61 * RATE).astype(np.int16)  # longer than one piece
    pcm[-1] = 30_000
    mean, peak = audio._mean_and_peak(pcm)
    assert mean == pcm.astype(np.float64).mean() and peak == 30_000 - mean
