"""From keypoints to 8-bit frames: the source is encoded once, frames are rendered in batches of one fixed size."""

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from animation.full_size import FullSize
from modules.image_generator import ImageGenerator, Rendering
from modules.keypoints import Keypoints

# Batches that a CPU draws at once, each with its share of the threads. Most of a frame's layers are too small for
# several threads to share, so each draws a frame of its own; but Python's one lock lets only a few do so at once.
MOST_DRAWN_AT_ONCE = 4


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
        threads: of a CPU, shared by the batches that it draws at once; None: as many as torch has here.
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
        threads: int | None = None,
    ):
        self.source = source
        self.source_BCHW = source_BCHW
        self.full_size = full_size
        self.batch_size = batch_size
        self.truncate = truncate
        self.threads = threads or torch.get_num_threads()
        self.dtype = dtype
        with torch.inference_mode(), self._autocast():
            self.encoding = generator.encode(source_BCHW)
        self.is_compiled = compile_network
        self.draw = torch.compile(self._draw, dynamic=False) if compile_network else self._draw
        self.generator = generator

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.source_BCHW.device.type, dtype=self.dtype, enabled=self.dtype is not None)

    def _draw(self, position_BK2: Tensor, jacobian_BK22: Tensor | None) -> Rendering:
        with self._autocast():
            return self.generator.render(self.encoding, Keypoints(position_BK2, jacobian_BK22), self.source)

    def render_batch(self, position_BK2: Tensor, jacobian_BK22: Tensor | None) -> Tensor:
        """-> uint8 [B, H, W, 3] on the device."""
        rendering = self.draw(position_BK2, jacobian_BK22)
        if self.full_size is not None:
            return self.full_size.frames(self.full_size.layers(rendering, self.source_BCHW))
        levels = rendering.image_BCHW * 255
        if not self.truncate:
            levels = levels.round()
        return levels.to(torch.uint8).movedim(1, -1)

    def frames(self, chunks: Iterator[Keypoints], ahead: bool = True) -> Iterator[np.ndarray]:
        """Frames uint8 [n, H, W, 3], n <= batch_size.

        A CPU draws several batches at once; on a GPU one batch is computed while the one before is copied and used.

        Args:
            ahead: take the next chunk while the frames of the one before are still being drawn. False where a chunk may
                be long in coming: all whole batches are then given first.
        """
        threads_each = -(-self.threads // MOST_DRAWN_AT_ONCE)
        # Memory grows with what is drawn at once: large batches are drawn one after the other.
        at_once = min(self.threads // threads_each, 2 * MOST_DRAWN_AT_ONCE // self.batch_size)
        if self.source_BCHW.device.type == "cpu" and at_once > 1 and not self.is_compiled:
            return self._drawn_at_once(chunks, at_once, threads_each, ahead)
        return self.drawn_in_turn(chunks, ahead)

    @torch.inference_mode()
    def drawn_in_turn(self, chunks: Iterator[Keypoints], ahead: bool = True) -> Iterator[np.ndarray]:
        """The same, batch after batch."""
        waiting: tuple[Tensor, torch.cuda.Event] | None = None
        for batches in rebatch(chunks, self.batch_size):
            for batch, count in batches:
                done = self._to_host(self.render_batch(*batch)[:count])
                if done[1] is None:  # on a CPU it is there, and may be waited for
                    yield done[0].numpy()
                    continue
                if waiting is not None:
                    yield _finish(*waiting)
                waiting = done
            if waiting is not None and not ahead:
                yield _finish(*waiting)
                waiting = None
        if waiting is not None:
            yield _finish(*waiting)

    @torch.inference_mode()
    def _drawn_at_once(
        self, chunks: Iterator[Keypoints], at_once: int, threads_each: int, ahead: bool
    ) -> Iterator[np.ndarray]:
        drawn: deque[Future[np.ndarray]] = deque()
        most = 2 * at_once
        with contextlib.ExitStack() as stack:
            pool = ThreadPoolExecutor(at_once, "draw", _use_threads, (threads_each,))
            stack.callback(pool.shutdown, cancel_futures=True)
            before = torch.get_num_threads()
            ready = threading.Barrier(at_once + 1)  # what a thread is told, torch tells all that begin after it
            stack.callback(ready.abort)
            for _ in range(at_once):
                pool.submit(ready.wait)
            ready.wait()
            torch.set_num_threads(before)
            for batches in rebatch(_taken_beside(chunks, threads_each) if ahead else chunks, self.batch_size):
                for batch, count in batches:
                    if len(drawn) == most:
                        yield drawn.popleft().result()
                    drawn.append(pool.submit(self._drawn, batch, count))
                while len(drawn) > (at_once if ahead else 0):
                    yield drawn.popleft().result()
            while drawn:
                yield drawn.popleft().result()

    @torch.inference_mode()
    def _drawn(self, batch: Keypoints, count: int) -> np.ndarray:
        return self.render_batch(*batch)[:count].numpy()

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


def _use_threads(count: int) -> None:
    """In the calling thread; torch must be asked once, or it counts anew at the first layer."""
    torch.set_num_threads(count)
    torch.get_num_threads()


def _taken_beside(chunks: Iterator[Keypoints], threads: int) -> Iterator[Keypoints]:
    """The chunks: the first may use all of torch's threads, the next, computed while frames are drawn, so many."""
    yield from itertools.islice(chunks, 1)
    while True:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            chunk = next(chunks, None)
        finally:
            torch.set_num_threads(before)
        if chunk is None:
            return
        yield chunk


def rebatch(chunks: Iterator[Keypoints], size: int) -> Iterator[list[tuple[Keypoints, int]]]:
    """What each chunk completes: batches of exactly `size` keypoint sets with the number of real ones.

    The last batch repeats its last set. One size means one compiled graph and one set of memory blocks.
    """
    held: Keypoints | None = None
    for chunk in chunks:
        held = chunk if held is None else Keypoints.cat([held, chunk])
        whole = len(held.position_BK2) // size * size
        yield [(held.cut(start, start + size), size) for start in range(0, whole, size)]
        held = held.cut(whole, None)
    if held is not None and len(held.position_BK2) > 0:
        count = len(held.position_BK2)
        yield [(Keypoints.cat([held, held.cut(count - 1, count).repeated(size - count)]), count)]
