"""engine.loading: which items a rank takes, and what becomes of an item's error."""

from engine.loading import Order


def test_ranks_and_parts_cover_each_batch_once() -> None:
    for ranks, accumulate in ((1, 1), (2, 1), (2, 2), (4, 2)):
        seen = []
        for rank in range(ranks):
            order = iter(Order(first=24, batch_size=8, rank=rank, ranks=ranks, accumulate=accumulate))
            seen += [n for _ in range(accumulate) for n in next(order)]
        assert seen == list(range(24, 32))
