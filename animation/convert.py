"""Checkpoints -> one file in this project's format (safetensors + configurations):

python -m animation.convert audio2head.pth.tar audio2head.safetensors                         # published weights
python -m animation.convert --half runs/fomm runs/headpose runs/motionfield all.safetensors   # trained stages in one
"""

import argparse
from pathlib import Path

import torch

from animation.weights import build_networks, read_weights
from engine.checkpoint import CheckpointError, Weights, save_weights
from engine.command import clean_exit


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
    arguments = parser.parse_args()
    with clean_exit(CheckpointError):
        weights = read_weights(arguments.checkpoint)
        networks = build_networks(weights, source=", ".join(map(str, arguments.checkpoint)))
        # Every key has been checked before anything is written.
        weights.states = {component: dict(network.state_dict()) for component, network in networks.items()}
        if arguments.half:
            halve(weights)
        save_weights(arguments.output, weights)
        print(f"{arguments.output}: {', '.join(weights.states)}")


if __name__ == "__main__":
    main()
