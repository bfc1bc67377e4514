"""How a video is generated, apart from which files: read from YAML (`--config`) and from the command line."""

from dataclasses import dataclass
from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class OptionError(ValueError):
    """An option that this machine or these inputs cannot serve; the message says what to choose instead."""


@dataclass(frozen=True)
class AnimationOptions:
    """Attributes:
    device: auto (CUDA, then Apple's MPS, then the CPU), cpu, cuda, cuda:N or mps.
    precision: auto is bf16 on GPUs that have it and fp32 elsewhere. Keypoints and warps are always fp32.
    batch_size: frames rendered at once; 0 chooses 32 on a GPU and 1 on a CPU, where more brings nothing.
    compile: torch.compile the renderer; pays on long sound, needs a C++ compiler on a CPU.
    seed: of torch; the networks use no randomness, so equal input gives equal frames whatever it is.
    crop: auto finds the face and frames it as the training data does; none takes the whole picture.
    head_motion_scale: head motion about the first pose made so many times as large.
    still: hold the head (a scale of 0).
    expression_scale: motion within the face (lips, jaw) made so many times as large.
    keypoint_mode: absolute (the released program) or relative (motion on the source's own keypoints).
    label: burn in a small visible "synthetic" label.
    crf: quality of the H.264 video, 0 (lossless) to 51.
    """

    device: str = "auto"
    precision: Precision = "auto"
    batch_size: int = 0
    compile: bool = False
    seed: int = 0
    crop: Literal["auto", "none"] = "auto"
    head_motion_scale: float = 1.0
    still: bool = False
    expression_scale: float = 1.0
    keypoint_mode: Literal["absolute", "relative"] = "absolute"
    label: bool = False
    crf: int = 18

    def __post_init__(self) -> None:
        if self.batch_size < 0:
            raise ValueError(f"batch_size must be 0 (automatic) or more, found {self.batch_size}")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf must be between 0 and 51, found {self.crf}")

    def chosen_device(self, local_rank: int = 0) -> torch.device:
        """The device to use; under torchrun each rank takes its own GPU. Raises OptionError if it is not there."""
        name = self.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        if name == "cuda":
            name = f"cuda:{local_rank}"
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise OptionError(f"--device {self.device} is unknown; choose auto, cpu, cuda, cuda:N or mps") from error
        if device.type not in ("cpu", "cuda", "mps"):
            raise OptionError(f"--device {self.device} is not supported; choose auto, cpu, cuda, cuda:N or mps")
        if device.type == "cuda" and device.index >= torch.cuda.device_count():
            raise OptionError(
                f"--device {self.device}: this machine has {torch.cuda.device_count()} CUDA devices; try --device cpu"
            )
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise OptionError("--device mps: this machine has no Apple GPU; try --device cpu")
        return device

    def chosen_dtype(self, device: torch.device) -> torch.dtype | None:
        """Type for autocast, None for fp32. Raises OptionError for fp16 on a CPU."""
        if self.precision == "auto":
            return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else None
        if self.precision == "fp16" and device.type == "cpu":
            raise OptionError("--precision fp16 is for GPUs; on the CPU choose bf16 or fp32")
        return AUTOCAST[self.precision]

    def chosen_batch_size(self, device: torch.device) -> int:
        return self.batch_size or (1 if device.type == "cpu" else 32)
