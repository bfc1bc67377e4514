"""How fast each stage trains, beside a plain float32 eager loop on the same data.

    python -m benchmarks.training --data data/vox --work /tmp/bench             # paper sizes (a GPU)
    python -m benchmarks.training --data data/vox --work /tmp/bench --tiny      # tiny configurations (two CPU cores)

The training scripts themselves run for a few steps, each in a process of its own. For each stage and mode: steps/s,
samples/s, share of time waiting for data, peak memory, GFLOP/s (convolutions and matrix products, forward and backward,
by torch's counter) and the last loss, which should agree between modes. Modes: `plain` is float32, eager, contiguous
memory; `configured` is what the configuration asks for (paper sizes: bf16, channels_last, compiled stage one).
"""

import argparse
import json
import multiprocessing
import shutil
from pathlib import Path

from torch.utils.flop_counter import FlopCounterMode

import train_fomm
import train_headpose
import train_motionfield
from engine.config import load

STAGES = {  # name -> script, configuration of the paper, tiny configuration
    "fomm": (train_fomm, "fomm_vox", "fomm_tiny"),
    "headpose": (train_headpose, "headpose_vox", "headpose_tiny"),
    "motionfield": (train_motionfield, "motionfield_vox", "motionfield_tiny"),
    "pixels": (train_motionfield, "motionfield_vox_pixels", "motionfield_tiny_pixels"),
}
PLAIN = ("run.precision=fp32", "run.compile=false", "run.channels_last=false")
NEVER = 10**9
HEADER = f"{'stage':12} {'mode':11} {'steps/s':>8} {'samples/s':>9} {'wait':>6} {'GB':>6} {'GFLOP/s':>8} {'loss':>9}"


def run_script(stage: str, tiny: bool, folder: Path, steps: int, log_every: int, overrides: list[str]) -> list[dict]:
    """Train for some steps without saving in between; returns the log."""
    script, paper_name, tiny_name = STAGES[stage]
    shutil.rmtree(folder, ignore_errors=True)
    settings = {"dir": folder, "max_steps": steps, "log_every": log_every, "tensorboard": "false"}
    settings |= dict.fromkeys(("validate_every", "sample_every", "save_every"), NEVER)
    path = Path(__file__).parents[1] / "config" / f"{tiny_name if tiny else paper_name}.yaml"
    script.main(load(script.Config, path, [*(f"run.{key}={value}" for key, value in settings.items()), *overrides]))
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def count_flops(stage: str, tiny: bool, folder: Path, overrides: list[str]) -> float:
    """Operations of one step: a run of two steps less a run of one; both end with a validation."""
    counts = []
    for steps in (1, 1, 2):  # the first may have to compute targets
        with FlopCounterMode(display=False) as counter:
            run_script(stage, tiny, folder, steps, NEVER, overrides)
        counts.append(counter.get_total_flops())
    return counts[2] - counts[1]


def in_a_process_of_its_own(function, *arguments):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def loss(line: dict) -> float:
    """Sum of the named losses of one logged step."""
    other = {"step", "lr", "samples_per_s", "data_wait", "peak_memory_gb"}
    return sum(value for name, value in line.items() if name not in other and "/" not in name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a prepared corpus")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--tiny", action="store_true", help="tiny configurations instead of the paper's sizes")
    parser.add_argument("--steps", type=int, default=30, help="steps that are timed, after as many to warm up")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for all runs, e.g. vgg.weights=random")
    arguments = parser.parse_intermixed_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    print(HEADER)
    for stage in arguments.stages:
        common = [f"data.root={arguments.data}", *arguments.overrides]
        if stage in ("motionfield", "pixels"):
            stage_one = arguments.work / "stage_one"
            if not stage_one.exists():
                no_vgg = [
                    "weights.perceptual=0",
                    "weights.pixel=1",
                    f"data.root={arguments.data}",
                    "optim.batch_size=2",
                ]
                in_a_process_of_its_own(run_script, "fomm", arguments.tiny, stage_one, 1, 1, no_vgg)
            common += [f"fomm.checkpoint={stage_one}", "initial_weights="]
            common = [f"pixels.{item}" if item.startswith("vgg.") else item for item in common]
            common = [item for item in common if stage == "pixels" or not item.startswith("pixels.")]
        elif stage == "headpose":
            common = [item for item in common if not item.startswith("vgg.")]
        folder = arguments.work / stage
        flops = in_a_process_of_its_own(count_flops, stage, arguments.tiny, folder, [*common, *PLAIN])
        for mode, settings in (("plain", PLAIN), ("configured", ())):
            overrides = [*common, *settings]
            steps = arguments.steps
            log = in_a_process_of_its_own(run_script, stage, arguments.tiny, folder, 2 * steps + 1, steps, overrides)
            line = next(entry for entry in log if entry["step"] == 2 * steps)
            batch = load(STAGES[stage][0].Config, folder / "config.yaml").optim.batch_size
            rate = line["samples_per_s"] / batch
            print(
                f"{stage:12} {mode:11} {rate:8.3f} {line['samples_per_s']:9.2f} {line['data_wait']:6.1%}"
                f" {line['peak_memory_gb']:6.2f} {flops * rate / 1e9:8.1f} {loss(line):9.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
