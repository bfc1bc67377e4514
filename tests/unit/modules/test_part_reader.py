"""Readers of mouths and eyes: what they look at, what they learn, and whom they teach."""

import math

import numpy as np
import pytest
import torch

from datasets.fomm import FommBatch, mouth_boxes
from modules.part_reader import PartReaderConfig, PartReaders, crops, openings, parts_of, shaken
from train_fomm import ReaderLosses, WeightConfig, opening_losses

SMALL = PartReaderConfig(crop=16, width=8, max_width=16, num_blocks=3)


def boxes(openings_of: list[float]) -> torch.Tensor:
    """Boxes of mouth and eyes for pictures whose mouths and left eyes open so far; the right eyes are not known."""
    parts = [[[128, 180, 40, o], [90, 100, 40, o], [np.nan] * 4] for o in openings_of]
    return torch.from_numpy(mouth_boxes(np.array(parts))).float()


def batch_of(count: int, seed: int = 0) -> FommBatch:
    """Pictures with a dark bar, as high as the opening, in the mouth and in the left eye."""
    chance = np.random.default_rng(seed)
    opening = chance.uniform(0, 30, (2, count))
    pictures = torch.full((2, count, 3, 64, 64), 0.7)
    for which, n in np.ndindex(2, count):
        for x, y in ((32, 45), (22, 25)):
            half = opening[which, n] / 8
            pictures[which, n, :, round(y - half) : round(y + half), x - 4 : x + 4] = 0.1
    source, driving = (boxes(list(values)) for values in opening)
    eyes = source[:, 1:], driving[:, 1:]
    return FommBatch(*pictures, source[:, 0], driving[:, 0], *eyes, torch.zeros(count), 0, torch.arange(count))


def test_crops_are_upright_and_as_wide_whatever_the_opening() -> None:
    picture = torch.rand(1, 3, 65, 65)
    closed, wide = (crops(picture, boxes([o])[:, 0], torch.zeros(1), 16, 1.6) for o in (0.0, 30.0))
    assert torch.allclose(closed, wide, atol=1e-5)
    angle = math.pi / 2  # the face lies on its side: what was at the left is now above
    box = torch.tensor([[-0.3, -0.2, 0.3, 0.2]])
    upright = crops(picture, box, torch.zeros(1), 16, 1.0)
    tilted = crops(picture.rot90(-1, (2, 3)), box, torch.full((1,), angle), 16, 1.0)
    assert torch.allclose(tilted, upright, atol=1e-5)


def test_openings_come_from_boxes_and_shaking_keeps_them() -> None:
    opening, known = openings(boxes([0.0, 20.0])[:, 0])
    assert opening.tolist() == pytest.approx([0, 0.5], abs=1e-4) and known.tolist() == [1, 1]
    assert openings(boxes([5.0])[:, 2])[1].item() == 0
    moved = shaken(boxes([20.0] * 8), 0.2, torch.Generator().manual_seed(1))
    assert openings(moved[:, 0])[0].tolist() == pytest.approx([0.5] * 8, abs=1e-4)
    assert (moved[:, 0] - boxes([20.0] * 8)[:, 0]).abs().min() > 0
    assert (moved[:, 2] == 0).all()  # what is not known stays so


def test_a_reader_learns_to_read_and_the_picture_follows_it() -> None:
    torch.manual_seed(0)
    readers = PartReaders(SMALL)
    learner = ReaderLosses(readers, 1.0)
    adam = torch.optim.Adam(readers.parameters(), lr=3e-3)
    for step in range(150):
        found = learner(batch_of(8, step), step)
        sum(found.values()).backward()
        adam.step()
        adam.zero_grad()
    batch = batch_of(32, 1000)
    wanted, _ = openings(batch.driving_mouth_4)
    parts = torch.cat([batch.driving_mouth_4[:, None], batch.driving_eyes_24], dim=1)
    read = readers(batch.driving_CHW, parts, batch.turn)["mouth"].opening_N.detach()
    assert np.corrcoef(read, wanted)[0, 1] > 0.9

    weights = WeightConfig(opening=1.0, opening_features=1.0)
    same = opening_losses(readers, batch.driving_CHW, batch, weights)
    assert all(loss == 0 for loss in same.values())
    drawn = batch.source_CHW.clone().requires_grad_()
    found = opening_losses(readers, drawn, batch, weights)
    sum(found.values()).backward()
    assert found["opening_mouth"] > 0.05 and found["features_eyes"] > 0 and drawn.grad.abs().sum() > 0
    assert all(p.grad is None for p in readers.parameters())  # the generator's losses do not train them
    assert all(p.requires_grad for p in readers.parameters())


def test_readers_that_judge_tell_true_crops_from_drawn_ones() -> None:
    torch.manual_seed(0)
    readers = PartReaders(SMALL, judges=True)
    learner = ReaderLosses(readers, 1.0)
    adam = torch.optim.Adam(readers.parameters(), lr=3e-3)
    for step in range(60):
        batch = batch_of(8, step)
        sum(learner(batch, step, 1 - batch.driving_CHW).values()).backward()
        adam.step()
        adam.zero_grad()
    batch = batch_of(8, 1000)
    found = {name: opening_losses(readers, picture, batch, WeightConfig(realness=1.0))["realness_mouth"]
             for name, picture in (("true", batch.driving_CHW), ("drawn", 1 - batch.driving_CHW))}  # fmt: skip
    assert found["drawn"] > 0.5 > 2 * found["true"]


def test_parts_are_read_in_their_order() -> None:
    found = boxes([10.0, 20.0])
    assert torch.equal(parts_of(found, "mouth"), found[:, 0])
    assert torch.equal(parts_of(found, "eyes"), torch.cat([found[:, 1], found[:, 2]]))


def test_a_crop_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match="crop divisible"):
        PartReaderConfig(crop=50)
