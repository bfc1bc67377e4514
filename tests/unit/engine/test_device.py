"""engine.device, with a stand-in for a machine with GPUs: which one is current, float32, bf16."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch
from accelerate.state import AcceleratorState

from animation.options import AnimationOptions
from engine import device
from engine.run import Run, RunConfig


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine with two RTX 2080 Ti: they hold bf16 tensors, and imitate their arithmetic.

    Only the driver is made up: what torch itself refuses, it refuses here.
    """
    seen = SimpleNamespace(current=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: seen.current)
    monkeypatch.setattr(torch._C, "_cuda_setDevice", lambda index: setattr(seen, "current", index), raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    return seen


@pytest.mark.parametrize(("option", "rank", "wanted"), [("cuda:1", 0, 1), ("auto", 1, 1), ("cuda", 0, 0)])
def test_the_chosen_gpu_is_the_current_one(two_gpus: SimpleNamespace, option: str, rank: int, wanted: int) -> None:
    chosen = AnimationOptions(device=option).chosen_device(rank)
    assert chosen == torch.device("cuda", wanted) and two_gpus.current == wanted


def test_float32_is_exact_on_a_gpu(two_gpus: SimpleNamespace) -> None:
    assert device.float32_meaning() == "tf32"  # torch's default
    AnimationOptions(device="cuda").chosen_device()
    assert device.float32_meaning() == "ieee"


@pytest.mark.parametrize("current", [0, 1])
def test_a_gpu_without_a_number_is_the_current_one(two_gpus: SimpleNamespace, current: int) -> None:
    two_gpus.current = current
    device.use(torch.device("cuda"))
    assert two_gpus.current == current and device.float32_meaning() == "ieee"


def test_on_a_cpu_tiny_numbers_are_0_and_opencv_keeps_to_one_thread() -> None:
    before, tiny = cv2.getNumThreads(), torch.full((64,), 2e-38)
    torch.set_flush_denormal(False)
    try:
        assert (tiny * 0.01 > 0).all()
        cv2.setNumThreads(2)
        device.use(torch.device("cpu"))
        assert cv2.getNumThreads() == 1
        with ThreadPoolExecutor(1) as pool:
            products = [tiny * 0.01, pool.submit(lambda: tiny * 0.01).result()]
        if torch.set_flush_denormal(True):  # not every CPU can
            assert not any(product.any() for product in products)
    finally:
        torch.set_flush_denormal(False)
        cv2.setNumThreads(before)


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_a_training_starts_on_a_gpu(two_gpus: SimpleNamespace, asked: str, tmp_path: Path) -> None:
    """Without torchrun, where Accelerate's device has no number."""
    AcceleratorState._reset_state(reset_partial_state=True)
    config = SimpleNamespace(run=RunConfig(str(tmp_path), max_steps=1, device=asked, tensorboard=False))
    try:
        assert Run("toy", config).device.type == "cuda"
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert device.float32_meaning() == "ieee"


def test_imitated_bf16_is_not_chosen(two_gpus: SimpleNamespace) -> None:
    assert not device.computes_bf16(torch.device("cuda", 0))
    assert AnimationOptions(device="cuda").chosen_dtype(torch.device("cuda", 0)) is None


def test_bf16_is_chosen_where_the_cpu_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert AnimationOptions().chosen_dtype(cpu) == (torch.bfloat16 if device.computes_bf16(cpu) else None)
    for able, wanted in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: {"avx512_f": True, "avx512_bf16": able})
        if torch.ops.mkldnn._is_mkldnn_bf16_supported():
            assert AnimationOptions().chosen_dtype(cpu) == wanted
    assert AnimationOptions(precision="fp32").chosen_dtype(cpu) is None
