"""Which item comes when, on which rank; and a data worker's error, carried to the main process whole."""

import contextlib
import signal
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils.collate import default_collate


@dataclass(frozen=True)
class Order:
    """This rank's part of every batch, for ever: batch b is the items b * batch_size ... (b + 1) * batch_size - 1.

    Each rank takes an equal share of a batch, in `accumulate` parts.
    """

    first: int  # item
    batch_size: int  # items of all ranks together
    rank: int
    ranks: int
    accumulate: int

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch_size // self.ranks
        part = share // self.accumulate
        first = self.first + self.rank * share
        while True:
            for i in range(self.accumulate):
                yield list(range(first + i * part, first + (i + 1) * part))
            first += self.batch_size


class Batches:
    """Endless batches of a dataset, in an order, loaded by worker processes."""

    def __init__(self, dataset: Dataset, order: Order, workers: int, pin_memory: bool) -> None:
        loader = DataLoader(
            _ErrorsAsItems(dataset),
            batch_sampler=order,  # type: ignore[arg-type] # any iterable of lists will do
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=pin_memory,
            worker_init_fn=_start_worker,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # or a number of torch's would be drawn, and what is random afterwards another
        )
        with _one_opencv_thread():
            self._iterator: Any = iter(loader)

    def __next__(self) -> Any:
        """The next batch. Raises the ValueError or OSError that one of its items raised."""
        batch = next(self._iterator)
        if isinstance(batch, Exception):
            raise batch
        return batch

    def close(self) -> None:
        """End the workers."""
        _end_workers(self._iterator)
        self._iterator = None


def in_order(dataset: Dataset, workers: int) -> Generator[Any, None, None]:
    """Every item of a dataset once, from the first to the last, loaded by worker processes (0: by this one).

    Close what this gives where it is left before its end.

    Raises:
        ValueError, OSError: what an item raised.
    """
    items = _ErrorsAsItems(dataset)
    own = torch.Generator()  # as in `Batches`
    loader = DataLoader(items, batch_size=None, num_workers=workers, worker_init_fn=_start_worker, generator=own)
    with _one_opencv_thread():
        iterator: Any = iter(loader)
    try:
        for item in iterator:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        _end_workers(iterator)


def _end_workers(iterator: Any) -> None:
    """End them now: torch does it when the iterator dies, but an error's traceback keeps that alive.

    Workers ignore SIGTERM (`_start_worker`), so the interpreter would wait for them for ever.
    """
    end = getattr(iterator, "_shutdown_workers", None)  # there is none without workers
    if end is not None:
        end()


class _ErrorsAsItems(Dataset):
    """Hands a user's errors over as items: DataLoader's own way turns them into pages of traceback text."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type] # those that `in_order` reads have a length

    def __getitem__(self, n: int) -> Any:
        try:
            return self.dataset[n]
        except (ValueError, OSError) as error:
            return error


def _collate(items: Sequence[Any]) -> Any:
    for item in items:
        if isinstance(item, Exception):
            return item
    return default_collate(list(items))


@contextlib.contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """For the moment in which workers are forked: OpenCV's other threads would be missing in them, and the first call
    that counts on them would wait for ever.
    """
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _start_worker(worker: int) -> None:
    """Signals to stop go to the whole process group; the main process finishes its step and then ends its workers.

    Workers share the cores by being many: torch gives each one thread, and so does this for OpenCV.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)
