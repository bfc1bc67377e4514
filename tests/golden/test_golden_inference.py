"""Parity of each network by itself with the released program, on larger recordings that are optional (README.md)."""

import itertools
import json
import sys

import numpy as np
import pytest
import torch

from animation.head_poses import GivenHeadPoses, PredictedHeadPoses
from animation.models import load_models
from animation.motion import generate_keypoints, steps
from animation.render import Renderer
from datasets.pose import BOX_POINTS_MM, RELEASED_RANGE, project, render_boxes
from engine.checkpoint import CheckpointError
from modules.fuse import fuse_for_inference
from modules.keypoints import Keypoints

T = 149


@pytest.fixture(scope="module")
def reference(extra_data):
    return extra_data / "reference"


@pytest.fixture(scope="module")
def golden(reference):
    return dict(np.load(reference / "golden_paint.npz"))


@pytest.fixture(scope="module")
def models(checkpoint):
    return load_models([checkpoint], torch.device("cpu"))


@pytest.fixture(scope="module")
def image(golden):
    return torch.from_numpy(golden["source_image"])[None]


@pytest.fixture(scope="module")
def audio(golden):
    return golden["audio_features"].astype(np.float32).reshape(T, 4, 41)


@pytest.fixture
def golden_poses(golden):
    rows = np.concatenate([golden["rot"], golden["trans"]], axis=1)  # (T + 1, 6)
    return GivenHeadPoses(rows[:T], rows[-1])


def close(actual, expected, atol):
    np.testing.assert_allclose(np.asarray(actual, np.float64), np.asarray(expected, np.float64), rtol=0, atol=atol)


def golden_keypoints(golden, frames):
    where = {int(frame): (window, slot) for frame, window, slot in golden["emitted"]}
    value = np.stack([golden["kp_value"][where[f]] for f in frames])
    jacobian = np.stack([golden["kp_jacobian"][where[f]] for f in frames])
    return Keypoints(torch.from_numpy(value), torch.from_numpy(jacobian))


def test_head_pose_rows_equal_the_released_ones(models, golden, image, audio):
    with torch.inference_mode():
        rows = models.head_motion_predictor(image, torch.from_numpy(audio)[None])[0]
    close(rows, golden["pose_norm"], 2e-5)
    poses = PredictedHeadPoses(models, image)
    pose_TP = poses.follow(audio)
    close(pose_TP[:, :3], golden["rot"][:T], 2e-5)  # released: frame i is drawn with row i
    close(pose_TP[:, 3:], golden["trans"][:T], 5e-3)
    close(poses.after_P[:3], golden["rot"][T], 2e-5)


def test_denormalised_pose_and_pictures_are_exact(golden):
    rows = np.concatenate([golden["rot"], golden["trans"]], axis=1)
    np.testing.assert_array_equal(RELEASED_RANGE.denormalise(golden["pose_norm"]), rows)
    pictures = np.unpackbits(golden["pose_boxes_packed"], axis=1).reshape(-1, 256, 256) * 255
    np.testing.assert_array_equal(render_boxes(rows), pictures)
    close(project(BOX_POINTS_MM, rows[7]), golden["pose_box_points2d"][7], 1e-4)


def test_boxes_that_cross_the_border_are_those_of_current_opencv(reference):
    extra = np.load(reference / "golden_extra.npz")
    boxes = render_boxes(np.concatenate([extra["raster_rot"], extra["raster_trans"]], axis=1))
    expected = np.unpackbits(extra["raster_cv500_packed"], axis=1).reshape(-1, 256, 256) * 255
    np.testing.assert_array_equal(boxes, expected)


def test_source_keypoints_equal_the_released_ones(models, golden, image):
    with torch.inference_mode():
        detected = models.keypoint_detector(image)
    close(detected.position_BK2, golden["kp_source_value"].reshape(1, 10, 2), 2e-5)
    close(detected.jacobian_BK22, golden["kp_source_jacobian"].reshape(1, 10, 2, 2), 2e-5)


REWRITES = {
    "plain": lambda network: network,
    "fused": fuse_for_inference,
    "fused for float32 on a CPU": lambda network: fuse_for_inference(network, torch.float32),
}


@pytest.mark.parametrize("rewritten", REWRITES.values(), ids=REWRITES)
def test_keypoints_of_every_frame_equal_the_released_ones(models, golden, image, audio, golden_poses, rewritten):
    generator = rewritten(models.motion_field_generator)
    chunks = list(generate_keypoints(models, generator, image, [audio], golden_poses))
    assert [len(c.position_BK2) for c in chunks] == [48, 32, 32, 32, 5]
    keypoints, expected = Keypoints.cat(chunks), golden_keypoints(golden, range(T))
    close(keypoints.position_BK2, expected.position_BK2, 5e-5)
    close(keypoints.jacobian_BK22, expected.jacobian_BK22, 5e-5)


