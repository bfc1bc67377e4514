"""Strips, side-by-side frames, mouths and differences, on frames whose content is known."""

import numpy as np

from evaluation.figures import strips


def plain(grey: int, frames: int = 5, size: int = 64) -> np.ndarray:
    return np.full((frames, size, size, 3), grey, np.uint8)


def test_strips_show_the_rows_in_order():
    picture = strips.strips({"dark": plain(40, 3), "bright": plain(200, 3)}, ["a", "b", "c"])
    tile = strips.enlarged(plain(40))
    right_half = picture[:, -2 * tile.shape[2] - 2 * strips.GAP :]  # two columns
    dark, bright = (np.argwhere((right_half == grey).all(2))[:, 0] for grey in (40, 200))
    assert len(dark) and dark.max() < bright.min()
    assert all((right_half == grey).all(2).sum() >= 2 * tile.shape[1] * tile.shape[2] for grey in (40, 200))


def test_side_by_side_stops_with_the_shortest_and_keeps_time():
    ramp = np.stack([np.full((64, 64, 3), 10 * t, np.uint8) for t in range(20)])
    frames = np.concatenate(list(strips.side_by_side({"one": ramp, "two": plain(99, 12)})))
    assert len(frames) == 12
    for t in (1, 11):
        below = frames[t, -192 - strips.GAP : -strips.GAP]  # without titles
        assert (below[:, :192] == 10 * t).all() and (below[:, 192 + strips.GAP : -strips.GAP] == 99).all()


def test_side_by_side_shows_every_tile_of_several_rows():
    tiles = {f"tile {number}": plain(20 + 10 * number, 2) for number in range(11)}
    frame = next(strips.side_by_side(tiles))[1]
    assert all((frame == 20 + 10 * number).all(2).sum() >= 192**2 for number in range(11))


def test_names_fit_into_the_tile():
    assert strips.lettering("wrong-audio-generated", 20, 100).shape[1] <= 100
    assert strips.lettering("still", 20, 100).shape[0] > strips.lettering("wrong-audio-generated", 20, 100).shape[0]


def test_differences_by_hand():
    frames = np.stack([np.full((2, 2, 3), grey, np.uint8) for grey in (10, 13, 3, 203)])
    assert [int(d[0, 0, 0]) for d in strips.differences(frames, 8)] == [24, 80, 255]


def test_mouths_follow_the_generated_head():
    """A head 20 mm further right shows its mouth further right by focal length / depth, not where the true one is."""
    true = np.tile(np.float32([0, 0, 0, 0, 0, 250]), (4, 1))
    moved = true + np.float32([0, 0, 0, 20, 0, 0])
    mouth = np.tile(np.float32([130, 180, 40, 5]), (4, 1))
    mouth[2] = np.nan
    np.testing.assert_allclose(strips.mouth_centres(mouth, true, true), [[130, 180]] * 4, atol=1e-3)
    centre = strips.mouth_centres(mouth, true, moved)
    np.testing.assert_allclose(centre, [[130 + 20 * 233.333 / 250, 180]] * 4, atol=1e-3)
    frames = plain(0, 4, 128)
    frames[:, 88:92, 72:76] = 255  # at (74, 90) of 128 pixels: (148, 180) of 256
    views = strips.mouths(frames, centre, mouth)
    y, x = np.argwhere(views[0, ..., 0] > 200).mean(0) / strips.TILE
    assert abs(x - 0.5) < 0.03 and abs(y - 0.5) < 0.03


def test_a_mouth_at_the_edge_stays_inside_the_frame():
    mouth = np.tile(np.float32([250, 250, 40, 5]), (2, 1))
    views = strips.mouths(plain(77, 2, 128), np.float32([[250, 250], [-10, 5]]), mouth)
    assert views.shape == (2, strips.TILE, strips.TILE, 3) and (views == 77).all()
