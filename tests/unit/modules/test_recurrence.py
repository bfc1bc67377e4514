"""Gradients of the recurrence that is written out by hand; test_networks.py has its values beside torch's LSTM."""

import pytest
import torch

from modules.recurrence import Recurrence


@pytest.mark.parametrize(
    ("frames", "batch", "layers", "size"), [(5, 3, 3, 4), (4, 1, 2, 3), (3, 2, 1, 2), (1, 2, 2, 3)]
)
def test_gradients_are_those_of_small_differences(frames: int, batch: int, layers: int, size: int) -> None:
    torch.manual_seed(0)
    gates, states, weights = 4 * size, (layers, batch, size), (layers, size, 4 * size)
    shapes = ((frames, batch, gates), states, states, weights, weights, (layers, gates))
    parts = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(Recurrence.apply, parts)


def test_what_it_gives_may_be_changed_before_the_way_back() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(shape) for shape in ((3, 2, 16), (2, 2, 4), (2, 2, 4), (2, 4, 16), (2, 4, 16), (2, 16))]

    def gradient(change: bool) -> torch.Tensor:
        heard = parts[0].clone().requires_grad_()
        embeddings, hidden, cells = Recurrence.apply(heard, *parts[1:])
        if change:
            for part in (embeddings, hidden, cells):
                part.detach().zero_()
        embeddings.backward(torch.ones_like(embeddings))
        return heard.grad

    assert torch.equal(gradient(True), gradient(False))
