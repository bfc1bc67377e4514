"""First contact with a GPU: does everything work there, and how fast. One command, at most ten minutes, one report.

    make gpu-check
    python -m benchmarks.gpu_check --output results/gpu_check --minutes 10

Runs the tests marked `gpu` (each stage's step at the paper's sizes beside the CPU's, resume, average, renderer, parity,
two ranks where there are two cards), then measures rendering, whole videos and training, and writes report.json and
report.md. Exit code 1: a test failed; 2: there is no CUDA device. What no time was left for is named in the report.

`--device cpu` tries this command itself, in tiny sizes; its numbers mean nothing.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
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
from datasets.media.streams import FPS, SAMPLE_RATE
from engine import device as devices
from modules.fuse import fuse_for_inference
from modules.image_generator import DenseMotionConfig, ImageGenerator, ImageGeneratorConfig
from modules.keypoints import Keypoints

ROOT = Path(__file__).resolve().parents[1]
SHARE_OF_TESTS = 0.5  # of the time
AIMS = (
    "1,000 rendered frames/s, 20 x real time end to end, training at twice plain eager, below 5 % of the time waiting "
    "for data (one H200)"
)
PLAIN = {"precision": "fp32", "channels_last": False, "compiled": False}
# What is compared in training; the last is what the paper's presets ask for, or a switch that a CPU cannot judge.
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
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu-check: torch sees no CUDA device here; run it on a machine with one", file=sys.stderr)
        return 2
    device, clock, tiny = torch.device(options.device), Clock(options.minutes), options.device == "cpu"
    report: dict[str, Any] = {"machine": machine(device), "aims": AIMS, "left_out": []}
    try:
        report["tests"] = [] if options.skip_tests else run_tests(options.device, SHARE_OF_TESTS * clock.left())
        devices.use(device)
        torch.backends.cudnn.benchmark = True
        report["rendering"] = list(rendering(device, tiny, clock, report["left_out"]))
        report["end_to_end"] = end_to_end(device, tiny, clock, report["left_out"])
        report["training"] = list(training(device, tiny, clock, report["left_out"]))
        report["data"] = data_wait(options.device, clock, report["left_out"])
    finally:  # whatever breaks, what was found is kept
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
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        found |= {"bf16": devices.computes_bf16(device)}
    else:
        found["card"] = f"CPU, {torch.get_num_threads()} threads"
    return found


def run_tests(kind: str, limit_s: float) -> list[dict[str, str]]:
    """The tests marked gpu, in a process of their own -> name and outcome of each; "failed" names its reason."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junit-xml={path}"]
        environment = os.environ | {"GPU_CHECK_DEVICE": kind}
        try:
            subprocess.run([*command, "tests/gpu"], cwd=ROOT, env=environment, timeout=limit_s)
        except subprocess.TimeoutExpired:
            return [{"test": "tests/gpu", "outcome": "failed", "why": f"not done after {limit_s:.0f} s"}]
        return read_results(path)


def read_results(path: Path) -> list[dict[str, str]]:
    """Outcomes from pytest's JUnit file; without one, one failure that says so."""
    if not path.is_file():
        return [{"test": "tests/gpu", "outcome": "failed", "why": "pytest wrote no result"}]
    found = []
    for case in ElementTree.parse(path).iter("testcase"):
        outcome, why = "passed", ""
        for part in case:
            if part.tag in ("failure", "error", "skipped"):
                outcome = "skipped" if part.tag == "skipped" else "failed"
                why = (part.get("message") or "").splitlines()[0][:200] if part.get("message") else part.tag
        found.append({"test": case.get("name", ""), "outcome": outcome, "why": why})
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


