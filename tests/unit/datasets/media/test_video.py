"""Writing and reading videos: lengths, colours, times, failures that leave nothing behind."""

import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import soundfile

from datasets.errors import DataError
from datasets.media import video_writer as video
from datasets.media.image import read_image, write_png
from datasets.media.sound import load_pcm, open_pcm, write_wav
from datasets.media.video_reader import VideoReader, at_rate, frames_of


def moving(frames: int, height: int = 64, width: int = 64) -> np.ndarray:
    """uint8 [N, H, W, 3]: smooth colours, brighter from frame to frame, so that each can be told by its mean."""
    y, x = np.mgrid[0:height, 0:width] / (height + width)
    picture = np.stack([80 + 60 * x, 100 + 40 * y, 90 + 30 * (x + y)], axis=-1)
    return np.stack([picture + 60 * i / max(1, frames) for i in range(frames)]).astype(np.uint8)


def sound(path: Path, seconds: float, rate: int = 16_000, channels: int = 1) -> Path:
    import soundfile

    wave = 0.3 * np.sin(2 * np.pi * 300 * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, np.repeat(wave[:, None], channels, axis=1), rate)
    return path


def write(path: Path, frames: np.ndarray, **options) -> Path:
    with video.VideoWriter(path, **options) as writer:
        for first in range(0, len(frames), 7):
            writer.write(frames[first : first + 7])
    return path


def durations(path: Path) -> tuple[float, float]:
    with av.open(str(path)) as container:
        return tuple(float(s.duration * s.time_base) for s in (*container.streams.video, *container.streams.audio))


# ---- writing


def test_frames_come_back(tmp_path):
    frames = moving(30)
    path = write(tmp_path / "a.mp4", frames, crf=10)
    with VideoReader(path) as reader:
        times, read = zip(*reader, strict=True)
    np.testing.assert_allclose(times, np.arange(30) / 25, atol=1e-9)
    error = np.stack(read).astype(float) - frames
    assert 10 * np.log10(255**2 / (error**2).mean()) > 38  # dB
    assert np.abs(error.mean(axis=(0, 1, 2))).max() < 0.6  # no colour cast
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, container.streams.video[0].average_rate) == ("h264", "yuv420p", 25)
    data = path.read_bytes()
    assert data.find(b"moov") < data.find(b"mdat")  # plays before it is loaded


@pytest.mark.parametrize(
    ("sound_s", "rate", "channels", "kept_rate"),
    [(2.0, 16_000, 1, 16_000), (2.04, 44_100, 2, 44_100), (1.2, 48_000, 1, 48_000), (3.5, 50_000, 1, 64_000)],
)
def test_picture_and_sound_are_equally_long(tmp_path, sound_s, rate, channels, kept_rate):
    """Sound longer than the picture is cut, shorter is continued with silence."""
    source = sound(tmp_path / "a.wav", sound_s, rate, channels)
    path = write(tmp_path / "a.mp4", moving(50), sound=source)
    picture_s, track_s = durations(path)
    assert picture_s == 2.0 and abs(track_s - 2.0) < 0.04
    with av.open(str(path)) as container:
        track = container.streams.audio[0]
        assert (track.codec_context.name, track.rate, track.channels) == ("aac", kept_rate, channels)
    heard = load_pcm(path).astype(float)
    assert np.sqrt((heard[8000:16000] ** 2).mean()) == pytest.approx(0.3 * 32768 / 2**0.5, rel=0.05)
    if sound_s < 1.9:
        assert np.abs(heard[round((sound_s + 0.1) * 16_000) : 31_000]).max() < 50


def test_sound_stays_in_time(tmp_path):
    """A click half way comes out at the same sample, give or take 2 ms."""
    pcm = np.zeros(32_000, np.int16)
    pcm[16_000:16_020] = 20_000
    write_wav(tmp_path / "a.wav", pcm)
    path = write(tmp_path / "a.mp4", moving(50), sound=tmp_path / "a.wav")
    assert abs(int(np.abs(load_pcm(path).astype(int)).argmax()) - 16_010) < 32


