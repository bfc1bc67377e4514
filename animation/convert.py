"""Checkpoints -> one file in this project's format (safetensors + configurations):

python -m animation.convert audio2head.pth.tar audio2head.safetensors                         # published weights
python -m animation.convert --half runs/fomm runs/headpose runs/motionfield all.safetensors   # trained stages in one
python -m animation.convert --animation expression_scale=2.0 all.safetensors all.safetensors  # what suits them
"""

import argparse
from pathlib import Path

import torch

from animation.models import check_carried
from animation.options import CARRIED, AnimationOptions
from animation.weights import build_networks, read_weights
from engine.checkpoint import CheckpointError, Weights, save_weights
from engine.command import clean_exit
from engine.config import ConfigError, load, to_dict


def halve(weights: Weights) -> None:
    """Keep matrices and kernels in 16 bits; what is smaller stays in 32. Networks are filled in float32 from either."""
    for state in weights.states.values():
        for key, value in state.items():
            if value.dtype == torch.float32 and value.ndim > 1:
                state[key] = value.half()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="+", help="files or run folders, as inference.py takes them")
    parser.add_argument("output", type=Path, help="file to write, e.g. audio2head.safetensors")
    parser.add_argument("--half", action="store_true", help="16-bit kernels: half the size")
    parser.add_argument(
        "--animation",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"an option that inference takes where the user says none: {', '.join(CARRIED)}",
    )
    arguments = parser.parse_args()
    with clean_exit(CheckpointError, ConfigError):
        if arguments.output.is_dir():
            raise CheckpointError(
                f"{arguments.output} is a folder, but stands where the file to write belongs; name that one last"
            )
        weights = read_weights(arguments.checkpoint)
        if arguments.animation:
            options = to_dict(load(AnimationOptions, None, arguments.animation, weights.configs.get("animation")))
            keys = {text.partition("=")[0] for text in arguments.animation} | set(weights.configs.get("animation", {}))
            weights.configs["animation"] = {key: options[key] for key in sorted(keys)}
            check_carried(weights.configs["animation"], "--animation")
        networks = build_networks(weights, source=", ".join(map(str, arguments.checkpoint)))
        # Every key has been checked before anything is written.
        weights.states = {component: dict(network.state_dict()) for component, network in networks.items()}
        if arguments.half:
            halve(weights)
        save_weights(arguments.output, weights)
        print(f"{arguments.output}: {', '.join(weights.states)}")


if __name__ == "__main__":
    main()
