"""The two phases of stage three: what they ask of data and networks, and what they take in a step."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

import train_motionfield
from benchmarks.steps import Stage
from datasets.audio import PAPER
from datasets.motionfield import MotionFieldData, MotionFieldDataConfig, Windows
from datasets.targets import NO_HEATMAPS, Targets, TargetStore, decode_heatmap
from datasets.voices import VoiceStore
from engine.checkpoint import save_weights
from engine.config import ConfigError, load
from engine.run import Run, RunConfig
from modules.keypoint_detector import KeypointDetector, KeypointDetectorConfig
from modules.keypoints import DetectedKeypoints
from modules.motion_field_generator import MotionFieldGeneratorConfig
from modules.relative_head import MotionField
from tests.black_corpus import black_corpus
from tests.untrained import randomise_norms

TINY = Path(__file__).parents[2] / "config" / "motionfield_tiny.yaml"
PHASE = train_motionfield.KeypointPhase(train_motionfield.KeypointPhaseConfig(heatmap=2.0))


def test_heatmaps_of_two_sizes_are_refused_before_anything_is_computed(tmp_path: Path, small_weights) -> None:
    """N_D of 128 pixels at a quarter has maps of 32 x 32."""
    save_weights(tmp_path / "fomm.safetensors", small_weights(image_size=128))
    overrides = [f"run.dir={tmp_path / 'run'}", f"fomm.checkpoint={tmp_path / 'fomm.safetensors'}", "synthetic=null"]
    overrides += [f"data.root={tmp_path / 'none'}", "motion_field_generator.map_size=64"]
    with pytest.raises(ConfigError, match=r"32x32, N_M on 64x64.*map_size=32"):
        train_motionfield.main(load(train_motionfield.Config, TINY, overrides))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("ranks", "accumulate"), [(2, 1), (1, 2)])
def test_each_listener_has_a_window_of_every_share(ranks: int, accumulate: int) -> None:
    overrides = ["optim.batch_size=6", "motion_field_generator.relative_head=true", f"run.accumulate={accumulate}"]
    overrides += ["motion_field_generator.hourglass=false", "motion_field_generator.listeners="]
    three, four = (load(train_motionfield.Config, TINY, [*overrides[:-1], overrides[-1] + n]) for n in "34")
    train_motionfield.check_shares(three, ranks)
    train_motionfield.check_shares(load(train_motionfield.Config, TINY, ["optim.batch_size=1"]), ranks=2)
    with pytest.raises(
        ConfigError, match=r"listeners=4 want a window each, but optim.batch_size=6 gives . rank.s. 3 at"
    ):
        train_motionfield.check_shares(four, ranks)


def test_heatmaps_count_until_their_weight_has_decayed() -> None:
    steps = PHASE.heatmap_steps(MotionFieldGeneratorConfig())
    assert PHASE.at(SimpleNamespace(step=1), None) == 2.0
    assert PHASE.at(SimpleNamespace(step=steps), None) > 0 == PHASE.at(SimpleNamespace(step=steps + 1), None)
    assert PHASE.heatmap_steps(MotionFieldGeneratorConfig(relative_head=True)) == 0
    without = train_motionfield.KeypointPhase(train_motionfield.KeypointPhaseConfig(heatmap=0.0))
    assert without.heatmap_steps(MotionFieldGeneratorConfig()) == 0


def test_a_window_and_frame_have_the_same_warp_in_every_batch() -> None:
    phase = train_motionfield.PixelPhase(train_motionfield.PixelPhaseConfig(rendered_frames=2))
    run = SimpleNamespace(settings=SimpleNamespace(seed=3), device=torch.device("cpu"))
    both, alone = (phase.at(run, SimpleNamespace(index=torch.tensor(n))) for n in ([4, 7], [7]))
    assert both.theta_B23.shape == (4, 2, 3)
    assert torch.equal(both.theta_B23[2:], alone.theta_B23) and not torch.equal(both.theta_B23[2], both.theta_B23[3])


def test_chosen_frames_of_windows() -> None:
    field = MotionField(torch.rand(2, 5, 3, 2), torch.rand(2, 5, 3, 2, 2), None)
    keypoints = field.frames(torch.tensor([[0, 4], [2, 2]]))
    assert torch.equal(keypoints.position_BK2, field.position_BTK2[[0, 0, 1, 1], [0, 4, 2, 2]])
    assert torch.equal(keypoints.jacobian_BK22, field.jacobian_BTK22[[0, 0, 1, 1], [0, 4, 2, 2]])
    assert field._replace(jacobian_BTK22=None).frames(torch.tensor([[0], [1]])).jacobian_BK22 is None


def test_targets_are_computed_once_and_for_every_frame(tmp_path: Path) -> None:
    class Clip(SimpleNamespace):
        def read_frames(self, frames: range, size: int) -> np.ndarray:
            return np.array(frames)

    def detect(frames: np.ndarray) -> Targets:
        seen.append(len(frames))
        position = np.broadcast_to(frames[:, None, None], (len(frames), 1, 2)).astype(np.float32)
        return Targets(position, np.zeros((len(frames), 1, 2, 2)), np.zeros((len(frames), 1, 4, 4), np.uint8))

    clips = [Clip(frames=count, row=SimpleNamespace(pictures=f"clip{count}")) for count in (5, 2)]
    store, seen = TargetStore(tmp_path, "key"), []
    assert store.fill(clips, detect, image_size=64, batch_size=4, heatmaps=True) == 2
    assert seen == [4, 1, 2]
    assert store.read("clip5", range(5), heatmaps=True).position_TK2[:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert store.fill(clips, detect, image_size=64, batch_size=4, heatmaps=True) == 0

    def without(frames: np.ndarray) -> Targets:
        return detect(frames)._replace(heatmap_TKHW=NO_HEATMAPS)

    other = TargetStore(tmp_path, "other")
    assert other.fill(clips, without, image_size=64, batch_size=4, heatmaps=False) == 2
    assert other.read("clip5", [4, 1], heatmaps=False).position_TK2[:, 0, 0].tolist() == [4, 1]
    assert other.fill(clips, without, image_size=64, batch_size=4, heatmaps=False) == 0
    assert other.fill(clips, detect, image_size=64, batch_size=4, heatmaps=True) == 2  # those are wanted now


class Clip(SimpleNamespace):
    """Black where this process reads it, white where a worker does."""

    def read_frames(self, frames: range, size: int) -> np.ndarray:
        return np.full((len(frames), size, size, 3), 0 if os.getpid() == self.pid else 255, np.uint8)


class Detector(torch.nn.Module):
    """Finds one keypoint, at the picture's brightness."""

    def forward(self, image_BCHW: torch.Tensor) -> DetectedKeypoints:
        brightness_B12 = image_BCHW.mean((1, 2, 3))[:, None, None].expand(-1, 1, 2)
        return DetectedKeypoints(brightness_B12, None, torch.full((len(image_BCHW), 1, 4, 4), 1 / 16))


