"""Random changes of pictures and voices that leave the motion as it is.

Pictures: FOMM's colour jitter on 8 bits, the same for all pictures of one call: brightness, contrast and saturation factors
in [0.9, 1.1] and a hue shift in [-0.1, 0.1] of a turn, in random order. Voices: pitch and level (ours).
"""

from dataclasses import dataclass

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


def jitter_voice(features_TAF: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Features of a voice up to a fifth higher or lower, up to 6 dB louder or softer; the same over the clip.

    Columns of `datasets.audio.features`: 0 is the log energy, 13-38 are log filterbank energies, 39 is F0 in Hz.
    """
    changed = features_TAF.copy()
    level = np.float32(np.log(10) / 10 * random.uniform(-6, 6))  # energies are powers
    changed[..., [0, *range(13, 39)]] += level
    changed[..., 39] *= np.float32(2 ** random.uniform(-7 / 12, 7 / 12))
    return changed
