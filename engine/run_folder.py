"""The checkpoints of a run on disk: which are whole, which is the newest, what is kept, and whether one may be resumed.

    RUN_DIR/checkpoints/step-N/     everything needed to go on exactly; `latest` and `best` are links to such folders
    RUN_DIR/weights.safetensors     the networks of the latest checkpoint; best.safetensors: those of the best

A folder `step-N` is always whole: it is written under another name and renamed. What is inside, beside `run.json`, is
the caller's.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pydantic

from engine.checkpoint import CheckpointError, Weights, save_weights

WEIGHTS, BEST_WEIGHTS = "weights.safetensors", "best.safetensors"
FORMAT = 1  # of the folders under checkpoints/
# Settings that do not change a number and may differ when a run goes on.
MAY_CHANGE = {
    f"run.{name}"
    for name in ("max_steps", "dir", "device", "workers", "log_every", "sample_every", "validate_every", "save_every")
} | {"run.keep_every", "run.tensorboard", "data.root"}
# Keys of configurations that runs of version 0.1 have stored although their scripts always overwrote them. Where a
# configuration no longer has such a key, what was stored under it does not count.
REMOVED = {f"data.{name}" for name in ("seed", "size", "window", "audio_padding", "pictures")}
# Keys that runs begun before there were any lack, and whose defaults change no number.
ADDED = {"head_motion_predictor.image_size", "motion_field_generator.listeners", "mean_motion_size"}
ADDED_INPUTS = {"corpus", "image_generator"}  # fingerprints that runs begun before there were any lack


def fingerprint(texts: Iterable[str]) -> str:
    """What tells inputs of a run apart: a short hash, for `State.inputs`."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{text}\n".encode())
    return digest.hexdigest()[:16]


class Best(NamedTuple):
    """The best validation so far."""

    value: float
    step: int


@dataclass(frozen=True)
class State:
    """What a checkpoint knows beside tensors: its `run.json`."""

    stage: str
    step: int  # updates done
    best: Best | None
    inputs: dict[str, str]  # fingerprints of what the run depends on beside its configuration
    config: dict[str, Any]


