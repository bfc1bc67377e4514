"""Frames put together into pictures: rows of frames with names, tiles side by side, mouths, differences.

Frames may have any size, but one size in a call. Letters: T video frame, N frame shown, H W C picture (RGB, uint8),
P pose value.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import cv2
import numpy as np

from datasets.pose import BOX_SIZE, project

TILE = 192  # pixels: smaller frames are enlarged by a whole number, so that names fit and lips can be seen
GAP = 4  # pixels between frames
ROW_TILES = 5  # tiles in a row of a side-by-side video
BATCH = 25  # frames composed at once
WHITE = 255

MOUTH_MM = np.array([[0.0, 47.0, 0.0]])  # roughly the mouth in the head's own axes; it only tells how the mouth turns
MOUTH_VIEW = 2.2  # widths of the mouth that an enlarged mouth shows
UNKNOWN_MOUTH_WIDTH = 50.0  # pixels of 256, where no frame of a clip has a measured mouth


def equally_spaced(frames: int, count: int) -> np.ndarray:
    """Numbers of at most `count` different frames from the first to the last."""
    return np.linspace(0, frames - 1, min(frames, count)).round().astype(int)


def strips(rows: Mapping[str, np.ndarray], headings: Sequence[str]) -> np.ndarray:
    """One row of frames for each entry, its name at the left; a heading above each column.

    Args:
        rows: name (lines parted by newlines) -> [N, H, W, 3].

    Returns: one picture [H, W, 3].
    """
    tiles = {name: enlarged(frames) for name, frames in rows.items()}
    height, width = next(iter(tiles.values())).shape[1:3]
    names = [lettering(name, height // 10) for name in tiles]
    margin = max(name.shape[1] for name in names)
    head = [_white(0, margin)] + [lettering(words, height // 12, width) for words in headings]
    top = max(words.shape[0] for words in head)
    lines = [_beside([_centred(head[0], top, margin)] + [_centred(words, top, width) for words in head[1:]])]
    for name, frames in zip(names, tiles.values(), strict=True):
        lines.append(_beside([_centred(name, height, margin), *frames]))
    return np.pad(_below(lines), ((0, GAP), (0, GAP), (0, 0)), constant_values=WHITE)


def side_by_side(tiles: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
    """Batches of video frames [N, H, W, 3]: one named tile for each entry [T, H, W, 3], in rows of up to five.

    As long as the shortest entry.
    """
    rows = math.ceil(len(tiles) / ROW_TILES)
    columns = math.ceil(len(tiles) / rows)
    height, width = enlarged(next(iter(tiles.values()))[:1]).shape[1:3]
    titles = [lettering(name, height // 12, width) for name in tiles]
    top = max(title.shape[0] for title in titles)
    length = min(len(frames) for frames in tiles.values())
    for start in range(0, length, BATCH):
        parts = [enlarged(frames[start : min(start + BATCH, length)]) for frames in tiles.values()]
        canvas = np.full((len(parts[0]), rows * (top + height + GAP), columns * (width + GAP), 3), WHITE, np.uint8)
        for number, (title, part) in enumerate(zip(titles, parts, strict=True)):
            y, x = (number // columns) * (top + height + GAP), (number % columns) * (width + GAP)
            canvas[:, y : y + top, x : x + width] = _centred(title, top, width)
            canvas[:, y + top : y + top + height, x : x + width] = part
        yield canvas


def enlarged(frames_NHWC: np.ndarray) -> np.ndarray:
    """Frames smaller than a tile, made larger by a whole number."""
    height, width = frames_NHWC.shape[1:3]
    factor = math.ceil(TILE / height)
    if factor == 1:
        return frames_NHWC
    size = (factor * width, factor * height)
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR) for frame in frames_NHWC])


def stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures of different widths below each other, each in the middle."""
    width = max(picture.shape[1] for picture in pictures)
    return _below([_centred(picture, picture.shape[0], width) for picture in pictures])


