"""engine.loading: which items a rank takes, and what becomes of an item's error."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from torch.utils.data import Dataset

from engine.loading import Order, in_order


class Threads(Dataset):
    """Item n: n, and how many threads OpenCV has there; item 5 fails if asked."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def __len__(self) -> int:
        return 7

    def __getitem__(self, n: int) -> tuple[int, int]:
        if self.fails and n == 5:
            raise ValueError("item 5 is broken")
        return n, cv2.getNumThreads()


@pytest.fixture
def many_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    large = np.zeros((3000, 3000, 3), np.uint8)
    cv2.resize(large, (1500, 1500), interpolation=cv2.INTER_AREA)  # starts them: a fork does not take them along
    yield
    cv2.setNumThreads(before)


def test_workers_hand_over_in_order_and_share_the_cores(many_threads: None) -> None:
    found = [(int(n), int(threads)) for n, threads in in_order(Threads(), workers=2)]
    assert found == [(n, 1) for n in range(7)]
    assert cv2.getNumThreads() == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_an_items_error_comes_as_it_is(workers: int) -> None:
    items = in_order(Threads(fails=True), workers)
    with pytest.raises(ValueError, match="item 5 is broken"):
        list(items)


def test_ranks_and_parts_cover_each_batch_once() -> None:
    for ranks, accumulate in ((1, 1), (2, 1), (2, 2), (4, 2)):
        seen = []
        for rank in range(ranks):
            order = iter(Order(first=24, batch_size=8, rank=rank, ranks=ranks, accumulate=accumulate))
            seen += [n for _ in range(accumulate) for n in next(order)]
        assert seen == list(range(24, 32))
