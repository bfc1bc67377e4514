"""The training scripts themselves, run as a user runs them, on the synthetic corpus and in tiny configurations."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from animation.weights import component_config, read_weights
from engine.checkpoint import save_weights
from modules.head_motion_predictor import HeadMotionPredictorConfig

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
# Small enough for a test, of the same shape as the tiny configurations.
CORPUS = ("synthetic.clips=6", "synthetic.speakers=3", "synthetic.duration_s=1.6")
FAST = ("run.tensorboard=false", "validation.pairs=2")
NETWORKS_OF_FOMM = ("keypoint_detector", "image_generator")


def train(script: str, config: str, folder: Path, *overrides: str, ranks: int = 1, expect: int = 0) -> str:
    """Run `train_SCRIPT.py --config config/CONFIG.yaml`; returns stderr."""
    start = [sys.executable]
    if ranks > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    command = [*start, f"train_{script}.py", "--config", f"config/{config}.yaml", f"run.dir={folder}", *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT, timeout=900)
    assert done.returncode == expect, done.stderr
    return done.stderr


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def numbers(folder: Path) -> list[dict]:
    """Every logged number that the machine's speed does not change."""
    return [
        {k: v for k, v in line.items() if k not in ("samples_per_s", "data_wait", "peak_memory_gb")}
        for line in lines(folder)
    ]


def mean(folder: Path, name: str, first: int, last: int) -> float:
    found = [line[name] for line in lines(folder) if first <= line["step"] <= last]
    return sum(found) / len(found)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus that the tiny configurations draw where there is none."""
    folder = tmp_path_factory.mktemp("corpus") / "synthetic"
    train(
        "headpose",
        "headpose_tiny",
        folder.parent / "run",
        f"data.root={folder}",
        "run.max_steps=1",
        "run.tensorboard=false",
    )
    assert (folder / "manifest.csv").exists()
    return folder


@pytest.fixture(scope="session")
def stage_one(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of the tiny stage one."""
    folder = tmp_path_factory.mktemp("runs") / "fomm"
    train("fomm", "fomm_tiny", folder, f"data.root={corpus}")
    return folder


def test_stage_one_learns_to_redraw_held_out_faces(stage_one: Path) -> None:
    last = lines(stage_one)[-1]
    assert mean(stage_one, "pixel", 130, 150) < 0.7 * mean(stage_one, "pixel", 1, 5)
    assert last["val/psnr"] > last["val/source_psnr"]  # better than repeating the source, on unseen speakers
    assert last["val/ssim"] > last["val/source_ssim"]
    assert list((stage_one / "samples").glob("*redrawn.jpg"))
    assert list((stage_one / "tensorboard").iterdir())
    assert load_file(stage_one / "weights.safetensors")["keypoint_detector.kp.weight"].ndim == 4


def test_stage_two_learns_to_move_the_head(corpus: Path, tmp_path: Path) -> None:
    train("headpose", "headpose_tiny", tmp_path, f"data.root={corpus}")
    last = lines(tmp_path)[-1]
    assert mean(tmp_path, "ssim", 130, 150) < 0.2  # a still head has 1
    assert last["val/ssim_channel"] < 0.95  # on unseen speakers
    assert last["val/std_ratio"] > 0.3 and last["val/audio_effect"] > 0.01  # not frozen, and not deaf
    assert list((tmp_path / "samples").glob("*pose0.png"))
    weights = read_weights([tmp_path])
    assert "output.weight" in weights.states["head_motion_predictor"]
    stored = component_config(weights, "head_motion_predictor", HeadMotionPredictorConfig)
    assert stored.image_size == 64  # that of the pictures, which the configuration names elsewhere