class Here(SimpleNamespace):
    """A run without a folder."""

    accelerator = SimpleNamespace(process_index=0, num_processes=1, wait_for_everyone=lambda: None)
    device, is_main, settings = torch.device("cpu"), False, SimpleNamespace(workers=0)
    until_stopped = staticmethod(iter)


CLIP = Clip(frames=5, row=SimpleNamespace(pictures="a"), pid=os.getpid())


@pytest.mark.parametrize("workers", [0, 1])
def test_frames_of_targets_are_loaded_by_the_runs_workers(tmp_path: Path, workers: int) -> None:
    run, store = Here(settings=SimpleNamespace(workers=workers)), TargetStore(tmp_path, "key")
    stage_one, config = train_motionfield.StageOne(Detector(), None, 8), train_motionfield.TargetConfig(batch_size=2)
    train_motionfield.fill_targets(run, store, [CLIP], stage_one, config, heatmaps=False)
    assert (store.read("a", range(5), heatmaps=False).position_TK2 == workers).all()


def test_corpora_that_share_a_folder_have_their_own_targets(tmp_path: Path) -> None:
    """Both have a clip called `a`: one is black, one white."""
    store, found = TargetStore(tmp_path / "kept", "key"), []
    run, stage_one = Here(), train_motionfield.StageOne(Detector(), None, 16)
    for brightness in (0, 255):
        root = black_corpus(tmp_path / str(brightness), {"a": np.zeros(13_700, np.int16)}, brightness)
        data = MotionFieldData(MotionFieldDataConfig(root=str(root)), seed=0, size=16, window=4)
        train_motionfield.fill_targets(
            run, store, data.clips, stage_one, train_motionfield.TargetConfig(), heatmaps=False
        )
        found.append(Windows(data, store, heatmaps_until=0)[0].position_TK2)
    assert (found[0] == 0).all() and (found[1] == 1).all()


class Interrupting(Clip):
    """Somebody presses Ctrl-C while it is read."""

    def pcm(self) -> np.ndarray:
        os.kill(self.pid, signal.SIGINT)
        return np.zeros(self.frames * 640, np.int16)

    def read_frames(self, frames: range, size: int) -> np.ndarray:
        os.kill(self.pid, signal.SIGINT)
        return super().read_frames(frames, size)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("what", ["targets", "voices"])