class RunFolder:
    """The checkpoints in a run's folder. `keep_every`: those at multiples of so many steps stay for good; 0: none."""

    def __init__(self, path: Path, keep_every: int) -> None:
        self.path, self.keep_every = path, keep_every
        self.folder = path / "checkpoints"

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(self.folder.glob("step-*"), key=_step_of)

    def newest(self) -> Path | None:
        """The checkpoint to go on from, if there is one."""
        return next(reversed(self.checkpoints()), None)

    def read(self, checkpoint: Path, stage: str, config: dict[str, Any], inputs: dict[str, str]) -> State:
        """State of a checkpoint that a run of this stage, configuration and inputs may go on from.

        Raises:
            CheckpointError: it is of another stage, configuration or input, or not readable.
        """
        try:
            stored = json.loads((checkpoint / "run.json").read_text())
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{checkpoint} is not a complete checkpoint ({error}); delete it and start again"
            ) from error
        if not isinstance(stored, dict) or stored.get("format") != FORMAT:
            raise CheckpointError(f"{checkpoint} is no checkpoint of this version; delete it and start again")
        if stored.get("stage") != stage:
            raise CheckpointError(
                f"{checkpoint} is of stage {stored.get('stage')!r}, this is {stage!r}: choose another run.dir"
            )
        try:
            state = pydantic.TypeAdapter(State).validate_python({k: v for k, v in stored.items() if k != "format"})
        except pydantic.ValidationError as error:
            fault = error.errors(include_url=False)[0]
            raise CheckpointError(
                f"{checkpoint / 'run.json'} is damaged ({fault['loc'][0]}: {fault['msg']}); delete the checkpoint"
            ) from error
        ignored = MAY_CHANGE | (REMOVED - _flat(config).keys()) | (ADDED - _flat(state.config).keys())
        different = differences(state.config, config, ignored)
        different += differences(state.inputs, inputs, ADDED_INPUTS - state.inputs.keys())
        if different:
            raise CheckpointError(
                f"{checkpoint} was made with another configuration ({'; '.join(different)}):"
                " use that one again, or choose another run.dir"
            )
        return state

    def partial(self, step: int) -> Path:
        """Where the files of this step's checkpoint are put before `complete`."""
        return self.folder / f".step-{step:07d}"

    def final(self, step: int) -> Path:
        """Where this step's checkpoint is once it is whole."""
        return self.folder / f"step-{step:07d}"

    def begin(self, step: int) -> None:
        """Make an empty `partial(step)`."""
        self.discard(step)
        self.partial(step).mkdir(parents=True)

    def discard(self, step: int) -> None:
        """Remove what was put into `partial(step)`."""
        shutil.rmtree(self.partial(step), ignore_errors=True)

    def complete(self, state: State, weights: Weights, improved: bool) -> None:
        """Write the weights, give `partial(state.step)` its name, point the links at it, delete what is not kept.

        In this order: whatever is killed in between, the same command makes up for it (`mend`).

        `improved`: it is also the best so far.
        """
        partial, final = self.partial(state.step), self.final(state.step)
        (partial / "run.json").write_text(json.dumps({"format": FORMAT, **asdict(state)}, indent=1))
        save_weights(self.path / WEIGHTS, weights)
        if improved:
            save_weights(self.path / BEST_WEIGHTS, weights)
        if final.exists():
            shutil.rmtree(final)
        os.replace(partial, final)
        _link(final, "latest")
        if improved:
            _link(final, "best")
        self._prune()

    def mend(self, step: int, best: Best | None, weights: Weights) -> None:
        """Make up for what a killed run did not do, or somebody deleted.

        Point `latest` at this step's checkpoint and `best` at that of the best; write the files of this step's
        `weights` where they are gone.
        """
        best_step = best.step if best else -1
        for name, file, its_step in (("latest", WEIGHTS, step), ("best", BEST_WEIGHTS, best_step)):
            if self.final(its_step).is_dir():
                _link(self.final(its_step), name)
            if its_step == step and not (self.path / file).exists():
                save_weights(self.path / file, weights)

    def clear_leftovers(self) -> None:
        """Remove what a run that was killed left half-done."""
        for leftover in self.folder.glob(".*"):
            if leftover.is_symlink():
                leftover.unlink()
            shutil.rmtree(leftover, ignore_errors=True)
        for name in (WEIGHTS, BEST_WEIGHTS, "config.yaml", "metrics.jsonl"):
            for leftover in self.path.glob(f".{name}.*"):  # as `atomic_path` calls them
                leftover.unlink(missing_ok=True)

    def _prune(self) -> None:
        links = (self.folder / name for name in ("latest", "best"))
        keep = {link.resolve().name for link in links if link.is_symlink()}
        for path in self.checkpoints():
            for_good = self.keep_every and _step_of(path) % self.keep_every == 0
            if path.name not in keep and not for_good:
                doomed = self.folder / f".old-{path.name}"  # renamed first: no half-deleted folder has a good name
                os.replace(path, doomed)
                shutil.rmtree(doomed)


def differences(stored: dict[str, Any], current: dict[str, Any], ignored: set[str]) -> list[str]:
    """`key: stored -> current` for every setting that differs and is not ignored, `a.b` for nested ones."""
    a, b = _flat(stored), _flat(current)
    keys = sorted((a.keys() | b.keys()) - ignored)
    return [f"{key}: {a.get(key)} there, {b.get(key)} here" for key in keys if a.get(key) != b.get(key)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _link(target: Path, name: str) -> None:
    """Point `name` beside `target` at it, atomically."""
    temporary = target.with_name(f".{name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target.name)
    os.replace(temporary, target.with_name(name))