@pytest.mark.parametrize("channels", [1, 2, 6, 8, 12])
def test_a_damaged_sample_is_silence_whatever_the_channels(tmp_path, channels):
    sound_NC = np.random.default_rng(0).normal(0, 0.1, (16_000, channels)).astype(np.float32)
    sound_NC[100] = np.nan
    soundfile.write(tmp_path / "a.wav", sound_NC, 16_000, subtype="FLOAT")
    with open_pcm(tmp_path / "a.wav") as pcm:
        said = "1 sample is no finite number;" if channels == 1 else f"{channels} samples are no finite numbers;"
        assert len(pcm) == 16_000 and said in pcm.notes[0]
        assert np.abs(pcm[:]).max() > 1000


def test_surround_sound_and_the_sound_of_a_video(tmp_path):
    first = write(tmp_path / "a.mp4", moving(25), sound=sound(tmp_path / "a.wav", 1.0, 48_000, 6))
    with av.open(str(first)) as container:
        assert container.streams.audio[0].channels == 6
    second = write(tmp_path / "b.mp4", moving(25), sound=first)
    assert durations(second) == pytest.approx((1.0, 1.0), abs=0.04)


@pytest.mark.parametrize(("height", "width"), [(63, 64), (64, 63), (1, 1), (17, 31)])
def test_odd_sizes_get_one_more_row_or_column(tmp_path, height, width):
    path = write(tmp_path / "a.mp4", moving(3, height, width), crf=5)
    with VideoReader(path) as reader:
        _, frame_HW3 = next(iter(reader))
    assert frame_HW3.shape == (height + height % 2, width + width % 2, 3)
    assert np.abs(frame_HW3[-1].astype(int) - frame_HW3[height - 1]).max() < 30


@pytest.mark.parametrize("fps", [25, 30_000 / 1001, 12.5])
def test_frame_rates(tmp_path, fps):
    path = write(tmp_path / "a.mp4", moving(10), fps=fps)
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == Fraction(fps).limit_denominator(1001)


def test_label_is_burnt_in_only_when_asked(tmp_path):
    frames = np.full((3, 128, 128, 3), 120, np.uint8)
    for label, contrast in ((False, 3), (True, 80)):
        with VideoReader(write(tmp_path / f"{label}.mp4", frames, label=label)) as reader:
            _, frame_HW3 = next(iter(reader))
        assert (np.ptp(frame_HW3[110:, :64].astype(int)) > contrast) == label
        assert np.ptp(frame_HW3[:100].astype(int)) <= 6


# ---- failures


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_the_block_leaves_no_file_and_no_thread(tmp_path, error):
    with pytest.raises(error), video.VideoWriter(tmp_path / "a.mp4") as writer:
        writer.write(moving(7))
        raise error
    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "video-encoder"]


def test_an_error_keeps_the_file_that_was_there(tmp_path):
    (tmp_path / "a.mp4").write_text("older")
    with pytest.raises(RuntimeError), video.VideoWriter(tmp_path / "a.mp4") as writer:
        writer.write(moving(7))
        raise RuntimeError
    assert (tmp_path / "a.mp4").read_text() == "older" and len(list(tmp_path.iterdir())) == 1


