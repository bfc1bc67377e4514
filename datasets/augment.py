"""Random changes of pictures and voices that leave the motion as it is.

Pictures: FOMM's colour jitter on 8 bits, the same for all pictures of one call: brightness, contrast and saturation
factors in [0.9, 1.1] and a hue shift in [-0.1, 0.1] of a turn, in random order; where and how large the face is (ours).
Voices: pitch and level (ours).
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

LUMA = np.array([[0.299, 0.587, 0.114]], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class ColorJitter:
    """Half-widths of the four uniform ranges; the defaults are FOMM's for VoxCeleb."""

    brightness: float = 0.1
    contrast: float = 0.1
    saturation: float = 0.1
    hue: float = 0.1

    def __call__(self, frames_NHWC: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """uint8 RGB [N, H, W, 3] -> the same, jittered alike."""
        brightness, contrast, saturation = 1 + random.uniform(-1, 1, 3) * [
            self.brightness,
            self.contrast,
            self.saturation,
        ]
        shift = round(random.uniform(-self.hue, self.hue) * 256)
        steps = [
            lambda picture: cv2.convertScaleAbs(picture, alpha=brightness),
            lambda picture: _contrast(picture, contrast),
            lambda picture: _saturation(picture, saturation),
            lambda picture: _hue(picture, shift),
        ]
        order = random.permutation(len(steps))
        jittered = []
        for picture in frames_NHWC:
            picture = np.ascontiguousarray(picture)
            for step in order:
                picture = steps[step](picture)
            jittered.append(picture)
        return np.stack(jittered)


@dataclass(frozen=True)
class PlacementJitter:
    """Turns, scales and moves all pictures of one call alike (ours; FOMM's pictures stay in place).

    From a few speakers who all sit upright a detector learns nothing about tilted heads. What leaves the picture is
    lost; what comes in is the picture mirrored at its edge. The fields are half-widths of uniform ranges.
    """

    turn: float = 0.0  # degrees
    scale: float = 0.0  # of the natural logarithm of the size
    shift: float = 0.0  # of the picture's side

    def __call__(
        self, frames_NHWC: np.ndarray, boxes_N4: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """uint8 RGB [N, H, W, 3] with boxes (left, top, right, bottom) in [-1, 1] -> both, moved, and the turn.

        A box keeps its own axes: it now stands askew by the turn (radians, clockwise in the picture) about its centre.
        Empty boxes (all 0: not known) stay empty.
        """
        if self == PlacementJitter():
            return frames_NHWC, boxes_N4, 0.0
        turn, scale = np.radians(self.turn) * random.uniform(-1, 1), np.exp(self.scale * random.uniform(-1, 1))
        shift_2 = 2 * self.shift * random.uniform(-1, 1, 2)
        linear_22 = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        size_2 = np.array(frames_NHWC.shape[2:0:-1])
        to_pixels_22 = linear_22 * (size_2[:, None] / size_2)
        offset_2 = to_pixels_22 @ ((1 - size_2) / 2) + (1 + shift_2) * size_2 / 2 - 0.5
        matrix_23 = np.column_stack([to_pixels_22, offset_2])
        moved = [
            cv2.warpAffine(np.ascontiguousarray(frame), matrix_23, tuple(size_2), borderMode=cv2.BORDER_REFLECT_101)
            for frame in frames_NHWC
        ]
        centre_N2, half_N2 = (boxes_N4[:, :2] + boxes_N4[:, 2:]) / 2, (boxes_N4[:, 2:] - boxes_N4[:, :2]) / 2
        centre_N2, half_N2 = centre_N2 @ linear_22.T + shift_2, half_N2 * scale
        known_N1 = (half_N2 > 0).all(axis=1, keepdims=True)
        return np.stack(moved), np.hstack([centre_N2 - half_N2, centre_N2 + half_N2]) * known_N1, float(turn)


def _contrast(picture: np.ndarray, factor: float) -> np.ndarray:
    """Away from, or towards, the picture's mean brightness."""
    grey = float(LUMA[0] @ np.array(cv2.mean(picture)[:3]))
    values = np.clip(np.arange(256) * factor + grey * (1 - factor), 0, 255).astype(np.uint8)
    return cv2.LUT(picture, values)


def _saturation(picture: np.ndarray, factor: float) -> np.ndarray:
    """Away from, or towards, the grey picture: one colour matrix."""
    matrix = factor * np.eye(3, dtype=np.float32) + (1 - factor) * np.repeat(LUMA, 3, axis=0)
    return cv2.transform(picture, matrix)


def _hue(picture: np.ndarray, shift: int) -> np.ndarray:
    """Turn the hue by shift/256 of a circle."""
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(shift % 256)  # wraps round, as a circle does
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def jitter_voice(
    features_TAF: np.ndarray, random: np.random.Generator, mean: Literal["kept", "removed"] = "kept"
) -> np.ndarray:
    """Features of a voice up to a fifth higher or lower, up to 6 dB louder or softer; the same over the clip.

    Columns of `datasets.audio.features`: 0 is the log energy, 13-38 are log filterbank energies, 39 is F0 in Hz. Where
    the mean is removed from them they hold no level, and get none.
    """
    changed = features_TAF.copy()
    level = np.float32(np.log(10) / 10 * random.uniform(-6, 6))  # energies are powers
    if mean == "kept":
        changed[..., [0, *range(13, 39)]] += level
    changed[..., 39] *= np.float32(2 ** random.uniform(-7 / 12, 7 / 12))
    return changed
