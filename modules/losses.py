"""One function for each loss, each naming its equation. Pure: tensors in, a scalar tensor out, weights elsewhere.

Letters: B batch, T video frame, K keypoint, P pose value, C H W image. "FOMM" is Siarohin et al. 2019b.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from modules.face_points import LIDS, LIPS, lid_motion, lip_motion
from modules.keypoints import Keypoints, compose_2x2, coordinate_grid, invert_2x2
from modules.random_warp import RandomWarp

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5  # Wang et al. 2004


def feature_l1(features: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Sum over layers of the mean absolute difference (Eq. 6; FOMM's perceptual loss). `wanted` is not trained."""
    assert len(features) == len(wanted), (len(features), len(wanted))
    return torch.stack(
        [(a.float() - b.detach().float()).abs().mean() for a, b in zip(features, wanted, strict=True)]
    ).sum()


def pixel_l1(image_BCHW: Tensor, wanted_BCHW: Tensor, weight_B1HW: Tensor | None = None) -> Tensor:
    """Mean absolute difference of pixels, optionally weighted by place (ours, for training without a VGG)."""
    return _weighted_mean((image_BCHW - wanted_BCHW).abs(), weight_B1HW)


def gradient_l1(image_BCHW: Tensor, wanted_BCHW: Tensor, weight_B1HW: Tensor | None = None) -> Tensor:
    """Mean absolute difference of horizontal and vertical pixel differences: edges (ours)."""
    difference = image_BCHW - wanted_BCHW
    across, down = difference.diff(dim=-1).abs(), difference.diff(dim=-2).abs()
    if weight_B1HW is None:
        return across.mean() + down.mean()
    return _weighted_mean(across, weight_B1HW[..., 1:]) + _weighted_mean(down, weight_B1HW[..., 1:, :])


def ssim_loss(image_BCHW: Tensor, wanted_BCHW: Tensor, weight_B1HW: Tensor | None = None) -> Tensor:
    """1 - mean structural similarity, optionally weighted by place (ours, for training without a VGG)."""
    if weight_B1HW is not None:
        margin = SSIM_WINDOW // 2
        weight_B1HW = weight_B1HW[..., margin:-margin, margin:-margin]
    return 1 - _weighted_mean(ssim_map(image_BCHW, wanted_BCHW), weight_B1HW)


