"""First contact with a GPU: does everything work there, and how fast. One command, at most ten minutes, one report.

    make gpu-check
    python -m benchmarks.gpu_check --output results/gpu_check --minutes 10

Runs the tests marked `gpu` (each stage's step at the paper's sizes beside the CPU's, resume, average, renderer, parity,
two ranks where there are two cards), then measures how long training waits for data, whole videos, rendering and
training, and writes report.json and report.md. Exit code 1: a test failed; 2: there is no CUDA device. What no time was
left for is named in the report. What may take unknown time (tests, compiling) runs in processes of its own, which are
ended when the time is up.

`--device cpu` tries this command itself, in tiny sizes; its numbers mean nothing.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import soundfile
import torch
from torch.utils.flop_counter import FlopCounterMode

from animation.generate import Animator, Job
from animation.models import load_models
from animation.options import AnimationOptions
from animation.render import Renderer
from animation.weights import DEMO_WEIGHTS
from benchmarks.inference import paper_sized_models
from benchmarks.steps import STAGES, Stage
from datasets.media.image import write_png
from datasets.media.streams import FPS
from engine import device as devices
from modules.fuse import fuse_for_inference
from modules.image_generator import DenseMotionConfig, ImageGenerator, ImageGeneratorConfig
from modules.keypoints import Keypoints

ROOT = Path(__file__).resolve().parents[1]
SHARE_OF_TESTS = 0.5  # of the time
LEAST_S = 20.0  # with less time left nothing is begun,
LEAST_TO_COMPILE_S = 75.0  # nothing that compiles,
LEAST_FOR_A_RUN_S = 60.0  # and no whole training or video
AIMS = (
    "1,000 rendered frames/s, 20 x real time end to end, training at twice plain eager, below 5 % of the time waiting "
    "for data (one H200)"
)
PLAIN = {"precision": "fp32", "channels_last": False, "compiled": False}
# What is compared in training. Stage one's preset (config/fomm_vox.yaml) asks for the last, the other stages' for the
# one before it; compiling the two phases of stage three is a switch that only a GPU can judge.
MODES: dict[str, dict[str, Any]] = {
    "plain fp32": PLAIN,
    "bf16": PLAIN | {"precision": "bf16"},
    "bf16, channels last": PLAIN | {"precision": "bf16", "channels_last": True},
    "bf16, channels last, compiled": PLAIN | {"precision": "bf16", "channels_last": True, "compiled": True},
}


class Clock:
    """How much of the time is left."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes

    def left(self) -> float:
        return max(0.0, self.end - time.monotonic())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--output", type=Path, default=Path("results/gpu_check"), help="folder of the report")
    parser.add_argument("--minutes", type=float, default=10.0, help="time for everything")
    parser.add_argument("--skip-tests", action="store_true", help="measure only")
    parser.add_argument("--measure", nargs=2, metavar=("TABLE", "NUMBER"), help="one mode of a table, as JSON")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu-check: torch sees no CUDA device here; run it on a machine with one", file=sys.stderr)
        return 2
    device, tiny = torch.device(options.device), options.device == "cpu"
    if options.measure:
        devices.use(device)
        table, number = options.measure
        print(json.dumps(measured(TABLES[table](device, tiny)[int(number)], device, tiny)))
        return 0
    clock = Clock(options.minutes)
    report: dict[str, Any] = {"machine": machine(device), "aims": AIMS, "left_out": []}
    left_out, tables = report["left_out"], {name: Rows() for name in TABLES}
    try:
        report["tests"] = [] if options.skip_tests else run_tests(options.device, SHARE_OF_TESTS * clock.left())
        devices.use(device)
        report["data"] = data_wait(options.device, clock, left_out)
        report["end_to_end"] = end_to_end(device, tiny, clock, left_out)
        for compiled in (False, True):  # how long compiling takes is not known, so it comes last
            for name, table in tables.items():
                fill(table, name, device, tiny, compiled, clock, left_out)
    finally:  # whatever breaks, what was found is kept
        report |= {name: compared(table) for name, table in tables.items()}
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "report.json").write_text(json.dumps(report, indent=1) + "\n")
        (options.output / "report.md").write_text(markdown(report))
    print(markdown(report))
    print(f"{options.output}/report.md")
    return int(any(test["outcome"] == "failed" for test in report["tests"]))


