"""Commands that are killed at random moments: begun again, each ends with the result of a run that nobody disturbed.

    python tests/kills.py --kills 20                        # of each command; tens of minutes on two cores
    python tests/kills.py --command prepare --kills 5 --seed 3

A life of a command is: begun in an empty folder, killed (SIGKILL, with all its processes) up to MOST times at random
moments, each time begun again, at last left alone. Then its result is compared, no temporary file may be left, and
while it runs a second one of the same must stop with a sentence. Everything is small and made here.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))

# Beside this script: `tests` would be a package that torch-fidelity installs.
from untrained import untrained_weights

from datasets.face.openface import COLUMNS
from datasets.media.image import write_png
from datasets.media.video_reader import frames_of
from datasets.media.video_writer import VideoWriter
from datasets.synthetic import make_corpus
from engine.checkpoint import save_weights

ROOT = Path(__file__).parents[1]
MOST = 4  # kills of one life
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
TIMES = ("samples_per_s", "data_wait", "peak_memory_gb")  # logged numbers that the machine's speed changes
STEPS = ("run.max_steps=6", "run.save_every=2", "run.validate_every=4", "run.sample_every=3", "run.tensorboard=false")


@dataclass(frozen=True)
class Command:
    """A command that writes into a folder, and what of the folder is its result."""

    arguments: Callable[[Path], list[str]]
    result: Callable[[Path], dict[str, Any]]


def commands(made: Path) -> dict[str, Command]:
    """All that are tried, by name. `made`: a folder for their inputs."""
    make_corpus(made / "corpus", clips=6, seed=3, speakers=3, duration_s=1.6, size=64, workers=1)
    save_weights(made / "model.safetensors", untrained_weights(64))
    _make_raw(made)
    training = [f"data.root={made / 'corpus'}", *STEPS]

    def train(stage: str, *more: str) -> Command:
        script = [f"train_{stage}.py", "--config", f"config/{stage}_tiny.yaml", *training, *more]
        return Command(lambda out: [*script, f"run.dir={out}"], _trained)

    raw = ["--input", str(made / "raw"), "--pose", "openface-csv", "--openface-csv", str(made / "poses")]
    evaluate = ["evaluate.py", "--checkpoint", str(made / "model.safetensors"), "--data", str(made / "corpus")]
    evaluate += ["split=train", "landmarks=false", "animation.device=cpu", "bootstrap.samples=50", "rows=[full,still]"]

    def pairs(out: Path) -> list[str]:
        out.mkdir(exist_ok=True)
        rows = [f"{made / 'face.png'},{made / 'speech.wav'},{out / f'{n}.mp4'},{n}" for n in range(4)]
        (out / "list.csv").write_text("\n".join(["image,audio,output,expression_scale", *rows]))
        model = ["--checkpoint", str(made / "model.safetensors"), "--device", "cpu"]
        return ["inference.py", "--pairs", str(out / "list.csv"), *model]

    return {
        "prepare": Command(
            lambda out: ["-m", "datasets.prepare", "lrw", *raw, "--output", str(out), "--size", "64", "--workers", "2"],
            _prepared,
        ),
        "fomm": train("fomm"),
        "headpose": train("headpose"),
        "motionfield": train("motionfield", f"fomm.checkpoint={made / 'model.safetensors'}"),
        "evaluate": Command(lambda out: [*evaluate, "--output", str(out)], _evaluated),
        "pairs": Command(pairs, _animated),
    }


def _make_raw(made: Path) -> None:
    """Four videos of noise with sound as an LRW tree, poses for them, a picture and a recording."""
    noise = np.random.default_rng(0)
    soundfile.write(made / "speech.wav", 0.1 * noise.standard_normal(16_000), 16_000)
    write_png(made / "face.png", noise.integers(0, 255, (80, 80, 3), np.uint8))
    (made / "poses").mkdir()
    header = ",".join(["frame", "timestamp", "confidence", "success", *COLUMNS])
    rows = [f"{n + 1},{n / 25:.3f},0.98,1,0.1,{0.1 * np.sin(n):.3f},0.0,5,10,300" for n in range(60)]
    for number, split in enumerate(("train", "train", "val", "test"), start=1):
        name = f"WORD_{number:05d}"
        folder = made / "raw" / "WORD" / split
        folder.mkdir(parents=True, exist_ok=True)
        with VideoWriter(folder / f"{name}.mp4", sound=made / "speech.wav") as writer:
            writer.write(noise.integers(60, 100, (36, 96, 96, 3), np.uint8))
        (made / "poses" / f"{name}.csv").write_text("\n".join([header, *rows]))


# ---- results


def _prepared(out: Path) -> dict[str, Any]:
    files = [p for p in out.rglob("*") if p.is_file() and "journal" not in p.parts and not p.name.startswith(".")]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def _trained(out: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    numbers = [{name: value for name, value in line.items() if name not in TIMES} for line in lines]
    weights = {name: array.tobytes() for name, array in load_file(out / "weights.safetensors").items()}
    steps = sorted(path.name for path in (out / "checkpoints").iterdir())
    return {"metrics": numbers, "weights": weights, "checkpoints": steps}


def _evaluated(out: Path) -> dict[str, Any]:
    clips = json.loads((out / "results.json").read_text())["clips"]
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    return {"clips": clips, "files": files}


def _animated(out: Path) -> dict[str, Any]:
    return {path.name: np.stack(list(frames_of(path))) for path in sorted(out.glob("*.mp4"))}


def equal(one: Any, other: Any) -> bool:
    """Whether two results are the same; pictures and scores up to the rounding of sums."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, np.ndarray):
        return one.shape == other.shape and np.abs(one.astype(int) - other).max() <= 4
    if isinstance(one, float):
        return bool(np.isclose(one, other, rtol=1e-3, equal_nan=True))
    return one == other