def lettering(words: str, size: int, width: int | None = None) -> np.ndarray:
    """Black words on white [H, W, 3], `size` pixels tall or as much smaller as `width` pixels demand."""
    from PIL import Image, ImageDraw, ImageFont

    pad = size // 3
    while True:
        font = ImageFont.load_default(size)
        _, _, right, bottom = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), words, font)
        if width is None or right + 2 <= width or size <= 6:
            break
        size -= 1
    pad_x = pad if width is None else 1
    canvas = Image.new("RGB", (math.ceil(right) + 2 * pad_x, math.ceil(bottom) + 2 * pad), "white")
    ImageDraw.Draw(canvas).multiline_text((pad_x, pad), words, "black", font)
    return np.asarray(canvas)[:, :width]


def mouth_centres(mouth_T4: np.ndarray, true_TP: np.ndarray, pose_TP: np.ndarray) -> np.ndarray:
    """Where the mouth is under other head poses than the true ones.

    The landmarks of a generated video are not known, but its head pose is. A point of the head is followed by the pose;
    its distance to the mouth is taken from the true frames (the median).

    Args:
        mouth_T4: true mouths of `Clip.mouth`, NaN where unknown.
        true_TP, pose_TP: true and generated poses, rad and mm.

    Returns: [T, 2], (x, y) in pixels of a picture 256 wide.
    """
    true_T2 = np.concatenate([project(MOUTH_MM, pose) for pose in true_TP])
    known_T = np.isfinite(mouth_T4).all(1)
    offset_2 = np.median((mouth_T4[:, :2] - true_T2)[known_T], axis=0) if known_T.any() else np.zeros(2)
    return np.concatenate([project(MOUTH_MM, pose) for pose in pose_TP]) + offset_2


def mouths(frames_THWC: np.ndarray, centre_T2: np.ndarray, mouth_T4: np.ndarray) -> np.ndarray:
    """The square around each mouth, one size for the clip, as a picture [T, TILE, TILE, 3]; it stays inside the frame.

    Args:
        centre_T2: pixels of a picture 256 wide. mouth_T4: true mouths, whose median width decides the size.
    """
    known_T = np.isfinite(mouth_T4).all(1)
    width = np.median(mouth_T4[known_T, 2]) if known_T.any() else UNKNOWN_MOUTH_WIDTH
    scale = frames_THWC.shape[2] / BOX_SIZE
    side = min(round(MOUTH_VIEW * width * scale), *frames_THWC.shape[1:3])
    views = []
    for frame, (x, y) in zip(frames_THWC, centre_T2 * scale, strict=True):
        left, top = (
            int(np.clip(round(middle - side / 2), 0, size - side))
            for middle, size in ((x, frame.shape[1]), (y, frame.shape[0]))
        )
        view = frame[top : top + side, left : left + side]
        views.append(cv2.resize(view, (TILE, TILE), interpolation=cv2.INTER_CUBIC))
    return np.stack(views)


def differences(frames_THWC: np.ndarray, gain: float) -> np.ndarray:
    """|frame t + 1 - frame t|, mean over colours, times `gain`, cut at 255: grey [T - 1, H, W, 3]."""
    pictures = []
    for before, after in pairwise(frames_THWC):
        difference_HW = np.abs(after.astype(np.float32) - before).mean(2)
        grey_HW = np.minimum(gain * difference_HW, 255).round().astype(np.uint8)
        pictures.append(np.repeat(grey_HW[..., None], 3, axis=2))
    return np.stack(pictures)


def _white(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), WHITE, np.uint8)


def _centred(picture_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    canvas = _white(height, width)
    y, x = (height - picture_HWC.shape[0]) // 2, (width - picture_HWC.shape[1]) // 2
    canvas[y : y + picture_HWC.shape[0], x : x + picture_HWC.shape[1]] = picture_HWC
    return canvas


def _beside(pictures: Sequence[np.ndarray]) -> np.ndarray:
    gap = _white(pictures[0].shape[0], GAP)
    return np.concatenate([part for picture in pictures for part in (picture, gap)][:-1], axis=1)


def _below(pictures: Sequence[np.ndarray]) -> np.ndarray:
    gap = _white(GAP, pictures[0].shape[1])
    return np.concatenate([part for picture in pictures for part in (picture, gap)][:-1])