def test_no_frame_at_all(tmp_path):
    with pytest.raises(DataError, match="no frame"), video.VideoWriter(tmp_path / "a.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_thread_reach_the_caller(tmp_path, monkeypatch):
    def broken(*_):
        raise DataError("the encoder is broken")

    monkeypatch.setattr(video._PictureTrack, "encode", broken)
    with pytest.raises(DataError, match="encoder is broken"), video.VideoWriter(tmp_path / "a.mp4") as writer:
        for _ in range(100):  # more than the queue holds: `write` must not wait for ever
            writer.write(moving(2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["no/such/folder/a.mp4", "folder", "file/a.mp4"])
def test_targets_that_cannot_be_written(tmp_path, target):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError), video.VideoWriter(tmp_path / target):
        pytest.fail("opened")
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_sound_is_known_before_the_first_frame(tmp_path):
    (tmp_path / "a.wav").write_text("nothing")
    with pytest.raises(DataError, match=r"a\.wav"), video.VideoWriter(tmp_path / "a.mp4", sound=tmp_path / "a.wav"):
        pytest.fail("opened")
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


FULL_DISK = """
import resource, sys
import numpy as np
from datasets.errors import DataError
from datasets.media.video_writer import VideoWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))  # writing more fails, as on a full disk
noise = np.random.default_rng(0).integers(0, 255, (50, 64, 64, 3), dtype=np.uint8)
try:
    with VideoWriter(sys.argv[1]) as writer:
        writer.write(noise)
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_full_disk(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "a.mp4")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[4],
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be written" in done.stdout and "space" in done.stdout
    assert list(tmp_path.iterdir()) == []


# ---- frames as pictures


def test_frames_as_png(tmp_path):
    frames = moving(5)
    video.write_frames(tmp_path / "out" / "frames", 0, frames[:3])
    video.write_frames(tmp_path / "out" / "frames", 3, frames[3:])
    paths = sorted((tmp_path / "out" / "frames").iterdir())
    assert [path.name for path in paths] == [f"{i:06d}.png" for i in range(5)]
    np.testing.assert_array_equal([read_image(path) for path in paths], frames)
    with pytest.raises(DataError, match="already holds frames"):
        video.write_frames(tmp_path / "out" / "frames", 0, frames)
    write_png(tmp_path / "out" / "frames" / "000007.png", frames[0])  # without marks: not a frame of ours
    video.remove_frames(tmp_path / "out" / "frames")
    assert [path.name for path in (tmp_path / "out" / "frames").iterdir()] == ["000007.png"]
    video.remove_frames(tmp_path / "no folder yet")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file, not a folder"):
        video.write_frames(tmp_path / "file", 0, frames)


# ---- reading


def write_at(path: Path, times_ms: list[int], frames: np.ndarray) -> Path:
    """A video whose frames are shown from the given times on."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"crf": "5", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for time_ms, frame_HW3 in zip(times_ms, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(frame_HW3, format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def flat(levels: list[int]) -> np.ndarray:
    return np.stack([np.full((32, 32, 3), level, np.uint8) for level in levels])


def test_constant_rate_is_kept(tmp_path):
    path = write(tmp_path / "a.mp4", flat(list(range(20, 220, 10))), crf=5)
    np.testing.assert_allclose([f.mean() for f in frames_of(path)], np.arange(20, 220, 10), atol=3)


@pytest.mark.parametrize("fps", [50, 30, 15])
def test_other_rates_take_the_nearest_frame(tmp_path, fps):
    levels = list(range(20, 220, 20))
    path = write(tmp_path / "a.mp4", flat(levels), fps=fps, crf=5)
    read = [float(frame.mean()) for frame in frames_of(path)]
    assert abs(len(read) - len(levels) / fps * 25) <= 0.5
    ideal = [min(range(len(levels)), key=lambda i: abs(i / fps - k / 25)) for k in range(len(read))]
    for k, level in enumerate(read):  # at a tie either neighbour is right
        nearest = abs(ideal[k] / fps - k / 25)
        assert any(
            abs(level - levels[i]) < 4 and abs(abs(i / fps - k / 25) - nearest) < 1e-6 for i in range(len(levels))
        )


def test_variable_rate(tmp_path):
    times_ms = [0, 40, 80, 280, 320, 360]  # a still of 200 ms
    path = write_at(tmp_path / "a.mp4", times_ms, flat([20, 60, 100, 140, 180, 220]))
    read = {40 * k: float(frame.mean()) for k, frame in enumerate(frames_of(path))}
    for time_ms, level in {
        0: 20,
        40: 60,
        80: 100,
        120: 100,
        160: 100,
        200: 140,
        240: 140,
        280: 140,
        320: 180,
        360: 220,
    }.items():
        assert read[time_ms] == pytest.approx(level, abs=4), time_ms


def test_rotation_marks_of_phones_are_applied(tmp_path):
    frames = flat([100] * 3).copy()
    frames[:, :16, :16] = (230, 30, 30)  # left upper quarter red
    frames = np.concatenate([frames, frames[:, :, 16:]], axis=2)  # 32 x 48
    path = write(tmp_path / "a.mp4", frames, crf=5)
    data = bytearray(path.read_bytes())
    matrix = data.find(b"tkhd") + 4 + 40  # version 0: flags, times, id, duration, layer, volume before the matrix
    quarter = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)  # shown turned clockwise by 90 degrees
    data[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in quarter)
    path.write_bytes(data)
    with VideoReader(path) as reader:
        _, frame_HW3 = next(iter(reader))
    assert frame_HW3.shape == (48, 32, 3)
    assert frame_HW3[4, 28, 0] > 180 and frame_HW3[4, 4, 0] < 130  # red is now right above


