"""inference.py from the command line on small untrained networks: what it writes, and what it says about bad input."""

import csv
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import skimage.data
import soundfile
import torch
import yaml
from PIL import Image

import inference
from animation import convert
from animation.generate import Animator
from animation.weights import DEMO_WEIGHTS, read_weights
from datasets import provenance
from datasets.face.upright import choose_frame
from datasets.media.image import write_png
from datasets.media.video_writer import VideoWriter
from engine.checkpoint import Weights, save_weights
from engine.device import computes_bf16
from tests.certificates import make_certificate
from tests.in_process import status_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory, small_weights):
    """A folder with face.png, speech.wav (1.3 s, stereo 44.1 kHz) and model.safetensors (64x64)."""
    folder = tmp_path_factory.mktemp("in put ö")
    write_png(folder / "face.png", skimage.data.astronaut())
    rng = np.random.default_rng(0)
    t = np.arange(int(1.3 * 44_100)) / 44_100
    tone = np.sin(2 * np.pi * 140 * t) * np.sin(2 * np.pi * 2 * t) ** 2 + 0.01 * rng.standard_normal(len(t))
    soundfile.write(folder / "speech.wav", np.stack([tone, tone], 1) * 0.5, 44_100, subtype="PCM_16")
    save_weights(folder / "model.safetensors", small_weights(64))
    return folder


run = functools.partial(status_of, inference.main)


def usual(files, output, **changes):
    """The usual arguments with some replaced; an option set to None is left out, to True is a flag."""
    options = {"image": files / "face.png", "audio": files / "speech.wav", "checkpoint": files / "model.safetensors"}
    options |= {"output": output, "device": "cpu", "size": "native"} | changes
    flat = []
    for name, value in options.items():
        if value is not None:
            flat += [f"--{name.replace('_', '-')}"] + ([] if value is True else [value])
    return flat


