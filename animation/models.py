"""The four networks, loaded once, from any mixture of checkpoint files and run folders."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from animation.released import read_released
from datasets.pose import RELEASED_RANGE, PoseRange
from engine.checkpoint import CheckpointError, Weights, load_strict, load_weights
from engine.config import from_dict
from modules.head_motion_predictor import HeadMotionPredictor, HeadMotionPredictorConfig
from modules.image_generator import ImageGenerator, ImageGeneratorConfig
from modules.keypoint_detector import KeypointDetector, KeypointDetectorConfig
from modules.motion_field_generator import MotionFieldGenerator, MotionFieldGeneratorConfig

NETWORKS: dict[str, tuple[type[nn.Module], type]] = {
    "keypoint_detector": (KeypointDetector, KeypointDetectorConfig),
    "image_generator": (ImageGenerator, ImageGeneratorConfig),
    "head_motion_predictor": (HeadMotionPredictor, HeadMotionPredictorConfig),
    "motion_field_generator": (MotionFieldGenerator, MotionFieldGeneratorConfig),
}
TRAINED_BY = {
    "keypoint_detector": "train_fomm.py",
    "image_generator": "train_fomm.py",
    "head_motion_predictor": "train_headpose.py",
    "motion_field_generator": "train_motionfield.py",
}
RUN_WEIGHTS = "weights.safetensors"
DEMO_WEIGHTS = Path(__file__).resolve().parents[1] / "assets" / "demo.safetensors"  # docs/MODEL_CARD.md


@dataclass
class Models:
    """The networks in eval mode on one device, with what their configurations say about using them."""

    keypoint_detector: KeypointDetector
    image_generator: ImageGenerator
    head_motion_predictor: HeadMotionPredictor | None
    motion_field_generator: MotionFieldGenerator | None
    image_config: ImageGeneratorConfig
    head_motion_config: HeadMotionPredictorConfig
    motion_field_config: MotionFieldGeneratorConfig
    pose_range: PoseRange
    device: torch.device


def read_weights(paths: list[Path]) -> Weights:
    """Merge checkpoints; a component found twice is taken from the later path. Raises CheckpointError."""
    merged = Weights()
    for path in paths:
        weights = _read_one(Path(path))
        merged.states.update(weights.states)
        extra = {"pose_range"} if "head_motion_predictor" in weights.states else set()
        merged.configs.update(
            {key: weights.configs[key] for key in weights.configs.keys() & (weights.states.keys() | extra)}
        )
    return merged


def _read_one(path: Path) -> Weights:
    if path.is_dir():
        file = path / RUN_WEIGHTS
        if not file.is_file():
            raise CheckpointError(
                f"{path} is a folder without {RUN_WEIGHTS}; give a run folder of a finished or saved stage"
            )
        return load_weights(file)
    return load_weights(path) if path.suffix == ".safetensors" else read_released(path)


def build_networks(weights: Weights, source: str) -> dict[str, nn.Module]:
    """Construct every component of `weights` from its configuration and fill it strictly. Raises CheckpointError."""
    networks = {}
    for component, state in weights.states.items():
        if component not in NETWORKS:
            raise CheckpointError(f"{source} holds an unknown network {component!r}; known: {', '.join(NETWORKS)}")
        network_class, config_class = NETWORKS[component]
        config = component_config(weights, component, config_class)
        network = network_class(config)
        load_strict(network, state, f"{source}, {component}")
        networks[component] = network
    return networks


def component_config(weights: Weights, component: str, config_class: type) -> Any:
    """The typed configuration stored beside a component; the class's defaults when the component is absent."""
    return from_dict(config_class, weights.configs.get(component, {}), source=f"configuration of {component}")


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
        image_config=component_config(weights, "image_generator", ImageGeneratorConfig),
        head_motion_config=component_config(weights, "head_motion_predictor", HeadMotionPredictorConfig),
        motion_field_config=component_config(weights, "motion_field_generator", MotionFieldGeneratorConfig),
        pose_range=from_dict(PoseRange, weights.configs["pose_range"])
        if "pose_range" in weights.configs
        else RELEASED_RANGE,
        device=device,
    )
    _check_fit(models, weights, source)
    return models


def _check_fit(models: Models, weights: Weights, source: str) -> None:
    """Networks of different trainings can be combined only if they speak of the same keypoints and picture size."""
    detector = component_config(weights, "keypoint_detector", KeypointDetectorConfig)
    counts = {"keypoint_detector": detector.num_keypoints, "image_generator": models.image_config.num_keypoints}
    sizes = {"image_generator": models.image_config.image_size}
    if models.motion_field_generator is not None:
        counts["motion_field_generator"] = models.motion_field_config.num_keypoints
        sizes["motion_field_generator"] = models.motion_field_config.image_size
    for what, values in (("keypoints", counts), ("image size", sizes)):
        if len(set(values.values())) > 1:
            raise CheckpointError(f"{source}: the networks disagree on {what}: {values}; take stages of one training")