def machine(device: torch.device) -> dict[str, Any]:
    """Card, driver and versions."""
    found = {"torch": torch.__version__, "python": platform.python_version(), "cpu_cores": os.cpu_count()}
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(0)
        found |= {"card": card.name, "cards": torch.cuda.device_count(), "memory_gb": round(card.total_memory / 1e9, 1)}
        found |= {"driver": driver(), "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        found |= {"bf16": devices.computes_bf16(device)}
    else:
        found["card"] = f"CPU, {torch.get_num_threads()} threads"
    return found


def driver() -> str:
    """Version of NVIDIA's driver, by the program that comes with it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "unknown"
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()[0]


def run_within(limit_s: float, command: list[str], **how: Any) -> subprocess.CompletedProcess:
    """Run a command in ROOT; when its time is up, end it and all that it started, torchrun's workers too.

    Those lie in sessions of their own, so that no signal to a process group reaches them.

    Raises:
        subprocess.TimeoutExpired: the time was up.
    """
    with subprocess.Popen(command, cwd=ROOT, text=True, **how) as process:
        try:
            stdout, stderr = process.communicate(timeout=limit_s)
        except BaseException:
            family = []
            with contextlib.suppress(psutil.NoSuchProcess):
                family = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            for each in family:
                with contextlib.suppress(psutil.NoSuchProcess):  # it ended with its parent
                    each.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def run_tests(kind: str, limit_s: float, folder: Path = ROOT / "tests" / "gpu") -> list[dict[str, str]]:
    """The tests marked gpu, in a process of their own -> name and outcome of each; "failed" names its reason.

    Outcomes are written as they come, so those of a run that was ended or broke down are there.
    """
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "outcomes.jsonl"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
        command += ["-p", "benchmarks.outcomes", f"--outcomes={path}", str(folder)]
        try:
            status = run_within(limit_s, command, env=os.environ | {"GPU_CHECK_DEVICE": kind}).returncode
            why = f"pytest ended with {status}"
        except subprocess.TimeoutExpired:
            status, why = None, f"not done after {limit_s:.0f} s"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    failed = any(test["outcome"] == "failed" for test in found)
    if status is None or not found or (status and not failed):
        found.append({"test": "tests/gpu", "outcome": "failed", "why": why})
    return found


def timed(work: Callable[[], object], device: torch.device, least_s: float) -> float:
    """Seconds a call, over at least `least_s` seconds, after two to warm up."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    work()
    work()
    wait()
    start, calls = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < least_s or not calls:
        work()
        wait()
        calls += 1
    return passed / calls


def peak_memory_gb(device: torch.device) -> float | None:
    return round(torch.cuda.max_memory_allocated(device) / 1e9, 2) if device.type == "cuda" else None


class Work(NamedTuple):
    """What a mode does again and again."""

    call: Callable[[], object]
    items: int  # of a call
    counted: Callable[[], object] | None  # what torch's counter sees of `counted_items`; None: nothing, it is compiled
    counted_items: int = 1


class Mode(NamedTuple):
    """One row of a table. The modes of a table, or of a stage in it, are compared with their first."""

    labels: dict[str, str]
    make: Callable[[], Work]
    precision: str = "bf16"
    compiled: bool = False  # runs in a process of its own, and does the same work as the mode before it in the table
    cudnn_tries: bool = False  # cuDNN tries its algorithms and keeps the fastest, as in a training


class Row(NamedTuple):
    """A mode's labels and what `rates` found (None: it is left out)."""

    labels: dict[str, str]
    found: dict[str, Any] | None


Rows = dict[int, Row]  # by the mode's number in its table


def measured(mode: Mode, device: torch.device, tiny: bool) -> dict[str, Any]:
    """`rates` of a mode; nothing of it stays on the device."""
    torch.backends.cudnn.benchmark = mode.cudnn_tries
    try:
        return rates(mode.make(), device, 0.1 if tiny else 2)
    finally:
        torch.backends.cudnn.benchmark = False
        if device.type == "cuda":
            torch.cuda.empty_cache()


def rates(work: Work, device: torch.device, least_s: float) -> dict[str, Any]:
    """Items a second, GFLOP an item (None: not counted), and the most memory."""
    gflop = None if work.counted is None else gflop_of(work.counted) / work.counted_items
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    took = timed(work.call, device, least_s)
    return {"per_s": round(work.items / took, 2), "gflop": gflop, "peak_memory_gb": peak_memory_gb(device)}


def gflop_of(work: Callable[[], object]) -> float:
    """Convolutions and matrix products of a call, by torch's counter."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def fill(
    table: Rows, name: str, device: torch.device, tiny: bool, compiled: bool, clock: Clock, left_out: list[str]
) -> None:
    """Measure those modes of the table of this name that compile, or those that do not."""
    for number, mode in enumerate(TABLES[name](device, tiny)):
        if mode.compiled != compiled:
            continue
        table[number] = Row(mode.labels, None)
        called = ", ".join((name, *mode.labels.values()))
        if mode.precision == "bf16" and not devices.computes_bf16(device):
            left_out.append(f"{called}: no bf16 instructions")
            continue
        if clock.left() < (LEAST_TO_COMPILE_S if compiled else LEAST_S) and not tiny:
            left_out.append(called)
            continue
        try:
            found = measured_elsewhere(name, number, device, clock.left()) if compiled else measured(mode, device, tiny)
        except torch.OutOfMemoryError:
            left_out.append(f"{called}: out of memory")
        except subprocess.TimeoutExpired as error:
            left_out.append(f"{called}: not done after {error.timeout:.0f} s")
        except subprocess.CalledProcessError as error:
            left_out.append(f"{called}: {last_line(error)}")
        else:
            table[number] = Row(mode.labels, found)


def compared(table: Rows) -> list[dict[str, Any]]:
    """The rows that could be measured, each with its ratio to the first of its stage (None: that one could not be)."""
    rows = []
    stage = first = gflop = None
    for number in sorted(table):
        labels, found = table[number]
        begins = number == 0 or labels.get("stage") != stage
        if begins:
            stage, first, gflop = labels.get("stage"), None, None
        if found is None:
            continue
        per_s = found["per_s"]
        gflop = found["gflop"] or gflop
        first = per_s if begins else first
        row = {**labels, "per_s": per_s, "peak_memory_gb": found["peak_memory_gb"]}
        row["gflop_per_s"] = None if gflop is None else round(gflop * per_s, 1)
        rows.append(row | {"ratio": None if first is None else round(per_s / first, 2)})
    return rows


def measured_elsewhere(table: str, number: int, device: torch.device, limit_s: float) -> dict[str, Any]:
    """`measured` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.gpu_check", f"--device={device.type}", "--measure", table, str(number)]
    done = run_within(limit_s, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    done.check_returncode()
    return json.loads(done.stdout.splitlines()[-1])


def last_line(ended: subprocess.CompletedProcess | subprocess.CalledProcessError) -> str:
    """Why a process failed: the last it said."""
    return (ended.stderr.strip().splitlines() or [f"ended with {ended.returncode}"])[-1]


def rendering(device: torch.device, tiny: bool) -> list[Mode]:
    """Frames a second of N_I at the paper's size, from keypoints on the device to bytes on the host."""
    config = ImageGeneratorConfig()
    if tiny:
        dense = DenseMotionConfig(scale_factor=0.5, block_expansion=4, max_features=8, num_blocks=2)
        config = ImageGeneratorConfig(64, 10, 4, 8, 2, 1, dense)
    torch.manual_seed(0)
    plain = ImageGenerator(config).eval().requires_grad_(False).to(device)
    fused, size = fuse_for_inference(plain), config.image_size
    picture = torch.rand(1, 3, size, size, device=device)
    position = (torch.rand(1, 10, 2) - 0.5).to(device)
    source = Keypoints(position, torch.eye(2, device=device).repeat(1, 10, 1, 1))

    def work(network: ImageGenerator, batch: int, dtype: torch.dtype | None, compiled: bool = False) -> Work:
        renderer = Renderer(network, picture, source, batch, truncate=False, dtype=dtype, compile_network=compiled)
        frames = 2 if tiny else max(8, 4 * batch)
        driving, one_batch = source.repeated(frames), source.repeated(batch)
        counted = torch.inference_mode()(lambda: renderer.render_batch(*one_batch))
        return Work(lambda: list(renderer.frames(iter([driving]))), frames, None if compiled else counted, batch)

    few, bf16 = 4 if tiny else 32, torch.bfloat16
    modes = [
        Mode({"mode": "plain fp32, one by one"}, lambda: work(plain, 1, None), precision="fp32"),
        Mode({"mode": f"bf16, plain upsampling, batches of {few}"}, lambda: work(plain, few, bf16)),
        Mode({"mode": f"bf16, batches of {few}"}, lambda: work(fused, few, bf16)),
    ]
    if not tiny:
        modes += [
            Mode({"mode": f"bf16, batches of {2 * few}"}, lambda: work(fused, 2 * few, bf16)),
            Mode({"mode": f"bf16, cuDNN tries, batches of {few}"}, lambda: work(fused, few, bf16), cudnn_tries=True),
            Mode({"mode": f"bf16, compiled, batches of {few}"}, lambda: work(fused, few, bf16, True), compiled=True),
        ]
    return modes


def training(device: torch.device, tiny: bool) -> list[Mode]:
    """Items a second of each stage's step at the paper's sizes and batches, data excluded."""

    def work(stage: str, settings: dict[str, Any]) -> Work:
        loop = Stage(stage, device, tiny, batch=2 if tiny else None, **settings)
        return Work(loop.step, loop.batch, None if settings["compiled"] else loop.step, loop.batch)

    return [
        Mode(
            {"stage": stage, "mode": name},
            partial(work, stage, settings),
            settings["precision"],
            settings["compiled"],
            cudnn_tries=True,
        )
        for stage in STAGES
        for name, settings in MODES.items()
        # A loop of 256 frames unrolls: minutes of compiling.
        if not (settings["compiled"] and (tiny or stage == "headpose"))
    ]


TABLES = {"rendering": rendering, "training": training}


def end_to_end(device: torch.device, tiny: bool, clock: Clock, left_out: list[str]) -> dict[str, Any] | None:
    """A picture and a minute of sound to a video file at the paper's size: times real time, and seconds by stage.

    The networks have random weights (the tiny way: the demo model and a second of sound); the second of two videos
    counts.
    """
    if clock.left() < LEAST_FOR_A_RUN_S and not tiny:
        left_out.append("end to end")
        return None
    models = load_models([DEMO_WEIGHTS], device) if tiny else paper_sized_models(device)
    options = AnimationOptions(device=str(device), crop="none", size="native")
    seconds = 1 if tiny else 60
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        picture, sound = Path(folder) / "picture.png", Path(folder) / "sound.wav"
        write_png(picture, random.integers(0, 255, (256, 256, 3), dtype=np.uint8))
        speech, rate = soundfile.read(ROOT / "assets" / "speech.wav")
        soundfile.write(sound, np.resize(speech, seconds * rate), rate)  # again and again; F0 of noise takes far longer
        animator = Animator(models, options)
        for _ in range(2):
            start = time.perf_counter()
            summary = animator.animate(Job(picture, Path(folder) / "video.mp4", sound))
            took = time.perf_counter() - start
    return {
        "real_time": round(summary.frames / FPS / took, 2),
        "frames_per_s": round(summary.frames / took, 1),
        "seconds": {stage: round(spent, 3) for stage, spent in summary.seconds.items()},
    }


def data_wait(kind: str, clock: Clock, left_out: list[str]) -> dict[str, float] | None:
    """Share of the time that stage one waits for its data: the training script itself, on drawn clips."""
    if clock.left() < LEAST_FOR_A_RUN_S and kind != "cpu":
        left_out.append("waiting for data")
        return None
    with tempfile.TemporaryDirectory() as folder:
        small = kind == "cpu"
        config = "fomm_tiny" if small else "fomm_vox"
        steps, run = (4, 2) if small else (60, 20), Path(folder) / "run"
        options = [f"run.dir={run}", f"run.device={kind}", f"run.max_steps={steps[0]}", f"run.log_every={steps[1]}"]
        options += ["run.tensorboard=false", "run.compile=false", f"run.workers={min(12, os.cpu_count() or 1)}"]
        options += [f"run.{what}_every=1000000" for what in ("validate", "sample", "save")]
        options += [f"data.root={folder}/data", "synthetic.clips=8", "weights.perceptual=0", "weights.pixel=1"]
        command = [sys.executable, "train_fomm.py", "--config", f"config/{config}.yaml", *options]
        try:
            done = run_within(clock.left() / 2, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except subprocess.TimeoutExpired:
            left_out.append("waiting for data: not done in time")
            return None
        if done.returncode:
            left_out.append(f"waiting for data: {last_line(done)}")
            return None
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    line = lines[-2] if len(lines) > 1 else lines[-1]  # the last one holds the validation at the end
    return {"samples_per_s": line["samples_per_s"], "data_wait": line["data_wait"]}


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    about = report["machine"]
    lines = ["# gpu-check", "", ", ".join(f"{name} {value}" for name, value in about.items()), ""]
    tests = report.get("tests", [])
    counts = {outcome: sum(t["outcome"] == outcome for t in tests) for outcome in ("passed", "failed", "skipped")}
    lines += ["Tests: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) + "."]
    lines += [f"- {t['outcome']}: {t['test']}: {t['why']}" for t in tests if t["outcome"] != "passed"]
    lines += ["", f"Aims: {report['aims']}.", ""]
    for title, what in (("rendering", "frames/s"), ("training", "samples/s")):
        lines += [f"| {title} | {what} | ratio | GFLOP/s | peak GB |", "|---|---|---|---|---|"]
        for row in report.get(title, []):
            name = ", ".join(row[key] for key in ("stage", "mode") if key in row)
            known = ("-" if row[key] is None else row[key] for key in ("ratio", "gflop_per_s", "peak_memory_gb"))
            lines.append(f"| {name} | {row['per_s']} | {' | '.join(map(str, known))} |")
        lines.append("")
    if report.get("end_to_end"):
        whole = report["end_to_end"]
        stages = ", ".join(f"{stage} {spent}" for stage, spent in whole["seconds"].items())
        lines += [f"Picture and sound to video: {whole['real_time']} x real time (seconds: {stages}).", ""]
    if report.get("data"):
        lines += [f"Stage one waits for data {report['data']['data_wait']:.1%} of the time.", ""]
    lines += [f"- left out: {what}" for what in report["left_out"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
