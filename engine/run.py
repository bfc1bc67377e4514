"""A training run: device, precision, ranks, data order, checkpoints, logs. A script calls its verbs and owns the loop.

Distribution (torchrun), precision, gradient accumulation and state files are Accelerate's. What a run leaves behind:

    RUN_DIR/config.yaml             the whole configuration, defaults included
    RUN_DIR/metrics.jsonl           one object a logged step: step, every named loss, rates, validation
    RUN_DIR/checkpoints/step-N/     everything needed to go on exactly; `latest` and `best` are links to such folders
    RUN_DIR/weights.safetensors     the networks of the latest checkpoint; best.safetensors: those of the best
    RUN_DIR/samples/, tensorboard/, log.txt

The same command resumes: item n of the data is a pure function of n = steps done * batch size, so nothing but the step
number is needed to go on with the next batch, on any number of ranks, workers or accumulation steps.
"""

import contextlib
import json
import logging
import math
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, set_seed
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import Dataset
from tqdm import tqdm

from engine import config as configs
from engine import device
from engine.batch_norm import synchronise_batch_norm
from engine.checkpoint import CheckpointError, Weights, atomic_path
from engine.command import LOCK, commit, only_one
from engine.loading import Batches, Order
from engine.run_folder import Best, RunFolder, State

T = TypeVar("T")
logger = logging.getLogger(__name__)

REPEAT_S = 5.0  # a signal that comes again so soon is the same wish: torchrun and a batch system both pass it on
# How long a rank waits for another before both end. NCCL's ten minutes are too few where one computes more targets of
# stage three than the others, or validates alone.
PATIENCE = timedelta(hours=2)
LOOK_S = 2.0  # how often ranks tell each other whether one was asked to stop; torchrun kills 30 s after the signal
NAN_S = 5.0  # how often losses and gradients on a GPU are looked at; looking costs a wait for it
ON_HOST = ("index", "clip")  # fields of a batch that name its items: they stay on the CPU


class RunError(ValueError):
    """A run that cannot go on; the message says why and what was kept."""


@dataclass(frozen=True)
class RunConfig:
    """How a run is run; nothing here is the paper's."""

    dir: str  # where everything is written
    max_steps: int  # updates of the weights after which the run is complete
    seed: int = 0  # of the first weights, the data order and every random choice
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: the GPU if there is one
    # bf16 is autocast: keypoints, grids and losses stay in float32. auto: bf16 where the machine computes in it; a CPU
    # without such instructions is some 15 times slower in bf16 than in fp32.
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    accumulate: int = 1  # parts into which a rank's share of a batch is cut to save memory
    workers: int = 4  # processes that load data, on each rank
    log_every: int = 100  # steps, as the next three
    sample_every: int = 5000
    validate_every: int = 5000
    save_every: int = 1000
    keep_every: int = 0  # checkpoints at multiples of so many steps are kept for good; 0: only latest and best
    ema_decay: float = 0.0  # of the average of the weights that is validated and exported; 0: no average
    channels_last: bool = True  # memory layout of pictures; faster convolutions on GPUs and mostly on CPUs
    compile: bool = False  # torch.compile the losses' modules; pays on long runs
    tensorboard: bool = True  # write RUN_DIR/tensorboard

    def __post_init__(self) -> None:
        if not self.dir:
            raise ValueError("run.dir is empty: name a folder for this run")
        for name in ("max_steps", "accumulate", "log_every", "sample_every", "validate_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"run.{name} must be at least 1, found {getattr(self, name)}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"run.seed must be from 0 to {2**32 - 1}, found {self.seed}")
        if self.workers < 0 or self.keep_every < 0 or not 0 <= self.ema_decay < 1:
            raise ValueError("run.workers and run.keep_every must be at least 0, run.ema_decay in [0, 1)")


