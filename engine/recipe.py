"""A recipe from its first step to its weights: `python -m engine.recipe config/demo assets/demo.safetensors`.

A recipe is a folder of configurations NN_STAGE_WHAT.yaml, each for train_STAGE.py, run in the order of their numbers;
options that suit the weights may stand in `animation.yaml`. After the last step the last run of each stage goes into
the weights file (16 bits), or stays where it is if no file is named. How long a step took is said after it. The same
command goes on where it was interrupted: a step that is complete ends at once. `key=value` is given to every step; the
folders of runs stand in the steps' files alone.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import yaml

from engine.command import clean_exit
from engine.config import ConfigError, read_yaml

ROOT = Path(__file__).resolve().parents[1]
NAME = re.compile(r"(\d+)_(fomm|headpose|motionfield)(_\w+)?\.yaml")
OPTIONS = "animation.yaml"


class StepFailed(RuntimeError):
    """A step's process did not end well."""


class Step(NamedTuple):
    """One run of a recipe."""

    config: Path
    stage: str
    run: str  # the run's folder

    def command(self, overrides: list[str]) -> list[str]:
        return [sys.executable, f"train_{self.stage}.py", "--config", str(self.config.resolve()), *overrides]


def steps_of(folder: Path) -> list[Step]:
    """The steps of a recipe, in the order of their numbers. Raises ConfigError."""
    steps: dict[int, Step] = {}
    for path in sorted(folder.glob("*.yaml")):
        if path.name == OPTIONS:
            continue
        found = NAME.fullmatch(path.name)
        if found is None:
            raise ConfigError(
                f"{path}: a step's name is NN_STAGE_WHAT.yaml, with fomm, headpose or motionfield as STAGE"
            )
        number = int(found[1])
        if number in steps:
            raise ConfigError(f"{path} and {steps[number].config.name} have the same number; give each step its own")
        run = read_yaml(path).get("run")
        run_dir = run.get("dir") if isinstance(run, dict) else None
        if not (run_dir and isinstance(run_dir, str)):
            raise ConfigError(f"{path}: run.dir is missing; name the folder of the step's run")
        steps[number] = Step(path, found[2], run_dir)
    if not steps:
        raise ConfigError(f"{folder} holds no steps (NN_STAGE_WHAT.yaml)")
    return [steps[number] for number in sorted(steps)]


def weights_file(named: list[str]) -> Path | None:
    """The file to write at the end, which hours of training should not wait to find impossible. Raises ConfigError."""
    if not named:
        return None
    path = Path(named[0])
    if len(named) > 1:
        raise ConfigError(f"{named[1]} is neither key=value nor the file to write, which is {path}")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigError(f"{path} cannot be written; name a file in a folder that is there and may be written to")
    return path


def check_overrides(overrides: list[str]) -> None:
    """What is given to every step may not name a folder: each step has its own. Raises ConfigError."""
    for override in overrides:
        if override.partition("=")[0] in ("run", "run.dir"):
            raise ConfigError(f"{override} would put all steps into one folder; write run.dir in each step's file")


def run_steps(steps: list[Step], overrides: list[str]) -> None:
    """Each step in a process of its own. Raises StepFailed, and KeyboardInterrupt where a step was interrupted."""
    for number, step in enumerate(steps, 1):
        print(f"step {number} of {len(steps)}: {step.config.name}", flush=True)
        begun = time.monotonic()
        process(step.command(overrides), step.config.name)
        print(f"step {number} of {len(steps)}: {step.config.name} took {minutes(time.monotonic() - begun)}", flush=True)


def process(command: list[str], name: str) -> None:
    """Run a command in the project's folder; Ctrl-C reaches it, too, and it is waited for while it saves."""
    with subprocess.Popen(command, cwd=ROOT) as running:
        try:
            code = running.wait()
        except KeyboardInterrupt:
            running.terminate()
            running.wait()
            raise
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise StepFailed(f"{name} ended with exit code {code}; what was wrong stands above. The same command goes on")


def put_together(steps: list[Step], folder: Path, weights: Path) -> None:
    """The last run of each stage in one file, with the options that suit it."""
    last = {step.stage: step.run for step in steps}
    command = [sys.executable, "-m", "animation.convert", "--half"]
    options = read_yaml(folder / OPTIONS) if (folder / OPTIONS).is_file() else {}
    for key, value in options.items():
        command += ["--animation", f"{key}={yaml.safe_dump(value).splitlines()[0]}"]
    process([*command, *last.values(), str(weights.resolve())], "animation.convert")


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="folder of configurations, e.g. config/demo")
    parser.add_argument(
        "rest",
        nargs="*",
        metavar="WEIGHTS key=value",
        help="file to write at the end, e.g. assets/demo.safetensors; for every step, e.g. data.root=data/mine",
    )
    arguments = parser.parse_intermixed_args()
    overrides = [text for text in arguments.rest if "=" in Path(text).name]
    with clean_exit(ConfigError, StepFailed):
        weights = weights_file([text for text in arguments.rest if text not in overrides])
        check_overrides(overrides)
        steps = steps_of(arguments.recipe)
        run_steps(steps, overrides)
        if weights is not None:
            put_together(steps, arguments.recipe, weights)


if __name__ == "__main__":
    main()