def test_the_relative_head_starts_at_a_still_face_and_is_trained(corpus: Path, stage_one: Path, tmp_path: Path) -> None:
    head = [f"motion_field_generator.{name}" for name in ("relative_head=true", "normalise_audio=true", "box_value=1")]
    common = (f"data.root={corpus}", f"fomm.checkpoint={stage_one}", "run.max_steps=20", "run.validate_every=20")
    ours = ("keypoints.lips=1", "keypoints.lip_size=1", "data.voices=[0.9]", f"targets.dir={tmp_path / 'kept'}")
    train("motionfield", "motionfield_tiny", tmp_path, *common, *head, *ours)
    assert list((tmp_path / "kept").glob("voices_*/*.npy"))
    last = lines(tmp_path)[-1]
    assert "heatmap" not in lines(tmp_path)[0]
    assert 0 < lines(tmp_path)[0]["lips"] < 2 and -1 <= last["val/lips"] <= 1
    assert (
        last["val/ke"] < 1.5 * last["val/still_ke"]
    )  # the paper's head is several times as far off after so few steps
    weights = load_file(tmp_path / "weights.safetensors")
    assert weights["motion_field_generator.relative_head.weight"].abs().max() > 0
    assert weights["motion_field_generator.relative_head.change.weight"].abs().max() > 0


def test_stage_three_learns_keypoints_then_pixels(corpus: Path, stage_one: Path, tmp_path: Path) -> None:
    common = (f"data.root={corpus}", f"fomm.checkpoint={stage_one}")
    train("motionfield", "motionfield_tiny", tmp_path / "keypoints", *common)
    found = lines(tmp_path / "keypoints")
    assert found[0]["heatmap"] > 0 and "heatmap" not in found[-1]  # lambda_m has decayed
    assert mean(tmp_path / "keypoints", "position", 50, 60) < 0.2 * found[0]["position"]
    assert list((tmp_path / "keypoints" / "samples").glob("*window0.jpg"))
    assert list((tmp_path / "keypoints" / "samples").glob("*window0.mp4"))
    stored = list((corpus / "targets").glob("*/*.npz"))
    times = [path.stat().st_mtime_ns for path in stored]
    start = f"initial_weights={tmp_path / 'keypoints'}"
    train("motionfield", "motionfield_tiny_pixels", tmp_path / "pixels", *common, start)
    assert [path.stat().st_mtime_ns for path in stored] == times  # computed once
    found = lines(tmp_path / "pixels")
    assert {"position", "pixel", "equivariance_position", "equivariance_jacobian"} <= found[0].keys()
    assert mean(tmp_path / "pixels", "pixel", 16, 20) < found[0]["pixel"]


SCRIPTS = [
    (
        "fomm",
        "fomm_tiny",
        ("weights.adversarial=1", "discriminator.block_expansion=4", "discriminator.max_features=16"),
    ),
    ("headpose", "headpose_tiny", ("optim.batch_size=4",)),
    ("motionfield", "motionfield_tiny", ("keypoints.heatmap_hold_steps=2", "keypoints.heatmap_decay_steps=2")),
]


def stage_arguments(script: str, corpus: Path, stage_one: Path) -> list[str]:
    return [f"data.root={corpus}", "run.tensorboard=false", "run.validate_every=4"] + (
        [f"fomm.checkpoint={stage_one}"] if script == "motionfield" else []
    )