def read_video(path):
    with av.open(str(path)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    with av.open(str(path)) as container:
        sound = [frame.to_ndarray() for frame in container.decode(audio=0)] if container.streams.audio else []
        streams = {stream.type: stream for stream in container.streams}
        rate = streams["audio"].codec_context.sample_rate if "audio" in streams else None
        info = (
            streams["video"].codec_context.name,
            streams["video"].codec_context.pix_fmt,
            float(streams["video"].average_rate),
        )
    return frames, np.concatenate(sound, axis=1) if sound else None, rate, info


def test_a_video_with_sound_of_the_right_length_and_marks(files, tmp_path, capsys):
    output = tmp_path / "new folder" / "it's ü.mp4"
    assert run(*usual(files, output)) == 0
    frames, sound, rate, info = read_video(output)
    assert frames.shape == (32, 64, 64, 3) and info == ("h264", "yuv420p", 25.0)  # 1.3 s: 129 rows of 10 ms, 32 frames
    assert rate == 44_100 and abs(sound.shape[1] / rate - 32 / 25) <= 0.04
    assert np.abs(np.diff(frames.astype(int), axis=0)).mean() > 0.5  # it moves
    marks = "\n".join(provenance.read_marks(output))
    assert "digital_source_type" in marks and "XMP" in marks and "trainedAlgorithmicMedia" in marks
    said = capsys.readouterr().out
    assert f"x real time in {'bf16' if computes_bf16(torch.device('cpu')) else 'fp32'}" in said
    assert "32 frames (1.28 s)" in said and "peak memory" in said and str(output) in said
    assert os.listdir(output.parent) == [output.name]


def test_saved_frames_and_motion_and_rendering_it_again(files, tmp_path):
    motion, first, second = tmp_path / "m.npz", tmp_path / "first", tmp_path / "second"
    assert run(*usual(files, tmp_path / "a.mp4", frames_dir=first, save_motion=motion)) == 0
    with np.load(motion) as saved:
        shapes = {name: saved[name].shape for name in saved.files}
        pose = saved["head_pose"]
    assert shapes == {
        "head_pose": (32, 6),
        "keypoints": (32, 10, 2),
        "jacobians": (32, 10, 2, 2),
        "source_keypoints": (10, 2),
        "source_jacobians": (10, 2, 2),
        "fps": (),
    }
    assert 100 < pose[:, 5].mean() < 500  # tz in mm
    again = usual(files, tmp_path / "b.mp4", audio=None, motion=motion, frames_dir=second, batch_size=7)
    assert run(*again) == 0
    names = sorted(os.listdir(first))
    assert names == sorted(os.listdir(second)) and len(names) == 32 and names[0] == "000000.png"
    assert np.abs(read_frames(first) - read_frames(second)).max() <= 1  # other batch size: rounding only
    assert read_video(tmp_path / "b.mp4")[1] is None


def test_head_pose_can_be_given_held_and_scaled(files, tmp_path):
    t = np.arange(20)[:, None] / 20
    given = np.array([0.1, 0.2, 0, 5, 10, 300]) + t * np.array([0.2, 0, 0.1, 20, 0, 0])
    np.savez(tmp_path / "pose.npz", head_pose=given.astype(np.float32))
    header = "frame, timestamp, confidence, success, pose_Tx, pose_Ty, pose_Tz, pose_Rx, pose_Ry, pose_Rz"
    lines = [
        f"{i + 1}, {i / 25:.3f}, 0.98, 1, {p[3]:.3f}, {p[4]:.3f}, {p[5]:.3f}, {p[0]:.4f}, {p[1]:.4f}, {p[2]:.4f}"
        for i, p in enumerate(given)
    ]
    (tmp_path / "pose.csv").write_text("\n".join([header, *lines]))

    def used(name, **changes):
        assert run(*usual(files, tmp_path / f"{name}.mp4", save_motion=tmp_path / f"{name}.npz", **changes)) == 0
        return np.load(tmp_path / f"{name}.npz")["head_pose"]

    expected = np.concatenate([given, np.repeat(given[-1:], 12, axis=0)])  # 32 frames: the last pose goes on
    np.testing.assert_allclose(used("npz", head_pose=tmp_path / "pose.npz"), expected, rtol=1e-5)
    np.testing.assert_allclose(used("csv", head_pose=tmp_path / "pose.csv"), expected, atol=2e-3)
    half = used("half", head_pose=tmp_path / "pose.npz", head_motion_scale=0.5)
    np.testing.assert_allclose(half - half[0], 0.5 * (expected - expected[0]), atol=1e-4)
    assert np.ptp(used("still", still=True), axis=0).max() == 0
    free, doubled = used("free"), used("doubled", head_motion_scale=2.0)
    np.testing.assert_allclose(doubled - free[0], 2 * (free - free[0]), atol=1e-3)


def test_expression_scale_leaves_head_and_first_frame(files, tmp_path):
    def keypoints(name, **changes):
        assert run(*usual(files, tmp_path / f"{name}.mp4", save_motion=tmp_path / f"{name}.npz", **changes)) == 0
        motion = np.load(tmp_path / f"{name}.npz")
        return motion["keypoints"] @ [1, 1j], motion["head_pose"], motion["jacobians"]

    (plain, *rest), (doubled, *rest_doubled) = keypoints("plain"), keypoints("doubled", expression_scale=2.0)
    (without, *_) = keypoints("without", expression_scale=0.0)
    np.testing.assert_allclose(doubled[0], plain[0], atol=1e-6)
    np.testing.assert_allclose(doubled - plain, plain - without, atol=1e-5)
    assert np.abs(plain - without).max() > 1e-3
    for old, new in zip(rest, rest_doubled, strict=True):
        np.testing.assert_array_equal(old, new)
    # Without any expression the keypoints turn, grow and move as one.
    centred = without - without.mean(1, keepdims=True)
    similarity = centred / centred[0]
    np.testing.assert_allclose(similarity, similarity[:, :1].repeat(similarity.shape[1], 1), atol=1e-3)


def test_relative_keypoints_start_from_the_source(files, tmp_path):
    assert run(*usual(files, tmp_path / "r.mp4", keypoint_mode="relative", save_motion=tmp_path / "r.npz")) == 0
    assert run(*usual(files, tmp_path / "a.mp4", keypoint_mode="absolute", save_motion=tmp_path / "a.npz")) == 0
    relative, absolute = np.load(tmp_path / "r.npz"), np.load(tmp_path / "a.npz")
    np.testing.assert_allclose(relative["keypoints"][0], relative["source_keypoints"], atol=1e-5)
    np.testing.assert_allclose(
        relative["keypoints"] - relative["keypoints"][0], absolute["keypoints"] - absolute["keypoints"][0], atol=1e-5
    )
    assert np.abs(absolute["keypoints"][0] - absolute["source_keypoints"]).max() > 1e-3


def read_frames(folder):
    return np.stack([skimage.io.imread(folder / name) for name in sorted(os.listdir(folder))]).astype(int)


def test_equal_input_gives_equal_frames_whatever_the_seed(files, tmp_path):
    """Up to the rounding of sums, whose order depends on where in memory a tensor happens to lie."""
    for name, seed in (("a", 1), ("b", 2)):
        assert run(*usual(files, tmp_path / f"{name}.mp4", seed=seed, frames_dir=tmp_path / name)) == 0
    assert np.abs(read_frames(tmp_path / "a") - read_frames(tmp_path / "b")).max() <= 1


def test_silence_leaves_mouth_and_head_at_rest_and_says_so(files, tmp_path, capsys):
    soundfile.write(tmp_path / "silent.wav", np.zeros(8000), 16_000)
    output = tmp_path / "s.mp4"
    assert run(*usual(files, output, audio=tmp_path / "silent.wav", save_motion=tmp_path / "s.npz")) == 0
    saved = np.load(tmp_path / "s.npz")
    assert np.ptp(saved["keypoints"], axis=0).max() == 0 and np.ptp(saved["head_pose"], axis=0).max() == 0
    np.testing.assert_array_equal(saved["keypoints"][0], saved["source_keypoints"])
    assert "silent" in capsys.readouterr().out


def test_a_tenth_of_a_second_is_enough(files, tmp_path):
    soundfile.write(tmp_path / "short.wav", 0.3 * np.sin(np.arange(1600) / 10), 16_000)
    assert run(*usual(files, tmp_path / "o.mp4", audio=tmp_path / "short.wav")) == 0
    assert 1 <= len(read_video(tmp_path / "o.mp4")[0]) <= 3


def test_label_crop_and_precision_options_work(files, tmp_path):
    assert run(*usual(files, tmp_path / "plain.mp4", still=True)) == 0
    assert run(*usual(files, tmp_path / "label.mp4", still=True, label=True, precision="bf16", batch_size=5)) == 0
    plain, label = read_video(tmp_path / "plain.mp4")[0], read_video(tmp_path / "label.mp4")[0]
    difference = np.abs(plain.astype(int) - label.astype(int)).mean(axis=(0, 3))
    assert difference[-6:, :20].mean() > 5 * difference[:40].mean()  # the label is below, the rest is alike
    assert run(*usual(files, tmp_path / "crop.mp4", still=True, crop="none")) == 0
    crop = read_video(tmp_path / "crop.mp4")[0]
    assert np.abs(crop[0].astype(int) - plain[0]).mean() > 5


def test_a_video_is_made_without_the_compilers_imports(files, tmp_path):
    """They take seconds. einops asks for them at its first use, so it is kept out of what inference runs."""
    code = "import sys, inference; sys.modules['torch._dynamo'] = sys.modules['einops'] = None; inference.main()"
    command = [sys.executable, "-c", code, *map(str, usual(files, tmp_path / "a.mp4"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "a.mp4").is_file(), done.stderr


def test_help_does_not_wait_for_torch():
    code = "import sys, inference; sys.argv = ['inference.py', '--help']; sys.modules['torch'] = None; inference.main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "--head-motion-scale" in done.stdout, done.stderr


# ---- the picture's own size


def test_the_whole_picture_moves_inside_the_square_and_nowhere_else(files, tmp_path):
    """By default the video is the photograph at its own size; what lies outside the framed square is the photograph."""
    assert run(*usual(files, tmp_path / "o.mp4", size=None, frames_dir=tmp_path / "f", head_motion_scale=3.0)) == 0
    photograph, frames = skimage.data.astronaut().astype(int), read_frames(tmp_path / "f")
    assert frames.shape[1:] == photograph.shape
    changed = np.abs(frames - photograph).max(axis=(0, 3)) > 0
    frame = choose_frame(skimage.data.astronaut()).frame
    (left, top), side = np.array(frame.corner_2) + 0.5, frame.side
    inside = np.zeros_like(changed)
    inside[round(top) : round(top + side), round(left) : round(left + side)] = True
    assert not changed[~inside].any() and changed[inside].mean() > 0.3


def test_views_and_sizes(files, tmp_path):
    def size(name, **changes):
        assert run(*usual(files, tmp_path / f"{name}.mp4", still=True, **changes)) == 0
        return read_video(tmp_path / f"{name}.mp4")[0].shape[1:3]

    face = round(choose_frame(skimage.data.astronaut()).frame.side)
    assert size("whole", size=None) == (512, 512)
    assert size("smaller", size=301) == (300, 300)  # even sides
    assert size("square", size=None, view="square") == (face + face % 2,) * 2
    assert size("part", size=None, view="square", crop="100,20,150,120") == (150, 150)
    assert size("native", view="square") == (64, 64)


def test_odd_and_oblong_pictures_keep_their_pixels(files, tmp_path):
    oblong = skimage.data.astronaut()[:331, :457]
    write_png(tmp_path / "odd.png", oblong)
    arguments = usual(files, tmp_path / "o.mp4", image=tmp_path / "odd.png", size=None, frames_dir=tmp_path / "f")
    assert run(*arguments) == 0
    frames = read_frames(tmp_path / "f")
    assert frames.shape[1:] == (330, 456, 3)
    np.testing.assert_array_equal(frames[:, 300:], np.broadcast_to(oblong[300:330, :456], frames[:, 300:].shape))


def test_a_gif_is_a_short_preview(files, tmp_path):
    assert run(*usual(files, tmp_path / "o.gif", size=None)) == 0
    with Image.open(tmp_path / "o.gif") as image:
        assert image.n_frames == 16 and image.size == (480, 480)
    assert provenance.main([str(tmp_path / "o.gif")]) == 0


def test_without_an_output_the_name_comes_from_the_inputs(files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("face_speech.mp4", "face_speech_2.mp4"):
        assert run(*usual(files, None)) == 0
        assert f"writing {name}" in capsys.readouterr().out and (tmp_path / name).is_file()


def test_a_video_gives_head_poses_and_a_picture(files, tmp_path, capsys):
    """A face that sways: the poses are those of its roll, and the first frame is the source."""
    angles = 8 * np.sin(np.arange(32) / 4)
    turned = [
        cv2.warpAffine(skimage.data.astronaut(), cv2.getRotationMatrix2D((226, 120), -angle, 1.0), (512, 512))
        for angle in angles
    ]
    with VideoWriter(tmp_path / "sway.mp4") as writer:
        writer.write(np.stack(turned))
    moving = {"head_pose": tmp_path / "sway.mp4", "image": tmp_path / "sway.mp4"}
    assert run(*usual(files, tmp_path / "o.mp4", save_motion=tmp_path / "m.npz", **moving)) == 0
    assert "first frame" in capsys.readouterr().out
    roll = np.degrees(np.load(tmp_path / "m.npz")["head_pose"][:, 2])
    assert np.corrcoef(roll, angles)[0, 1] > 0.98 and 0.7 < roll.std() / angles.std() < 1.2


def test_a_checkpoint_carries_what_suits_it_and_the_user_wins(files, tmp_path, monkeypatch, capsys):
    carrying = tmp_path / "carrying.safetensors"
    options = ["--animation", "keypoint_mode=relative", "--animation", "head_motion_scale=0.0"]
    assert status_of(convert.main, *options, files / "model.safetensors", carrying) == 0

    def motion(name, *more):
        arguments = usual(files, tmp_path / f"{name}.mp4", checkpoint=carrying, save_motion=tmp_path / f"{name}.npz")
        assert run(*arguments, *more) == 0
        return np.load(tmp_path / f"{name}.npz")

    carried = motion("carried")
    np.testing.assert_allclose(carried["keypoints"][0], carried["source_keypoints"], atol=1e-5)
    assert np.ptp(carried["head_pose"], axis=0).max() == 0
    (tmp_path / "o.yaml").write_text("head_motion_scale: 1.0\n")
    own = motion("own", "--config", tmp_path / "o.yaml", "--keypoint-mode", "absolute")
    assert np.ptp(own["head_pose"], axis=0).max() > 0
    assert np.abs(own["keypoints"][0] - own["source_keypoints"]).max() > 1e-3
    bad = ["--animation", "device=cpu", files / "model.safetensors", tmp_path / "bad.safetensors"]
    assert status_of(convert.main, *bad) == 2
    assert "'device'" in capsys.readouterr().err and not (tmp_path / "bad.safetensors").exists()


def test_the_demo_model_carries_its_settings():
    animation = read_weights([DEMO_WEIGHTS]).configs["animation"]
    wanted = {"keypoint_mode": "relative", "expression_scale": 1.3, "head_return": 2.0, "head_motion_scale": 1.1}
    assert animation == wanted == yaml.safe_load((ROOT / "config/demo/animation.yaml").read_text(encoding="utf-8"))


def test_options_come_from_a_file_and_the_command_line_wins(files, tmp_path, capsys):
    (tmp_path / "o.yaml").write_text("still: true\nbatch_size: 3\n")
    assert run(*usual(files, tmp_path / "o.mp4", config=tmp_path / "o.yaml", save_motion=tmp_path / "m.npz")) == 0
    assert np.ptp(np.load(tmp_path / "m.npz")["head_pose"], axis=0).max() == 0
    (tmp_path / "o.yaml").write_text("stil: true\n")
    assert run(*usual(files, tmp_path / "p.mp4", config=tmp_path / "o.yaml")) == 2
    assert "did you mean still" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with the openssl program")
def test_a_certificate_signs_the_output(files, tmp_path, capsys):
    chain, key, _ = make_certificate(tmp_path)
    output = tmp_path / "signed.mp4"
    assert run(*usual(files, output, c2pa_cert=chain, c2pa_key=key)) == 0
    assert provenance.main([str(output)]) == 0
    assert "C2PA" in capsys.readouterr().out
    assert len(read_video(output)[0]) == 32


def test_run_folders_of_the_stages_are_merged(files, tmp_path, small_weights):
    """Each stage's folder holds its own networks; together they make the video that one file makes."""
    weights = small_weights(64)
    parts = {
        "fomm": ["keypoint_detector", "image_generator"],
        "headpose": ["head_motion_predictor"],
        "motionfield": ["motion_field_generator"],
    }
    for name, components in parts.items():
        part = Weights({c: weights.states[c] for c in components}, {c: weights.configs[c] for c in components})
        if name == "headpose":
            part.configs["pose_range"] = weights.configs["pose_range"]
        save_weights(tmp_path / name / "weights.safetensors", part)
    folders = [tmp_path / name for name in parts]
    arguments = usual(files, tmp_path / "o.mp4", checkpoint=None, save_motion=tmp_path / "m.npz")
    assert run(*arguments, "--checkpoint", *folders) == 0
    assert run(*usual(files, tmp_path / "p.mp4", save_motion=tmp_path / "n.npz")) == 0
    np.testing.assert_allclose(
        np.load(tmp_path / "m.npz")["keypoints"], np.load(tmp_path / "n.npz")["keypoints"], atol=1e-5
    )


def write_pairs(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "audio", "output"), *rows])


def test_pairs_report_a_bad_row_and_go_on(files, tmp_path, capsys):
    rows = [(files / "face.png", files / "speech.wav", tmp_path / f"{i}.mp4") for i in range(3)]
    rows[1] = (files / "absent.png", *rows[1][1:])
    write_pairs(tmp_path / "list.csv", rows)
    arguments = ["--pairs", tmp_path / "list.csv", "--checkpoint", files / "model.safetensors", "--device", "cpu"]
    assert run(*arguments) == 2
    said = capsys.readouterr()
    assert sorted(p.name for p in tmp_path.glob("*.mp4")) == ["0.mp4", "2.mp4"]
    assert "absent.png" in said.err and "2 of 3 videos made" in said.out


def test_a_row_that_fails_for_an_unknown_reason_does_not_end_the_list(files, tmp_path, capsys, monkeypatch):
    rows = [(files / "face.png", files / "speech.wav", tmp_path / f"{i}.mp4") for i in range(3)]
    write_pairs(tmp_path / "list.csv", rows)
    animate = Animator.animate

    def stumbles(self, job, progress):
        if job.output.name == "1.mp4":
            raise RuntimeError("a bug\nof two lines")
        return animate(self, job, progress)

    monkeypatch.setattr(Animator, "animate", stumbles)
    report = tmp_path / "report.jsonl"
    arguments = ["--pairs", tmp_path / "list.csv", "--checkpoint", files / "model.safetensors", "--device", "cpu"]
    assert run(*arguments, "--report", report) == 2
    said = capsys.readouterr()
    log = tmp_path / "1.mp4.error.log"
    sentence = f"error: row for {rows[1][2]}: unexpected RuntimeError: a bug (its traceback is in {log})"
    assert sentence in said.err and "Traceback" not in said.err
    assert "stumbles" in log.read_text() and "2 of 3 videos made" in said.out
    results = [json.loads(line) for line in report.read_text().splitlines()]
    assert [result["status"] for result in results] == ["made", "failed", "made"]
    assert results[0]["frames"] == 32 and "a bug" in results[1]["reason"] and results[1]["log"] == str(log)

    # The same list again: only what is missing, or no longer whole, is made.
    monkeypatch.undo()
    data = rows[2][2].read_bytes()
    rows[2][2].write_bytes(data[: len(data) // 2])
    kept = rows[0][2].stat().st_mtime_ns
    assert run(*arguments) == 0
    said = capsys.readouterr().out
    assert "2 of 3 videos made, 1 were there" in said and rows[0][2].stat().st_mtime_ns == kept
    assert rows[2][2].stat().st_size == len(data)
    assert run(*arguments, "--overwrite") == 0
    assert "3 of 3 videos made" in capsys.readouterr().out and rows[0][2].stat().st_mtime_ns != kept


def test_a_list_with_frames_goes_on_after_it_was_interrupted(files, tmp_path, capsys):
    """Frames of a row that is begun again are replaced; pictures that this program has not drawn stay."""
    rows = [(files / "face.png", files / "speech.wav", tmp_path / f"{i}.mp4", tmp_path / f"f{i}") for i in range(2)]
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "audio", "output", "frames_dir"), *rows])
    arguments = ["--pairs", tmp_path / "list.csv", "--checkpoint", files / "model.safetensors", "--device", "cpu"]
    arguments += ["--size", "native"]
    assert run(*arguments) == 0
    rows[0][2].unlink()
    (tmp_path / "f0" / "000099.png").write_bytes((tmp_path / "f0" / "000031.png").read_bytes())
    assert run(*arguments) == 0 and "1 of 2 videos made, 1 were there" in capsys.readouterr().out
    assert len(os.listdir(tmp_path / "f0")) == 32
    assert run(*arguments, "--overwrite") == 0
    rows[0][2].unlink()
    shutil.copy(files / "face.png", tmp_path / "f0" / "000099.png")
    assert run(*arguments) == 2
    assert "already holds frames" in capsys.readouterr().err and os.listdir(tmp_path / "f0") == ["000099.png"]


def test_a_report_replaces_nothing_that_the_list_needs_and_goes_on(files, tmp_path, capsys):
    picture, config, listed = tmp_path / "face.png", tmp_path / "o.yaml", tmp_path / "list.csv"
    shutil.copy(files / "face.png", picture)
    config.write_text("crf: 20\n")
    write_pairs(listed, [(picture, files / "speech.wav", tmp_path / "0.mp4")])
    arguments = ["--pairs", listed, "--config", config, "--checkpoint", files / "model.safetensors", "--device", "cpu"]
    for taken in (picture, config, listed, files / "model.safetensors", tmp_path / "0.mp4"):
        before = taken.exists() and taken.read_bytes()
        assert run(*arguments, "--report", taken) == 2
        assert "name another output" in capsys.readouterr().err
        assert (taken.exists() and taken.read_bytes()) == before
    for _ in range(2):
        assert run(*arguments, "--report", tmp_path / "report.jsonl") == 0
    results = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert [result["status"] for result in results] == ["made", "there"]


def test_names_that_are_no_utf_8_and_a_terminal_that_knows_few_letters(files, tmp_path):
    """One such name costs neither its own row nor the others."""
    pictures = tmp_path / "in"
    pictures.mkdir()
    for name in (b"b\xe9b\xe9.png", b"bad\xe9.png", "ü.png".encode()):
        shutil.copy(files / "face.png", os.fsencode(pictures) + b"/" + name)
    Path(os.fsdecode(os.fsencode(pictures) + b"/bad\xe9.png")).write_bytes(b"no picture")
    report = tmp_path / "report.jsonl"
    command = usual(files, tmp_path / "out", image=pictures, report=report)
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "inference.py", *map(str, command)], cwd=ROOT, capture_output=True, env=environment
    )
    assert done.returncode == 2 and b"Traceback" not in done.stderr, done.stderr
    assert b"2 of 3 videos made" in done.stdout and b"\\xfc.mp4" in done.stdout
    assert sorted(os.listdir(os.fsencode(tmp_path / "out"))) == [b"b\xe9b\xe9.mp4", "ü.mp4".encode()]
    results = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    assert [os.path.basename(os.fsencode(each["image"])) for each in results if each["status"] == "made"] == [
        b"b\xe9b\xe9.png",
        "ü.png".encode(),
    ]


