"""The four networks, loaded once, from any mixture of checkpoint files and run folders."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from animation.options import CARRIED, AnimationOptions
from animation.weights import NETWORKS, TRAINED_BY, build_networks, component_config, read_weights
from datasets.audio import AudioFeatureConfig
from datasets.pose import RELEASED_RANGE, PoseRange
from engine.checkpoint import CheckpointError, Weights
from engine.config import ConfigError, from_dict
from modules.head_motion_predictor import HeadMotionPredictor, HeadMotionPredictorConfig
from modules.image_generator import ImageGenerator, ImageGeneratorConfig
from modules.keypoint_detector import KeypointDetector, KeypointDetectorConfig
from modules.motion_field_generator import MotionFieldGenerator, MotionFieldGeneratorConfig


@dataclass
class Models:
    """The networks in eval mode on one device, with what their configurations say about using them."""

    keypoint_detector: KeypointDetector
    image_generator: ImageGenerator
    head_motion_predictor: HeadMotionPredictor | None
    motion_field_generator: MotionFieldGenerator | None
    detector_config: KeypointDetectorConfig
    image_config: ImageGeneratorConfig
    head_motion_config: HeadMotionPredictorConfig
    motion_field_config: MotionFieldGeneratorConfig
    pose_range: PoseRange
    audio_features: AudioFeatureConfig
    animation: dict[str, Any]  # animation options that suit these weights; what the user asks for goes before
    device: torch.device


def load_models(paths: list[Path], device: torch.device, needed: tuple[str, ...] = tuple(NETWORKS)) -> Models:
    """Read `paths`, build the networks and move them to `device`.

    Args:
        needed: components that the run cannot do without (N_H is not needed when head poses are given, ...).

    Raises:
        CheckpointError: a file cannot be read, a needed network is missing, or the networks do not fit each other.
    """
    weights = read_weights(paths)
    source = ", ".join(map(str, paths))
    missing = [component for component in needed if component not in weights.states]
    if missing:
        has = ", ".join(c for c in NETWORKS if c in weights.states) or "no network"
        wants = ", ".join(f"{component} ({TRAINED_BY[component]})" for component in missing)
        raise CheckpointError(
            f"{source} holds {has}; still needed: {wants}. Give several checkpoints after --checkpoint"
        )
    networks = build_networks(weights, source)
    for network in networks.values():
        network.eval().requires_grad_(False).to(device)
    models = Models(
        keypoint_detector=networks["keypoint_detector"],
        image_generator=networks["image_generator"],
        head_motion_predictor=networks.get("head_motion_predictor"),
        motion_field_generator=networks.get("motion_field_generator"),
        detector_config=component_config(weights, "keypoint_detector", KeypointDetectorConfig),
        image_config=component_config(weights, "image_generator", ImageGeneratorConfig),
        head_motion_config=component_config(weights, "head_motion_predictor", HeadMotionPredictorConfig),
        motion_field_config=component_config(weights, "motion_field_generator", MotionFieldGeneratorConfig),
        pose_range=from_dict(PoseRange, weights.configs["pose_range"])
        if "pose_range" in weights.configs
        else RELEASED_RANGE,
        audio_features=from_dict(AudioFeatureConfig, weights.configs.get("audio_features", {})),
        animation=weights.configs.get("animation", {}),
        device=device,
    )
    check_carried(models.animation, source)
    _check_fit(models, weights, source)
    return models


def check_carried(animation: dict[str, Any], source: str) -> None:
    """Raises CheckpointError for animation options that no checkpoint may carry, or of wrong values."""
    foreign = sorted(set(animation) - set(CARRIED))
    if foreign:
        raise CheckpointError(f"{source} carries the animation option {foreign[0]!r}; only {', '.join(CARRIED)} may be")
    try:
        from_dict(AnimationOptions, animation)
    except ConfigError as error:
        raise CheckpointError(f"{source} carries animation options that cannot be used: {error}") from error


def _check_fit(models: Models, weights: Weights, source: str) -> None:
    """Networks of different trainings can be combined only if they speak of the same keypoints and picture size."""
    counts = {
        "keypoint_detector": models.detector_config.num_keypoints,
        "image_generator": models.image_config.num_keypoints,
    }
    sizes = {"image_generator": models.image_config.image_size}
    if models.motion_field_generator is not None:
        counts["motion_field_generator"] = models.motion_field_config.num_keypoints
        sizes["motion_field_generator"] = models.motion_field_config.image_size
        if models.motion_field_config.num_features != models.audio_features.count:
            raise CheckpointError(
                f"{source}: motion_field_generator takes {models.motion_field_config.num_features} features of sound,"
                f" but is stored with the setting {models.audio_features} of {models.audio_features.count};"
                " train it again"
            )
    if models.head_motion_predictor is not None and models.head_motion_config.image_size:
        sizes["head_motion_predictor"] = models.head_motion_config.image_size
    for what, values in (("keypoints", counts), ("image size", sizes)):
        if len(set(values.values())) > 1:
            raise CheckpointError(f"{source}: the networks disagree on {what}: {values}; take stages of one training")
