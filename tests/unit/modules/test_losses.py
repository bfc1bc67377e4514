"""Losses: known values, and the mutations that earlier tests let through."""

import math

import numpy as np
import pytest
import torch

from datasets.clips import mouth_boxes
from modules import face_points, losses, measures
from modules.keypoints import Keypoints, gaussian_heatmaps, soft_argmax
from modules.perceptual import ImagePyramid
from modules.random_warp import RandomWarp, RandomWarpConfig, random_warp
from modules.reconstruction import ReconstructionWeights, pixel_weight, reconstruction_losses

C1, C2 = 0.01**2, 0.03**2


def sway(frames: int = 64, seed: int = 0, batch: int = 3) -> torch.Tensor:
    """Smooth random head motion [B, T, 6] inside [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    phase = torch.rand(batch, 1, 6, generator=generator) * 2 * math.pi
    speed = 0.1 + 0.3 * torch.rand(batch, 1, 6, generator=generator)
    offset = 0.3 * torch.randn(batch, 1, 6, generator=generator)
    return 0.4 * torch.sin(torch.arange(frames)[:, None] * speed + phase) + offset


def ssim(a: torch.Tensor, b: torch.Tensor, statistics: str, valid: torch.Tensor | None = None) -> float:
    return losses.pose_ssim_loss(a, b, C1, C2, statistics, valid).item()


@pytest.mark.parametrize("statistics", ["map", "channel"])
def test_pose_ssim_is_zero_for_equal_and_near_two_for_mirrored_motion(statistics: str) -> None:
    pose = sway()
    axes = (1, 2) if statistics == "map" else 1
    mean = pose.mean(axes, keepdim=True)
    assert ssim(pose, pose, statistics) == pytest.approx(0, abs=1e-6)
    assert ssim(2 * mean - pose, pose, statistics) > 1.9  # fails with |cov|: that gives 0
    assert ssim(mean.expand_as(pose), pose, statistics) == pytest.approx(1, abs=0.05)  # a still head


@pytest.mark.parametrize("statistics", ["map", "channel"])
def test_pose_ssim_costs_more_mirrored_than_still_even_far_from_the_middle(statistics: str) -> None:
    """With signed means in Eq. 3 a pose that is mirrored in mean and motion would be perfect."""
    pose = sway() * 0.3 + 0.6
    assert ssim(-pose, pose, statistics) > 1
    assert ssim(-pose, pose, statistics) > ssim(pose.mean(1, keepdim=True).expand_as(pose), pose, statistics)


def test_motion_size_asks_for_people_s_motion_and_not_for_their_own() -> None:
    """Another motion of the same size costs nothing, half of it and a faster one do; mean and padding do not count."""
    pose = sway(frames=200)
    other = pose.flip(1) + 0.3
    valid = torch.ones(3, 200, dtype=torch.bool)
    assert losses.motion_size_loss(other, pose, valid).item() == pytest.approx(0, abs=1e-3)
    assert losses.motion_size_loss(other / 2, pose, valid).item() == pytest.approx(math.log(2), rel=0.05)
    assert losses.motion_size_loss(pose[:, ::2], pose[:, :100], valid[:, :100]).item() > 0.2
    padded = torch.cat([other, torch.full((3, 50, 6), 9.0)], dim=1)
    longer = torch.cat([pose, pose[:, -1:].expand(-1, 50, -1)], dim=1)
    known = torch.arange(250).expand(3, -1) < 200
    assert losses.motion_size_loss(padded, longer, known).item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(("of_the_mean", "best"), [(False, 1.0), (True, 1.75)])
def test_motion_size_is_least_at_the_median_or_at_the_mean(of_the_mean: bool, best: float) -> None:
    """Of four people who cannot be told apart, one moves four times as far."""
    pose = sway(frames=200)[:1]
    people = torch.cat([pose, pose, pose, 4 * pose])
    valid = torch.ones(4, 200, dtype=torch.bool)
    tried = torch.linspace(0.5, 4, 71)
    found = [losses.motion_size_loss((size * pose).expand(4, -1, -1), people, valid, of_the_mean) for size in tried]
    assert tried[torch.stack(found).argmin()].item() == pytest.approx(best, abs=0.06)


def test_motion_size_of_a_still_head_has_a_gradient() -> None:
    still = torch.zeros(3, 64, 6) + 0.01 * torch.randn(3, 64, 6, generator=torch.Generator().manual_seed(0))
    still.requires_grad_()
    losses.motion_size_loss(still, sway(), torch.ones(3, 64, dtype=torch.bool)).backward()
    assert still.grad.isfinite().all() and still.grad.abs().max() > 1e-4


def test_a_mouth_that_does_not_move_yet_has_a_gradient_that_is_not_huge() -> None:
    mouth = (1e-6 * torch.randn(3, 64, 1, generator=torch.Generator().manual_seed(0))).requires_grad_()
    wanted = 0.5 * torch.arange(64).div(3).sin()[None, :, None].expand(3, -1, -1)
    size = dict(of_the_mean=True, smallest=losses.SMALLEST_LIP_MOTION)
    losses.motion_size_loss(mouth, wanted, torch.ones(3, 64, dtype=torch.bool), **size).backward()
    assert 1 < mouth.grad.norm() < 1000  # 66,651 with what is the smallest for head poses


def test_pose_ssim_of_the_whole_map_is_the_letter_of_equation_3() -> None:
    a, b = sway(seed=1, batch=1), sway(seed=2, batch=1)
    x, y = ((p.double().flatten() + 1) / 2 for p in (a, b))
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    wanted = 1 - (2 * x.mean() * y.mean() + C1) * (2 * covariance + C2) / (
        (x.mean() ** 2 + y.mean() ** 2 + C1) * (x.var(correction=0) + y.var(correction=0) + C2)
    )
    assert ssim(a, b, "map") == pytest.approx(wanted.item(), rel=1e-4)


def test_pose_ssim_by_channel_punishes_a_still_head_that_the_map_forgives() -> None:
    pose = sway() * 0.4 + torch.tensor([0.8, -0.8, 0.5, -0.5, 0.2, -0.2])
    still = pose.mean(1, keepdim=True).expand_as(pose)
    assert ssim(still, pose, "map") < 0.15
    assert ssim(still, pose, "channel") > 0.7


@pytest.mark.parametrize("statistics", ["map", "channel"])
def test_pose_losses_ignore_frames_that_are_not_real(statistics: str) -> None:
    pose, other = sway(seed=1), sway(seed=2)
    valid = torch.arange(64).expand(3, -1) < torch.tensor([[64], [40], [20]])
    noisy = torch.where(valid[..., None], other, other + 100)
    assert ssim(noisy, pose, statistics, valid) == pytest.approx(ssim(other, pose, statistics, valid), rel=1e-5)
    assert losses.masked_l1(noisy, pose, valid) == losses.masked_l1(other, pose, valid)
    one = losses.pose_ssim_loss(other[2:, :20], pose[2:, :20], C1, C2, statistics)
    assert ssim(other[2:], pose[2:], statistics, valid[2:]) == pytest.approx(one.item(), rel=1e-4)


def test_masked_l1_counts_each_sample_the_same() -> None:
    valid = torch.tensor([[True, False, False, False], [True, True, True, True]])
    value = torch.tensor([[1.0, 9, 9, 9], [3, 3, 3, 3]])[..., None]
    assert losses.masked_l1(value, torch.zeros_like(value), valid) == pytest.approx(2.0)


def test_heatmap_weight_holds_then_falls_in_a_line_to_zero() -> None:
    weights = [losses.heatmap_weight(step, hold_steps=10, decay_steps=4) for step in (0, 9, 10, 11, 12, 14, 1000)]
    assert weights == [1, 1, 1, 0.75, 0.5, 0, 0]
    assert [losses.heatmap_weight(step, 10, 0) for step in (9, 10)] == [1, 0]


def test_lsgan_values() -> None:
    one, zero = torch.ones(2, 5), torch.zeros(2, 5)
    assert losses.lsgan_discriminator(one, zero) == 0
    assert losses.lsgan_discriminator(zero, one) == 2
    assert losses.lsgan_generator(one) == 0
    assert losses.lsgan_generator(zero) == 1


def test_equivariance_vanishes_for_keypoints_that_follow_the_warp() -> None:
    warp = random_warp([3, 4], seed=0, config=RandomWarpConfig())
    transformed = Keypoints(torch.rand(2, 5, 2) * 1.6 - 0.8, torch.eye(2) + 0.2 * torch.randn(2, 5, 2, 2))
    followed = Keypoints(
        warp.points(transformed.position_BK2),
        warp.jacobian(transformed.position_BK2) @ transformed.jacobian_BK22,
    )
    assert losses.equivariance_position(followed.position_BK2, transformed.position_BK2, warp) < 1e-6
    assert losses.equivariance_jacobian(followed, transformed, warp) < 1e-5
    stayed = Keypoints(transformed.position_BK2, transformed.jacobian_BK22)
    assert losses.equivariance_position(stayed.position_BK2, transformed.position_BK2, warp) > 1e-3
    assert losses.equivariance_jacobian(stayed, transformed, warp) > 1e-3


def test_warp_jacobian_is_the_derivative_of_the_points() -> None:
    warp = random_warp(range(2), seed=1, config=RandomWarpConfig(affine_sigma=0.1, spline_sigma=0.05))
    warp = RandomWarp(*(part.double() for part in warp))
    points = (torch.rand(2, 7, 2, dtype=torch.double) * 1.8 - 0.9).requires_grad_()
    rows = [torch.autograd.grad(warp.points(points)[..., i].sum(), points)[0] for i in (0, 1)]
    assert torch.allclose(warp.jacobian(points), torch.stack(rows, dim=-2), atol=1e-9)


def test_warp_depends_on_seed_and_item_alone() -> None:
    config = RandomWarpConfig()
    both, second = random_warp([7, 8], 0, config), random_warp([8], 0, config)
    assert torch.equal(both.theta_B23[1:], second.theta_B23)
    assert torch.equal(both.control_weights_BN[1:], second.control_weights_BN)
    assert not torch.equal(both.theta_B23[:1], second.theta_B23)
    assert not torch.equal(random_warp([8], 1, config).theta_B23, second.theta_B23)


def test_warp_without_spline_or_shift_keeps_the_picture() -> None:
    warp = random_warp([0], 0, RandomWarpConfig(affine_sigma=0.0, spline_sigma=0.0))
    image = torch.rand(1, 3, 64, 64)
    points = torch.rand(1, 4, 2)
    assert torch.equal(warp.points(points), points)
    assert torch.allclose(warp.jacobian(points), torch.eye(2).expand(1, 4, 2, 2))
    assert torch.allclose(warp.image(image, align_corners=True), image, atol=1e-4)
    # Without aligned corners the identity is a 64/63 zoom: near, not equal.
    smooth = torch.nn.functional.avg_pool2d(image, 9, 1, 4)
    assert (warp.image(smooth, align_corners=False) - smooth).abs().mean() < 0.02


def test_a_perfect_detector_is_charged_nothing() -> None:
    """Of a picture that is one spot, the mean of its brightness is the keypoint, exactly."""
    warp = random_warp([0], 0, RandomWarpConfig(affine_sigma=0.0, spline_sigma=0.0))
    wanted = torch.tensor([[[0.6, -0.5]]])
    spot = gaussian_heatmaps(wanted, 128, 128, variance=0.002)

    def charge(align_corners: bool) -> float:
        seen = warp.image(spot, align_corners)
        found = soft_argmax(seen / seen.sum((-2, -1), keepdim=True))
        return losses.equivariance_position(wanted, found, warp).item()

    assert charge(align_corners=True) < 1e-5
    assert charge(align_corners=False) == pytest.approx(0.0043, abs=2e-4)  # the zoom of 128/127


def test_image_ssim_agrees_with_skimage() -> None:
    from skimage.metrics import structural_similarity

    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2, 3, 40, 48, generator=generator)
    b = (a + 0.1 * torch.randn(a.shape, generator=generator)).clamp(0, 1)
    for x, y, found in zip(a, b, measures.ssim(a, b), strict=True):
        wanted = structural_similarity(
            x.numpy(),
            y.numpy(),
            channel_axis=0,
            data_range=1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert found.item() == pytest.approx(wanted, abs=2e-3)  # it crops the same border, its window has 11 taps too
    assert losses.ssim_loss(a, a) == pytest.approx(0, abs=1e-6)


def test_psnr() -> None:
    a = torch.zeros(1, 3, 16, 16)
    assert measures.psnr(a + 0.1, a).item() == pytest.approx(20, abs=1e-4)
    box = torch.tensor([[-1.0, -1, 0, 0]])
    b = a.clone()
    b[..., 8:, 8:] = 1.0  # outside the box
    assert measures.box_psnr(b, a, box).item() == pytest.approx(100)
    assert math.isnan(measures.box_psnr(b, a, torch.zeros(1, 4)).item())


def test_mouth_weight_rises_in_the_box_only() -> None:
    box = torch.tensor([[-0.2, 0.3, 0.2, 0.5], [0.0, 0, 0, 0]])
    weight = losses.region_weight(box, 64, 64, extra=4.0)
    assert weight.shape == (2, 1, 64, 64)
    row, column = round((0.4 + 1) / 2 * 63), round(63 / 2)
    assert weight[0, 0, row, column] > 4.8
    assert weight[0, 0, 0, 0] == pytest.approx(1, abs=1e-3)
    assert (weight[1] == 1).all()  # not known


def test_lip_points_open_with_the_mouth_and_unknown_mouths_do_not_count() -> None:
    mouths = np.array([[128.0, 180, 48, 0], [128, 180, 48, 16], [np.nan] * 4])  # centre, width, opening, of 256
    box = torch.from_numpy(mouth_boxes(mouths)).float()
    points = face_points.lip_points(box, torch.zeros(3))
    left, right, upper, lower = points.unbind(1)
    assert ((right - left)[:2] * 128).tolist() == [[pytest.approx(48), 0], [pytest.approx(48), 0]]
    assert ((lower - upper)[:2, 1] * 128).tolist() == pytest.approx([12, 28], abs=1e-3)  # lips 12 thick, then 16 more
    assert (upper + lower)[0].tolist() == pytest.approx([2 * 128.5 / 128 - 2, 2 * 180.5 / 128 - 2], abs=1e-5)
    wider = face_points.lip_points(box, torch.zeros(3), gain=3.0)
    assert ((wider[:, 3] - wider[:, 2])[:2, 1] * 128).tolist() == pytest.approx([12, 12 + 3 * 16], abs=1e-3)
    known = torch.tensor([1.0, 1, 0])
    keypoints = torch.cat([torch.rand(3, 6, 2), points], dim=1)
    lips = keypoints[:, -face_points.LIPS :]
    assert losses.place_l1(lips, points, known) == 0 and losses.lip_shape_l1(keypoints, points, known) == 0
    keypoints[:, -1, 1] += 0.4  # of the last lip alone
    assert losses.place_l1(lips, points, known) == pytest.approx(2 / 3 * 0.4 / 8)
    assert losses.lip_shape_l1(keypoints, points, known) == pytest.approx(2 / 3 * 0.4 / face_points.LIP_UNIT / 2)


def test_lid_points_and_their_distances() -> None:
    eyes = np.array([[[90.0, 110, 28, 8], [166, 110, 28, 0]]])  # the right one in the picture is closed
    box = torch.from_numpy(mouth_boxes(eyes)).float()
    points = face_points.lid_points(box, torch.zeros(1), gain=2.0)
    assert (points[0, :, 0] * 128).tolist() == pytest.approx([-37.5, -37.5, 38.5, 38.5], abs=1e-3)
    apart = points[:, 1::2] - points[:, ::2]
    assert (apart[0, :, 1] * 128).tolist() == pytest.approx([7 + 2 * 8, 7], abs=1e-3)  # a quarter of the width always
    tilted = face_points.lid_motion(face_points.lid_points(box, torch.full((1,), 0.4), gain=2.0))
    assert torch.allclose(tilted, face_points.lid_motion(points), atol=1e-5)
    keypoints = torch.cat([torch.rand(1, 6, 2), points, torch.rand(1, 4, 2)], dim=1)
    assert losses.lid_shape_l1(keypoints, points, torch.ones(1)) == 0
    keypoints[:, 7, 1] += 0.1  # the lower lid of the left eye
    assert losses.lid_shape_l1(keypoints, points, torch.ones(1)) == pytest.approx(0.1 / face_points.LIP_UNIT / 2)
    assert losses.lid_shape_l1(keypoints, points, torch.zeros(1)) == 0


def test_pixels_of_mouth_and_eyes_weigh_more() -> None:
    mouth, eyes = (
        torch.tensor([[-0.2, 0.3, 0.2, 0.5]]),
        torch.tensor([[[-0.5, -0.3, -0.3, -0.2], [0.3, -0.3, 0.5, -0.2]]]),
    )
    weights = ReconstructionWeights(mouth=4.0, eyes=2.0)
    weight = pixel_weight(mouth, eyes, 65, 65, weights)[0, 0]
    at = lambda x, y: weight[round((y + 1) * 32), round((x + 1) * 32)].item()  # noqa: E731
    assert at(0, 0.4) == pytest.approx(5, abs=0.1) and at(-0.4, -0.25) == pytest.approx(3, abs=0.1)
    assert at(0.4, -0.25) == pytest.approx(3, abs=0.1) and at(0.9, 0.9) == pytest.approx(1, abs=1e-2)
    assert pixel_weight(mouth, eyes, 65, 65, ReconstructionWeights()) is None


def test_lip_motion_loss_wants_the_whole_opening_and_its_time() -> None:
    opening = 0.02 * torch.sin(torch.arange(32) / 2)
    valid = torch.ones(1, 32, dtype=torch.bool)

    def speaking(opening_T: torch.Tensor) -> torch.Tensor:
        keypoints = torch.zeros(1, 32, 10, 2)
        keypoints[0, :, -3, 0] = 0.3
        keypoints[0, :, -1, 1] = 0.08 + opening_T
        return keypoints

    def loss(opening_T: torch.Tensor) -> float:
        return losses.lip_motion_loss(speaking(opening_T), speaking(opening), valid).item()

    assert loss(opening) == pytest.approx(0, abs=1e-6)
    assert 0.05 < loss(0.5 * opening) < loss(0 * opening) < loss(-opening)
    assert loss(opening.roll(4)) > 0.3
    late = valid.clone()
    late[:, 16:] = False
    spoilt = torch.cat([opening[:16], -opening[16:]])
    assert losses.lip_motion_loss(speaking(spoilt), speaking(opening), late) == pytest.approx(0, abs=1e-6)
    moved = face_points.lip_motion(speaking(opening))[0, :, 0]
    assert moved == pytest.approx((0.08 + opening) / 0.05)
    again = measures.correlation(moved[None], opening[None], valid)
    assert again.item() == pytest.approx(1, abs=1e-4)
    assert measures.correlation(-moved[None], opening[None], late).item() == pytest.approx(-1, abs=1e-4)


def test_weighted_losses_care_for_the_mouth() -> None:
    wanted = torch.rand(1, 3, 64, 64)
    box = torch.tensor([[-0.2, 0.3, 0.2, 0.5]])
    weight = losses.region_weight(box, 64, 64, extra=9.0)
    inside, outside = wanted.clone(), wanted.clone()
    inside[..., 42:48, 28:36] += 0.3
    outside[..., 2:8, 2:10] += 0.3
    for loss in (losses.pixel_l1, losses.gradient_l1, losses.ssim_loss):
        assert loss(inside, wanted, weight) > 1.5 * loss(outside, wanted, weight)


def test_reconstruction_losses_name_what_they_weigh() -> None:
    a, b = torch.rand(2, 2, 3, 32, 32).unbind(0)
    weights = ReconstructionWeights(perceptual=0, pixel=2, gradient=1, ssim=1)
    weighted = reconstruction_losses(a, b, None, weights, ImagePyramid((1.0, 0.5)), None)
    assert list(weighted) == ["pixel", "gradient", "ssim"]
    small = ImagePyramid((0.5,))
    wanted = 2 * (losses.pixel_l1(a, b) + losses.pixel_l1(small(a)[0], small(b)[0]))
    assert weighted["pixel"] == pytest.approx(wanted.item())


def test_liveliness_measures() -> None:
    pose, valid = sway(), torch.ones(3, 64, dtype=torch.bool)
    assert measures.deviation(pose, valid).item() == pytest.approx(pose.std(1, correction=0).mean().item(), rel=1e-4)
    assert measures.speed(pose.mean(1, keepdim=True).expand_as(pose), valid) == 0
    assert measures.speed(2 * pose, valid).item() == pytest.approx(2 * measures.speed(pose, valid).item(), rel=1e-4)
