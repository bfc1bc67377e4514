"""Keypoints of lips and lids: where they are put, how far apart they are."""

import math

import torch

from modules import face_points

BOX = torch.tensor([[-0.2, 0.3, 0.2, 0.6]])  # of a mouth 0.27 wide that is open by 0.03


def test_lips_of_a_tilted_head() -> None:
    upright = face_points.lip_points(BOX, torch.zeros(1))[0]
    tilted = face_points.lip_points(BOX, torch.full((1,), math.pi / 2))[0]
    assert torch.allclose(tilted.mean(0), upright.mean(0))
    assert tilted[0, 1] < tilted[1, 1] and tilted[2, 0] > tilted[3, 0]  # clockwise: left corner up, upper lip right
    assert torch.allclose(face_points.lip_motion(tilted), face_points.lip_motion(upright), atol=1e-5)
    assert face_points.lip_motion(upright)[0] > 0 > face_points.lip_motion(upright[[0, 1, 3, 2]])[0]


def test_lips_and_lids_are_put_as_far_apart_as_given_about_their_own_middles() -> None:
    torch.manual_seed(0)
    found, lips, lids = torch.rand(2, 10, 2), torch.rand(2, 4, 2), torch.rand(2, 4, 2)
    moved = face_points.with_openings(found, lips, lids, torch.tensor([1.0, 0.0]))
    assert torch.equal(moved[1], found[1])
    assert torch.equal(moved[0, [0, 1, 6, 7]], found[0, [0, 1, 6, 7]])  # free ones and the mouth's corners
    for upper, given in ((2, lids[0, :2]), (4, lids[0, 2:]), (8, lips[0, 2:])):
        pair = moved[0, upper : upper + 2]
        assert torch.allclose(pair[1] - pair[0], given[1] - given[0], atol=1e-6)
        assert torch.allclose(pair.mean(0), found[0, upper : upper + 2].mean(0), atol=1e-6)


def test_lips_part_by_given_distances_across_the_mouth_and_nothing_else_moves() -> None:
    free = torch.rand(3, 6, 2)
    for turn in (0.0, 0.7, -math.pi / 2):
        lips = face_points.lip_points(BOX, torch.full((1,), turn)).expand(3, -1, -1)
        found = torch.cat([free, lips], dim=1)
        moved = face_points.with_lips_apart(found, torch.tensor([0.5, 1.0, 4.0]))
        assert torch.equal(moved[:, :-2], found[:, :-2])
        assert torch.allclose(face_points.lip_motion(moved)[:, 0], torch.tensor([0.5, 1.0, 4.0]), atol=1e-4)
        step = (moved - found)[2, -2:]  # opens: the upper lip up by 0.4 of the way, the lower one down by 0.6
        assert torch.allclose(step[0] / -0.4, step[1] / 0.6, atol=1e-5)
        across = lips[0, 1] - lips[0, 0]
        assert (step @ across).abs().max() < 1e-6


def test_closed_lips_are_those_of_a_closed_mouth() -> None:
    turn = torch.full((1,), 0.3)
    closed_box = torch.tensor([[-0.2, 0.45 - 0.2 / 1.5, 0.2, 0.45 + 0.2 / 1.5]])  # as high as the mouth is wide
    opened, closed = face_points.lip_points(BOX, turn), face_points.lip_points(closed_box, turn)
    found = face_points.with_closed_lips(opened)
    assert torch.allclose(face_points.lip_motion(found), face_points.lip_motion(closed), atol=1e-4)
    assert torch.equal(found[:, :2], opened[:, :2])
    assert torch.allclose(face_points.with_closed_lips(closed), closed, atol=1e-6)
