"""engine.run on a toy problem: exact resume, equal parts, what is refused, what is kept, what is said."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import engine.run
from engine.device import computes_bf16
from engine.run import OptimConfig, Run, RunConfig, RunError

TOY = Path(__file__).parents[2] / "toy_training.py"
SETTINGS = """
run: {dir: DIR, max_steps: 12, workers: 0, log_every: 1, validate_every: 6, save_every: 3, tensorboard: false}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(SETTINGS)
    return path


def toy(config: Path, folder: Path, *overrides: str, ranks: int = 1, expect: int = 0) -> subprocess.CompletedProcess:
    start = [sys.executable]
    if ranks > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    command = [*start, str(TOY), "--config", str(config), f"run.dir={folder}", "run.device=cpu", *overrides]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300
    )
    assert done.returncode == expect, done.stderr
    return done


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[tuple]:
    return [(line["step"], line["square"], line["absolute"], line["critic"]) for line in lines(folder)]


def sentence(done: subprocess.CompletedProcess) -> str:
    """The one line a user reads."""
    assert "Traceback" not in done.stderr, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    return errors[0]


def test_what_a_run_leaves_behind(config: Path, tmp_path: Path) -> None:
    toy(config, tmp_path / "a", "run.keep_every=6")
    found = lines(tmp_path / "a")
    assert [line["step"] for line in found] == list(range(1, 13))
    assert {"square", "absolute", "critic", "lr", "samples_per_s", "data_wait", "grad_norm/Losses"} <= found[0].keys()
    assert [line["step"] for line in found if "val/error" in line] == [6, 12]
    assert found[-1]["square"] < found[0]["square"]
    folder = tmp_path / "a" / "checkpoints"
    assert (folder / "latest").resolve().name == "step-0000012"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["best", "latest", "step-0000006", "step-0000012"]
    assert "seed: 0" in (tmp_path / "a" / "config.yaml").read_text()
    assert "command:" in (tmp_path / "a" / "log.txt").read_text()
    weights = load_file(tmp_path / "a" / "weights.safetensors")
    assert weights["net.0.weight"].shape == (8, 3, 3, 3)
    assert (tmp_path / "a" / "best.safetensors").exists()


def test_one_huge_gradient_does_not_hold_back_the_steps_after_it(config: Path, tmp_path: Path) -> None:
    """Adam divides by the gradients' mean square, so what is huge is shortened before."""
    for name, options in {
        "undisturbed": (),
        "held back": ("huge_at=3",),
        "shortened": ("huge_at=3", "optim.max_norm=10"),
    }.items():
        toy(config, tmp_path / name, "run.max_steps=40", "optim.lr=0.001", *options)
    fallen = {
        each.name: lines(each)[-1]["square"] / lines(each)[14]["square"]
        for each in map(tmp_path.joinpath, ("undisturbed", "held back", "shortened"))
    }
    assert max(fallen["undisturbed"], fallen["shortened"]) < 0.25 < 0.4 < fallen["held back"], fallen
    first = lines(tmp_path / "shortened")[0]
    assert first["grad_norm/Losses"] > 1e6  # what is logged is the gradient as it was