def encoded(path: Path, frames: list[av.VideoFrame], pix_fmt: str, parameters: str, **colours: int) -> Path:
    """A video of given frames, with parameters of x264."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"crf": "4", "x264-params": parameters})
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, pix_fmt
        for name, value in colours.items():
            setattr(stream.codec_context, name, value)
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("sar", "shape"),
    [("1/1", (48, 64)), ("16/11", (48, 93)), ("2/1", (48, 128)), ("8/9", (54, 64)), ("1/3", (144, 64))],
)
def test_pixels_that_are_not_square_become_square(tmp_path, sar, shape):
    picture = av.VideoFrame.from_ndarray(moving(1, 48, 64)[0], format="rgb24")
    path = encoded(tmp_path / "a.mp4", [picture], "yuv420p", f"sar={sar}")
    (read_HW3,) = frames_of(path)
    assert read_HW3.shape == (*shape, 3)
    wanted = cv2.resize(moving(1, 48, 64)[0], shape[::-1], interpolation=cv2.INTER_CUBIC)
    assert np.abs(read_HW3.astype(int) - wanted).mean() < 3


BT2020_TO_YUV = np.array(
    [[0.2627, 0.6780, 0.0593], [-0.13963, -0.36037, 0.5], [0.5, -0.459786, -0.040214]]  # BT.2020, non-constant
)
BT709_TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])  # BT.2087


def pq_of(light_HW3: np.ndarray) -> np.ndarray:
    """Light by 203 cd/m2 -> the signal of HDR10 (SMPTE ST 2084)."""
    power = (light_HW3 * 203 / 10_000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def hlg_of(light_HW3: np.ndarray) -> np.ndarray:
    """Light by 203 cd/m2 -> the signal of HLG (ARIB STD-B67) that makes it on a screen of 1000 cd/m2."""
    shown = light_HW3 * 0.203
    scene = shown * np.maximum(shown @ BT2020_TO_YUV[0], 1e-9)[..., None] ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


@pytest.mark.parametrize(("transfer", "signal_of"), [(16, pq_of), (18, hlg_of), (14, lambda light: light ** (1 / 2.4))])
def test_video_of_high_dynamic_range_comes_in_common_colours(tmp_path, transfer, signal_of):
    """HDR10, HLG and BT.2020 of common range: below white colours stay, above it hues."""
    common_HW3 = moving(1, 64, 64)[0]
    light_HW3 = (common_HW3 / 255) ** 2.4
    light_HW3[48:] = 4  # four times as bright as white
    light_HW3[56:] = (4, 2, 1)
    signal_HW3 = signal_of(np.minimum(light_HW3, 4 if transfer != 14 else 1) @ BT709_TO_BT2020.T)
    y_HW, u_HW, v_HW = np.moveaxis(signal_HW3 @ BT2020_TO_YUV.T, 2, 0)
    planes = [np.rint(64 + 876 * y_HW), np.rint(512 + 896 * u_HW), np.rint(512 + 896 * v_HW)]
    frame = av.VideoFrame(64, 64, "yuv444p10le")
    for plane, values in zip(frame.planes, planes, strict=True):
        padded = np.zeros((64, plane.line_size // 2), np.uint16)
        padded[:, :64] = values
        plane.update(padded.tobytes())
    colours = {"color_primaries": 9, "color_trc": transfer, "colorspace": 9, "color_range": 1}
    for name, value in colours.items():
        setattr(frame, name, value)
    path = encoded(tmp_path / "a.mp4", [frame], "yuv444p10le", "", **colours)
    (read_HW3,) = frames_of(path)
    error_HW3 = read_HW3[:46].astype(int) - common_HW3[:46]
    assert np.abs(error_HW3).mean() < 1.5 and np.abs(error_HW3).max() <= 6
    assert read_HW3[50:54].min() >= 250
    if transfer != 14:  # what is compressed keeps its hue
        assert np.abs(read_HW3[58:].astype(int) - (255, 191, 143)).max() <= 6


def test_sound_that_starts_late_starts_late(tmp_path):
    """Times of picture and sound count from the start of the file: both land on the same 25 frames a second."""
    path = tmp_path / "late.mkv"
    with av.open(str(path), "w") as output:
        picture = output.add_stream("libx264", rate=25, options={"bf": "0"})
        picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
        track = output.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for i, frame_HW3 in enumerate(flat([100] * 50)):
            frame = av.VideoFrame.from_ndarray(frame_HW3, format="rgb24")
            frame.pts, frame.time_base = 25 + i, Fraction(1, 25)  # the file itself starts at 1 s
            output.mux(picture.encode(frame))
        frame = av.AudioFrame.from_ndarray(np.full((1, 16_000), 9000, np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 24_000, Fraction(1, 16_000)  # at 1.5 s
        output.mux(track.encode(frame))
        output.mux([*picture.encode(None), *track.encode(None)])
    pcm = load_pcm(path)
    assert abs(int((pcm > 0).argmax()) - 8_000) <= 16 and abs(len(pcm) - 24_000) <= 16
    assert len(list(frames_of(path))) == 50


def test_bad_videos_get_one_clear_sentence(tmp_path):
    whole = write(tmp_path / "whole.mp4", moving(100, 128, 128)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "text.mp4").write_text("no video\n" * 99)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    sound(tmp_path / "sound.wav", 0.5)
    picture = av.VideoFrame.from_ndarray(moving(1, 48, 64)[0], format="rgb24")
    encoded(tmp_path / "thin.mp4", [picture], "yuv420p", "sar=1/50")
    encoded(tmp_path / "dolby.mp4", [picture], "yuv420p", "", color_trc=16, color_primaries=9, colorspace=14)
    words = {
        "thin.mp4": "times as wide as high",
        "dolby.mp4": "Dolby Vision",
        "missing.mp4": "no such video file",
        "cut.mp4": "cut off",
        "text.mp4": "cannot be read as video",
        "empty.mp4": "is empty",
        "folder.mp4": "is a folder",
        "sound.wav": "has no video track",
    }
    for name, expected in words.items():
        with pytest.raises(DataError) as error:
            list(frames_of(tmp_path / name))
            pytest.fail(f"{name} was read")
        assert expected in str(error.value) and name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("fps", [15, 24, 30000 / 1001, 25, 30, 50, 60])
def test_frames_are_taken_by_time(fps):
    timed = [(n / fps, np.full((1, 1, 1), n)) for n in range(round(4 * fps))]
    numbers = [int(frame[0, 0, 0]) for frame in at_rate(timed, 0.0, None, Path("x"))]
    assert len(numbers) == 100
    error_s = np.abs(np.array(numbers) / fps - np.arange(100) / 25)
    assert error_s.max() <= 0.5 / fps + 1e-9  # the nearest frame


def test_a_changing_rate_and_a_start_are_followed():
    times = np.concatenate([np.arange(0, 2, 1 / 30), np.arange(2, 4, 1 / 12)])
    taken = [float(f[0]) for f in at_rate([(t, np.array([t])) for t in times], 1.0, 3.0, Path("x"))]
    assert len(taken) == 50
    assert np.abs(np.array(taken) - (1.0 + np.arange(50) / 25)).max() <= 1 / 24 + 1e-9


def test_a_hole_is_an_error():
    times = [0.0, 0.04, 0.08, 3.0, 3.04]
    with pytest.raises(DataError, match=r"x\.mp4: no picture between 0\.08 s and 3\.00 s"):
        list(at_rate([(t, np.zeros(1)) for t in times], 0.0, None, Path("x.mp4")))
    for times in ([2.0], [2.0, 2.04]):  # before the first picture, be it the only one
        with pytest.raises(DataError, match=r"x\.mp4: no picture between 0\.00 s and 2\.00 s"):
            list(at_rate([(t, np.zeros(1)) for t in times], 0.0, None, Path("x.mp4")))
