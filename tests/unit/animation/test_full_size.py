"""Full-size frames: the photograph to the bit where nothing moves, no seam, the same on both kinds of device."""

import cv2
import numpy as np
import pytest
import torch

from animation import full_size
from animation.full_size import FullSize, Geometry
from modules.dense_motion import DenseMotion
from modules.image_generator import Rendering

SIZE, NODES = 64, 32
HEIGHT, WIDTH = 200, 280


def photograph() -> np.ndarray:
    """A checkerboard with a ramp of colour: every seam and every shift shows."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    checks = np.where((x // 6 + y // 6) % 2, 200, 40)
    return np.dstack([checks, (checks + x) % 256, np.full_like(x, 90) + y // 2]).astype(np.uint8)


def geometry(side=120.0, centre=(140.0, 100.0), degrees=0.0, align_corners=True) -> Geometry:
    zoom, roll = side / SIZE, np.radians(degrees)
    turn_22 = zoom * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    offset_2 = np.array(centre) - 0.5 - turn_22 @ np.full(2, (SIZE - 1) / 2)
    return Geometry(np.column_stack([turn_22, offset_2]), SIZE, align_corners)


def rendering(shift: torch.Tensor, share: float, count=1, skip=True) -> Rendering:
    """A field that takes every pixel from `shift` (in the square's coordinates) further, painted grey by `share`."""
    axis = torch.linspace(-1, 1, NODES)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    field = (torch.stack([x, y], dim=-1) + shift).expand(count, -1, -1, -1)
    grey = torch.full((count, 3, SIZE, SIZE), 0.5)
    mask = torch.full((count, 1, SIZE, SIZE), share)
    motion = DenseMotion(field, torch.full((count, 1, NODES, NODES), 1 - share), None, None)
    return Rendering(grey, grey, motion, mask if skip else None)


def bump(height=0.25, width=0.3) -> torch.Tensor:
    """Large motion in the middle of the square: a head that nods and turns."""
    axis = torch.linspace(-1, 1, NODES)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return (height * torch.exp(-(x**2 + y**2) / width))[..., None].expand(-1, -1, 2)


def frame(where: Geometry, drawn: Rendering, device_class=None, picture=None) -> np.ndarray:
    maker = FullSize(photograph() if picture is None else picture, where, torch.device("cpu"))
    if device_class is not None:
        maker._painter = device_class(maker.photograph_HW3, where, torch.device("cpu"))
    return maker.frames(maker.layers(drawn, torch.full((1, 3, SIZE, SIZE), 0.5))).numpy()


def outside(where: Geometry) -> np.ndarray:
    """[H, W] True where a pixel's centre lies outside the square, or on its border."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    square_HW2 = np.dstack([x, y, np.ones_like(x)]) @ where.to_square().T
    return (np.abs(square_HW2 - (SIZE - 1) / 2) >= SIZE / 2).any(axis=-1)


@pytest.mark.parametrize("painter", [full_size._OnCpu, full_size._OnGpu])
@pytest.mark.parametrize("degrees", [0, 25])
def test_no_motion_and_no_paint_is_the_photograph(painter, degrees):
    still = rendering(torch.zeros(2), 0.0, count=3)
    frames = frame(geometry(degrees=degrees), still, painter)
    assert frames.shape == (3, HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(frames, np.broadcast_to(photograph(), frames.shape))


@pytest.mark.parametrize("painter", [full_size._OnCpu, full_size._OnGpu])
@pytest.mark.parametrize("degrees", [0, 25])
@pytest.mark.parametrize("align_corners", [True, False])
def test_outside_the_square_the_photograph_is_left_to_the_bit(painter, degrees, align_corners):
    where = geometry(degrees=degrees, align_corners=align_corners)
    drawn = frame(where, rendering(bump() + 0.1, 0.7), painter)[0]
    beyond = outside(where)
    np.testing.assert_array_equal(drawn[beyond], photograph()[beyond])
    assert np.abs(drawn[~beyond].astype(int) - photograph()[~beyond]).mean() > 20  # inside, much has changed


@pytest.mark.parametrize("degrees", [0, 25])
def test_no_seam_can_be_measured_along_the_border(degrees):
    """The change grows from nothing: along the border it is far smaller than a band further in, on any pattern."""
    where = geometry(degrees=degrees)
    change = np.abs(frame(where, rendering(bump() + 0.1, 0.7))[0].astype(int) - photograph()).max(axis=-1)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    square_HW2 = np.dstack([x, y, np.ones_like(x)]) @ where.to_square().T
    depth = SIZE / 2 - np.abs(square_HW2 - (SIZE - 1) / 2).max(axis=-1)  # of the small square's pixels
    assert change[(depth > 0) & (depth < 1)].max() <= 2
    assert change[(depth > 1) & (depth < 3)].mean() < 0.2 * change[depth > 16].mean()


def test_where_the_photograph_ends_the_motion_does_not_fade():
    """A picture that is all face moves up to its edges; a square at the lower edge fades at three sides."""
    picture = cv2.resize(photograph(), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    whole = Geometry(np.array([[1.0, 0, 0], [0, 1.0, 0]]), SIZE, True)
    assert whole.fading_sides(SIZE, SIZE) == (False,) * 4
    step = 2 * 4 / (SIZE - 1)  # four pixels
    moved = frame(whole, rendering(torch.tensor([step, 0.0]), 0.0), picture=picture)[0]
    np.testing.assert_allclose(moved[:, :-4].astype(int), picture[:, 4:], atol=1)
    low = geometry(centre=(140, HEIGHT - 60))
    assert low.fading_sides(HEIGHT, WIDTH) == (True, True, True, False)


def test_motion_takes_pixels_from_where_the_field_says():
    where = geometry(side=128, centre=(140, 100))  # two pixels of the photograph each
    step = 2 * 5 / (SIZE - 1)  # five small pixels: ten of the photograph
    moved = frame(where, rendering(torch.tensor([step, 0.0]), 0.0))[0]
    np.testing.assert_allclose(moved[80:120, 120:160].astype(int), photograph()[80:120, 130:170], atol=1)


def test_a_turned_square_moves_along_its_own_axes():
    where = geometry(side=128, centre=(140, 100), degrees=90)
    step = 2 * 5 / (SIZE - 1)
    moved = frame(where, rendering(torch.tensor([step, 0.0]), 0.0))[0]  # the square's right is the photograph's down
    np.testing.assert_allclose(moved[80:120, 120:160].astype(int), photograph()[90:130, 120:160], atol=1)


@pytest.mark.parametrize("skip", [True, False])
def test_what_is_painted_covers_the_photograph(skip):
    painted = frame(geometry(), rendering(torch.zeros(2), 1.0, skip=skip))[0]
    assert (painted[90:110, 130:150] == 128).all()  # 0.5 * 255, rounded


@pytest.mark.parametrize("degrees", [0, 25])
def test_both_devices_agree(degrees):
    smooth = cv2.GaussianBlur(photograph(), (0, 0), 1.5)
    drawn = rendering(bump(), 0.4, count=2)
    where = geometry(degrees=degrees)
    cpu, gpu = (frame(where, drawn, painter, smooth).astype(int) for painter in (full_size._OnCpu, full_size._OnGpu))
    assert np.abs(cpu - gpu).max() <= 4 and np.abs(cpu - gpu).mean() < 0.3


def test_the_photograph_stays_sharp():
    """Moved by half a pixel, as far as linear interpolation blurs most, details keep most of their contrast."""
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    noise = cv2.GaussianBlur(noise, (0, 0), 0.8)
    where = geometry(side=128, centre=(140, 100))
    moved = frame(where, rendering(torch.tensor([2 * 0.25 / (SIZE - 1), 0.0]), 0.0), picture=noise)[0]
    part = np.s_[80:120, 120:160]
    sharpness = [cv2.Laplacian(image[part].astype(np.float32), cv2.CV_32F).std() for image in (moved, noise)]
    assert sharpness[0] > 0.85 * sharpness[1]