def test_rows_have_options_of_their_own(files, tmp_path):
    rows = [
        (files / "face.png", files / "speech.wav", tmp_path / f"{i}.mp4", still, tmp_path / f"{i}.npz")
        for i, still in enumerate(["", "true"])
    ]
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "audio", "output", "still", "save_motion"), *rows])
    arguments = ["--pairs", tmp_path / "list.csv", "--checkpoint", files / "model.safetensors", "--device", "cpu"]
    assert run(*arguments) == 0
    moves = [np.ptp(np.load(tmp_path / f"{i}.npz")["head_pose"], axis=0).max() for i in range(2)]
    assert moves[0] > 0 and moves[1] == 0


def test_a_folder_of_pictures_with_one_sound_and_the_other_way_round(files, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(files / "face.png", tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    assert run(*usual(files, tmp_path / "out", image=tmp_path / "in")) == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["a.mp4", "b.mp4"]
    shutil.copy(files / "speech.wav", tmp_path / "in" / "a.wav")
    shutil.copy(files / "speech.wav", tmp_path / "in" / "a.WAV")
    assert run(*usual(files, tmp_path / "out2", audio=tmp_path / "in")) == 0
    assert sorted(os.listdir(tmp_path / "out2")) == ["a.WAV.mp4", "a.wav.mp4"]
    assert "2 of 2 videos made" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,audio,output,colour\nF,S,o.mp4,red\n", ["unknown column 'colour'"]),
        ("image,audio,output,headpose\nF,S,o.mp4,x\n", ["did you mean head_pose"]),
        ("image,audio,output,device\nF,S,o.mp4,cpu\n", ["device counts for the whole list"]),
        ("image,audio,output\nF,S,o.mp4\n\n\nF,,p.mp4\n", ["line 5", "must all be given"]),
        ("image,audio,output\nF,S,o.mp4\nF,S,./o.mp4\n", ["o.mp4 twice"]),
        ("image,audio,output\nF,S,o.mp4\nF,S,sub/../o.mp4\n", ["o.mp4 twice"]),
        ("image,audio,output\nF,S,o.mp4\no.mp4,S,p.mp4\n", ["as an input and as an output"]),
        ("image,audio,output\nF,S,o.mp4,more\n", ["line 2", "more values than columns"]),
        ("image,audio,output,expression_scale\nF,S,o.mp4,1\nF,S,p.mp4,inf\n", ["line 3", "expression_scale"]),
        ("image,audio,output,save_motion\nF,S,o.mp4,m.npz\nF,S,p.mp4,m.npz\n", ["m.npz twice"]),
        ("image,audio,output,still,head_return\nF,S,o.mp4,true,2\n", ["row for o.mp4", "--head-return would have"]),
        ("image,audio,output,frames_dir\nF,S,o.mp4,a\na/000003.png,S,p.mp4,\n", ["a as an input and as an output"]),
        ("image,audio\nF,S\n", ["lacks the column output"]),
        ("image,audio,output\n\n", ["no row"]),
    ],
)
def test_a_list_that_cannot_be_is_refused_before_anything_is_made(files, tmp_path, capsys, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    text = text.replace("F,", f"{files / 'face.png'},").replace(",S", f",{files / 'speech.wav'}")
    (tmp_path / "list.csv").write_text(text)
    assert run("--pairs", "list.csv", "--checkpoint", files / "model.safetensors", "--device", "cpu") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and all(word in said for word in words), said
    assert os.listdir(tmp_path) == ["list.csv"]


def test_ranks_share_the_rows_of_a_list(files, tmp_path):
    rows = [(files / "face.png", files / "speech.wav", tmp_path / f"{i}.mp4") for i in range(3)]
    write_pairs(tmp_path / "list.csv", rows)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "inference.py"]
    command += ["--pairs", tmp_path / "list.csv", "--checkpoint", files / "model.safetensors", "--device", "cpu"]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert result.returncode == 0, result.stderr
    assert sorted(p.name for p in tmp_path.glob("*.mp4")) == ["0.mp4", "1.mp4", "2.mp4"]
    assert "2 of 2 videos made" in result.stdout and "1 of 1 videos made on rank 1" in result.stdout


