"""What is done to keypoints: positions and Jacobians alike, and positions alone where there are no Jacobians."""

import pytest
import torch

from modules.keypoints import Keypoints


def some(count: int, jacobians: bool = True) -> Keypoints:
    torch.manual_seed(count)
    jacobian = torch.eye(2) + 0.2 * torch.randn(count, 3, 2, 2)
    return Keypoints(torch.rand(count, 3, 2) - 0.5, jacobian if jacobians else None)


def same(a: Keypoints, b: Keypoints) -> bool:
    if (a.jacobian_BK22 is None) != (b.jacobian_BK22 is None):
        return False
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True) if x is not None)


@pytest.mark.parametrize("jacobians", [True, False])
def test_cut_pieces_join_to_the_whole(jacobians):
    whole = some(5, jacobians)
    assert same(Keypoints.cat([whole.cut(0, 2), whole.cut(2, None)]), whole)
    assert torch.equal(whole.cut(1, 3).position_BK2, whole.position_BK2[1:3])


@pytest.mark.parametrize("jacobians", [True, False])
def test_one_set_repeated_is_so_many_equal_ones(jacobians):
    one = some(1, jacobians)
    assert same(one.repeated(3), Keypoints.cat([one, one, one]))


def test_no_motion_leaves_keypoints_as_they_are():
    source, driving = some(1), some(2).cut(0, 1)
    still = source.moved(driving, driving.repeated(4))
    assert torch.allclose(still.position_BK2, source.position_BK2.expand(4, -1, -1), atol=1e-6)
    assert torch.allclose(still.jacobian_BK22, source.jacobian_BK22.expand(4, -1, -1, -1), atol=1e-5)


def test_motion_moves_positions_by_the_difference_and_jacobians_by_the_product():
    source, first, now = some(1), some(2).cut(0, 1), some(3)
    moved = source.moved(first, now)
    assert torch.allclose(moved.position_BK2, source.position_BK2 + now.position_BK2 - first.position_BK2)
    turned = now.jacobian_BK22 @ torch.linalg.inv(first.jacobian_BK22) @ source.jacobian_BK22
    assert torch.allclose(moved.jacobian_BK22, turned, atol=1e-5)


def test_motion_has_jacobians_only_where_both_sides_have_them():
    for source, driving in ((some(1, False), some(2)), (some(1), some(2, False))):
        assert source.moved(driving.cut(0, 1), driving).jacobian_BK22 is None
