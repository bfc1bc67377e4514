"""engine.batch_norm inside a compiled network."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from engine.batch_norm import RankBatchNorm, synchronise_batch_norm


@pytest.fixture
def two_ranks() -> Iterator[None]:
    """Rank 0 of two, of which the other only pretends."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield
    dist.destroy_process_group()


def test_a_compiled_network_of_several_ranks_is_one_graph(two_ranks: None) -> None:
    """With SyncBatchNorm, or with a sum over ranks that changes its argument, it is one for each norm."""
    blocks = (nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()) for _ in range(3))
    network = synchronise_batch_norm(nn.Sequential(*blocks), traceable=True)
    assert sum(isinstance(part, RankBatchNorm) for part in network.modules()) == 3
    graphs = []

    def count(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    network.compile(backend=count)
    network(torch.rand(2, 3, 8, 8)).sum().backward()
    assert len(graphs) == 1
    assert all(parameter.grad is not None for parameter in network.parameters())
