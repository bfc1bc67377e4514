"""Each stage on a single clip: whatever a network can express it must reach there. Minutes; not part of `make test`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow
WINDOW_S = 1.28  # the 32 frames of the motion field's window
ONE_CLIP = (
    "synthetic.clips=1",
    "synthetic.speakers=1",
    f"synthetic.duration_s={WINDOW_S}",
    "validation.split=train",
    "run.tensorboard=false",
)


def train(script: str, config: str, folder: Path, *overrides: str) -> dict:
    """Run a stage; returns the last line of its log."""
    rare = ("run.log_every=50", "run.validate_every=100000", "run.sample_every=100000", "run.save_every=100000")
    command = [sys.executable, f"train_{script}.py", "--config", f"config/{config}.yaml", f"run.dir={folder}", *rare]
    done = subprocess.run([*command, *ONE_CLIP, *overrides], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("overfit")


@pytest.fixture(scope="module")
def stage_one(folder: Path) -> dict:
    falling = ("optim.milestones=[800,1100]", "optim.gamma=0.2", "run.max_steps=1200", "run.ema_decay=0.98")
    return train("fomm", "fomm_tiny", folder / "fomm", f"data.root={folder / 'clip'}", "data.augment=false", *falling)


def test_stage_one(stage_one: dict) -> None:
    assert stage_one["val/psnr"] > 32 and stage_one["val/ssim"] > 0.95


def test_stage_two(folder: Path, stage_one: dict) -> None:
    root = f"data.root={folder / 'clip'}"
    last = train("headpose", "headpose_tiny", folder / "head", root, "run.max_steps=300", "weights.adversarial=0")
    assert last["ssim"] < 0.02
    assert last["val/he"] < 0.25 * last["val/still_he"]


def test_stage_three(folder: Path, stage_one: dict) -> None:
    common = (
        f"data.root={folder / 'clip'}",
        f"fomm.checkpoint={folder / 'fomm'}",
        "motion_field_generator.box_value=1",
        "motion_field_generator.normalise_audio=true",
        "validation.rendered=16",
    )
    falling = ("optim.milestones=[120,700]", "optim.gamma=0.2", "run.max_steps=800", "run.ema_decay=0.98")
    keypoints = train("motionfield", "motionfield_tiny", folder / "field", *common, *falling)
    assert keypoints["val/ke"] < 0.15 * keypoints["val/still_ke"]
    falling = (
        "optim.lr=2.0e-4",
        "optim.milestones=[200]",
        "optim.gamma=0.3",
        "run.max_steps=300",
        "run.ema_decay=0.95",
    )
    start = f"initial_weights={folder / 'field'}"
    pixels = train("motionfield", "motionfield_tiny_pixels", folder / "pixels", *common, *falling, start)
    assert pixels["val/psnr"] > keypoints["val/psnr"]
    assert pixels["val/psnr"] > pixels["val/detected_psnr"] - 0.5  # near what stage one can do
