"""Checkpoints of all kinds become networks, or one sentence says why not."""

import pytest
import torch

from animation.models import load_models
from animation.released import read_released
from animation.weights import build_networks
from engine.checkpoint import CheckpointError, save_weights


def test_a_checkpoint_of_another_stage_says_what_is_missing(tmp_path, small_weights):
    weights = small_weights()
    del weights.states["motion_field_generator"], weights.states["head_motion_predictor"]
    save_weights(tmp_path / "fomm.safetensors", weights)
    with pytest.raises(CheckpointError, match=r"holds keypoint_detector, image_generator.*train_motionfield.py"):
        load_models([tmp_path / "fomm.safetensors"], torch.device("cpu"))


def test_networks_of_different_trainings_are_refused(tmp_path, small_weights):
    save_weights(tmp_path / "a.safetensors", small_weights())
    other = small_weights(num_keypoints=4)
    other.states = {"motion_field_generator": other.states["motion_field_generator"]}
    save_weights(tmp_path / "b.safetensors", other)
    with pytest.raises(CheckpointError, match="disagree on keypoints"):
        load_models([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], torch.device("cpu"))


def test_a_head_motion_predictor_of_other_pictures_is_refused(tmp_path, small_weights):
    """It would take them without a word. Weights that do not tell the size are taken as they are."""
    weights = small_weights(image_size=128)
    for size, fits in ((0, True), (128, True), (64, False)):
        weights.configs["head_motion_predictor"]["image_size"] = size
        save_weights(tmp_path / "all.safetensors", weights)
        if fits:
            load_models([tmp_path / "all.safetensors"], torch.device("cpu"))
            continue
        with pytest.raises(CheckpointError, match=r"disagree on image size.*'head_motion_predictor': 64"):
            load_models([tmp_path / "all.safetensors"], torch.device("cpu"))


def test_released_layout_with_a_wrong_key_is_refused_by_name(tmp_path):
    torch.save({"kp_detector": {"bogus": torch.zeros(1)}, "generator": {}, "epoch": 3}, tmp_path / "vox.pth.tar")
    weights = read_released(tmp_path / "vox.pth.tar")
    with pytest.raises(CheckpointError, match=r"vox.pth.tar, keypoint_detector.*unexpected bogus"):
        build_networks(weights, str(tmp_path / "vox.pth.tar"))
    torch.save({"model": {}}, tmp_path / "x.pth.tar")
    with pytest.raises(CheckpointError, match="no Audio2Head or FOMM checkpoint"):
        read_released(tmp_path / "x.pth.tar")
