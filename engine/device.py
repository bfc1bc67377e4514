"""Devices: how modules lie on one, which GPU is the process's own, what float32 means on it, whether bf16 pays."""

import torch
from torch import nn

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # a precision's type under autocast


def place(module: nn.Module, device: torch.device, channels_last: bool) -> nn.Module:
    """A module on a device; with `channels_last` its 2-D and 3-D convolutions have their weights in that layout."""
    module = module.to(device)
    if channels_last:
        for part in module.modules():
            if type(part) is nn.Conv2d:
                part.to(memory_format=torch.channels_last)
            elif type(part) is nn.Conv3d:
                part.to(memory_format=torch.channels_last_3d)
    return module


def use(device: torch.device) -> None:
    """Make a GPU the process's current one and float32 exact on it; on a CPU see that nothing holds it up.

    Streams and events belong to the current GPU unless they name another, and a process that leaves cuda:0 current
    keeps memory there. TF32, cuDNN's default for float32 convolutions and LSTMs, has 10 bits of fraction, which moves
    keypoints by up to 4e-4; what may be less exact runs in bf16 instead.

    Numbers below 1e-38, of which heatmaps are full, count as 0: Intel's CPUs take many times as long for each.
    Frames are made by threads of ours, a frame each, and OpenCV's own would only get in their way.
    """
    torch.set_flush_denormal(True)  # in this thread and those that it starts
    if device.type == "cpu":
        import cv2

        cv2.setNumThreads(1)
    if device.type == "cuda":
        torch.cuda.set_device(torch.cuda.current_device() if device.index is None else device)
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def computes_bf16(device: torch.device) -> bool:
    """Whether the device has bf16 instructions.

    Cards before Ampere and CPUs with AVX-512 but without its bf16 part only imitate them, slower than float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return torch.cpu.get_capabilities().get("avx512_bf16", True)  # only x86 has an answer to this


def float32_meaning() -> str:
    """How float32 convolutions compute now, in a word: ieee or tf32."""
    return "tf32" if torch.cuda.is_available() and torch.backends.cudnn.allow_tf32 else "ieee"
