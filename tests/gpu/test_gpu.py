"""What only a GPU can show; `make gpu-check` runs these there. With GPU_CHECK_DEVICE=cpu they try themselves, tiny.

Tolerances are relative. float32 on a GPU is IEEE's, summed in another order; bf16 has 8 bits of fraction.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from animation import generate
from animation.head_poses import PredictedHeadPoses
from animation.models import load_models
from animation.motion_file import load_motion
from animation.options import AnimationOptions
from animation.render import Renderer
from animation.weights import DEMO_WEIGHTS
from benchmarks.steps import STAGES, Stage
from engine import device as devices
from modules.keypoints import Keypoints
from tests.golden.filled_checkpoint import filled, read_manifest
from tests.golden.recording import animate_astronaut, close, levels_off, read_recording

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[2]
KIND = os.environ.get("GPU_CHECK_DEVICE", "cuda")
TINY = KIND == "cpu"
TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2}
RECORDED = read_recording()


@pytest.fixture(scope="module")
def device() -> torch.device:
    """The last GPU: what works there works on the first."""
    if KIND == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    chosen = torch.device("cuda", torch.cuda.device_count() - 1) if KIND == "cuda" else torch.device(KIND)
    devices.use(chosen)
    return chosen


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("stage", STAGES)
def test_losses_of_a_step_are_the_cpus(device: torch.device, stage: str, precision: str) -> None:
    """At the paper's sizes, with few items, so that the CPU is done in seconds; then a second step, after an update."""
    if precision == "bf16" and not devices.computes_bf16(device):
        pytest.skip("this device has no bf16 instructions")
    few = {"fomm": 2, "headpose": 2, "motionfield": 1, "pixels": 1}[stage]
    wanted = Stage(stage, torch.device("cpu"), TINY, few).losses()
    there = Stage(stage, device, TINY, few, precision, channels_last=precision == "bf16")
    found = there.step()
    for name, value in wanted.items():
        assert found[name].item() == pytest.approx(value.item(), rel=TOLERANCE[precision], abs=1e-4), name
    assert all(torch.isfinite(value) for value in there.step().values())


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_does_not_wait_for_the_gpu(device: torch.device, stage: str) -> None:
    """Whoever asks the GPU for a number in the middle of a step lets it run dry."""
    if device.type != "cuda":
        pytest.skip("only a GPU is waited for")
    loop = Stage(stage, device, batch=1, precision="bf16", channels_last=True)
    loop.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loop.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def train(folder: Path, ranks: int = 1, *overrides: str) -> list[dict]:
    """The smallest training script; -> its log. With an average of the weights, which is validated."""
    config = folder.parent / "toy.yaml"
    config.write_text("run: {dir: DIR, max_steps: 12, workers: 2, log_every: 1, validate_every: 6, save_every: 3}\n")
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    options = [f"run.dir={folder}", f"run.device={KIND}", "run.tensorboard=false", "run.ema_decay=0.9", *overrides]
    command = [sys.executable, *start, str(ROOT / "tests" / "toy_training.py"), "--config", str(config), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def equal(one: list[dict], other: list[dict]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert ("val/error" in a) == ("val/error" in b)
        for name in a.keys() & {"square", "absolute", "critic", "val/error"}:
            assert a[name] == pytest.approx(b[name], rel=1e-3), (name, a["step"])


def test_training_goes_on_where_it_stopped(device: torch.device, tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    train(tmp_path / "halves", 1, "run.max_steps=6")
    equal(whole, train(tmp_path / "halves"))


@pytest.mark.parametrize("compiled", ["false", "true"])
def test_two_ranks_are_one_training(device: torch.device, tmp_path: Path, compiled: str) -> None:
    if KIND == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU here")
    equal(train(tmp_path / "one"), train(tmp_path / "two", 2, f"run.compile={compiled}"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_frames_are_the_cpus(device: torch.device, precision: str) -> None:
    """The demo model on the last device, 100 different frames in batches: none is read before it is copied."""
    frames = {}
    for place in (torch.device("cpu"), device):
        models = load_models([DEMO_WEIGHTS], place, ("keypoint_detector", "image_generator"))
        torch.manual_seed(0)
        size, count = models.image_config.image_size, models.image_config.num_keypoints
        picture = torch.rand(1, 3, 8, 8).repeat_interleave(size // 8, 2).repeat_interleave(size // 8, 3).to(place)
        total = 8 if TINY else 100
        moved = 0.05 * torch.randn(total, count, 2)
        with torch.inference_mode():
            source = models.keypoint_detector(picture).keypoints
        driving = source.repeated(total)
        driving = Keypoints(driving.position_BK2 + moved.to(place), driving.jacobian_BK22)
        dtype = AnimationOptions(precision=precision).chosen_dtype(place) if place.type != "cpu" else None
        renderer = Renderer(models.image_generator, picture, source, batch_size=4, truncate=False, dtype=dtype)
        frames[place] = np.concatenate([part.copy() for part in renderer.frames(iter([driving]))]).astype(int)
    difference = np.abs(frames[device] - frames[torch.device("cpu")])
    assert difference.max() <= (1 if precision == "fp32" else 40) and difference.mean() < (
        0.01 if precision == "fp32" else 1
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the released layout, filled as for the recordings of tests/golden."""
    path = tmp_path_factory.mktemp("released") / "audio2head.pth.tar"
    torch.save(filled(read_manifest()), path)
    return path


class RecordedHeadPoses(PredictedHeadPoses):
    """N_H's head poses are held to the recorded ones, and those are drawn.

    Ends of a pose's lines are cut to whole pixels, so that rounding may draw one a pixel further.
    """

    told = 0

    def follow(self, audio_TAF: np.ndarray) -> np.ndarray:
        found_TP = super().follow(audio_TAF)
        rows = np.concatenate([RECORDED["rotation"], RECORDED["translation"]], axis=1)[self.told :]
        self.told += len(found_TP)
        close(found_TP[:, :3], rows[: len(found_TP), :3], 2e-4)  # rad
        close(found_TP[:, 3:], rows[: len(found_TP), 3:], 5e-2)  # mm
        self.after_P = rows[len(found_TP)]
        return rows[: len(found_TP)]


def test_inference_gives_what_the_released_program_gave(
    device: torch.device, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From files to files in float32, every frame's keypoints and the recorded frames (tests/golden/README.md)."""
    monkeypatch.setattr(generate, "PredictedHeadPoses", RecordedHeadPoses)
    animate_astronaut(tmp_path, checkpoint, str(device))
    motion = load_motion(tmp_path / "motion.npz")
    _, windows, slots = RECORDED["emitted"].T
    close(motion.source_keypoints, RECORDED["source_position"], 2e-4)
    close(motion.source_jacobians, RECORDED["source_jacobian"], 2e-4)
    close(motion.keypoints, RECORDED["position"][windows, slots], 5e-4)
    close(motion.jacobians, RECORDED["jacobian"][windows, slots], 5e-4)
    difference = levels_off(tmp_path, RECORDED)
    assert difference.max() <= 3 and (difference > 0).mean() < 0.1


def test_networks_give_what_the_released_program_gave(device: torch.device, checkpoint: Path, extra_data: Path) -> None:
    """As tests/golden on the CPU (tolerance 2e-5 there), on optional recordings: head poses and keypoints."""
    golden = dict(np.load(extra_data / "reference" / "golden_paint.npz"))
    models = load_models([checkpoint], device)
    image = torch.from_numpy(golden["source_image"])[None].to(device)
    audio = torch.from_numpy(golden["audio_features"].astype(np.float32).reshape(-1, 4, 41))[None].to(device)
    with torch.inference_mode():
        pose = models.head_motion_predictor(image, audio)[0].cpu().numpy()
        source = models.keypoint_detector(image).position_BK2.cpu().numpy()
    np.testing.assert_allclose(pose, golden["pose_norm"], rtol=0, atol=2e-4)
    np.testing.assert_allclose(source, golden["kp_source_value"].reshape(1, 10, 2), rtol=0, atol=2e-4)