def measured(
    work: Callable[[], object], items: int, device: torch.device, gflop: float, least_s: float
) -> dict[str, Any]:
    """Items and GFLOP a second of `work`, which handles so many items, and the most memory it took."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    took = timed(work, device, least_s)
    return {
        "per_s": round(items / took, 2),
        "gflop_per_s": round(gflop / took, 1),
        "peak_memory_gb": peak_memory_gb(device),
    }


def gflop_of(work: Callable[[], object]) -> float:
    """Convolutions and matrix products of a call, by torch's counter."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def rendering(device: torch.device, tiny: bool, clock: Clock, left_out: list[str]) -> Iterator[dict[str, Any]]:
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
    batches = (4,) if tiny else (32, 64)
    modes: list[tuple[str, ImageGenerator, int, torch.dtype | None, bool]] = [
        ("plain fp32, one by one", plain, 1, None, False)
    ]
    modes += [(f"bf16, batches of {n}", fused, n, torch.bfloat16, False) for n in batches]
    modes += [(f"bf16, plain upsampling, batches of {batches[0]}", plain, batches[0], torch.bfloat16, False)]
    modes += [(f"bf16, compiled, batches of {n}", fused, n, torch.bfloat16, True) for n in batches[:1] if not tiny]
    first = None
    for name, network, batch, dtype, compiled in modes:
        if dtype is not None and not devices.computes_bf16(device):
            left_out.append(f"rendering, {name}: no bf16 instructions")
            continue
        if clock.left() < 60 and not tiny:
            left_out.append(f"rendering, {name}")
            continue
        renderer = Renderer(network, picture, source, batch, truncate=False, dtype=dtype, compile_network=compiled)
        count = 2 if tiny else max(8, 4 * batch)
        driving = source.repeated(count)
        with torch.inference_mode():
            gflop = gflop_of(lambda r=renderer, b=batch: r.render_batch(*source.repeated(b))) * count / batch
        rates = measured(
            lambda r=renderer, d=driving: list(r.frames(iter([d]))), count, device, gflop, 0.1 if tiny else 3
        )
        first = first or rates["per_s"]
        yield {"mode": name, **rates, "ratio": round(rates["per_s"] / first, 2)}


def end_to_end(device: torch.device, tiny: bool, clock: Clock, left_out: list[str]) -> dict[str, Any] | None:
    """A picture and a minute of sound to a video file at the paper's size: times real time, and seconds by stage.

    The networks have random weights (the tiny way: the demo model and a second of sound); the second of two videos
    counts.
    """
    if clock.left() < 60 and not tiny:
        left_out.append("end to end")
        return None
    models = load_models([DEMO_WEIGHTS], device) if tiny else paper_sized_models(device)
    options = AnimationOptions(device=str(device), crop="none", size="native")
    seconds = 1 if tiny else 60
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        picture, sound = Path(folder) / "picture.png", Path(folder) / "sound.wav"
        write_png(picture, random.integers(0, 255, (256, 256, 3), dtype=np.uint8))
        soundfile.write(sound, random.normal(0, 0.1, seconds * SAMPLE_RATE), SAMPLE_RATE)
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


def training(device: torch.device, tiny: bool, clock: Clock, left_out: list[str]) -> Iterator[dict[str, Any]]:
    """Items a second of each stage's step at the paper's sizes and batches, data excluded."""
    for stage in STAGES:
        first = gflop = None
        for name, settings in MODES.items():
            if (tiny and settings["compiled"]) or (settings["compiled"] and stage == "headpose"):
                continue  # a loop of 256 frames unrolls: minutes of compiling
            if settings["precision"] == "bf16" and not devices.computes_bf16(device):
                left_out.append(f"training, {stage}, {name}: no bf16 instructions")
                continue
            if clock.left() < 75 and not tiny:
                left_out.append(f"training, {stage}, {name}")
                continue
            try:
                loop = Stage(stage, device, tiny, batch=2 if tiny else None, **settings)
                if gflop is None:
                    gflop = gflop_of(loop.step)
                rates = measured(loop.step, loop.batch, device, gflop, 0.1 if tiny else 3)
            except torch.OutOfMemoryError:
                left_out.append(f"training, {stage}, {name}: out of memory")
                continue
            finally:
                loop = None
                if device.type == "cuda":
                    torch.cuda.empty_cache()
            first = first or rates["per_s"]
            yield {"stage": stage, "mode": name, **rates, "ratio": round(rates["per_s"] / first, 2)}


def data_wait(kind: str, clock: Clock, left_out: list[str]) -> dict[str, float] | None:
    """Share of the time that stage one waits for its data: the training script itself, on drawn clips."""
    if clock.left() < 60:
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
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=clock.left())
        except subprocess.TimeoutExpired:
            left_out.append("waiting for data: not done in time")
            return None
        if done.returncode:
            left_out.append(f"waiting for data: {done.stderr.strip().splitlines()[-1]}")
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
            memory = "-" if row["peak_memory_gb"] is None else row["peak_memory_gb"]
            lines.append(f"| {name} | {row['per_s']} | {row['ratio']} | {row['gflop_per_s']} | {memory} |")
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
