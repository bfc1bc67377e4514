"""Make a talking-head video from one picture and one sound file (Fig. 2).

    python inference.py --image FACE.jpg --audio SPEECH.wav --checkpoint audio2head.safetensors --output OUT.mp4
    python inference.py --pairs LIST.csv --checkpoint ...              # many; columns image,audio,output
    torchrun --nproc_per_node 4 inference.py --pairs LIST.csv ...      # the rows shared among four GPUs

Every output is marked as synthetic; `python -m datasets.provenance OUT.mp4` shows how.
"""

import argparse
import csv
import sys
import time
from dataclasses import fields
from pathlib import Path

import torch

from animation.generate import Animator, Job, Summary
from animation.models import load_models
from animation.options import AnimationOptions, OptionError, add_arguments, given
from animation.progress import frame_bar
from animation.weights import DEMO_WEIGHTS, NETWORKS
from datasets.errors import DataError
from datasets.provenance import Signature
from engine.checkpoint import CheckpointError
from engine.command import clean_exit, from_torchrun, os_error_sentence, peak_memory_mb
from engine.config import ConfigError, load

USER_ERRORS = (DataError, OptionError, CheckpointError, ConfigError)


def main() -> None:
    arguments = parse_arguments()
    with clean_exit(*USER_ERRORS):
        options = load(AnimationOptions, arguments.config, given(arguments))
        place = from_torchrun()
        jobs = read_pairs(arguments.pairs)[place.rank :: place.ranks] if arguments.pairs else [single_job(arguments)]
        models = load_models(checkpoints(arguments), options.chosen_device(place.local_rank), needed_networks(jobs))
        animator = Animator(models, options, signature(arguments))
        if arguments.pairs:
            sys.exit(run_pairs(animator, jobs, place.rank))
        run(animator, jobs[0])


def run(animator: Animator, job: Job) -> None:
    """Make one video with a progress bar and print a summary."""
    start = time.perf_counter()
    with frame_bar(job.output.name) as progress:
        summary = animator.animate(job, progress)
    print_summary(summary, animator, time.perf_counter() - start)


def run_pairs(animator: Animator, jobs: list[Job], rank: int) -> int:
    """Make every video of the list; a row that fails is reported and the others go on. -> exit status."""
    failed = 0
    for number, job in enumerate(jobs, 1):
        print(f"[{number}/{len(jobs)}] {job.output}", flush=True)
        try:
            run(animator, job)
        except (*USER_ERRORS, OSError) as error:
            failed += 1
            reason = os_error_sentence(error) if isinstance(error, OSError) else error
            print(f"error: row for {job.output}: {reason}", file=sys.stderr, flush=True)
    where = f" on rank {rank}" if rank else ""
    print(f"{len(jobs) - failed} of {len(jobs)} videos made{where}", flush=True)
    return 2 if failed else 0