# ---- killing


def try_command(command: Command, kills: int, choose: random.Random, folder: Path) -> list[str]:
    """Kill a command so many times -> what went wrong, a sentence each."""
    folder.mkdir()
    start = time.monotonic()
    straight = folder / "straight"
    finish(command.arguments(straight))
    took_s = time.monotonic() - start
    wanted = command.result(straight)
    problems, done, life = [], 0, 0
    while done < kills:
        life += 1
        out = folder / f"life{life}"
        for _ in range(min(MOST, kills - done)):
            process, start = begin(command.arguments(out)), time.monotonic()
            with_second = choose.random() < 0.2
            try:
                process.wait(choose.uniform(0.1, 1.0) * took_s)
                took_s = min(took_s, max(1.0, time.monotonic() - start))  # it was faster
                break
            except subprocess.TimeoutExpired:
                if with_second and (problem := second(command.arguments(out), process)):
                    problems.append(problem)
                if process.poll() is not None:
                    break  # it ended while the second one was tried
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                done += 1
        said = finish(command.arguments(out), check=False)
        if said:
            problems.append(f"life {life}: does not go on: {said}")
            continue
        if not equal(command.result(out), wanted):
            problems.append(f"life {life}: another result")
        if left := [path for path in out.rglob(".*") if path.name not in (".running", ".lock")]:
            problems.append(f"life {life}: left behind: {left[0].relative_to(out)}")
        shutil.rmtree(out)
    return problems


def begin(arguments: list[str]) -> subprocess.Popen:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=ENVIRONMENT, start_new_session=True, **quiet)


def finish(arguments: list[str], check: bool = True) -> str:
    """Run to the end -> the last line of what it said if it failed."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed: {done.stderr}")
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1] if done.returncode else ""


def second(arguments: list[str], first: subprocess.Popen) -> str:
    """Begin the same once more while the first is at work -> what is wrong with how it ends."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    if first.poll() is not None:  # the first had finished, or not yet begun when the second did
        return ""
    if done.returncode != 2 or "is at work" not in done.stderr or "Traceback" in done.stderr:
        return f"a second one ends with {done.returncode}: {done.stderr.strip()[-300:]}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("prepare", "fomm", "headpose", "motionfield", "evaluate", "pairs")
    parser.add_argument("--command", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        made = Path(folder, "made")
        made.mkdir()
        table = commands(made)
        for name in arguments.command:
            start = time.monotonic()
            problems = try_command(table[name], arguments.kills, random.Random(arguments.seed), Path(folder, name))
            print(f"{name}: {arguments.kills} kills, {time.monotonic() - start:.0f} s, {len(problems)} problems")
            print("".join(f"    {problem}\n" for problem in problems), end="", flush=True)
            failed += len(problems)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
