"""From keypoints to 8-bit frames: the source is encoded once, frames are rendered in batches of one fixed size."""

from collections.abc import Iterator

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from animation.full_size import FullSize
from modules.image_generator import ImageGenerator, Rendering
from modules.keypoints import Keypoints


class Renderer:
    """Renders one source picture with N_I.

    Args:
        generator: N_I, usually rewritten by modules.fuse.fuse_for_inference.
        source_BCHW: [1, 3, H, W] in [0, 1], on the generator's device.
        source: its keypoints.
        batch_size: frames rendered at once.
        dtype: of the convolutions, by autocast (None: float32); coordinates and warps are float32 in any case.
        truncate: 8 bits by truncation, as the released program does; otherwise by rounding.
        compile_network: run through torch.compile (slow first batch).
        full_size: makes frames at the photograph's own size; None: N_I's own frames.
    """

    def __init__(
        self,
        generator: ImageGenerator,
        source_BCHW: Tensor,
        source: Keypoints,
        batch_size: int,
        truncate: bool,
        dtype: torch.dtype | None = None,
        compile_network: bool = False,
        full_size: FullSize | None = None,
    ):
        self.source = source
        self.source_BCHW = source_BCHW
        self.full_size = full_size
        self.batch_size = batch_size
        self.truncate = truncate
        self.autocast = torch.autocast(source_BCHW.device.type, dtype=dtype, enabled=dtype is not None)
        with torch.inference_mode(), self.autocast:
            self.encoding = generator.encode(source_BCHW)
        self.draw = torch.compile(self._draw, dynamic=False) if compile_network else self._draw
        self.generator = generator

    def _draw(self, position_BK2: Tensor, jacobian_BK22: Tensor | None) -> Rendering:
        with self.autocast:
            return self.generator.render(self.encoding, Keypoints(position_BK2, jacobian_BK22), self.source)

    def render_batch(self, position_BK2: Tensor, jacobian_BK22: Tensor | None) -> Tensor:
        """-> uint8 [B, H, W, 3] on the device."""
        rendering = self.draw(position_BK2, jacobian_BK22)
        if self.full_size is not None:
            return self.full_size.frames(self.full_size.layers(rendering, self.source_BCHW))
        levels = rendering.image_BCHW * 255
        if not self.truncate:
            levels = levels.round()
        return rearrange(levels.to(torch.uint8), "b c h w -> b h w c")

    @torch.inference_mode()
    def frames(self, chunks: Iterator[Keypoints]) -> Iterator[np.ndarray]:
        """Frames uint8 [n, H, W, 3], n <= batch_size.

        On a GPU one batch is computed while the one before is copied and used.
        """
        waiting: tuple[Tensor, torch.cuda.Event] | None = None
        for batch, count in rebatch(chunks, self.batch_size):
            done = self._to_host(self.render_batch(*batch)[:count])
            if done[1] is None:  # on a CPU it is there, and may be waited for
                yield done[0].numpy()
                continue
            if waiting is not None:
                yield _finish(*waiting)
            waiting = done
        if waiting is not None:
            yield _finish(*waiting)

    def _to_host(self, frames: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        if frames.device.type != "cuda":
            return frames.cpu(), None
        host = torch.empty(frames.shape, dtype=frames.dtype, pin_memory=True)
        host.copy_(frames, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(frames.device))  # without a stream: that of the current GPU
        return host, event


def _finish(host: Tensor, event: "torch.cuda.Event") -> np.ndarray:
    event.synchronize()
    return host.numpy()


def rebatch(chunks: Iterator[Keypoints], size: int) -> Iterator[tuple[Keypoints, int]]:
    """Batches of exactly `size` keypoint sets with the number of real ones; the last batch repeats its last set.

    One size means one compiled graph and one set of memory blocks.
    """
    held: Keypoints | None = None
    for chunk in chunks:
        held = chunk if held is None else Keypoints.cat([held, chunk])
        while len(held.position_BK2) >= size:
            yield held.cut(0, size), size
            held = held.cut(size, None)
    if held is not None and len(held.position_BK2) > 0:
        count = len(held.position_BK2)
        yield Keypoints.cat([held, held.cut(count - 1, count).repeated(size - count)]), count
