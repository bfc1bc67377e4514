"""Convert a published checkpoint to this project's format (safetensors + configuration):

python -m animation.convert audio2head.pth.tar audio2head.safetensors
"""

import argparse
from pathlib import Path

from animation.models import build_networks
from animation.released import read_released
from engine.checkpoint import CheckpointError, save_weights
from engine.command import clean_exit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="audio2head.pth.tar, vox-cpk.pth.tar or vox-adv-cpk.pth.tar")
    parser.add_argument("output", type=Path, help="file to write, e.g. audio2head.safetensors")
    arguments = parser.parse_args()
    with clean_exit(CheckpointError):
        weights = read_released(arguments.checkpoint)
        networks = build_networks(
            weights, source=str(arguments.checkpoint)
        )  # every key is checked before anything is written
        weights.states = {component: network.state_dict() for component, network in networks.items()}
        save_weights(arguments.output, weights)
        print(f"{arguments.output}: {', '.join(weights.states)}")


if __name__ == "__main__":
    main()