def test_what_is_computed_before_the_first_step_stops_when_asked(tmp_path: Path, what: str, workers: int) -> None:
    """Clips that are finished stay, those after the signal are not begun."""
    clips = [
        Interrupting(frames=2, row=SimpleNamespace(pictures=f"{n:02}", sound=f"{n:02}"), pid=os.getpid())
        for n in range(20)
    ]
    settings = RunConfig(str(tmp_path / "run"), max_steps=1, device="cpu", workers=workers, tensorboard=False)
    kept, before = tmp_path / "kept", set(psutil.Process().children())
    with pytest.raises(KeyboardInterrupt), Run("motionfield", SimpleNamespace(run=settings)) as run:
        if what == "voices":
            train_motionfield.fill_voices(run, VoiceStore(kept, (1.2,), PAPER), clips)
        stage_one, config = train_motionfield.StageOne(Detector(), None, 8), train_motionfield.TargetConfig()
        train_motionfield.fill_targets(run, TargetStore(kept, "key"), clips, stage_one, config, heatmaps=False)
    assert set(psutil.Process().children()) == before
    names = [path.stem for path in sorted(kept.rglob("*.np*"))]
    assert len(names) < len(clips) and names == [clip.row.pictures for clip in clips[: len(names)]]


@pytest.mark.parametrize(("precision", "off"), [("fp32", 1e-4), ("bf16", 0.05)])
def test_targets_are_what_the_detector_finds(tmp_path: Path, precision: str, off: float) -> None:
    torch.manual_seed(0)
    config = KeypointDetectorConfig(num_keypoints=3, block_expansion=4, max_features=8, num_blocks=2, scale_factor=1.0)
    detector = randomise_norms(KeypointDetector(config)).eval()
    frames_NHWC = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    clip = SimpleNamespace(
        frames=5, row=SimpleNamespace(pictures="a"), read_frames=lambda numbers, _: frames_NHWC[numbers]
    )
    store, stage_one = TargetStore(tmp_path, "key"), train_motionfield.StageOne(detector, None, 32)
    settings = train_motionfield.TargetConfig(batch_size=2, precision=precision)
    train_motionfield.fill_targets(Here(), store, [clip], stage_one, settings, heatmaps=False)
    found = store.read("a", range(5), heatmaps=False)
    with torch.inference_mode():
        wanted = detector(torch.from_numpy(frames_NHWC).permute(0, 3, 1, 2).float() / 255).keypoints
    assert np.allclose(found.position_TK2, wanted.position_BK2, atol=off)
    assert np.allclose(found.jacobian_TK22, wanted.jacobian_BK22, atol=off)


def test_heatmaps_are_kept_where_they_are_looked_at(tmp_path: Path) -> None:
    clips, stage_one = [CLIP], train_motionfield.StageOne(Detector(), None, 8)
    store = TargetStore(tmp_path, "key")
    without, with_them = tmp_path / "key" / "a.npz", []
    config = train_motionfield.TargetConfig(batch_size=2)
    for heatmaps in (False, True, False):
        train_motionfield.fill_targets(Here(), store, clips, stage_one, config, heatmaps)
        with np.load(without) as file:
            with_them.append("heatmap_0" in file)
    assert with_them == [False, True, True]  # what is there already is not thrown away
    stored = store.read("a", [4], heatmaps=True).heatmap_TKHW
    assert stored.dtype == np.uint8 and decode_heatmap(stored.astype(float)).sum() == pytest.approx(1, abs=0.02)


def test_keypoints_of_the_frozen_detector_are_float32_in_a_bf16_training() -> None:
    torch.manual_seed(0)
    config = KeypointDetectorConfig(num_keypoints=2, block_expansion=4, max_features=8, num_blocks=2)
    detector = KeypointDetector(config).eval()
    stage_one = train_motionfield.StageOne(detector, None, 64)
    picture = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        wanted = detector(picture).keypoints
        with torch.autocast("cpu", torch.bfloat16):
            found, in_bf16 = stage_one.keypoints(picture), detector(picture).keypoints
    assert torch.equal(found.position_BK2, wanted.position_BK2) and torch.equal(
        found.jacobian_BK22, wanted.jacobian_BK22
    )
    assert not torch.equal(in_bf16.position_BK2, wanted.position_BK2)


@pytest.mark.parametrize("align_corners", [True, False])
def test_rendered_frames_are_warped_as_the_generator_warps(warped_how: list[bool], align_corners: bool) -> None:
    stage = Stage("pixels", torch.device("cpu"), tiny=True, batch=1)
    stage.module.frozen[0].generator.align_corners = align_corners
    stage.losses()
    assert warped_how == [align_corners]
