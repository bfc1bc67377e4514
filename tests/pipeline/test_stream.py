"""inference.py --stream: sound in, an mp4 out that plays while it grows. The real script, through pipes."""

import contextlib
import functools
import io
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import skimage.data
import soundfile
import torch

import inference
from animation.generate import Animator
from animation.models import load_models
from animation.options import AnimationOptions
from animation.stream import Stream
from datasets import provenance
from datasets.audio import AudioFeatureConfig, level_of
from datasets.errors import DataError
from datasets.media.image import read_image, write_png
from datasets.media.sound import load_pcm
from datasets.media.video_stream import StreamWriter
from engine.checkpoint import save_weights
from engine.config import to_dict
from tests.in_process import status_of

ROOT = Path(__file__).resolve().parents[2]
RATE = 16_000
SECONDS = 2.0
FRAMES = 49
WAV_START = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data\xff\xff\xff\xff"
run = functools.partial(status_of, inference.main)


@pytest.fixture(scope="module")
def files(tmp_path_factory, small_weights):
    """A folder with face.png, speech.wav (2 s, mono 16 kHz) and model.safetensors (64x64)."""
    folder = tmp_path_factory.mktemp("stream")
    write_png(folder / "face.png", skimage.data.astronaut())
    samples, _ = soundfile.read(ROOT / "assets" / "speech.wav", frames=int(SECONDS * RATE), dtype="int16")
    soundfile.write(folder / "speech.wav", samples, RATE, subtype="PCM_16")
    weights = small_weights(64)
    weights.configs["audio_features"] = to_dict(AudioFeatureConfig(f0="dio"))
    save_weights(folder / "model.safetensors", weights)
    return folder


def usual(files: Path) -> list[str]:
    options = ["--image", files / "face.png", "--checkpoint", files / "model.safetensors", "--device", "cpu"]
    return [str(each) for each in [*options, "--size", "native", "--precision", "fp32", "--look-ahead", "8"]]


def start(files: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "inference.py", *usual(files), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def played(source) -> tuple[int, float]:
    """(frames, seconds of sound) that a player finds; it takes what it gets of a file that breaks off."""
    frames, sound_s = 0, 0.0
    with contextlib.suppress(av.error.InvalidDataError), av.open(source) as container:
        for frame in container.decode():
            frames += isinstance(frame, av.VideoFrame)
            sound_s += frame.samples / frame.sample_rate if isinstance(frame, av.AudioFrame) else 0
    return frames, sound_s


def raw(files: Path) -> bytes:
    return load_pcm(files / "speech.wav").astype("<i2").tobytes()


def test_a_stream_gives_the_frames_of_the_whole_file(files, tmp_path):
    """To rounding, where it is told the level and F0 needs no more sound around it than a stream hears."""
    folder = tmp_path
    arguments = ["--audio", files / "speech.wav", "--output", folder / "o.mp4", "--frames-dir", folder / "frames"]
    assert run(*usual(files), *arguments) == 0
    whole = np.stack([read_image(path) for path in sorted((folder / "frames").glob("*.png"))])
    options = AnimationOptions(device="cpu", precision="fp32", size="native", look_ahead=8)
    animator = Animator(load_models([files / "model.safetensors"], torch.device("cpu")), options)
    pcm = load_pcm(files / "speech.wav")
    stream = Stream(animator, files / "face.png", level=level_of(pcm))
    blocks = (pcm[start : start + 777] for start in range(0, len(pcm), 777))
    frames = np.concatenate(list(stream.frames(blocks)))
    assert frames.shape == whole.shape and len(frames) == FRAMES
    difference = np.abs(frames.astype(int) - whole)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01
    assert stream.delay_s == pytest.approx(32 / 25 + 0.25)


def test_raw_sound_in_and_video_out_through_pipes(files):
    process = start(files, "--audio", "-", "--stream", "-", "--crf", "0")
    video, said = process.communicate(raw(files), timeout=300)
    assert process.returncode == 0, said
    assert b"frames follow the sound by 1.53 s" in said
    frames, sound_s = played(io.BytesIO(video))
    assert frames == FRAMES and sound_s == pytest.approx(FRAMES / 25, abs=0.1)


def test_the_file_plays_while_it_grows_and_after_it_was_killed(files, tmp_path):
    output = tmp_path / "new" / "live.mp4"
    process = start(files, "--audio", "-", "--stream", str(output))
    sound = raw(files)
    process.stdin.write(sound)
    process.stdin.flush()  # and not closed: more may come
    deadline, growing = time.monotonic() + 240, 0
    while growing < 12:  # one window's frames and not the last
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.5)
        growing, _ = played(str(output)) if output.exists() else (0, 0)
    assert growing < FRAMES
    process.kill()
    process.communicate()
    frames, _ = played(str(output))
    assert frames >= growing
    marks = "\n".join(provenance.read_marks(output))
    assert "digital_source_type" in marks and "XMP" in marks


def test_a_wav_from_a_pipe_and_a_file_that_is_streamed(files, tmp_path, monkeypatch, capsys):
    stereo = np.repeat(np.frombuffer(raw(files), "<i2")[:RATE, None], 2, axis=1)
    wav = io.BytesIO()
    soundfile.write(wav, stereo, 22_050, format="WAV")
    monkeypatch.setattr(sys, "stdin", type("Pipe", (), {"buffer": io.BytesIO(wav.getvalue())}))
    assert run(*usual(files), "--audio", "-", "--stream", tmp_path / "a.mp4") == 0
    assert played(str(tmp_path / "a.mp4"))[0] == int(RATE / 22_050 * 25)
    assert run(*usual(files), "--audio", files / "speech.wav", "--stream", tmp_path / "b.mp4") == 0
    assert played(str(tmp_path / "b.mp4"))[0] == FRAMES and provenance.read_marks(tmp_path / "b.mp4")
    assert "x real time" in capsys.readouterr().out


