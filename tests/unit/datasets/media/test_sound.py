"""Reading sound: small generated waves in many formats, every kind of bad file."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
import soundfile

from datasets.errors import DataError
from datasets.media.sound import load_pcm, open_pcm, sound_of, write_wav
from datasets.media.streams import SAMPLE_RATE as RATE
from datasets.media.streams import open_media


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


def write_frames_of_sound(path, codec, layout, planes, rate=RATE, first_pts=0):
    """Write planes [channels, N] of the codec's own number type, from a time stamp on."""
    import av

    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(planes.T.reshape(1, -1)), format=stream.codec_context.format.name, layout=layout
        )
        frame.sample_rate, frame.pts, frame.time_base = rate, first_pts, Fraction(1, rate)
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("layout", "channels"), [("hexadecagonal", 16), ("22.2", 24), ("7.1", 8), ("9", 9)])
def test_sound_of_any_number_of_channels_is_mixed(tmp_path, layout, channels):
    if layout == "9":  # FFmpeg has no layout of nine channels; soundfile writes such a wav
        soundfile.write(tmp_path / "a.wav", tone(RATE, 9).T, RATE)
    else:
        write_frames_of_sound(tmp_path / "a.wav", "pcm_f32le", layout, tone(RATE, channels).astype(np.float32))
    pcm = load_pcm(tmp_path / "a.wav")
    assert len(pcm) == RATE and pcm.max() > 3000
    spectrum = np.abs(np.fft.rfft(pcm[2000:14000].astype(float)))
    assert abs(np.argmax(spectrum) * RATE / 12000 - 440) < 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30, -1e30])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_that_are_no_sound_become_silence_and_are_counted(tmp_path, bad, channels):
    planes = tone(RATE, channels).astype(np.float32)
    planes[0, 5000:5100] = bad
    write_frames_of_sound(tmp_path / "a.wav", "pcm_f32le", "mono" if channels == 1 else "stereo", planes)
    with open_pcm(tmp_path / "a.wav") as pcm:
        heard = pcm[:].astype(float) / 32767
        assert len(pcm.notes) == 1 and "100 samples" in pcm.notes[0]
    planes[0, 5000:5100] = 0
    np.testing.assert_allclose(heard, planes.mean(axis=0), atol=1e-3)


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_u8", "pcm_f32le", "pcm_s32le"])
@pytest.mark.parametrize("louder", [0, 1])
def test_stereo_in_opposite_phase_is_heard(tmp_path, codec, louder):
    mono = tone(RATE, 1)[0]
    pair = np.stack([mono, -0.9 * mono] if louder == 0 else [0.9 * mono, -mono])
    subtype = {"pcm_s16le": "PCM_16", "pcm_u8": "PCM_U8", "pcm_f32le": "FLOAT", "pcm_s32le": "PCM_32"}[codec]
    soundfile.write(tmp_path / "a.wav", pair.T, RATE, subtype=subtype)
    with open_pcm(tmp_path / "a.wav") as pcm:
        heard = pcm[:].astype(float) / 32767
        assert len(pcm.notes) == 1 and "opposite phase" in pcm.notes[0] and ("left", "right")[louder] in pcm.notes[0]
    np.testing.assert_allclose(heard, pair[louder], atol=0.02)


def test_ordinary_stereo_is_mixed_as_ever(tmp_path):
    mono = tone(RATE, 1)[0]
    soundfile.write(tmp_path / "a.wav", np.stack([mono, 0 * mono]).T, RATE)
    with open_pcm(tmp_path / "a.wav") as pcm:
        np.testing.assert_allclose(pcm[:].astype(float) / 32767, mono / 2, atol=1e-3)
        assert pcm.notes == []


@pytest.mark.parametrize("size", [0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFD8, 0])
def test_a_wav_from_a_pipe_is_whole(tmp_path, size):
    pcm = hum(0.5)
    write_wav(tmp_path / "a.wav", pcm)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[40:44] = size.to_bytes(4, "little")
    data[4:8] = min(size + 36, 0xFFFFFFFF).to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(data)
    np.testing.assert_array_equal(load_pcm(tmp_path / "a.wav"), pcm)


@pytest.mark.parametrize("suffix", ["mka", "mkv", "webm", "mov", "nut"])
def test_a_track_that_starts_late_is_whole(tmp_path, suffix):
    codec = "libopus" if suffix == "webm" else "pcm_s16le"
    rate = 48_000 if suffix == "webm" else RATE
    planes = (tone(rate, 1) * 32767).astype(np.int16)
    path = write_late(tmp_path / f"late.{suffix}", codec, planes, rate)
    assert abs(len(load_pcm(path)) - RATE) < 0.05 * RATE


def write_late(path, codec, planes, rate):
    """Sound alone in a file, from 1 s on, in pieces of 20 ms."""
    import av

    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        for start in range(0, planes.shape[1], rate // 50):
            piece = np.ascontiguousarray(planes[:, start : start + rate // 50])
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, rate + start, Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(DataError, match="is a pipe or a device"):
        load_pcm(tmp_path / "pipe.wav")


def test_an_error_of_ffmpeg_on_the_way_is_a_data_error(tmp_path):
    import av

    write_wav(tmp_path / "a.wav", hum(0.1))
    with (
        pytest.raises(DataError, match=r"a\.wav cannot be read as sound"),
        open_media(tmp_path / "a.wav", "audio", "sound"),
    ):
        raise av.error.ExternalError(1, "made for this test")


def test_a_mute_video_has_the_sound_beside_it(tmp_path):
    pcm = hum(0.2)
    (tmp_path / "a.mp4").write_bytes(b"no media")
    with pytest.raises(DataError, match=r"a\.mp4"):
        sound_of(tmp_path / "a.mp4")
    write_wav(tmp_path / "a.wav", pcm)
    np.testing.assert_array_equal(sound_of(tmp_path / "a.mp4"), pcm)


def test_threads_read_the_same_sound_at_the_same_time(tmp_path, monkeypatch):
    """F0 is found by several threads while another makes the spectrum."""
    write_wav(tmp_path / "a.wav", np.arange(-20_000, 20_000).astype(np.int16))
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with open_pcm(tmp_path / "a.wav") as opened, ThreadPoolExecutor(4) as pool:
            starts = [137 * n % 39_000 for n in range(4000)]
            found = list(pool.map(lambda start: opened[start : start + 1000], starts))
    finally:
        sys.setswitchinterval(before)
    assert all(len(part) == 1000 and part[0] == start - 20_000 for part, start in zip(found, starts, strict=True))