def ssim_map(image_BCHW: Tensor, wanted_BCHW: Tensor) -> Tensor:
    """Structural similarity around each pixel, for values in [0, 1] (Wang et al. 2004): 1 = equal.

    11x11 Gaussian window, sigma 1.5; windows that leave the picture are not used, so 5 pixels are lost on each side.

    Raises:
        ValueError: the picture is smaller than the window.
    """
    if min(image_BCHW.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs pictures of {SSIM_WINDOW} pixels or more, found {tuple(image_BCHW.shape[-2:])}")
    x, y = image_BCHW.float(), wanted_BCHW.float()
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variance_x = _window_mean(x * x) - mean_x**2
    variance_y = _window_mean(y * y) - mean_y**2
    covariance = _window_mean(x * y) - mean_x * mean_y
    return _ssim(mean_x, mean_y, variance_x, variance_y, covariance, 0.01**2, 0.03**2)


def region_weight(box_B4: Tensor, height: int, width: int, extra: float) -> Tensor:
    """Weight of each pixel: 1, rising to 1 + `extra` in a Gaussian bump (ours: lips are few pixels).

    Args:
        box_B4: (left, top, right, bottom) in [-1, 1]; the bump's sigma is half the box each way. An empty box (all 0)
            means that the place is not known, and every pixel weighs 1.

    Returns:
        weight_B1HW.
    """
    centre_B2 = (box_B4[:, :2] + box_B4[:, 2:]) / 2
    half_B2 = (box_B4[:, 2:] - box_B4[:, :2]) / 2
    known_B = (half_B2 > 0).all(-1)
    grid_HW2 = coordinate_grid(height, width, box_B4)
    scaled_BHW2 = (grid_HW2 - centre_B2[:, None, None]) / half_B2.clamp(min=1e-3)[:, None, None]
    bump_BHW = torch.exp(-scaled_BHW2.square().sum(-1) / 2) * known_B[:, None, None]
    return (1 + extra * bump_BHW)[:, None]


def place_l1(position_B42: Tensor, points_B42: Tensor, known_B: Tensor) -> Tensor:
    """How far four keypoints are from the lips or lids that they are tied to (ours; FOMM leaves them free).

    Mean over the batch, to which a mouth or eyes whose place is not known add 0.
    """
    return ((position_B42 - points_B42).abs().mean((1, 2)) * known_B).mean()


def lip_shape_l1(position_BK2: Tensor, points_B42: Tensor, known_B: Tensor) -> Tensor:
    """How far opening and width of the mouth are from the wanted ones, in units of 0.05 (ours).

    A mouth opens by a few hundredths of the picture, less than the error of position that `place_l1` leaves. Trained
    with `place_l1` alone, the keypoints open half as far as the lips.
    """
    difference_B2 = (lip_motion(position_BK2) - lip_motion(points_B42)).abs()
    return (difference_B2.mean(1) * known_B).mean()


def lid_shape_l1(position_BK2: Tensor, points_B42: Tensor, known_B: Tensor) -> Tensor:
    """How far the openings of both eyes are from the wanted ones, in units of 0.05; as `lip_shape_l1` (ours)."""
    difference_B2 = (lid_motion(position_BK2[:, -LIPS - LIDS : -LIPS]) - lid_motion(points_B42)).abs()
    return (difference_B2.mean(1) * known_B).mean()


def lip_motion_loss(position_BTK2: Tensor, wanted_BTK2: Tensor, valid_BT: Tensor) -> Tensor:
    """1 - SSIM of the mouth's opening and width over a window, each by itself (ours, after Eq. 3).

    As with head poses: where sound tells only part of a motion, L1 is smallest for a motion that is too small.
    """
    pair = lip_motion(position_BTK2), lip_motion(wanted_BTK2)
    return pose_ssim_loss(*pair, c1=0.01**2, c2=0.03**2, statistics="channel", valid_BT=valid_BT)


def equivariance_position(keypoints_BK2: Tensor, transformed_BK2: Tensor, warp: RandomWarp) -> Tensor:
    """|p - W(p')|: keypoints of a warped picture, warped back, are the picture's (FOMM Eq. 9; L_eq^P of Eq. 7)."""
    return (keypoints_BK2 - warp.points(transformed_BK2)).abs().mean()


def equivariance_jacobian(keypoints: Keypoints, transformed: Keypoints, warp: RandomWarp) -> Tensor:
    """|1 - J^-1 W'(p') J'|: the same for the local affine transforms (FOMM Eq. 11; L_eq^J of Eq. 7).

    Jacobians are multiplied out by elements, so the numbers are float32 under any autocast or TF32 setting.
    """
    moved = compose_2x2(warp.jacobian(transformed.position_BK2), transformed.jacobian_BK22)
    product_BK22 = compose_2x2(invert_2x2(keypoints.jacobian_BK22), moved)
    return (torch.eye(2, device=moved.device, dtype=moved.dtype) - product_BK22).abs().mean()


def lsgan_generator(score: Tensor) -> Tensor:
    """(1 - D(fake))^2 (least-squares GAN; Eq. 4 and FOMM's vox-adv)."""
    return (1 - score.float()).square().mean()


def lsgan_discriminator(score_real: Tensor, score_fake: Tensor) -> Tensor:
    """(1 - D(real))^2 + D(fake)^2 (least-squares GAN; Eq. 4 and FOMM's vox-adv)."""
    return (1 - score_real.float()).square().mean() + score_fake.float().square().mean()


def pose_ssim_loss(
    pose_BTP: Tensor, wanted_BTP: Tensor, c1: float, c2: float, statistics: str, valid_BT: Tensor | None = None
) -> Tensor:
    """1 - SSIM of two pose sequences taken as 6xT images (Eq. 3). 0 = equal; near 2 = mirrored motion.

    Eq. 3 is an image measure, so poses are first moved from [-1, 1] to [0, 1]: with signed means both factors of
    Eq. 3 can be negative and a sequence with mean and motion both mirrored would be perfect.

    Args:
        pose_BTP, wanted_BTP: normalised poses in about [-1, 1].
        c1, c2: the two small constants of Eq. 3, for values in [0, 1].
        statistics: over what mean, deviation and covariance are taken. "map": the whole 6xT image, the letter of
            Eq. 3. "channel": each of the six rows by itself, then averaged, so that moving counts and not only
            where the head is.
        valid_BT: True where a frame is real; others do not count.
    """
    x_BPT, y_BPT = (rearrange((pose + 1) / 2, "b t p -> b p t").float() for pose in (pose_BTP, wanted_BTP))
    mask_BPT = torch.ones_like(x_BPT) if valid_BT is None else valid_BT[:, None].to(x_BPT).expand_as(x_BPT)
    axes = {"map": (1, 2), "channel": (2,)}[statistics]
    count = mask_BPT.sum(axes, keepdim=True)

    def mean(values_BPT: Tensor) -> Tensor:
        return (values_BPT * mask_BPT).sum(axes, keepdim=True) / count

    mean_x, mean_y = mean(x_BPT), mean(y_BPT)
    variance_x, variance_y = mean((x_BPT - mean_x) ** 2), mean((y_BPT - mean_y) ** 2)
    covariance = mean((x_BPT - mean_x) * (y_BPT - mean_y))
    return 1 - _ssim(mean_x, mean_y, variance_x, variance_y, covariance, c1, c2).mean()


# Deviations below which a motion is noise of the measurement: of normalised poses, and of mouths as `lip_motion` has it
# (a sixth of a pixel of 128). They also bound the gradient of a motion that is not there yet: one huge gradient at the
# first step would hold back Adam, which divides by it, for a thousand more.
SMALLEST_MOTION, SMALLEST_LIP_MOTION = 0.003, 0.05


def motion_size_loss(
    pose_BTP: Tensor,
    wanted_BTP: Tensor,
    valid_BT: Tensor,
    of_the_mean: bool = False,
    smallest: float = SMALLEST_MOTION,
) -> Tensor:
    """How far deviation over time and speed of each axis are from the true ones (ours).

    For head poses, and for mouths as `lip_motion` has them. Where sound tells little of a motion, Eq. 3 is best for one
    that hardly moves: without covariance, variance only costs.

    Where it does not tell how lively somebody is, either, |log ratio| is least at the median of what may be; few people
    move very much, so that the median is less than the mean. r - 1 - log r, with r the true size by the predicted one,
    is least at the mean (`of_the_mean`).
    """
    sizes, wanted = (torch.stack(_motion_size(each, valid_BT, smallest)) for each in (pose_BTP, wanted_BTP))
    log_ratio = wanted.log() - sizes.log()
    return (log_ratio.exp() - 1 - log_ratio if of_the_mean else log_ratio.abs()).mean()


def _motion_size(pose_BTP: Tensor, valid_BT: Tensor, smallest: float) -> tuple[Tensor, Tensor]:
    """Standard deviation over time and mean absolute change from frame to frame of each axis, [B, P] each."""
    mask_BT1 = valid_BT[..., None].to(pose_BTP)
    count = mask_BT1.sum(1).clamp(min=1)
    mean = (pose_BTP * mask_BT1).sum(1) / count
    variance = ((pose_BTP - mean[:, None]).square() * mask_BT1).sum(1) / count
    both_BT1 = mask_BT1[:, 1:] * mask_BT1[:, :-1]
    speed = (pose_BTP.diff(dim=1).abs() * both_BT1).sum(1) / both_BT1.sum(1).clamp(min=1)
    return (variance + smallest**2).sqrt(), speed + smallest / 10


def masked_l1(value: Tensor, wanted: Tensor, valid_BT: Tensor | None = None) -> Tensor:
    """Mean absolute difference over the real frames (the L1 of Eqs. 5 and 7, and the "with L1" ablation of Eq. 3).

    Both [B, T, ...]; `valid_BT` is True where a frame is real. Each sample counts the same, so that a batch split over
    ranks has the same mean.
    """
    difference = (value - wanted).abs()
    if valid_BT is None:
        return difference.mean()
    mask_BT = valid_BT.to(difference)
    per_frame_BT = difference.flatten(2).mean(-1)
    return ((per_frame_BT * mask_BT).sum(1) / mask_BT.sum(1)).mean()


def heatmap_weight(step: int, hold_steps: int, decay_steps: int) -> float:
    """Factor on lambda_m of Eq. 5: 1 for `hold_steps`, then a straight line to 0 over `decay_steps`.

    "lambda_m is set to 1 and decays to zero after a certain time" (Sec. 3.3); shape and numbers are ours.
    """
    if decay_steps == 0:
        return float(step < hold_steps)
    return min(1.0, max(0.0, 1 - (step - hold_steps) / decay_steps))


def _ssim(
    mean_x: Tensor, mean_y: Tensor, variance_x: Tensor, variance_y: Tensor, covariance: Tensor, c1: float, c2: float
) -> Tensor:
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (variance_x + variance_y + c2)


def _weighted_mean(value_BCHW: Tensor, weight_B1HW: Tensor | None) -> Tensor:
    if weight_B1HW is None:
        return value_BCHW.mean()
    weighted_B = (value_BCHW * weight_B1HW).sum((1, 2, 3)) / (weight_B1HW.sum((1, 2, 3)) * value_BCHW.shape[1])
    return weighted_B.mean()  # each sample counts the same, on any number of ranks


def _window_mean(image_BCHW: Tensor) -> Tensor:
    """Gaussian-weighted mean around each pixel, without padding (separable); float32 under autocast.

    In bfloat16 the variances E[x^2] - E[x]^2 cancel to noise, negative values included, and training ends in NaN.
    """
    t = torch.arange(SSIM_WINDOW, device=image_BCHW.device, dtype=image_BCHW.dtype) - SSIM_WINDOW // 2
    kernel = torch.exp(-t.square() / (2 * SSIM_SIGMA**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    channels = image_BCHW.shape[1]
    with torch.autocast(image_BCHW.device.type, enabled=False):
        rows = F.conv2d(image_BCHW, kernel.expand(channels, 1, 1, -1), groups=channels)
        return F.conv2d(rows, kernel.mT.expand(channels, 1, -1, 1), groups=channels)
