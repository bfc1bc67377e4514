"""A progress bar of frames for `Animator.animate`."""

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