def test_stopping_and_going_on_gives_the_same_bits(config: Path, tmp_path: Path) -> None:
    toy(config, tmp_path / "straight", "run.ema_decay=0.9")
    toy(config, tmp_path / "halves", "run.ema_decay=0.9", "run.max_steps=6")
    toy(config, tmp_path / "halves", "run.ema_decay=0.9", "run.workers=2")
    assert losses(tmp_path / "halves") == losses(tmp_path / "straight")
    a, b = (load_file(tmp_path / name / "weights.safetensors") for name in ("straight", "halves"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_the_average_of_the_weights_is_where_they_are_trained(tmp_path: Path) -> None:
    """Networks are exported before they are placed on a GPU; here another device stands for it."""
    config = SimpleNamespace(run=RunConfig(str(tmp_path), max_steps=1, device="cpu", ema_decay=0.9, tensorboard=False))
    with Run("toy", config) as run:
        run.device = torch.device("meta")
        run.export({"net": torch.nn.Linear(1, 1)}, {})
        with run.evaluating() as networks:
            assert {value.device.type for value in networks.state_dict().values()} == {"meta"}


def test_the_average_of_the_weights_is_torchs(tmp_path: Path) -> None:
    """Which is not used itself, because it asks the GPU how often it was called."""
    config = SimpleNamespace(run=RunConfig(str(tmp_path), max_steps=3, device="cpu", ema_decay=0.9, tensorboard=False))
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    wanted = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    with Run("toy", config) as run:
        run.export({"net": network}, {})
        for run.step in range(1, 4):
            network(torch.randn(5, 3))
            torch.nn.init.normal_(network[0].weight)
            wanted.update_parameters(network)
            run._update_average(run._average)
        with run.evaluating() as networks:
            found = networks["net"].state_dict()
    counter = found.pop("1.num_batches_tracked")
    assert counter == network[1].num_batches_tracked == 3
    assert all(torch.allclose(value, wanted.module.state_dict()[name]) for name, value in found.items())
    assert not torch.allclose(found["0.weight"], network[0].weight, atol=0.1)


def test_a_finished_run_stays_as_it_is(config: Path, tmp_path: Path) -> None:
    toy(config, tmp_path / "a")
    before, weights = losses(tmp_path / "a"), tmp_path / "a" / "weights.safetensors"
    content, metadata = load_file(weights), safe_open(weights, "pt").metadata()  # whose order in the file is chance
    weights.unlink()
    toy(config, tmp_path / "a")
    again = load_file(weights)
    assert losses(tmp_path / "a") == before and safe_open(weights, "pt").metadata() == metadata
    assert again.keys() == content.keys() and all(torch.equal(again[name], content[name]) for name in again)


def test_killed_at_any_moment(config: Path, tmp_path: Path) -> None:
    """SIGKILL again and again, at moments spread over start, steps and saves; then the same command to the end."""
    quick = ("run.max_steps=60", "run.save_every=1", "pause_s=0.002")
    toy(config, tmp_path / "straight", *quick)
    folder = tmp_path / "killed"
    kills = 0
    for attempt in range(8):
        command = [sys.executable, str(TOY), "--config", str(config), f"run.dir={folder}", "run.device=cpu", *quick]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
        first = None
        while process.poll() is None:
            if first is None and (folder / "metrics.jsonl").exists() and attempt > 0:
                first = time.monotonic()  # training soon starts
            if attempt == 0 and (folder / "checkpoints").exists():
                break
            if first is not None and time.monotonic() - first > 0.4 + 0.137 * attempt:
                break
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        for path in (folder / "checkpoints").glob("step-*"):
            assert (path / "run.json").exists()  # a folder with a good name is whole
    assert kills >= 2
    toy(config, folder, *quick)
    assert losses(folder) == losses(tmp_path / "straight")


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 0), (signal.SIGTERM, 2)])
def test_asked_to_stop_saves_and_exits_130(config: Path, tmp_path: Path, number: int, workers: int) -> None:
    """The signal goes to the whole process group, as from a terminal or a batch system: to data workers too."""
    never = [f"run.{name}=100000" for name in ("max_steps", "save_every", "validate_every")]
    overrides = [*never, f"run.workers={workers}", "pause_s=0.001", f"run.dir={tmp_path / 'a'}", "run.device=cpu"]
    command = [sys.executable, str(TOY), "--config", str(config), *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    while not (tmp_path / "a" / "metrics.jsonl").exists() or not lines_so_far(tmp_path / "a"):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    saved = (tmp_path / "a" / "checkpoints" / "latest").resolve().name
    assert saved == f"step-{lines(tmp_path / 'a')[-1]['step']:07d}"


@pytest.mark.parametrize("to_workers_too", [False, True])
def test_ranks_save_within_torchruns_patience(config: Path, tmp_path: Path, to_workers_too: bool) -> None:
    """Although nothing is logged for a long time, and although the workers may hear of it three times."""
    folder = tmp_path / "a"
    never = [f"run.{name}=100000" for name in ("max_steps", "save_every", "validate_every", "log_every")]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--shutdown_timeout=15"]
    command = [sys.executable, *launch, str(TOY), "--config", str(config), f"run.dir={folder}", *never]
    command += ["run.device=cpu", "pause_s=0.02"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    while not (folder / "metrics.jsonl").exists() or not lines_so_far(folder):  # step 1 is logged
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    workers = psutil.Process(process.pid).children()  # in sessions of their own: no signal to a group reaches them
    assert len(workers) == 2
    for worker in workers * 2 if to_workers_too else []:
        worker.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert (folder / "checkpoints" / "latest").exists(), stderr
    assert (folder / "weights.safetensors").exists()


def test_a_second_signal_is_the_same_wish_only_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run("toy", SimpleNamespace(run=RunConfig(str(tmp_path), max_steps=1, device="cpu", tensorboard=False)))
    now = 100.0
    monkeypatch.setattr(engine.run, "time", SimpleNamespace(monotonic=lambda: now))
    run._ask_to_stop(signal.SIGTERM, None)
    now += engine.run.REPEAT_S - 0.1
    run._ask_to_stop(signal.SIGTERM, None)
    assert run._must_stop()  # in good order, after a checkpoint
    now += 0.2
    with pytest.raises(KeyboardInterrupt):
        run._ask_to_stop(signal.SIGTERM, None)


def lines_so_far(folder: Path) -> int:
    return (folder / "metrics.jsonl").read_text().count("\n")


def test_parts_of_a_batch_make_the_whole(config: Path, tmp_path: Path) -> None:
    """Gradient accumulation: without BatchNorm's statistics in play (one part sees fewer samples) the same numbers."""
    toy(config, tmp_path / "whole", "run.max_steps=1")
    toy(config, tmp_path / "parts", "run.max_steps=1", "run.accumulate=2")
    whole, parts = lines(tmp_path / "whole")[0], lines(tmp_path / "parts")[0]
    assert parts["critic"] == pytest.approx(whole["critic"], rel=1e-6)
    assert parts["grad_norm/Critic"] == pytest.approx(whole["grad_norm/Critic"], rel=1e-6)


def test_two_ranks_with_half_a_batch_equal_one(config: Path, tmp_path: Path) -> None:
    """With BatchNorm in training mode: its statistics are those of both ranks."""
    toy(config, tmp_path / "one")
    toy(config, tmp_path / "two", ranks=2)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    for a, b in zip(one, two, strict=True):
        assert b == pytest.approx(a, rel=1e-4)
    a, b = (load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two"))
    for key in a:
        assert torch.allclose(a[key].float(), b[key].float(), atol=1e-4), key


def test_ranks_without_a_gpu_are_one_training(config: Path, tmp_path: Path) -> None:
    """With run.device=auto, the default, as with cpu."""
    hidden = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [sys.executable, *launch, str(TOY), "--config", str(config), f"run.dir={tmp_path}", "run.max_steps=3"]
    done = subprocess.run(command, capture_output=True, text=True, env=hidden, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "on 2 x CPU" in (tmp_path / "log.txt").read_text()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]


def test_two_ranks_resume_too(config: Path, tmp_path: Path) -> None:
    toy(config, tmp_path / "straight", ranks=2)
    toy(config, tmp_path / "halves", "run.max_steps=6", ranks=2)
    toy(config, tmp_path / "halves", ranks=2)
    assert losses(tmp_path / "halves") == losses(tmp_path / "straight")


def test_other_stage_or_configuration_is_refused(config: Path, tmp_path: Path) -> None:
    toy(config, tmp_path / "a", "run.max_steps=3")
    said = sentence(toy(config, tmp_path / "a", "stage=other", expect=2))
    assert "stage 'toy', this is 'other'" in said and "run.dir" in said
    said = sentence(toy(config, tmp_path / "a", "optim.lr=0.5", "run.log_every=2", expect=2))
    assert "optim.lr: 0.01 there, 0.5 here" in said and "log_every" not in said
    assert len(lines(tmp_path / "a")) == 3


def test_damaged_checkpoint_is_named(config: Path, tmp_path: Path) -> None:
    toy(config, tmp_path / "a", "run.max_steps=3")
    path = tmp_path / "a" / "checkpoints" / "step-0000003" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert "step-0000003 cannot be read" in sentence(toy(config, tmp_path / "a", expect=2))


def test_loss_that_is_not_finite_stops_with_names_and_keeps_the_last_good_state(config: Path, tmp_path: Path) -> None:
    said = sentence(toy(config, tmp_path / "a", "nan_at=61", expect=2))
    assert "loss square, absolute is not finite at step 8" in said
    assert "60, 61, 62" in said and "clips [1, 2, 3" not in said.replace("clips [1, 2, 3, 4, 0", "")
    assert said.endswith("step-0000006")
    stored = load_file(tmp_path / "a" / "checkpoints" / "step-0000006" / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in stored.values())


def test_on_a_gpu_nan_is_seen_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only at the next logged step, which may be a hundred steps away; and not in each step, which would wait."""
    config = SimpleNamespace(run=RunConfig(dir=str(tmp_path), max_steps=99, log_every=90, tensorboard=False))
    run = Run("toy", config)
    run.device, run.step, run._batch = torch.device("cuda"), 7, SimpleNamespace(index=[1], clip=[2])
    run._watch("loss", {"square": torch.tensor(torch.nan)})
    run._looked_for_nan_at = time.monotonic()
    run._finish_step(8)  # a moment ago
    monkeypatch.setattr(engine.run, "NAN_S", 0.0)
    with pytest.raises(RunError, match="loss square is not finite at step 7"):
        run._finish_step(8)


def test_ranks_wait_longer_than_nccls_ten_minutes(tmp_path: Path) -> None:
    config = SimpleNamespace(run=RunConfig(dir=str(tmp_path), max_steps=1))
    assert Run("toy", config).accelerator.init_handler.timeout == engine.run.PATIENCE > timedelta(minutes=10)
    assert torch.backends.cudnn.benchmark  # shapes are the same in every step


def test_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(config: Path, tmp_path: Path) -> None:
    """The loss of that step is finite; a checkpoint falls due at its end and must not be written."""
    said = sentence(toy(config, tmp_path / "a", "steep_at=61", "run.save_every=4", expect=2))
    assert "gradient norm of Losses is not finite at step 8" in said and "60, 61, 62" in said
    assert said.endswith("step-0000006")


@pytest.mark.parametrize("workers", [0, 2])
def test_vanished_file_is_one_sentence(config: Path, tmp_path: Path, workers: int) -> None:
    said = sentence(toy(config, tmp_path / "a", "missing_at=30", f"run.workers={workers}", expect=2))
    assert "clips/gone/frames.zip" in said


def test_full_disk_is_one_sentence_and_leaves_the_older_checkpoint(config: Path, tmp_path: Path) -> None:
    toy(config, tmp_path / "a", "run.max_steps=3")

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    command = [sys.executable, str(TOY), "--config", str(config), f"run.dir={tmp_path / 'a'}", "run.device=cpu"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=small_files, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "step-0000006 could not be written" in sentence(done)
    names = sorted(path.name for path in (tmp_path / "a" / "checkpoints").iterdir())
    assert names == ["best", "latest", "step-0000003"]
    toy(config, tmp_path / "a")  # with room again it goes on
    assert lines(tmp_path / "a")[-1]["step"] == 12


def test_batch_that_cannot_be_shared_is_refused(config: Path, tmp_path: Path) -> None:
    said = sentence(toy(config, tmp_path / "a", "run.accumulate=3", expect=2))
    assert "optim.batch_size 8 cannot be shared by 1 ranks x 3" in said


def test_unknown_key_names_the_nearest(config: Path, tmp_path: Path) -> None:
    assert "did you mean run.max_steps" in sentence(toy(config, tmp_path / "a", "run.max_step=3", expect=2))


def test_learning_rate_falls_at_milestones() -> None:
    optim = OptimConfig(batch_size=1, lr=1.0, milestones=(2, 4), gamma=0.1)
    assert [optim.rate(step) for step in range(5)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_precision_auto_is_what_this_machine_computes_in(config: Path, tmp_path: Path) -> None:
    able = computes_bf16(torch.device("cpu"))
    auto = toy(config, tmp_path / "auto", "run.precision=auto", "run.max_steps=1").stderr
    assert f", {'bf16' if able else 'fp32'}, seed 0" in auto and "no bf16 instructions" not in auto
    asked = toy(config, tmp_path / "bf16", "run.precision=bf16", "run.max_steps=1").stderr
    assert ", bf16, seed 0" in asked and ("no bf16 instructions" in asked) == (not able)


def test_log_is_cut_back_to_the_checkpoint(config: Path, tmp_path: Path) -> None:
    toy(config, tmp_path / "a", "run.max_steps=6")
    log = tmp_path / "a" / "metrics.jsonl"
    log.write_text(log.read_text() + '{"step": 7, "square": 99.0, "absolute": 0, "critic": 0}\n{"step": 8, "squ')
    toy(config, tmp_path / "a")
    assert [line["step"] for line in lines(tmp_path / "a")] == list(range(1, 13))
    assert 99.0 not in [line["square"] for line in lines(tmp_path / "a")]
