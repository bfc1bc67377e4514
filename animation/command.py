"""What `inference.py` does with its arguments: one video with a bar and a summary, or a list of them with a report."""

import argparse
import contextlib
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from animation.generate import Animator, judge_outputs
from animation.job import Job, Summary
from animation.lists import FOR_ALL_ROWS, Report, Result, Row, is_whole, log_of, read_pairs, rows_of_folder
from animation.models import load_models
from animation.options import AnimationOptions, OptionError, given
from animation.progress import frame_bar
from animation.stream import Stream
from animation.weights import DEMO_WEIGHTS, NETWORKS, weights_file
from datasets.errors import DataError
from datasets.files import make_folder
from datasets.media.live_sound import LiveSound
from datasets.media.streams import FPS
from datasets.media.video_stream import StreamWriter
from datasets.media.video_writer import remove_frames
from datasets.provenance import Signature
from engine.checkpoint import CheckpointError
from engine.command import LOCK, clean_exit, from_torchrun, only_one, os_error_sentence, peak_memory_mb
from engine.config import ConfigError, load
from engine.device import AUTOCAST

PIPE = Path("-")  # standard input or output
HEAD_MOTION = ("head_pose", "still", "head_motion_scale", "head_return")
NEW_MOTION = (*HEAD_MOTION, "expression_scale", "blink", "look_ahead", "seed")  # what says how motion is made
USER_ERRORS = (DataError, OptionError, CheckpointError, ConfigError)


def make(arguments: argparse.Namespace) -> None:
    """Make what the command line asks for; ends the process with its exit status where that is not 0."""
    with clean_exit(*USER_ERRORS), words_beside_the_video(arguments), contextlib.ExitStack() as alone:
        check_together(arguments)
        name_output(arguments)
        options = load(AnimationOptions, arguments.config, given(arguments))
        place = from_torchrun()
        rows = read_rows(arguments, options)  # judged before the networks are loaded
        for row in rows:
            refuse_without_effect(row, is_list(arguments))
        if not is_list(arguments) and place.rank > 0:
            print(f"note: one video is the work of one process; process {place.rank} has nothing to do")
            return
        if is_list(arguments) and place.rank == 0:
            alone.enter_context(only_one(arguments.pairs or make_folder(arguments.output) / LOCK, "run of this list"))
        networks = needed_networks([row.job for row in rows])
        taken = [file for row in rows for file in (*row.job.inputs, *row.job.outputs)]
        models = load_models(checkpoints(arguments), options.chosen_device(place.local_rank), networks)
        options = load(AnimationOptions, arguments.config, given(arguments), below=models.animation)
        rows = read_rows(arguments, options, models.animation)[place.rank :: place.ranks]
        protected = (*needed_files(arguments), *filter(None, [arguments.report]))
        animator = Animator(models, options, signature(arguments), protected)
        if is_list(arguments):
            report = Report(arguments.report, place.rank, (*taken, *needed_files(arguments)))
            sys.exit(run_list(animator, rows, report, arguments.overwrite, place.rank))
        if arguments.stream is not None:
            run_stream(animator, rows[0].job, arguments)
        else:
            run(animator, rows[0].job)


def run(animator: Animator, job: Job) -> Summary:
    """Make one video with a progress bar and print a summary."""
    start = time.perf_counter()
    with frame_bar(job.output.name) as progress:
        summary = animator.animate(job, progress)
    print_summary(summary, animator, time.perf_counter() - start)
    return summary


def run_stream(animator: Animator, job: Job, arguments: argparse.Namespace) -> None:
    """Write one video that plays while it grows: of a file, or of sound that is still coming."""
    start = time.perf_counter()
    target = None if arguments.stream != PIPE else arguments.standard_output
    if job.audio != PIPE:
        with frame_bar(job.output.name) as progress:
            summary = animator.animate(job, progress, StreamWriter, target=target)
        return print_summary(summary, animator, time.perf_counter() - start)
    judge_outputs(job, animator.protected, into_file=target is None)
    stream = Stream(animator, job.image, job.head_pose)
    for notice in stream.summary.notices:
        print(f"note: {notice}")
    print(f"frames follow the sound by {stream.delay_s:.2f} s and what computing takes", flush=True)
    sound = LiveSound(sys.stdin.buffer, arguments.audio_rate, arguments.audio_channels)
    start, summary = time.perf_counter(), stream.summary
    settings = {"label": animator.options.label, "crf": animator.options.crf}
    with StreamWriter(job.output, target=target, sound=sound, **settings) as writer:
        for frames_NHW3 in stream.frames(sound.blocks()):
            writer.write(frames_NHW3)
            summary.frames += len(frames_NHW3)
    print(f"{summary.frames} frames ({summary.frames / FPS:.2f} s) in {time.perf_counter() - start:.1f} s")


