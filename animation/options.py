"""How a video is generated, apart from which files: read from YAML (`--config`) and from the command line.

torch is imported where it is used, so that `--help` need not wait for it.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import yaml

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]
WORDS = ("auto", "off")  # of blink
MOST_BLINKS = 100  # a minute
MOST_RETURN_S = 3600.0
MOST_SCALE = 10.0  # of motion: far beyond what a face can do
SIZES = range(32, 8193)  # pixels: smaller shows nothing, larger films there are none
# Options that a checkpoint may carry, since they depend on what it was trained on.
CARRIED = ("keypoint_mode", "expression_scale", "head_motion_scale", "head_return")


class OptionError(ValueError):
    """An option that this machine or these inputs cannot serve; the message says what to choose instead."""


def option(default: Any, help: str, least: float | None = None, most: float | None = None) -> Any:
    """A field with the text that `--help` shows for it and, for a number, its smallest and largest value."""
    return field(default=default, metadata={"help": help, "least": least, "most": most})


@dataclass(frozen=True)
class AnimationOptions:
    """Everything that decides how a video is made. Each field is a key of the YAML file and an argument."""

    device: str = option("auto", "auto (CUDA, then Apple's MPS, then the CPU), cpu, cuda, cuda:N or mps")
    precision: Precision = option(
        "auto", "of N_I, on a CPU of Hourglass-3D, too; auto: bf16 where the machine computes in it, else fp32"
    )
    batch_size: int = option(
        0, "frames rendered at once; 0: 32 on a GPU, 1 on a CPU, where more brings nothing", least=0, most=4096
    )
    compile: bool = option(False, "torch.compile the renderer: pays on long sound; needs a C++ compiler on a CPU")
    seed: int = option(0, "of the blinks; equal input and seed give equal frames", least=0, most=2**63 - 1)
    crop: str = option(
        "auto", "auto: find the face and frame it as in training; none: the whole picture; X,Y,W,H: this part, pixels"
    )
    face: int = option(
        0, "of several faces take this one, numbered as the notice lists them; 0: the largest", least=0, most=1000
    )
    view: Literal["whole", "square"] = option(
        "whole", "whole: the picture, moving where the networks look; square: only where they look"
    )
    size: int | Literal["native"] = option(
        1280, "longest side of the video, pixels (nothing is enlarged); native: the networks' own square frames"
    )
    background: str = option("white", "colour behind a cut-out (a picture with alpha): a name or #RRGGBB")
    head_motion_scale: float = option(
        1.0, "make head motion about the first pose so many times as large", least=0, most=MOST_SCALE
    )
    head_return: float = option(
        0.0,
        "predicted heads come back to the first pose within about so many seconds; 0: they stay where they go",
        least=0,
        most=MOST_RETURN_S,
    )
    still: bool = option(False, "hold the head still, like a head motion scale of 0")
    expression_scale: float = option(
        1.0, "make the motion of lips and jaw so many times as large", least=0, most=MOST_SCALE
    )
    keypoint_mode: Literal["absolute", "relative"] = option(
        "absolute",
        "absolute: as the released program; relative: motion on the picture's own keypoints, keeps its shape",
    )
    look_ahead: int = option(
        0,
        "frames of sound heard before a frame is made; fewer shorten a stream's delay and cost time and smoothness; "
        "0: a quarter of the window of N_M, 16 for the paper's, which is the most",
        least=0,
        most=64,
    )
    blink: str | float | bool = option(
        "auto",
        "auto (as people in conversation, if the model has keypoints of lids), off, or blinks a minute",
    )
    label: bool = option(False, 'burn in a small visible "synthetic" label')
    crf: int = option(17, "quality of the H.264 video, from 0 (lossless) to 51", least=0, most=51)

    def __post_init__(self) -> None:
        number = not isinstance(self.blink, str | bool)
        if (number and not 0 < self.blink <= MOST_BLINKS) or (isinstance(self.blink, str) and self.blink not in WORDS):
            wanted = f"auto, off or a number of blinks a minute, more than 0 and at most {MOST_BLINKS}"
            raise ValueError(f"blink must be {wanted}; found {self.blink}")
        for each in fields(self):
            least, most = each.metadata.get("least"), each.metadata.get("most")  # a subclass's own field has none
            value = getattr(self, each.name)
            if least is not None and not least <= value <= most:  # false for NaN, too
                raise ValueError(f"{each.name} must be from {least} to {most}, found {value}")
        if self.crop not in ("auto", "none") and self.crop_box is None:
            raise ValueError(f"crop must be auto, none or X,Y,W,H (whole pixels), found {self.crop!r}")
        if self.face and self.crop != "auto":
            raise ValueError(f"face {self.face} and crop {self.crop} exclude each other; leave one out")
        if self.size != "native" and self.size not in SIZES:
            raise ValueError(f"size must be native or from {SIZES[0]} to {SIZES[-1]} pixels, found {self.size}")

    @property
    def crop_box(self) -> tuple[int, int, int, int] | None:
        """x, y, width, height, where `crop` gives them."""
        if not re.fullmatch(r"\d{1,6}(,\d{1,6}){3}", self.crop):
            return None
        x, y, width, height = map(int, self.crop.split(","))
        return x, y, width, height

    def chosen_device(self, local_rank: int = 0) -> torch.device:
        """The device to use, made ready (`engine.device.use`); under torchrun each rank takes its own GPU.

        Raises:
            OptionError: it is not there.
        """
        import torch

        from engine.device import use

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
        use(device)
        return device

    def chosen_dtype(self, device: torch.device) -> torch.dtype | None:
        """Type of N_I's convolutions, and if bf16 of Hourglass-3D's; None for fp32. All else is float32 in any case.

        Raises:
            OptionError: fp16 on a CPU.
        """
        from engine.device import AUTOCAST, computes_bf16

        if self.precision == "auto":
            return AUTOCAST["bf16"] if computes_bf16(device) else None
        if self.precision == "fp16" and device.type == "cpu":
            raise OptionError("--precision fp16 is for GPUs; on the CPU choose bf16 or fp32")
        return AUTOCAST[self.precision]

    def blink_rate(self, lids: bool) -> float:
        """Blinks a minute, 0 for none. `lids`: whether the model has keypoints of lids.

        Raises:
            OptionError: a rate is asked for that the model cannot give.
        """
        if isinstance(self.blink, str | bool):
            wanted = self.blink in ("auto", True)  # YAML reads off as false and on as true
            from animation.blinks import RATE

            return RATE if wanted and lids else 0.0
        if not lids:
            raise OptionError(f"--blink {self.blink}: the model has no keypoints of lids; leave --blink out")
        return self.blink

    def chosen_batch_size(self, device: torch.device) -> int:
        """`batch_size`, or what suits the device."""
        return self.batch_size or (1 if device.type == "cpu" else 32)


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Give a command line one argument for each field of AnimationOptions; those not given are None."""
    types = get_type_hints(AnimationOptions)
    for each in fields(AnimationOptions):
        name, kind = f"--{each.name.replace('_', '-')}", types[each.name]
        if kind is bool:
            parser.add_argument(name, action="store_true", default=None, help=each.metadata["help"])
            continue
        how = {"type": kind if isinstance(kind, type) else _number_or_word}
        if get_origin(kind) is Literal:
            how = {"choices": get_args(kind)}
        parser.add_argument(name, **how, help=f"{each.metadata['help']} (default: {each.default})")


def override(name: str, text: str) -> str:
    """An option as it is written on the command line or in a list, as `key=value` for engine.config.load."""
    if get_type_hints(AnimationOptions)[name] is str:  # whatever YAML would make of it
        text = yaml.safe_dump(text).splitlines()[0]
    return f"{name}={text}"


def _number_or_word(text: str) -> int | float | str:
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else number


def given(arguments: argparse.Namespace) -> list[str]:
    """Those options that stand on the command line, as `key=value` for engine.config.load."""
    values = {each.name: getattr(arguments, each.name) for each in fields(AnimationOptions)}
    return [f"{name}={yaml.safe_dump(value).splitlines()[0]}" for name, value in values.items() if value is not None]
