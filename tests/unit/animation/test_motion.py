"""Which frame comes from which window, and the effects on keypoints."""

import itertools

import pytest
import torch

from animation.motion import at_rest, emission_schedule, expressive, relative_to_source
from animation.render import rebatch
from modules.keypoints import Keypoints


def moving(frames: int, seed: int = 0) -> Keypoints:
    generator = torch.Generator().manual_seed(seed)
    position = torch.rand(1, 4, 2, generator=generator) - 0.5 + 0.1 * torch.randn(frames, 4, 2, generator=generator)
    return Keypoints(position, torch.eye(2) + 0.1 * torch.randn(frames, 4, 2, 2, generator=generator))


def in_chunks(keypoints: Keypoints, *lengths: int):
    stops = list(itertools.accumulate(lengths, initial=0))
    return (keypoints.cut(start, stop) for start, stop in itertools.pairwise(stops))


@pytest.mark.parametrize("length", [32, 64])
@pytest.mark.parametrize("frames", [1, 24, 47, 48, 49, 80, 81, 200])
def test_windows_give_every_frame_once_and_in_order(frames, length):
    schedule = emission_schedule(frames, length)
    given = [e.window * length // 2 + slot for e in schedule for slot in range(e.first, e.stop)]
    assert given == list(range(frames))
    assert [e.window for e in schedule] == list(range(len(schedule)))
    assert all(e.stop <= length * 3 // 4 for e in schedule) and all(e.first == length // 4 for e in schedule[1:])


def test_relative_motion_starts_from_the_sources_keypoints_and_goes_on_across_chunks():
    source, driving = moving(1, seed=1), moving(7)
    relative = Keypoints.cat(relative_to_source(in_chunks(driving, 3, 4), source))
    assert torch.allclose(relative.position_BK2[:1], source.position_BK2, atol=1e-6)
    shift = driving.position_BK2 - driving.position_BK2[:1]
    assert torch.allclose(relative.position_BK2 - source.position_BK2, shift, atol=1e-6)


def test_expression_grows_while_the_head_moves_as_before():
    """A turn, growth and shift of all keypoints is the head's; one keypoint's own motion is the face's."""
    first = moving(1).position_BK2
    angle, size, shift = torch.tensor(0.3), 1.2, torch.tensor([0.1, -0.2])
    turn = size * torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    head = first @ turn.T + shift
    jacobian = torch.eye(2).expand(2, 4, 2, 2)
    (rigid,) = expressive(iter([Keypoints(torch.cat([first, head]), jacobian)]), 3.0)
    assert torch.allclose(rigid.position_BK2[1:], head, atol=1e-5)
    spoken = first.clone()
    spoken[0, 3, 1] += 0.05
    (louder,) = expressive(iter([Keypoints(torch.cat([first, spoken]), jacobian)]), 3.0)
    (same,) = expressive(iter([Keypoints(torch.cat([first, spoken]), jacobian)]), 1.0)
    assert torch.allclose(same.position_BK2[1:], spoken, atol=1e-6)
    opening = (louder.position_BK2[1, 3, 1] - louder.position_BK2[1, :3, 1].mean()).item()
    assert opening - (first[0, 3, 1] - first[0, :3, 1].mean()).item() > 0.07
    assert louder.jacobian_BK22 is jacobian


def test_rest_is_the_sources_keypoints_for_every_frame():
    source = moving(1)
    chunks = list(at_rest(source, 5, chunk=2))
    assert [len(chunk.position_BK2) for chunk in chunks] == [2, 2, 1]
    assert torch.equal(Keypoints.cat(chunks).position_BK2, source.position_BK2.expand(5, -1, -1))


@pytest.mark.parametrize("jacobians", [True, False])
def test_batches_have_one_size_and_say_how_many_are_real(jacobians):
    whole = moving(7)
    whole = whole if jacobians else Keypoints(whole.position_BK2, None)
    batches = list(rebatch(in_chunks(whole, 2, 4, 1), 3))
    assert [count for _, count in batches] == [3, 3, 1]
    assert all(len(batch.position_BK2) == 3 for batch, _ in batches)
    real = Keypoints.cat(batch.cut(0, count) for batch, count in batches)
    assert torch.equal(real.position_BK2, whole.position_BK2)
    assert (real.jacobian_BK22 is None) or torch.equal(real.jacobian_BK22, whole.jacobian_BK22)
    assert torch.equal(batches[-1][0].position_BK2, whole.position_BK2[6:].expand(3, -1, -1))