@contextlib.contextmanager
def words_beside_the_video(arguments: argparse.Namespace) -> Iterator[None]:
    """Where the video goes to standard output, what is said goes to standard error."""
    if arguments.stream != PIPE:
        yield
        return
    if sys.stdout is None:
        raise OptionError("--stream - is standard output, which is closed; let it lead somewhere, or name a file")
    arguments.standard_output = sys.stdout.buffer
    with contextlib.redirect_stdout(sys.stderr):
        yield


def run_list(animator: Animator, rows: list[Row], report: Report, overwrite: bool, rank: int) -> int:
    """Make every video of the list that is not there and whole; a row that fails is reported. -> exit status."""
    for number, row in enumerate(rows, 1):
        job = row.job
        print(f"[{number}/{len(rows)}] {job.output}", flush=True)
        result = Result(str(job.output), str(job.image), str(job.audio) if job.audio else None, "made")
        if not overwrite and is_whole(job.output):
            result.status = "there"
            print("is there already; --overwrite makes it again", flush=True)
        else:
            start = time.perf_counter()
            animator.options = row.options
            try:
                if job.frames_dir is not None:
                    remove_frames(job.frames_dir)  # of a video that is not whole, or not wanted any more
                summary = run(animator, job)
                result.frames, result.notes = summary.frames, tuple(summary.notices)
            except Exception as error:  # whatever it is, it must not cost the other rows
                result.status = "failed"
                result.reason, result.log = failure(error, job)
                print(f"error: row for {job.output}: {result.reason}", file=sys.stderr, flush=True)
            result.seconds = round(time.perf_counter() - start, 3)
        report.add(result)
    print("\n".join(report.table()))
    there = f", {report.count('there')} were there" if report.count("there") else ""
    where = f" on rank {rank}" if rank else ""
    print(f"{report.count('made')} of {len(rows)} videos made{there}{where}", flush=True)
    return 2 if report.count("failed") else 0


def failure(error: Exception, job: Job) -> tuple[str, str | None]:
    """-> (what went wrong in one sentence, the file with the traceback if nobody foresaw it)."""
    if isinstance(error, USER_ERRORS):
        return str(error), None
    if isinstance(error, OSError):
        return os_error_sentence(error), None
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "out of memory; choose a smaller --batch-size, or --device cpu", None
    log = log_of(error, job.output)
    first_line = next(iter(str(error).splitlines()), "")
    return f"unexpected {type(error).__name__}: {first_line[:200]} (its traceback is in {log})", str(log)


def print_summary(summary: Summary, animator: Animator, wall_s: float) -> None:
    for notice in summary.notices:
        print(f"note: {notice}")
    duration_s = summary.frames / summary.fps
    stages = ", ".join(f"{stage} {took:.1f}" for stage, took in summary.seconds.items())
    memory = f"{peak_memory_mb():.0f} MB"
    if animator.device.type == "cuda":
        memory += f" + {torch.cuda.max_memory_allocated(animator.device) / 2**20:.0f} MB on the GPU"
    print(f"{summary.frames} frames ({duration_s:.2f} s) in {wall_s:.1f} s: {summary.frames / wall_s:.1f} frames/s,")
    precision = next(name for name, dtype in AUTOCAST.items() if dtype == animator.dtype)
    print(f"{duration_s / wall_s:.2f} x real time in {precision}; seconds by stage: {stages}; peak memory {memory}")
    print(summary.output)


def read_rows(
    arguments: argparse.Namespace, options: AnimationOptions, carried: dict[str, Any] | None = None
) -> list[Row]:
    """All that is to be made. Raises DataError.

    Args:
        carried: options that the weights carry, as soon as these are read.
    """
    if arguments.pairs is not None:
        return read_pairs(arguments.pairs, arguments.config, given(arguments), carried)
    if is_list(arguments):
        if arguments.stream is not None:
            raise OptionError("--stream is of one video; leave it out, or name one picture and one sound")
        if any(getattr(arguments, name) for name in ("motion", "frames_dir", "save_motion")):
            raise OptionError("--motion, --frames-dir and --save-motion are of one video; with a folder, use --pairs")
        if arguments.output is None:
            raise OptionError("give --output, the folder for the videos: --image or --audio is a folder")
        rows = rows_of_folder(arguments.image, arguments.audio, arguments.output, options)
        return [replace(row, job=replace(row.job, head_pose=arguments.head_pose)) for row in rows]
    if arguments.report is not None or arguments.overwrite:
        raise OptionError("--report and --overwrite are for lists: --pairs, or a folder of pictures or sounds")
    return [Row(Job(**{each.name: getattr(arguments, each.name) for each in fields(Job)}), options)]