@dataclass(frozen=True)
class OptimConfig:
    """Adam. Learning rate and weight decay: Sec. 4.2; betas: FOMM's, which the paper follows for N_D and N_I."""

    batch_size: int  # items an update, over all ranks
    lr: float = 2e-4
    weight_decay: float = 2e-6
    betas: tuple[float, float] = (0.5, 0.999)
    # The paper speaks of an "initial" learning rate; FOMM divides by 10 at 60 and 90 of 100 epochs. Steps, not epochs.
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    # Longer gradients are shortened to this norm (ours; 0: none is). One huge gradient, say at the first step, would
    # otherwise hold back Adam, which divides by their mean square, for a thousand more.
    max_norm: float = 0.0

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.lr <= 0 or self.weight_decay < 0 or not 0 < self.gamma <= 1 or self.max_norm < 0:
            raise ValueError(
                "optim needs batch_size >= 1, lr > 0, weight_decay >= 0, gamma in (0, 1] and max_norm >= 0"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optim.betas must both be from 0 to below 1, found {list(self.betas)}")

    def rate(self, steps_done: int) -> float:
        """Learning rate of the update that follows `steps_done` others."""
        return self.lr * self.gamma ** sum(steps_done >= milestone for milestone in self.milestones)


class Optimizer(NamedTuple):
    """Adam, what it follows, and the name under which its gradient norm is logged."""

    adam: torch.optim.Optimizer
    schedule: OptimConfig
    name: str


@dataclass
class _Pending:
    """Losses or gradient norms of one update that have not been looked at yet (on a GPU looking costs a wait)."""

    step: int
    what: str
    values: dict[str, Tensor]
    items: list[int]
    clips: list[int]


@dataclass
class _Clock:
    """Wall time since the last logged step, and how much of it went into waiting for data."""

    start: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    steps: int = 0


class Run:
    """One training run; use as a context manager. `config` is the script's: it has a field `run: RunConfig`."""

    def __init__(self, stage: str, config: Any) -> None:
        self.stage, self.config = stage, config
        self.settings: RunConfig = config.run
        self.folder = Path(self.settings.dir)
        self.kept = RunFolder(self.folder, self.settings.keep_every)
        if self.settings.device == "cuda" and not torch.cuda.is_available():
            raise configs.ConfigError("run.device is cuda, but torch sees no GPU here; use run.device=cpu")
        on_gpu = self.settings.device != "cpu" and torch.cuda.is_available()
        self.has_bf16 = device.computes_bf16(torch.device("cuda" if on_gpu else "cpu"))
        self.precision = self.settings.precision
        if self.precision == "auto":
            self.precision = "bf16" if self.has_bf16 else "fp32"
        self.accelerator = Accelerator(
            cpu=not on_gpu,  # with "auto" too: Accelerate would otherwise start one run for each process
            mixed_precision="no" if self.precision == "fp32" else self.precision,
            gradient_accumulation_steps=self.settings.accumulate,
            # Buffers need no broadcast: BatchNorm is synchronised, so they are equal on all ranks already.
            kwargs_handlers=[
                DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
                InitProcessGroupKwargs(timeout=PATIENCE),
            ],
        )
        self.device, self.is_main = self.accelerator.device, self.accelerator.is_main_process
        device.use(self.device)
        # Shapes are the same in every step: cuDNN tries its algorithms once and keeps the best.
        torch.backends.cudnn.benchmark = True
        self.step = 0  # the update in progress, counted from 1; before the first: updates done
        self.best: Best | None = None
        self._modules: list[nn.Module] = []
        self._exported = nn.ModuleDict()
        self._exported_configs: dict[str, Any] = {}
        self._average: AveragedModel | None = None
        self._inputs: dict[str, str] = {}
        self._batch: Any = None
        self._loading: Batches | None = None
        self._losses: dict[str, Tensor] = {}
        self._norms: dict[str, Tensor] = {}
        self._record: dict[str, float] = {}
        self._pending: list[_Pending] = []
        self._looked_for_nan_at = 0.0
        self._clock = _Clock()
        self._asked_to_stop_at: float | None = None
        self._looked_at: tuple[int, float] | None = None  # step and time at which ranks last spoke of stopping
        self._look_at = 0  # step at which they do so next
        self._improved = False
        self._alone = contextlib.ExitStack()
        self._old_handlers: dict[int, Any] = {}
        self._log_handlers: list[logging.Handler] = []
        self._board: Any = None
        self._metrics: Any = None
        self._bar: Any = None
        logging.getLogger("accelerate").setLevel(logging.WARNING)
        set_seed(self.settings.seed)

    # ---- life

    def __enter__(self) -> "Run":
        if self.is_main:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._alone.enter_context(only_one(self.folder / LOCK, "training"))
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not in the main thread: the caller owns the signals
                self._old_handlers[number] = signal.signal(number, self._ask_to_stop)
        if self.is_main:
            self._start_log()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if self._loading is not None:
            self._loading.close()
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        for closable in (self._bar, self._metrics, self._board):
            if closable is not None:
                closable.close()
        for handler in self._log_handlers:
            logging.getLogger().removeHandler(handler)
            handler.close()
        if kind is None:
            self.accelerator.wait_for_everyone()
        self._alone.close()
        # Leave the process group explicitly; gloo sometimes aborts when Python shuts down with it still open.
        self.accelerator.end_training()

    def _ask_to_stop(self, number: int, frame: Any) -> None:
        if self._asked_to_stop_at is None:
            self._asked_to_stop_at = time.monotonic()
            logger.info(
                "saving and stopping (signal %d); once more, after %.0f s, stops without saving", number, REPEAT_S
            )
        elif time.monotonic() - self._asked_to_stop_at > REPEAT_S:
            raise KeyboardInterrupt

    def _start_log(self) -> None:
        root = logging.getLogger()
        root.setLevel(logging.INFO)
        self._log_handlers = [logging.FileHandler(self.folder / "log.txt"), logging.StreamHandler()]
        for handler in self._log_handlers:
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
            root.addHandler(handler)
        logger.info("command: %s", " ".join(sys.argv))
        logger.info("commit %s, torch %s", commit(), torch.__version__)
        logger.info(
            "stage %s on %d x %s, %s, seed %d",
            self.stage,
            self.accelerator.num_processes,
            torch.cuda.get_device_name() if self.device.type == "cuda" else f"CPU ({torch.get_num_threads()} threads)",
            self.precision,
            self.settings.seed,
        )
        if self.precision == "bf16" and not self.has_bf16:
            logger.warning(
                "this machine has no bf16 instructions: run.precision=fp32 or auto is many times faster here"
            )

    # ---- setting up

    def until_stopped(self, things: Iterable[T]) -> Iterator[T]:
        """Hand things on, for long work before the first step. Raises KeyboardInterrupt once the run is to stop."""
        for thing in things:
            if self._asked_to_stop_at is not None:
                raise KeyboardInterrupt
            yield thing

    def batches_before(self, dataset: Dataset, batch_size: int, count: int) -> Iterator[Any]:
        """The first `count` batches, on the device, for work before the first step: every rank gets all of each.

        Raises KeyboardInterrupt once the run is to stop.
        """
        order = Order(first=0, batch_size=batch_size, rank=0, ranks=1, accumulate=1)
        loading = Batches(dataset, order, self.settings.workers, pin_memory=self.device.type == "cuda")
        try:
            for _ in self.until_stopped(range(count)):
                yield self._move(next(loading))
        finally:
            loading.close()

    def place(self, module: nn.Module) -> nn.Module:
        """To the device, rank 0's weights everywhere, autocast, BatchNorm over all ranks. For what is trained.

        One forward a step: put the networks and losses of one optimizer into one module.
        """
        module = device.place(module, self.device, self.settings.channels_last)
        if self.accelerator.num_processes > 1:
            module = synchronise_batch_norm(module, traceable=self.settings.compile)
        placed = self.accelerator.prepare(module)
        if self.settings.compile:
            module.compile()
        self._modules.append(placed)
        logger.info("%s: %.2f M parameters", type(module).__name__, sum(p.numel() for p in module.parameters()) / 1e6)
        return placed

    def freeze(self, module: nn.Module) -> nn.Module:
        """To the device, without gradients, in evaluation mode. For networks that only judge or guide."""
        return device.place(module, self.device, self.settings.channels_last).requires_grad_(False).eval()

    def optimizer(self, module: nn.Module, optim: OptimConfig) -> Optimizer:
        """Adam over a placed module's trainable parameters; its learning rate follows `optim` step by step."""
        parameters = [p for p in module.parameters() if p.requires_grad]
        adam = torch.optim.Adam(parameters, lr=optim.lr, betas=optim.betas, weight_decay=optim.weight_decay, fused=True)
        name = type(self.accelerator.unwrap_model(module)).__name__
        return Optimizer(self.accelerator.prepare(adam), optim, name)

    def export(self, networks: Mapping[str, nn.Module], network_configs: Mapping[str, Any]) -> None:
        """Name the networks (and their plain configurations) that go into weights.safetensors."""
        self._exported = nn.ModuleDict(networks)
        self._exported_configs = dict(network_configs)
        if self.settings.ema_decay:
            self._average = AveragedModel(self._exported, self.device)
            self.accelerator.register_for_checkpointing(self._average)

    def resume(self, inputs: Mapping[str, str] | None = None) -> bool:
        """Go on from the newest checkpoint in the run's folder, if there is one. Call after everything is placed.

        Args:
            inputs: fingerprints of what the run depends on beside its configuration (weights of an earlier stage).

        Raises:
            CheckpointError: it is of another stage, configuration or input, or not readable.
        """
        self._inputs = dict(inputs or {})
        newest = self.kept.newest()
        if newest is not None:
            self._load(newest)
        if self.is_main:
            self.kept.clear_leftovers()
            if newest is not None:
                self.kept.mend(self.step, self.best, self._weights())
            with atomic_path(self.folder / "config.yaml") as temporary:
                configs.save(self.config, temporary)
            self._open_logs()
        self._clock = _Clock()
        return newest is not None

    def _load(self, folder: Path) -> None:
        state = self.kept.read(folder, self.stage, configs.to_dict(self.config), self._inputs)
        try:
            self.accelerator.load_state(str(folder))
        except (OSError, RuntimeError, SafetensorError, EOFError, KeyError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(
                f"{folder} cannot be read ({reason}); delete it to go on from the one before"
            ) from error
        self.step, self.best = state.step, state.best
        logger.info("resumed at step %d from %s", self.step, folder)

    def _open_logs(self) -> None:
        path = self.folder / "metrics.jsonl"
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= self.step]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(kept))
        self._metrics = path.open("a", buffering=1)
        if self.settings.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise configs.ConfigError("tensorboard is not installed; use run.tensorboard=false") from error
            self._board = SummaryWriter(self.folder / "tensorboard", purge_step=self.step + 1)
        self._bar = tqdm(total=self.settings.max_steps, initial=self.step, desc=self.stage, disable=None, unit="step")

    # ---- the loop

    def batches(self, dataset: Dataset, batch_size: int) -> Iterator[Any]:
        """Batches on the device until `max_steps` updates are done; after each update logs and saves what is due.

        `batch_size` counts items an update: each of R ranks gets the same share, in `accumulate` parts.
        """
        parts = self.accelerator.num_processes * self.settings.accumulate
        if batch_size % parts:
            raise configs.ConfigError(
                f"optim.batch_size {batch_size} cannot be shared by {self.accelerator.num_processes} ranks"
                f" x {self.settings.accumulate} accumulation steps"
            )
        order = Order(
            first=self.step * batch_size,
            batch_size=batch_size,
            rank=self.accelerator.process_index,
            ranks=self.accelerator.num_processes,
            accumulate=self.settings.accumulate,
        )
        self._loading = Batches(dataset, order, self.settings.workers, pin_memory=self.device.type == "cuda")
        while self.step < self.settings.max_steps:
            self.step += 1
            self._losses, self._norms = {}, {}
            for _ in range(self.settings.accumulate):
                asked = time.perf_counter()
                batch = next(self._loading)
                self._clock.waited += time.perf_counter() - asked
                self._batch = batch
                with self.accelerator.accumulate(*self._modules):
                    yield self._move(batch)
            self._finish_step(batch_size)

    def _move(self, batch: Any) -> Any:
        """A named tuple of tensors and named tuples, on the device but for what names its items."""
        moved = {}
        for name, value in batch._asdict().items():
            if isinstance(value, tuple):
                moved[name] = self._move(value)
            elif isinstance(value, Tensor) and name not in ON_HOST:
                moved[name] = value.to(self.device, non_blocking=True)
        return batch._replace(**moved)

    def update(self, optimizer: Optimizer, losses: Mapping[str, Tensor]) -> None:
        """Sum the named, weighted losses, go back through them, and (at the end of a batch) step the optimizer.

        Raises:
            RunError: a loss or the gradient is not finite. On a CPU at once and before the weights change, on a GPU
                some seconds later; no checkpoint is ever written from it.
        """
        for name, loss in losses.items():
            share = loss.detach().float() / self.settings.accumulate
            self._losses[name] = self._losses[name] + share if name in self._losses else share
        self._watch("loss", {name: loss.detach() for name, loss in losses.items()})
        self.accelerator.backward(torch.stack([loss.float() for loss in losses.values()]).sum())
        rate = optimizer.schedule.rate(self.step - 1)
        for group in optimizer.adam.param_groups:
            group["lr"] = rate
        if self.accelerator.sync_gradients:
            gradients = [p.grad for g in optimizer.adam.param_groups for p in g["params"] if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            if optimizer.schedule.max_norm:
                parameters = [p for group in optimizer.adam.param_groups for p in group["params"]]
                torch.nn.utils.clip_grads_with_norm_(parameters, optimizer.schedule.max_norm, norm)
            self._watch("gradient norm of", {optimizer.name: norm})
            if self._logs_now():
                self._norms[f"grad_norm/{optimizer.name}"] = norm
                self._record["lr"] = rate
        optimizer.adam.step()
        optimizer.adam.zero_grad()

    def _watch(self, what: str, values: dict[str, Tensor]) -> None:
        """Remember values that must be finite, with the items they came from."""
        items = [int(n) for n in self._batch.index]
        clips = [int(n) for n in self._batch.clip]
        self._pending.append(_Pending(self.step, what, values, items, clips))
        if self.device.type == "cpu":
            self._check_finite()

    def validates(self) -> bool:
        """Is it now for this process to validate? Only the main one does."""
        return self.is_main and self._completes(self.settings.validate_every)

    def samples(self) -> bool:
        """Is it now for this process to draw samples? Only the main one does."""
        return self.is_main and self._completes(self.settings.sample_every)

    def _completes(self, every: int) -> bool:
        """Is this the last part of an update whose number is a multiple of `every`, or of the very last update?"""
        due = self.step % every == 0 or self.step == self.settings.max_steps
        return due and self.accelerator.sync_gradients

    def record(self, values: Mapping[str, float], best: str | None = None, higher_is_better: bool = True) -> None:
        """Put validation results into this step's line of the log; `best` names the one that decides what is best."""
        self._record |= {f"val/{name}": float(value) for name, value in values.items()}
        if best is None:
            return
        value = values[best] if higher_is_better else -values[best]
        if math.isfinite(value) and (self.best is None or value > self.best.value):
            self.best, self._improved = Best(float(value), self.step), True

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[nn.ModuleDict]:
        """The exported networks (their average, if one is kept) in evaluation mode, without gradients."""
        networks = self._networks()
        modes = {part: part.training for part in networks.modules()}
        networks.eval()
        try:
            with torch.inference_mode(), self.accelerator.autocast():
                yield networks
        finally:
            for part, training in modes.items():
                part.training = training

    def _networks(self) -> nn.ModuleDict:
        """What is validated and exported."""
        if self._average is None:
            return self._exported
        assert isinstance(self._average.module, nn.ModuleDict)
        return self._average.module

    def sample_path(self, name: str) -> Path:
        """Where a picture or video of this step goes."""
        path = self.folder / "samples" / f"step-{self.step:07d}-{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _logs_now(self) -> bool:
        often = (self.settings.log_every, self.settings.validate_every)
        return any(self.step % every == 0 for every in often) or self.step in (1, self.settings.max_steps)

    def _finish_step(self, batch_size: int) -> None:
        if self._average is not None:
            self._update_average(self._average)
        self._clock.steps += 1
        if self._logs_now():
            self._check_finite()
            self._log(batch_size)
        elif time.monotonic() - self._looked_for_nan_at > NAN_S:
            self._check_finite()
        if self._bar is not None:
            self._bar.update()
        stop, done = self._must_stop(), self.step == self.settings.max_steps
        if stop or self._completes(self.settings.save_every) or self._completes(self.settings.validate_every):
            self._check_finite()
            self._save()
        if stop and not done:
            raise KeyboardInterrupt

    def _update_average(self, average: AveragedModel) -> None:
        """As `AveragedModel.update_parameters`, which asks the device, twice a step, how often it has been called."""
        averaged, current = ([*each.parameters(), *each.buffers()] for each in (average.module, self._exported))
        floats = [n for n, old in enumerate(averaged) if old.is_floating_point()]
        share = 1.0 if self.step == 1 else 1 - self.settings.ema_decay  # the average begins with the first weights
        with torch.no_grad():
            torch._foreach_lerp_([averaged[n] for n in floats], [current[n] for n in floats], share)
            for old, new in zip(averaged, current, strict=True):
                if not old.is_floating_point():  # counters are not averaged
                    old.copy_(new)

    def _must_stop(self) -> bool:
        """Has anybody asked to stop? Ranks must agree on the step: they ask each other some two seconds apart.

        Asking costs a wait for the GPU. From the time that the steps in between took, which all ranks hear alike, all
        know at which step they ask again.
        """
        asked, ranks = self._asked_to_stop_at is not None, self.accelerator.num_processes
        if ranks == 1:
            return asked
        if self.step < self._look_at:
            return False
        now = time.monotonic()
        steps, seconds = (self.step - self._looked_at[0], now - self._looked_at[1]) if self._looked_at else (1, LOOK_S)
        told = torch.tensor([float(asked), seconds / steps], device=self.device)
        anybody, step_s = self.accelerator.reduce(told, "sum").tolist()
        self._looked_at, self._look_at = (self.step, now), self.step + max(1, int(LOOK_S * ranks / max(step_s, 1e-6)))
        return anybody > 0

    def _check_finite(self) -> None:
        pending, self._pending = self._pending, []
        self._looked_for_nan_at = time.monotonic()
        if not pending:
            return
        flat = [value.float().reshape(()) for entry in pending for value in entry.values.values()]
        finite = iter(torch.isfinite(torch.stack(flat)).tolist())
        for entry in pending:
            broken = [name for name, ok in zip(entry.values, finite, strict=False) if not ok]
            if broken:
                newest = self.kept.newest()
                raise RunError(
                    f"{entry.what} {', '.join(broken)} is not finite at step {entry.step}, items {entry.items}, clips"
                    f" {entry.clips} (rows of the manifest, from 0); the last good checkpoint is"
                    f" {newest or 'none yet'}"
                )

    def _log(self, batch_size: int) -> None:
        elapsed = time.perf_counter() - self._clock.start
        values = {name: self.accelerator.reduce(loss, "mean") for name, loss in self._losses.items()}
        values |= self._norms
        line = {"step": self.step, **dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))}
        line |= self._record
        line |= {
            "samples_per_s": round(self._clock.steps * batch_size / elapsed, 3),
            "data_wait": round(self._clock.waited / elapsed, 4),
            "peak_memory_gb": round(self._peak_memory() / 1e9, 3),
        }
        self._record, self._clock = {}, _Clock()
        if not self.is_main:
            return
        self._metrics.write(json.dumps(line) + "\n")
        self._bar.set_postfix({name: f"{line[name]:.4g}" for name in self._losses}, refresh=False)
        if self._bar.disable:
            logger.info("%s", " ".join(f"{name} {value:.5g}" for name, value in line.items()))
        if self._board is not None:
            for name, value in line.items():
                self._board.add_scalar(name, value, self.step)

    def _peak_memory(self) -> int:
        """Most bytes in use so far: of the GPU, or of this process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    # ---- checkpoints

    def _save(self) -> None:
        """Everything needed to go on exactly; a checkpoint that cannot be written leaves the older ones as they are."""
        try:
            if self.is_main:
                self.kept.begin(self.step)
            self.accelerator.wait_for_everyone()
            self.accelerator.save_state(str(self.kept.partial(self.step)))
            self.accelerator.wait_for_everyone()
            if self.is_main:
                state = State(self.stage, self.step, self.best, self._inputs, configs.to_dict(self.config))
                self.kept.complete(state, self._weights(), self._improved)
                self._improved = False
        except (OSError, RuntimeError, SafetensorError) as error:
            self.kept.discard(self.step)
            free = shutil.disk_usage(self.folder).free
            raise RunError(
                f"checkpoint {self.kept.final(self.step)} could not be written ({str(error).splitlines()[0]};"
                f" {free / 1e6:.0f} MB free); older ones are untouched, run the same command again when there is room"
            ) from error
        self.accelerator.wait_for_everyone()
        self._clock = _Clock()

    def _weights(self) -> Weights:
        states = {name: network.state_dict() for name, network in self._networks().items()}
        return Weights(states, self._exported_configs)


def _whole_lines(path: Path) -> list[str]:
    """Those lines of a log that can be read: a full disk or a crash may have cut one off."""
    kept = []
    for line in path.read_text(errors="replace").splitlines(keepends=True) if path.exists() else []:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            if line.endswith("\n") and json.loads(line)["step"] >= 0:
                kept.append(line)
    return kept
