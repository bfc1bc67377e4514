"""What a run says about itself: a bar of frames, and the seconds of each stage."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def frame_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """Gives `progress(done, total)`; no bar where stderr is no terminal."""
    with tqdm(unit="frame", desc=name, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


class Clock:
    """Adds up wall seconds by stage into a dictionary. A stage within another one counts for itself alone."""

    def __init__(self, seconds: dict[str, float]):
        self.seconds = seconds
        self._within = [0.0]  # seconds spent in stages within each stage that is running now, outermost first

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        self._within.append(0.0)
        try:
            yield
        finally:
            took = time.perf_counter() - start
            self.seconds[stage] = self.seconds.get(stage, 0.0) + took - self._within.pop()
            self._within[-1] += took

    def each(self, stage: str, items: Iterator) -> Iterator:
        """The items; the time spent waiting for each counts towards `stage`."""
        while True:
            with self(stage):
                item = next(items, None)
            if item is None:
                return
            yield item
