"""Checkpoints -> networks: which networks there are, and how files and run folders are read into them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from animation.released import read_released
from datasets.audio import AudioFeatureConfig
from engine.checkpoint import CheckpointError, Weights, file_kind, load_strict, load_weights
from engine.config import from_dict, to_dict
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
LISTENERS = {"head_motion_predictor", "motion_field_generator"}  # networks that hear features of sound
LARGEST_NUMBER = 8192  # in the configuration of a network: wider, deeper or larger there is none; ours
SPARE_NUMBERS = 10**8  # of a network, 400 MB, that its file may lack: `load_strict` then says which; ours
RUN_WEIGHTS = "weights.safetensors"
DEMO_WEIGHTS = Path(__file__).resolve().parents[1] / "assets" / "demo.safetensors"  # docs/MODEL_CARD.md


def read_weights(paths: list[Path], tensors: bool = True) -> Weights:
    """Merge checkpoints; a component found twice is taken from the later path.

    Args:
        tensors: False: configurations alone, and no tensors, but of released files.

    Raises:
        CheckpointError: a file cannot be read, or N_H and N_M have learned from different features of sound.
    """
    merged = Weights()
    heard: dict[str, AudioFeatureConfig] = {}
    for path in paths:
        weights = _read_one(Path(path), tensors)
        setting = from_dict(AudioFeatureConfig, weights.configs.get("audio_features", {}), f"audio_features of {path}")
        heard |= {component: setting for component in LISTENERS & weights.states.keys()}
        merged.states.update(weights.states)
        extra = {"pose_range"} if "head_motion_predictor" in weights.states else set()
        if "motion_field_generator" in weights.states:  # which motion is too small depends on it
            extra.add("animation")
            merged.configs.pop("animation", None)
        merged.configs.update(
            {key: weights.configs[key] for key in weights.configs.keys() & (weights.states.keys() | extra)}
        )
    if len(set(heard.values())) > 1:
        found = ", ".join(f"{component}: {setting}" for component, setting in sorted(heard.items()))
        raise CheckpointError(f"the networks hear different features of sound ({found}); take stages of one training")
    if heard:
        merged.configs["audio_features"] = to_dict(next(iter(heard.values())))
    return merged


def weights_file(path: Path) -> Path:
    """The file that is read for a checkpoint: itself, or that of a run folder."""
    return path / RUN_WEIGHTS if path.is_dir() else path


def _read_one(path: Path, tensors: bool) -> Weights:
    if path.is_dir():
        file = weights_file(path)
        if not file.is_file():
            raise CheckpointError(
                f"{path} is a folder without {RUN_WEIGHTS}; give a run folder of a finished or saved stage"
            )
        return load_weights(file, tensors)
    return load_weights(path, tensors) if file_kind(path) == "safetensors" else read_released(path)


def build_networks(weights: Weights, source: str) -> dict[str, nn.Module]:
    """Construct every component of `weights` from its configuration and fill it strictly. Raises CheckpointError."""
    networks = {}
    for component, state in weights.states.items():
        if component not in NETWORKS:
            raise CheckpointError(f"{source} holds an unknown network {component!r}; known: {', '.join(NETWORKS)}")
        network_class, config_class = NETWORKS[component]
        config = component_config(weights, component, config_class)
        if (most := max(_whole_numbers(to_dict(config)), default=0)) > LARGEST_NUMBER:
            raise CheckpointError(f"{source}, {component}: its configuration holds {most}, which cannot be")
        with _no_larger_than(sum(tensor.numel() for tensor in state.values()), f"{source}, {component}"):
            network = network_class(config)
        load_strict(network, state, f"{source}, {component}")
        networks[component] = network
    return networks


@contextlib.contextmanager
def _no_larger_than(numbers: int, source: str) -> Iterator[None]:
    """Raises CheckpointError as soon as a network that is built in the block has far more parameters than that.

    A damaged configuration can ask for any: it is stopped before their memory is touched.
    """
    left = 2 * numbers + SPARE_NUMBERS

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        left -= parameter.numel() if parameter is not None else 0
        if left < 0:
            raise CheckpointError(f"{source}: its configuration wants far more than the {numbers} numbers there")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    except (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        if isinstance(error, CheckpointError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{source}: no network can be made from its configuration ({reason})") from error
    finally:
        hook.remove()


def _whole_numbers(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _whole_numbers(inner)
    elif isinstance(value, int):
        yield value


def component_config(weights: Weights, component: str, config_class: type) -> Any:
    """The typed configuration stored beside a component; the class's defaults when the component is absent."""
    return from_dict(config_class, weights.configs.get(component, {}), source=f"configuration of {component}")