@pytest.mark.parametrize(("script", "config", "overrides"), SCRIPTS)
def test_killed_and_started_again_gives_the_same_bits(
    script: str, config: str, overrides: tuple[str, ...], corpus: Path, stage_one: Path, tmp_path: Path
) -> None:
    arguments = [*stage_arguments(script, corpus, stage_one), *overrides, "run.max_steps=8", "run.save_every=2"]
    train(script, config, tmp_path / "straight", *arguments)
    folder = tmp_path / "killed"
    command = [
        sys.executable,
        f"train_{script}.py",
        "--config",
        f"config/{config}.yaml",
        f"run.dir={folder}",
        *arguments,
    ]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    while not (folder / "metrics.jsonl").exists() or (folder / "metrics.jsonl").read_text().count("\n") < 5:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(lines(folder)) < 8
    train(script, config, folder, *arguments)
    assert numbers(folder) == numbers(tmp_path / "straight")
    a, b = (load_file(path / "weights.safetensors") for path in (folder, tmp_path / "straight"))
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(("script", "config", "overrides"), SCRIPTS)
def test_two_ranks_with_half_a_batch_equal_one(
    script: str, config: str, overrides: tuple[str, ...], corpus: Path, stage_one: Path, tmp_path: Path
) -> None:
    """Three updates, BatchNorm included: losses and gradient norms.

    The learning rate is small, since Adam's first steps are sign-like and would turn rounding into other weights
    (tests/unit/engine/test_run.py holds twelve steps at a usual rate to 1e-4).
    """
    arguments = [*stage_arguments(script, corpus, stage_one), *overrides]
    arguments += ["run.max_steps=3", "run.device=cpu", "optim.lr=1.0e-6"]
    train(script, config, tmp_path / "one", *arguments)
    train(script, config, tmp_path / "two", *arguments, ranks=2)
    for one, two in zip(numbers(tmp_path / "one"), numbers(tmp_path / "two"), strict=True):
        for kind, tolerance in (("grad_norm/", 2e-2), ("", 1e-3)):
            names = [name for name in one if name.startswith(kind) and not name.startswith("val/")]
            names = [name for name in names if kind or not name.startswith("grad_norm/")]
            assert names
            assert [two[name] for name in names] == pytest.approx([one[name] for name in names], rel=tolerance), one[
                "step"
            ]


def test_a_run_of_another_stage_is_refused(corpus: Path, stage_one: Path) -> None:
    said = train("headpose", "headpose_tiny", stage_one, f"data.root={corpus}", expect=2)
    assert "is of stage 'fomm', this is 'headpose'" in said and "Traceback" not in said


@pytest.mark.parametrize(("script", "config", "overrides"), SCRIPTS)
def test_a_corpus_may_move_but_no_other_take_its_place(
    script: str, config: str, overrides: tuple[str, ...], corpus: Path, stage_one: Path, tmp_path: Path
) -> None:
    arguments = [*stage_arguments(script, corpus, stage_one), *overrides, "run.max_steps=1"]
    train(script, config, tmp_path / "run", *arguments)
    shutil.copytree(corpus, tmp_path / "moved")
    train(script, config, tmp_path / "run", *arguments, f"data.root={tmp_path / 'moved'}")
    manifest = tmp_path / "moved" / "manifest.csv"
    rows = manifest.read_text().splitlines()
    manifest.write_text("\n".join([rows[0], *(row[:-1] + "-" for row in rows[1:])]) + "\n")  # other check sums
    said = train(script, config, tmp_path / "run", *arguments, f"data.root={tmp_path / 'moved'}", expect=2)
    assert re.search(r"another configuration \(corpus: \w+ there, \w+ here\)", said) and "Traceback" not in said


def test_the_second_phase_goes_on_with_its_own_generator_only(corpus: Path, stage_one: Path, tmp_path: Path) -> None:
    weights = read_weights([stage_one])
    next(iter(weights.states["image_generator"].values())).add_(0.1)
    save_weights(tmp_path / "other.safetensors", weights)
    arguments = (f"data.root={corpus}", "initial_weights=", "run.max_steps=1", "run.tensorboard=false")
    train("motionfield", "motionfield_tiny_pixels", tmp_path, *arguments, f"fomm.checkpoint={stage_one}")
    other = f"fomm.checkpoint={tmp_path / 'other.safetensors'}"
    assert "image_generator: " in train("motionfield", "motionfield_tiny_pixels", tmp_path, *arguments, other, expect=2)


def test_missing_stage_one_and_missing_corpus_are_sentences(corpus: Path, tmp_path: Path) -> None:
    said = train("motionfield", "motionfield_tiny", tmp_path, "fomm.checkpoint=nowhere", expect=2)
    assert "nowhere" in said and "Traceback" not in said
    said = train("fomm", "fomm_tiny", tmp_path, f"data.root={tmp_path}", "synthetic=null", expect=2)
    assert "manifest.csv not found" in said and "Traceback" not in said