def test_one_video_is_made_by_the_first_of_several_processes(files, tmp_path, capsys, monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert run(*usual(files, tmp_path / "o.mp4")) == 0
    assert "process 1 has nothing to do" in capsys.readouterr().out and os.listdir(tmp_path) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(files, tmp_path, how):
    soundfile.write(tmp_path / "long.wav", 0.1 * np.random.default_rng(0).standard_normal(16_000 * 40), 16_000)
    out = tmp_path / "out"
    arguments = usual(files, out / "o.mp4", audio=tmp_path / "long.wav", frames_dir=tmp_path / "frames")
    process = subprocess.Popen(
        [sys.executable, "inference.py", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    deadline = time.time() + 120
    while not any((tmp_path / "frames").glob("*.png")) and time.time() < deadline:
        time.sleep(0.1)
    process.send_signal(how)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert os.listdir(out) == [] and b"Traceback" not in stderr


def test_without_a_checkpoint_the_demo_model_is_used_and_named(files, tmp_path, capsys):
    assert run(*usual(files, tmp_path / "o.mp4", checkpoint=None)) == 0
    said = capsys.readouterr().out
    assert "demo.safetensors" in said and "train your own" in said
    frames, *_ = read_video(tmp_path / "o.mp4")
    assert frames.shape[1:3] == (128, 128)
    assert np.abs(frames.astype(int) - frames[0]).mean((1, 2, 3)).max() > 0.5  # it moves


# ---- bad input: one sentence, a non-zero exit, nothing written


def bad_cases(files, tmp_path):
    """name -> (changed options, words of the message)"""
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.bin").touch()
    (tmp_path / "text.txt").write_text("this is no media file at all " * 50)
    png = (files / "face.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(png[: len(png) // 3])
    wav = (files / "speech.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(wav[: len(wav) // 3])
    weights = (files / "model.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(weights[: len(weights) // 2])
    write_png(tmp_path / "tiny.png", np.zeros((16, 20, 3), np.uint8))
    np.savez(tmp_path / "wrong.npz", other=np.zeros(3))
    np.savez(tmp_path / "few.npz", keypoints=np.zeros((5, 3, 2)), jacobians=np.tile(np.eye(2), (5, 3, 1, 1)))
    np.savez(tmp_path / "nan.npz", head_pose=np.full((5, 6), np.nan))
    np.savez(tmp_path / "object.npz", head_pose=np.array([{}], dtype=object))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "wrong.npz").read_bytes()[:60])
    (tmp_path / "noface.csv").write_text("frame,timestamp\n1,0.0\n")
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0), 16_000)
    silent_video = tmp_path / "mute.mp4"
    with av.open(str(silent_video), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode(None))
    absent = tmp_path / "no 'such' fïle"
    turned = np.tile([0.1, 0.2, 0, 5, 10, 300], (5, 1))
    np.savez(tmp_path / "degrees.npz", head_pose=turned * [57.3, 57.3, 57.3, 1, 1, 1])
    np.savez(tmp_path / "metres.npz", head_pose=turned * [1, 1, 1, 0.001, 0.001, 0.001])
    np.save(tmp_path / "pose.npy", turned)
    motion = {"keypoints": np.zeros((5, 10, 2)), "jacobians": np.tile(np.eye(2), (5, 10, 1, 1))}
    np.savez(tmp_path / "motion.npz", **motion)
    for name, fps in {
        "fps0": 0,
        "fps-1": -1,
        "fps1e-9": 1e-9,
        "fps1e9": 1e9,
        "fpsarr": [25, 25],
        "fpsnan": np.nan,
    }.items():
        np.savez(tmp_path / f"{name}.npz", **motion, fps=fps)
    np.savez(tmp_path / "fpstext.npz", **motion, fps="25")
    (tmp_path / "page.pth.tar").write_text("<!DOCTYPE html><html><body>Google Drive - Virus scan warning</body></html>")
    (tmp_path / "page.safetensors").write_text("\n  <html><head></head></html>")
    (tmp_path / "lfs.pth.tar").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1000\n")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle.mp4").symlink_to(tmp_path / "circle.mp4")
    (tmp_path / "link to speech.mp4").symlink_to(files / "speech.wav")
    os.link(files / "face.png", tmp_path / "hard link.mp4")
    (tmp_path / "inf.yaml").write_text("expression_scale: .inf\n")
    (tmp_path / "still.yaml").write_text("still: true\n")
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    os.link(files / "model.safetensors", run_folder / "weights.safetensors")
    saved = {"audio": None, "motion": tmp_path / "motion.npz"}
    return {
        "head pose in degrees": ({"head_pose": tmp_path / "degrees.npz"}, ["degrees.npz", "should be in radians"]),
        "head pose in metres": ({"head_pose": tmp_path / "metres.npz"}, ["metres.npz", "in millimetres"]),
        "head pose as npy": ({"head_pose": tmp_path / "pose.npy"}, ["pose.npy", "single array"]),
        "motion as npy": ({"motion": tmp_path / "pose.npy"}, ["pose.npy", "single array"]),
        "fps zero": ({"motion": tmp_path / "fps0.npz"}, ["fps should be one number"]),
        "fps negative": ({"motion": tmp_path / "fps-1.npz"}, ["fps should be one number"]),
        "fps tiny": ({"motion": tmp_path / "fps1e-9.npz"}, ["fps should be one number"]),
        "fps huge": ({"motion": tmp_path / "fps1e9.npz"}, ["fps should be one number"]),
        "fps an array": ({"motion": tmp_path / "fpsarr.npz"}, ["found an array [2]"]),
        "fps nan": ({"motion": tmp_path / "fpsnan.npz"}, ["not finite"]),
        "fps text": ({"motion": tmp_path / "fpstext.npz"}, ["not real numbers"]),
        "motion and head pose": (saved | {"head_pose": tmp_path / "degrees.npz"}, ["--head-pose would have no effect"]),
        "motion and still": (saved | {"still": True}, ["--still would have no effect"]),
        "motion and expression": (saved | {"expression_scale": 2}, ["--expression-scale would have no effect"]),
        "motion and head motion": (saved | {"head_motion_scale": 2}, ["--head-motion-scale would have no effect"]),
        "motion and return": (saved | {"head_return": 2}, ["--head-return would have no effect"]),
        "motion and blinks": (saved | {"blink": 20, "look_ahead": 4}, ["--blink, --look-ahead would have no effect"]),
        "motion and seed": (saved | {"seed": 3}, ["--seed would have no effect"]),
        "still and return": ({"still": True, "head_return": 2}, ["--still holds the head: --head-return would have"]),
        "poses and return": ({"head_pose": tmp_path / "pose.npz", "head_return": 2}, ["--head-return would have no"]),
        "held and return": ({"head_motion_scale": 0, "head_return": 2}, ["--head-motion-scale 0 holds the head"]),
        "still in a file": ({"config": tmp_path / "still.yaml", "head_return": 2}, ["--still holds the head"]),
        "return negative": ({"head_return": "-1"}, ["head_return must be from 0 to 3600"]),
        "still and scaled": ({"still": True, "head_motion_scale": 2}, ["no effect"]),
        "checkpoint is a web page": ({"checkpoint": tmp_path / "page.pth.tar"}, ["is a web page"]),
        "safetensors is a web page": ({"checkpoint": tmp_path / "page.safetensors"}, ["is a web page"]),
        "checkpoint is an LFS pointer": ({"checkpoint": tmp_path / "lfs.pth.tar"}, ["Git-LFS pointer", "git lfs pull"]),
        "checkpoint is a picture": ({"checkpoint": files / "face.png"}, ["is a PNG picture"]),
        "checkpoint is a pipe": ({"checkpoint": tmp_path / "pipe"}, ["is no file"]),
        "audio is a pipe": ({"audio": tmp_path / "pipe"}, ["is a pipe or a device"]),
        "image is a pipe": ({"image": tmp_path / "pipe"}, ["is a pipe or a device"]),
        "output is the picture": ({"output": files / "face.png"}, ["face.png", "name another output"]),
        "output is the sound": ({"output": files / "speech.wav"}, ["speech.wav", "name another output"]),
        "output is the checkpoint": ({"output": files / "model.safetensors"}, ["name another output"]),
        "output is a link to the sound": ({"output": tmp_path / "link to speech.mp4"}, ["name another output"]),
        "output is the picture under another name": ({"output": tmp_path / "hard link.mp4"}, ["name another output"]),
        "output is a pipe": ({"output": tmp_path / "pipe"}, ["is a device or a pipe"]),
        "output leads in a circle": ({"output": tmp_path / "circle.mp4"}, ["circle.mp4 cannot be written"]),
        "output far below a file": ({"output": tmp_path / "text.txt" / "a" / "b" / "o.mp4"}, ["text.txt is a file"]),
        "motion and video in one": ({"save_motion": tmp_path / "o.mp4"}, ["o.mp4", "name another output"]),
        "motion over the weights": (
            {"checkpoint": run_folder, "save_motion": run_folder / "weights.safetensors"},
            ["weights.safetensors", "name another output"],
        ),
        "motion of another ending": ({"save_motion": tmp_path / "m.mp4"}, ["m.mp4: only .npz"]),
        "frames and video in one": ({"frames_dir": tmp_path / "o.mp4"}, ["o.mp4 cannot be written where"]),
        "frames below the video": ({"frames_dir": tmp_path / "o.mp4" / "frames"}, ["o.mp4 is written, too"]),
        "motion below the video": ({"save_motion": tmp_path / "o.mp4" / "m.npz"}, ["o.mp4 is written, too"]),
        "frames far below a file": ({"frames_dir": tmp_path / "text.txt" / "a" / "b"}, ["text.txt is a file"]),
        "motion replaces the picture": ({"save_motion": files / "face.png"}, ["name another output"]),
        "frames into a file": ({"frames_dir": tmp_path / "text.txt"}, ["is a file, not a folder"]),
        "expression huge": ({"expression_scale": 1e30}, ["expression_scale must be from 0 to 10"]),
        "expression inf": ({"expression_scale": "inf"}, ["expression_scale must be a finite number"]),
        "expression inf in a file": ({"config": tmp_path / "inf.yaml"}, ["expression_scale must be a finite number"]),
        "head motion nan": ({"head_motion_scale": "nan"}, ["head_motion_scale must be a finite number"]),
        "head motion negative": ({"head_motion_scale": "-1"}, ["head_motion_scale must be from 0 to 10"]),
        "seed huge": ({"seed": 10**30}, ["seed"]),
        "seed negative": ({"seed": -1}, ["seed must be from 0"]),
        "batch size huge": ({"batch_size": 10**9}, ["batch_size must be from 0"]),
        "image missing": ({"image": absent}, ["no 'such' fïle"]),
        "image is a folder": ({"image": tmp_path / "folder"}, ["folder"]),
        "image empty": ({"image": tmp_path / "empty.bin"}, ["empty.bin"]),
        "image is text": ({"image": tmp_path / "text.txt"}, ["text.txt"]),
        "image truncated": ({"image": tmp_path / "cut.png"}, ["cut.png"]),
        "image is sound": ({"image": files / "speech.wav"}, ["speech.wav"]),
        "audio missing": ({"audio": absent}, ["no 'such' fïle"]),
        "audio is a folder": ({"audio": tmp_path / "folder"}, ["folder"]),
        "audio empty": ({"audio": tmp_path / "empty.bin"}, ["empty.bin"]),
        "audio is text": ({"audio": tmp_path / "text.txt"}, ["text.txt"]),
        "audio truncated": ({"audio": tmp_path / "cut.wav"}, ["cut.wav", "cut off"]),
        "audio is a picture": ({"audio": files / "face.png"}, ["face.png"]),
        "audio without samples": ({"audio": tmp_path / "nothing.wav"}, ["nothing.wav"]),
        "video without sound": ({"audio": silent_video}, ["mute.mp4", "no sound track"]),
        "checkpoint missing": ({"checkpoint": absent}, ["does not exist"]),
        "checkpoint truncated": ({"checkpoint": tmp_path / "cut.safetensors"}, ["cut.safetensors"]),
        "checkpoint is text": ({"checkpoint": tmp_path / "text.txt"}, ["not a readable PyTorch checkpoint"]),
        "checkpoint folder": ({"checkpoint": tmp_path / "folder"}, ["without weights.safetensors"]),
        "output is a folder": ({"output": tmp_path / "folder"}, ["folder"]),
        "output below a file": ({"output": tmp_path / "text.txt" / "o.mp4"}, ["text.txt"]),
        "motion of another kind": ({"motion": tmp_path / "wrong.npz"}, ["no motion file"]),
        "motion of another model": ({"motion": tmp_path / "few.npz"}, ["3 keypoints, this model 10"]),
        "motion truncated": ({"motion": tmp_path / "cut.npz"}, ["cut.npz"]),
        "motion is text": ({"motion": tmp_path / "text.txt"}, ["text.txt"]),
        "head pose of another kind": ({"head_pose": tmp_path / "wrong.npz"}, ["head_pose [T, 6]"]),
        "head pose not finite": ({"head_pose": tmp_path / "nan.npz"}, ["not finite"]),
        "head pose with objects": ({"head_pose": tmp_path / "object.npz"}, ["object.npz"]),
        "head pose csv without columns": ({"head_pose": tmp_path / "noface.csv"}, ["noface.csv"]),
        "unknown device": ({"device": "tpu"}, ["--device tpu"]),
        "device not there": ({"device": "cuda:77"}, ["cuda:77"]),
        "fp16 on a CPU": ({"precision": "fp16"}, ["bf16 or fp32"]),
        "batch size": ({"batch_size": -1}, ["batch_size"]),
        "crop of three numbers": ({"crop": "1,2,3"}, ["X,Y,W,H"]),
        "crop outside": ({"crop": "500,500,100,100"}, ["leaves the picture, which is 512x512"]),
        "face that is not there": ({"face": 3}, ["--face 3", "1 face"]),
        "face and crop": ({"face": 1, "crop": "0,0,99,99"}, ["exclude each other"]),
        "size too small": ({"size": 7}, ["native or from 32"]),
        "size too large": ({"size": 9000}, ["native or from 32 to 8192"]),
        "size in words": ({"size": "large"}, ["size"]),
        "whole view of native frames": ({"view": "whole"}, ["--size native"]),
        "no such colour": ({"background": "nosuch"}, ["no colour"]),
        "another ending": ({"output": tmp_path / "o.avi"}, ["only .mp4 and .gif"]),
        "tiny picture": ({"image": tmp_path / "tiny.png"}, ["20x16", "32 pixels"]),
        "head pose of a picture": ({"head_pose": files / "face.png"}, ["face.png"]),
        "config missing": ({"config": absent}, ["does not exist"]),
        "certificate missing": ({"c2pa_cert": absent, "c2pa_key": absent}, ["no 'such' fïle"]),
    }


def test_bad_input_gets_one_sentence_and_leaves_nothing(files, tmp_path, capsys):
    for name, (changes, words) in bad_cases(files, tmp_path).items():
        before = sorted(p for p in tmp_path.rglob("*"))
        status = run(*usual(files, changes.pop("output", tmp_path / "o.mp4"), **changes))
        said = capsys.readouterr()
        message = [line for line in said.err.splitlines() if "frame" not in line or line.startswith("error")]
        assert status == 2, (name, status, said.err)
        assert len([line for line in message if line.startswith("error: ")]) == 1, (name, said.err)
        assert "Traceback" not in said.err, name
        assert all(word in said.err for word in words), (name, said.err)
        assert sorted(p for p in tmp_path.rglob("*")) == before, name


def test_an_output_may_be_a_link_and_the_link_stays(files, tmp_path):
    (tmp_path / "big disk").mkdir()
    (tmp_path / "o.mp4").symlink_to(tmp_path / "big disk" / "real.mp4")
    assert run(*usual(files, tmp_path / "o.mp4")) == 0
    assert (tmp_path / "o.mp4").is_symlink() and len(read_video(tmp_path / "big disk" / "real.mp4")[0]) == 32


def test_lengths_that_differ_are_remarked(files, tmp_path, capsys):
    np.savez(tmp_path / "pose.npz", head_pose=np.tile([0.1, 0.2, 0, 5, 10, 300], (10, 1)))
    motion = tmp_path / "m.npz"
    assert run(*usual(files, tmp_path / "a.mp4", head_pose=tmp_path / "pose.npz", save_motion=motion)) == 0
    assert "head poses for 0.40 of 1.28 s: the last one is held" in capsys.readouterr().out
    for seconds, words in ((0.5, "the rest is silent"), (3.0, "the end of the sound is cut"), (1.3, None)):
        soundfile.write(tmp_path / "s.wav", 0.1 * np.sin(np.arange(int(16_000 * seconds)) / 10), 16_000)
        assert run(*usual(files, tmp_path / "b.mp4", audio=tmp_path / "s.wav", motion=motion)) == 0
        said = capsys.readouterr().out
        assert words in said if words else "note:" not in said, (seconds, said)


def test_weights_are_known_by_their_content_and_not_by_their_name(files, tmp_path):
    shutil.copy(files / "model.safetensors", tmp_path / "model.pth.tar")
    assert run(*usual(files, tmp_path / "o.mp4", checkpoint=tmp_path / "model.pth.tar")) == 0


def test_full_disk_is_one_sentence(files, tmp_path, capsys, monkeypatch):
    """/dev/full refuses every byte; the temporary file is pointed there."""
    import contextlib

    import datasets.media.video_writer as video

    @contextlib.contextmanager
    def full(path):
        yield Path("/dev/full")

    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    monkeypatch.setattr(video, "written_beside", full)
    assert run(*usual(files, tmp_path / "o.mp4")) == 2
    said = capsys.readouterr().err
    assert "o.mp4" in said and "space" in said and "Traceback" not in said
