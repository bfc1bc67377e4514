"""`make demo`: a portrait that comes with scikit-image speaks a sentence that comes with this project.

The portrait is the NASA photograph of astronaut Eileen Collins (public domain); the voice is synthetic (espeak-ng); the
weights are the ones that this project trained (docs/MODEL_CARD.md).
"""

from pathlib import Path

import skimage.data
import torch

from animation.generate import Animator
from animation.job import Job
from animation.models import load_models
from animation.options import AnimationOptions
from animation.progress import frame_bar
from animation.weights import DEMO_WEIGHTS
from datasets.errors import DataError
from datasets.media.image import write_png
from engine.checkpoint import CheckpointError
from engine.command import clean_exit
from engine.config import load

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"


def main() -> None:
    with clean_exit(DataError, CheckpointError):
        RESULTS.mkdir(exist_ok=True)
        portrait = RESULTS / "portrait.png"
        write_png(portrait, skimage.data.astronaut())
        models = load_models([DEMO_WEIGHTS], torch.device("cpu"))
        animator = Animator(models, load(AnimationOptions, overrides=["device=cpu"], below=models.animation))
        job = Job(portrait, RESULTS / "demo.mp4", ROOT / "assets" / "speech.wav")
        with frame_bar(job.output.name) as progress:
            summary = animator.animate(job, progress)
        print(f"{summary.frames} frames in {sum(summary.seconds.values()):.1f} s: {summary.output}")


if __name__ == "__main__":
    main()