def test_motion_field_inputs_equal_the_released_ones(models, golden, image):
    generator = models.motion_field_generator
    boxes = np.unpackbits(golden["pose_boxes_packed"], axis=1).reshape(-1, 256, 256)[:64] * np.uint8(255)
    with torch.inference_mode():
        close(generator.pose_map(torch.from_numpy(boxes)[None])[0], golden["w0_pose64"], 1e-3)
        close(generator.image_map(image)[0], golden["w0_id64"], 1e-5)


@pytest.mark.parametrize("rewritten", REWRITES.values(), ids=REWRITES)
def test_rendered_frames_equal_the_released_ones(models, golden, image, rewritten):
    generator = rewritten(models.image_generator)
    source = Keypoints(
        torch.from_numpy(golden["kp_source_value"]).reshape(1, 10, 2),
        torch.from_numpy(golden["kp_source_jacobian"]).reshape(1, 10, 2, 2),
    )
    with torch.inference_mode():
        rendering = generator(image, golden_keypoints(golden, golden["out_frames_idx"]), source)
    close(rendering.motion.occlusion_B1HW, golden["out_occlusion_map"], 2e-5)
    close(rendering.motion.deformation_BHW2, golden["out_deformation"], 2e-5)
    close(rendering.motion.mask_BNHW, golden["out_mask"], 5e-4)
    close(rendering.image_BCHW, golden["out_prediction"], 1e-4)
    close(rendering.motion.sparse_deformed_BNCHW[0], golden["out0_sparse_deformed"], 1e-3)


def test_chained_frames_follow_the_released_ones(models, golden, image, audio):
    """From sound and picture to 8-bit frames with nothing taken from the goldens on the way: every 12th frame."""
    poses = PredictedHeadPoses(models, image)
    chunks = list(generate_keypoints(models, fuse_for_inference(models.motion_field_generator), image, [audio], poses))
    frames = list(range(0, T, 12))
    picked = Keypoints.cat(chunks).map(lambda part: part[frames])
    with torch.inference_mode():
        source = models.keypoint_detector(image).keypoints
    renderer = Renderer(fuse_for_inference(models.image_generator), image, source, batch_size=4, truncate=True)
    pictures = np.concatenate(list(renderer.frames(iter([picked])))).astype(np.float64)
    means = pictures.mean(axis=(1, 2)) / 255
    close(means, golden["pred_mean_rgb"][frames], 4e-3)  # truncation alone lowers the mean by 2e-3
    blocks = pictures.reshape(len(frames), 8, 32, 8, 32, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2) / 255
    close(blocks, golden["pred_block_mean_8x8"][frames], 1e-2)


def test_windows_are_the_released_loop(reference):
    for frames, expected in json.loads((reference / "emission_schedule.json").read_text()).items():
        due = list(itertools.takewhile(lambda step, frames=int(frames): step.first < frames, steps(64, 16)))
        assert len(due) == expected["windows_run"]
        local = [[step.first - step.start, min(step.stop, int(frames)) - step.start - 1] for step in due]
        assert local == expected["emitted_local_first_last_per_window"]


def test_converted_checkpoint_holds_the_same_networks(checkpoint, models, tmp_path, monkeypatch, capsys):
    from animation import convert

    output = tmp_path / "audio2head.safetensors"
    monkeypatch.setattr(sys, "argv", ["convert", str(checkpoint), str(output)])
    convert.main()
    again = load_models([output], torch.device("cpu"))
    assert again.head_motion_config == models.head_motion_config and again.head_motion_config.first_pose_row == 0
    assert again.motion_field_config.audio_padding == "zeros" and again.image_config.truncate_frames
    assert again.pose_range == RELEASED_RANGE
    for name in ("keypoint_detector", "image_generator", "head_motion_predictor", "motion_field_generator"):
        expected = getattr(models, name).state_dict()
        assert all(torch.equal(expected[k], v) for k, v in getattr(again, name).state_dict().items())


def test_fomm_training_checkpoint_loads_and_combines_with_audio2head(checkpoint, models, reference, tmp_path):
    """vox-cpk.pth.tar holds N_D and N_I beside the discriminator and optimizers; given later, its networks win."""
    data = torch.load(checkpoint, weights_only=True)
    fomm = {"generator": data["generator"], "kp_detector": {k: v.clone() for k, v in data["kp_detector"].items()}}
    fomm["kp_detector"]["kp.bias"] += 1
    fomm |= {"discriminator": {}, "optimizer_generator": {"state": {}, "param_groups": []}, "epoch": np.int64(99)}
    torch.save(fomm, tmp_path / "vox-cpk.pth.tar")
    both = load_models([checkpoint, tmp_path / "vox-cpk.pth.tar"], torch.device("cpu"))
    assert torch.allclose(both.keypoint_detector.kp.bias, models.keypoint_detector.kp.bias + 1)
    data["generator"]["bogus.weight"] = torch.zeros(1)
    torch.save(data, tmp_path / "wrong.pth.tar")
    with pytest.raises(CheckpointError, match=r"wrong.pth.tar, image_generator.*unexpected bogus.weight"):
        load_models([tmp_path / "wrong.pth.tar"], torch.device("cpu"))