def test_a_file_is_streamed_to_standard_output(files):
    process = start(files, "--audio", str(files / "speech.wav"), "--stream", "-")
    video, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert played(io.BytesIO(video))[0] == FRAMES and b"x real time" in said


@pytest.mark.parametrize("audio", ["-", "speech.wav"])
def test_a_player_that_is_closed_ends_the_stream_quietly(files, audio):
    process = start(files, "--audio", audio if audio == "-" else str(files / audio), "--stream", "-")
    process.stdout.close()
    _, said = process.communicate(raw(files) if audio == "-" else None, timeout=300)
    assert process.returncode == 141 and b"error" not in said and b"Traceback" not in said, said


@pytest.mark.parametrize("taken", range(4))
def test_whenever_a_pipe_is_closed_the_stream_says_that(files, taken):
    class Pipe(io.BytesIO):
        left = taken

        def write(self, data):
            self.left -= 1
            if self.left < 0:
                raise BrokenPipeError
            return len(data)

    with pytest.raises(BrokenPipeError), StreamWriter("-", Pipe(), sound=files / "speech.wav") as writer:
        writer.write(np.zeros((12, 64, 64, 3), np.uint8))


def test_a_wav_that_breaks_off_in_the_middle_of_a_sample_is_heard_up_to_there(files, tmp_path, monkeypatch):
    wav = (files / "speech.wav").read_bytes()[:-1]
    monkeypatch.setattr(sys, "stdin", type("Pipe", (), {"buffer": io.BytesIO(wav)}))
    assert run(*usual(files), "--audio", "-", "--stream", tmp_path / "a.mp4") == 0
    assert played(str(tmp_path / "a.mp4"))[0] == FRAMES


@pytest.mark.parametrize("sound", ["-", "speech.wav"])
@pytest.mark.parametrize("option", ["--image", "--head-pose", "--config", "--checkpoint"])
def test_no_stream_replaces_what_it_needs(files, tmp_path, monkeypatch, capsys, option, sound):
    (tmp_path / "used.mp4").write_bytes(b"needed")
    if option == "--config":
        (tmp_path / "used.mp4").write_text("crf: 20\n")
    if option == "--checkpoint":
        (tmp_path / "used.mp4").write_bytes((files / "model.safetensors").read_bytes())
    before = (tmp_path / "used.mp4").read_bytes()
    monkeypatch.setattr(sys, "stdin", type("Pipe", (), {"buffer": io.BytesIO(raw(files))}))
    audio = sound if sound == "-" else files / sound
    used = tmp_path / "used.mp4"
    assert run(*usual(files), "--audio", audio, "--stream", used, option, used) == 2
    assert "which this command needs for something else" in capsys.readouterr().err
    assert used.read_bytes() == before


def test_closed_standard_input_and_output_get_a_sentence(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    assert run(*usual(files), "--audio", "-", "--stream", tmp_path / "o.mp4") == 2
    assert "--audio - is standard input, which is closed" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdout", None)
    assert run(*usual(files), "--audio", files / "speech.wav", "--stream", "-") == 2
    assert "--stream - is standard output, which is closed" in capsys.readouterr().err


def test_a_second_stream_into_one_file_is_refused(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    path = tmp_path / "o.mp4"
    path.write_bytes(b"older, and longer" * 10_000)
    with StreamWriter(path) as first:
        first.write(frames)
        with pytest.raises(DataError, match="is being written by another process"), StreamWriter(path):
            pass
        first.write(frames)
    assert played(str(path))[0] == 10 and path.stat().st_size < 100_000


@pytest.mark.parametrize(
    ("arguments", "sound", "words"),
    [
        (["--audio", "-", "--output", "o.mp4"], b"", "--stream OUT"),
        (["--audio", "-", "--stream", "o.gif"], b"", "a stream is an mp4"),
        (["--audio", "-", "--stream", "o.mp4", "--save-motion", "m.npz"], b"", "--save-motion does not go with"),
        (["--audio", "-", "--stream", "o.mp4"], b"", "ended before any sound came"),
        (["--audio", "-", "--stream", "o.mp4"], b"RIFF and no wav", "begins like a wav and is none"),
        (["--audio", "-", "--stream", "o.mp4"], WAV_START + b"1", "standard input is damaged"),
        (["--audio", "-", "--stream", "o.mp4"], b"fLaC and more", "standard input is a FLAC file; send a wav"),
        (["--audio", "-", "--stream", "o.mp4"], b"\xff\xd8\xff\xe0", "is a picture (JPEG); send a wav"),
        (["--audio", "-", "--stream", "o.mp4", "--audio-rate", "10"], b"12", "rate of raw sound must be from 1000"),
        (["--audio", "-", "--stream", "o.mp4", "--look-ahead", "17"], b"12", "at most 16"),
    ],
)
def test_what_cannot_be_streamed_gets_a_sentence(files, tmp_path, monkeypatch, capsys, arguments, sound, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", type("Pipe", (), {"buffer": io.BytesIO(sound)}))
    assert run(*usual(files), *arguments) == 2
    assert words in capsys.readouterr().err