def needed_networks(jobs: list[Job]) -> tuple[str, ...]:
    """A saved motion needs no audio network, given head poses need no N_H."""
    without = set()
    if all(job.motion for job in jobs):
        without = {"head_motion_predictor", "motion_field_generator"}
    elif all(job.head_pose for job in jobs):
        without = {"head_motion_predictor"}
    return tuple(component for component in NETWORKS if component not in without)


def is_list(arguments: argparse.Namespace) -> bool:
    return arguments.pairs is not None or any(p is not None and p.is_dir() for p in (arguments.image, arguments.audio))


def needed_files(arguments: argparse.Namespace) -> tuple[Path, ...]:
    """Files that this command reads, beside the inputs of its videos: no output may replace them."""
    others = (arguments.pairs, arguments.config, arguments.c2pa_cert, arguments.c2pa_key)
    return (*map(weights_file, arguments.checkpoint or [DEMO_WEIGHTS]), *filter(None, others))


def name_output(arguments: argparse.Namespace) -> None:
    """Where a single video was not given a name, one from its inputs."""
    if arguments.stream is not None:
        arguments.output = arguments.stream
    if arguments.output is None and not is_list(arguments):
        arguments.output = unused_name(f"{arguments.image.stem}_{(arguments.audio or arguments.motion).stem}")
        print(f"note: no --output given: writing {arguments.output}")


def unused_name(stem: str) -> Path:
    """STEM.mp4 in the current folder, or STEM_2.mp4 ... where that is there already."""
    names = (Path(f"{stem}{'' if number == 1 else f'_{number}'}.mp4") for number in itertools.count(1))
    return next(name for name in names if not name.exists())


def check_together(arguments: argparse.Namespace) -> None:
    """Raises OptionError where one of two files, or of a file and an option, would be without effect."""
    if arguments.stream is not None:
        without = {"--output": arguments.output, "--c2pa-cert": arguments.c2pa_cert}
        if arguments.audio == PIPE:
            without |= {f"--{n.replace('_', '-')}": getattr(arguments, n) for n in ("frames_dir", "save_motion")}
        for name in (name for name, value in without.items() if value is not None):
            raise OptionError(f"{name} does not go with --stream; leave it out")
        if arguments.stream != PIPE and arguments.stream.suffix.lower() != ".mp4":
            raise OptionError(f"{arguments.stream}: a stream is an mp4; change the ending")
        if arguments.audio == PIPE and arguments.motion is not None:
            raise OptionError("--motion takes its sound from a file; name one, or leave --motion out")
        if arguments.audio == PIPE and sys.stdin is None:
            raise OptionError("--audio - is standard input, which is closed; let sound come from it, or name a file")
    elif arguments.audio == PIPE:
        raise OptionError("--audio - is sound that is still coming: write it with --stream OUT (or --stream -)")
    if arguments.view == "whole" and arguments.size == "native":
        raise OptionError("--size native gives the networks' own square frames; leave it out for --view whole")


def refuse_without_effect(row: Row, of_list: bool) -> None:
    """Raise OptionError where a row asks for something that another of its options leaves no room for.

    Its options are to be without those that the weights carry: nobody asked for these.
    """
    job, options = row.job, row.options
    asked = [each.name for each in fields(options) if getattr(options, each.name) != each.default]
    if job.head_pose is not None:
        asked.append("head_pose")
    if of_list:  # what counts for all rows may be meant for others
        asked = [name for name in asked if name not in FOR_ALL_ROWS]
    cases = (
        (job.motion is not None, "--motion renders a saved motion as it is", NEW_MOTION),
        (options.still, "--still holds the head", ("head_motion_scale", "head_return")),
        (options.head_motion_scale == 0, "--head-motion-scale 0 holds the head", ("head_return",)),
        (job.head_pose is not None, "--head-pose says where the head is", ("head_return",)),
    )
    where = f"row for {job.output}: " if of_list else ""
    for holds, why, names in cases:
        in_vain = [f"--{name.replace('_', '-')}" for name in names if name in asked]
        if holds and in_vain:
            raise OptionError(f"{where}{why}: {', '.join(in_vain)} would have no effect; leave it out")


def signature(arguments: argparse.Namespace) -> Signature | None:
    return Signature(arguments.c2pa_cert, arguments.c2pa_key) if arguments.c2pa_cert else None


def checkpoints(arguments: argparse.Namespace) -> list[Path]:
    """Those given, or the small demo model that comes with this project."""
    if arguments.checkpoint:
        return arguments.checkpoint
    print(f"note: no --checkpoint given: using the small demo model {DEMO_WEIGHTS.name} (128x128, a few people);")
    print("note: README.md, 'Weights', says how to get better ones or train your own")
    return [DEMO_WEIGHTS]
