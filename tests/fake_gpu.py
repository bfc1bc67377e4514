"""A GPU for machines without one: tensors that know shape, type and device and hold no numbers.

Every operation checks that its tensors lie on one device, as a GPU would, and autocast follows CUDA's rules. What does
not work in torch 2.15 without a driver: going back through a graph on `cuda`. For that there is "meta", a second device
of the same kind without autocast.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

Made = TypeVar("Made")


class FakeGpu:
    """Makes what lies on the device; what runs afterwards must not name it, so nothing lands there by itself."""

    def __init__(self, kind: str) -> None:
        self.device = torch.device(kind)

    def build(self, make: Callable[..., Made], *arguments: object) -> Made:
        """Call a constructor with the device as the place of its tensors."""
        with self.device:
            return make(*arguments)

    def tensor(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)


@contextlib.contextmanager
def fake_gpu(kind: str) -> Iterator[FakeGpu]:
    """`kind`: "cuda" (forward, with bf16 autocast) or "meta" (forward and back)."""
    with contextlib.ExitStack() as stack:
        if kind == "cuda":
            stack.enter_context(mock.patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False))
            stack.enter_context(mock.patch("torch.cuda.is_bf16_supported", lambda including_emulation=True: True))
            # Operations of cuDNN's own (grid_sample, LSTM) cannot pretend; torch's can.
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            autocast = torch.autocast("cuda", torch.bfloat16)
        else:
            stack.enter_context(mock.patch("torch.autocast", lambda *_, **__: contextlib.nullcontext()))
            autocast = contextlib.nullcontext()
        stack.enter_context(FakeTensorMode())
        stack.enter_context(autocast)
        yield FakeGpu(kind)