def print_summary(summary: Summary, animator: Animator, wall_s: float) -> None:
    for notice in summary.notices:
        print(f"note: {notice}")
    duration_s = summary.frames / summary.fps
    stages = ", ".join(f"{stage} {took:.1f}" for stage, took in summary.seconds.items())
    memory = f"{peak_memory_mb():.0f} MB"
    if animator.device.type == "cuda":
        memory += f" + {torch.cuda.max_memory_allocated(animator.device) / 2**20:.0f} MB on the GPU"
    print(f"{summary.frames} frames ({duration_s:.2f} s) in {wall_s:.1f} s: {summary.frames / wall_s:.1f} frames/s,")
    print(f"{duration_s / wall_s:.2f} x real time; seconds by stage: {stages}; peak memory {memory}")
    print(summary.output)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    files = parser.add_argument_group("files")
    files.add_argument("--image", type=Path, help="picture of one person: JPEG, PNG, WebP, BMP ...")
    files.add_argument("--audio", type=Path, help="speech: wav, mp3, flac, m4a, a video's sound track ...")
    files.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        help="weights: .safetensors files, run folders of the training stages, or released .pth.tar files; "
        "several are merged, a later one wins (default: the small demo model of this project)",
    )
    files.add_argument("--output", type=Path, help="mp4 to write")
    files.add_argument("--pairs", type=Path, help="CSV with the columns image,audio,output: one video a row")
    files.add_argument("--config", type=Path, help="YAML with the options below; the command line wins")
    files.add_argument("--frames-dir", type=Path, help="also write every frame as a PNG into this folder")
    files.add_argument("--save-motion", type=Path, help="also write head poses and keypoints to this .npz")
    files.add_argument("--motion", type=Path, help="render a saved motion (.npz); no audio networks are needed")
    files.add_argument(
        "--head-pose", type=Path, help="drive with these head poses: .npz (head_pose [T,6]) or OpenFace .csv"
    )
    files.add_argument("--c2pa-cert", type=Path, help="PEM certificate chain: add a signed C2PA manifest")
    files.add_argument("--c2pa-key", type=Path, help="PEM private key of that certificate")
    add_arguments(parser.add_argument_group("options"))
    arguments = parser.parse_args()
    if arguments.pairs is None and (arguments.image is None or arguments.output is None):
        parser.error("give --image and --output (and --audio), or --pairs")
    if arguments.pairs is not None:
        for name in (each.name for each in fields(Job)):
            if getattr(arguments, name) is not None:
                parser.error(f"--pairs takes its files from the list; leave out --{name.replace('_', '-')}")
    if arguments.audio is None and arguments.motion is None and arguments.pairs is None:
        parser.error("give --audio (only --motion does without)")
    if (arguments.c2pa_cert is None) != (arguments.c2pa_key is None):
        parser.error("--c2pa-cert and --c2pa-key go together")
    return arguments


def single_job(arguments: argparse.Namespace) -> Job:
    return Job(**{each.name: getattr(arguments, each.name) for each in fields(Job)})


def signature(arguments: argparse.Namespace) -> Signature | None:
    return Signature(arguments.c2pa_cert, arguments.c2pa_key) if arguments.c2pa_cert else None


def read_pairs(path: Path) -> list[Job]:
    """Rows image,audio,output of a CSV; names are relative to the current folder. Raises DataError."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"image", "audio", "output"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(
                    f"{path} lacks the column {sorted(missing)[0]}; its first line must name image,audio,output"
                )
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {error}") from error
    if not rows:
        raise DataError(f"{path} has no row below its header")
    for number, row in enumerate(rows, 2):
        if not (row["image"] and row["audio"] and row["output"]):
            raise DataError(f"{path}, line {number}: image, audio and output must all be given")
    outputs = [row["output"] for row in rows]
    if len(set(outputs)) < len(outputs):
        twice = next(name for name in outputs if outputs.count(name) > 1)
        raise DataError(f"{path} names the output {twice} twice; every row needs its own")
    return [Job(Path(row["image"]), Path(row["output"]), Path(row["audio"])) for row in rows]


def checkpoints(arguments: argparse.Namespace) -> list[Path]:
    """Those given, or the small demo model that comes with this project."""
    if arguments.checkpoint:
        return arguments.checkpoint
    print(f"note: no --checkpoint given: using the small demo model {DEMO_WEIGHTS.name} (128x128, a few people);")
    print("note: README.md, 'Weights', says how to get better ones or train your own")
    return [DEMO_WEIGHTS]


def needed_networks(jobs: list[Job]) -> tuple[str, ...]:
    """A saved motion needs no audio network, given head poses need no N_H."""
    without = set()
    if all(job.motion for job in jobs):
        without = {"head_motion_predictor", "motion_field_generator"}
    elif all(job.head_pose for job in jobs):
        without = {"head_motion_predictor"}
    return tuple(component for component in NETWORKS if component not in without)


if __name__ == "__main__":
    main()