def test_a_vanished_clip_is_one_sentence(corpus: Path, tmp_path: Path) -> None:
    copy = tmp_path / "corpus"
    subprocess.run(["cp", "-r", str(corpus), str(copy)], check=True)
    gone = next(path for path in (copy / "clips").iterdir() if "00000" in path.name)
    (gone / "frames.zip").unlink()
    said = train("fomm", "fomm_tiny", tmp_path / "run", f"data.root={copy}", "run.workers=1", expect=2)
    assert f"{gone.name}/frames.zip" in said and "Traceback" not in said


def test_four_keypoints_come_to_the_lips(corpus: Path, stage_one: Path, tmp_path: Path) -> None:
    start = (f"initial_weights={stage_one}", "weights.lips=10", "run.max_steps=40", *FAST)
    train("fomm", "fomm_tiny", tmp_path, f"data.root={corpus}", *start)
    assert mean(tmp_path, "lips", 31, 40) < 0.5 * mean(tmp_path, "lips", 1, 3)


def test_fine_tuning_starts_from_given_weights(corpus: Path, stage_one: Path, tmp_path: Path) -> None:
    start = (f"initial_weights={stage_one}", "run.max_steps=1", "optim.lr=1.0e-9", *FAST)
    train("fomm", "fomm_tiny", tmp_path, f"data.root={corpus}", *start)
    a, b = (load_file(folder / "weights.safetensors") for folder in (stage_one, tmp_path))
    assert all(torch.allclose(a[key], b[key], atol=1e-6) for key in a if key.endswith("weight"))


def test_fine_tuning_may_change_the_size_of_the_dense_motion(corpus: Path, stage_one: Path, tmp_path: Path) -> None:
    scale = "image_generator.dense_motion.scale_factor"
    start = (f"initial_weights={stage_one}", f"{scale}=0.25", "run.max_steps=1", *FAST)
    train("fomm", "fomm_tiny", tmp_path, f"data.root={corpus}", *start)
    key = "image_generator.dense_motion_network.down.weight"
    a, b = (load_file(folder / "weights.safetensors")[key] for folder in (stage_one, tmp_path))
    assert a.shape != b.shape
    assert f"{scale.split('.')[-1]}: 0.25" in (tmp_path / "config.yaml").read_text()


def test_fine_tuning_may_add_keypoint_maps(corpus: Path, stage_one: Path, tmp_path: Path) -> None:
    start = (f"initial_weights={stage_one}", "run.max_steps=1", "optim.lr=1.0e-9", *FAST)
    train("fomm", "fomm_tiny", tmp_path, f"data.root={corpus}", *start, "image_generator.keypoint_maps=true")
    a, b = (load_file(folder / "weights.safetensors") for folder in (stage_one, tmp_path))
    assert {key for key in b if key not in a} == {
        f"image_generator.keypoint_maps.{part}" for part in ("weight", "bias")
    }
    assert all(torch.allclose(a[key], b[key], atol=1e-6) for key in a if key.endswith("weight"))


def test_the_renderer_can_be_trained_alone(corpus: Path, stage_one: Path, tmp_path: Path) -> None:
    start = (f"initial_weights={stage_one}", "train_detector=false", "weights.painted=10", "run.max_steps=2", *FAST)
    train("fomm", "fomm_tiny", tmp_path, f"data.root={corpus}", *start)
    first = lines(tmp_path)[0]
    assert first["painted"] > 0 and "equivariance_position" not in first
    a, b = (load_file(folder / "weights.safetensors") for folder in (stage_one, tmp_path))
    same = {name: all(torch.equal(a[key], b[key]) for key in a if key.startswith(name)) for name in NETWORKS_OF_FOMM}
    assert same == {"keypoint_detector": True, "image_generator": False}  # BatchNorm's statistics too
