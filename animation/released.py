"""Checkpoints that authors have published: Audio2Head (`audio2head.pth.tar`) and FOMM (`vox-*.pth.tar`).

Where the released Audio2Head differs from the paper, the configurations here say so; parity with the released program
needs exactly these values.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from datasets.pose import RELEASED_RANGE
from engine.checkpoint import CheckpointError, Weights, load_torch_file
from engine.config import to_dict
from modules.head_motion_predictor import HeadMotionPredictorConfig
from modules.image_generator import ImageGeneratorConfig
from modules.keypoint_detector import KeypointDetectorConfig
from modules.motion_field_generator import MotionFieldGeneratorConfig

# Entry of the file -> our component and its configuration.
FOMM_ENTRIES = {
    "kp_detector": ("keypoint_detector", KeypointDetectorConfig()),
    "generator": ("image_generator", ImageGeneratorConfig(truncate_frames=True)),
}
AUDIO2HEAD_ENTRIES = {
    "audio2pose": ("head_motion_predictor", HeadMotionPredictorConfig(image_size=256, first_pose_row=0)),
    "audio2kp": ("motion_field_generator", MotionFieldGeneratorConfig(audio_padding="zeros")),
    **FOMM_ENTRIES,
}
FOMM_TRAINING_ENTRIES = {
    "discriminator",
    "optimizer_generator",
    "optimizer_discriminator",
    "optimizer_kp_detector",
    "epoch",
    "discriminator_full",
    "generator_full",
}


def read_released(path: str | Path) -> Weights:
    """Read a published checkpoint file. Raises CheckpointError when it is neither of the two layouts.

    Keys of the networks are checked one by one when the networks are filled (engine.checkpoint.load_strict).
    """
    data = load_torch_file(path)
    entries: dict[str, Any] = AUDIO2HEAD_ENTRIES if "audio2kp" in data or "audio2pose" in data else FOMM_ENTRIES
    missing = sorted(set(entries) - set(data))
    if missing:
        raise CheckpointError(
            f"{path} is no Audio2Head or FOMM checkpoint: entries {missing} are missing, "
            f"it holds {sorted(map(str, data))[:8]}"
        )
    unexpected = sorted(set(data) - set(entries) - FOMM_TRAINING_ENTRIES)
    if unexpected:
        raise CheckpointError(f"{path} has unexpected entries {unexpected[:5]} beside the networks'")
    weights = Weights()
    for entry, (component, config) in entries.items():
        if not isinstance(data[entry], dict):
            raise CheckpointError(f"{path}: entry {entry!r} is a {type(data[entry]).__name__}, not a state dictionary")
        if strange := [key for key, value in data[entry].items() if not isinstance(value, Tensor)]:
            raise CheckpointError(f"{path}: entry {entry!r} holds {strange[0]!r}, which is no tensor")
        weights.states[component] = data[entry]
        weights.configs[component] = to_dict(config)
    if "head_motion_predictor" in weights.states:
        weights.configs["pose_range"] = to_dict(RELEASED_RANGE)
    return weights
