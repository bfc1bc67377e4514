"""Reading sound: small generated waves in many formats, every kind of bad file."""

import numpy as np
import pytest

from datasets.errors import DataError
from datasets.media.sound import load_pcm, open_pcm, sound_of, write_wav
from datasets.media.streams import SAMPLE_RATE as RATE


def hum(seconds: float) -> np.ndarray:
    """int16 [N]: a tone in noise."""
    noise = np.random.default_rng(0).normal(0, 500, round(seconds * RATE))
    return (tone(RATE, 1, seconds)[0] * 20_000 + noise).astype(np.int16)


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


def test_16_khz_mono_wav_passes_unchanged(tmp_path):
    pcm = hum(0.7)
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
    pcm = hum(0.2)
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
        write_wav(tmp_path / "no folder" / "a.wav", hum(0.1))
    assert list(tmp_path.iterdir()) == []


def test_a_mute_video_has_the_sound_beside_it(tmp_path):
    pcm = hum(0.2)
    (tmp_path / "a.mp4").write_bytes(b"no media")
    with pytest.raises(DataError, match=r"a\.mp4"):
        sound_of(tmp_path / "a.mp4")
    write_wav(tmp_path / "a.wav", pcm)
    np.testing.assert_array_equal(sound_of(tmp_path / "a.mp4"), pcm)
