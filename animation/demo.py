"""`make demo`: a portrait that comes with scikit-image speaks a sentence that comes with this project.

The portrait is the NASA photograph of astronaut Eileen Collins (public domain); the voice is synthetic (espeak-ng).
"""

from pathlib import Path

import skimage.data
import torch

from animation.generate import Animator, Job
from animation.models import load_models
from animation.options import AnimationOptions
from animation.untrained import untrained_weights
from datasets.errors import DataError
from datasets.image import write_png
from engine.checkpoint import CheckpointError, save_weights
from engine.command import clean_exit

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"


def main() -> None:
    with clean_exit(DataError, CheckpointError):
        RESULTS.mkdir(exist_ok=True)
        portrait, weights = RESULTS / "portrait.png", RESULTS / "untrained.safetensors"
        write_png(portrait, skimage.data.astronaut())
        save_weights(weights, untrained_weights(image_size=256))
        print("note: no trained weights come with this version: the demo runs on UNTRAINED random weights, made here.")
        print("note: the picture will sway with the sound, not speak; README.md, 'Weights', says how to get more.")
        options = AnimationOptions(device="cpu", keypoint_mode="relative")
        animator = Animator(load_models([weights], torch.device("cpu")), options)
        job = Job(portrait, RESULTS / "demo.mp4", ROOT / "assets" / "speech.wav")
        summary = animator.animate(job)
        print(f"{summary.frames} frames in {sum(summary.seconds.values()):.1f} s: {summary.output}")


if __name__ == "__main__":
    main()
