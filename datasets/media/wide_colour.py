"""Video of high dynamic range or wide gamut (HDR10, HLG: as new phones film) -> the 8-bit colours of all other video.

Taken for what it is not, such video is grey and dim. Light up to about white keeps its level; what is brighter is
compressed into the rest of the scale. White is at 203 cd/m2 (ITU-R BT.2408); transfer functions and HLG's display of
1000 cd/m2 are of BT.2100, the common screen's gamma of 2.4 is BT.1886's. The compression is ours.

Letters: H W picture; 3 red, green, blue.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np

PQ, HLG = 16, 18  # transfer functions, as files number them (ITU-T H.273) ...
BT2020 = 9  # ... primaries ...
ICTCP, IPT = 14, 15  # ... and matrices, two of which no converter here knows
WHITE = 203.0  # cd/m2
HLG_PEAK = 1000.0  # cd/m2 of the screen that HLG is shown on
GAMMA = 2.4
KNEE = 0.75  # of white: light up to here keeps its level
LEVELS = 2**16
# Linear light, BT.2020 -> BT.709 primaries (ITU-R BT.2087)
TO_BT709_33 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)
LUMINANCE_13 = np.array([[0.2627, 0.6780, 0.0593]], np.float32)  # of BT.2020


def is_wide(frame: Any) -> bool:
    """Whether a PyAV frame has other colours than 8-bit video means."""
    return frame.color_trc in (PQ, HLG) or frame.color_primaries == BT2020


def to_common(rgb_HW3: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """Red, green and blue of such a frame, uint16 [H, W, 3], full range -> uint8 [H, W, 3] for a common screen.

    Args:
        transfer, primaries: a PyAV frame's color_trc and color_primaries.
    """
    light_HW3 = np.take(_light(transfer), rgb_HW3)
    if transfer == HLG:  # from the light of the scene to that of the screen
        luminance_HW = np.maximum(cv2.transform(light_HW3, LUMINANCE_13), 1e-6)
        light_HW3 *= (HLG_PEAK / WHITE) * cv2.pow(luminance_HW, 0.2)[..., None]
    if primaries == BT2020:
        light_HW3 = np.maximum(cv2.transform(light_HW3, TO_BT709_33), 0)
    if transfer in (PQ, HLG):  # compressed as one, the three keep their hue
        brightest_HW = np.maximum(light_HW3.max(axis=2), KNEE)
        compressed_HW = KNEE + (1 - KNEE) * (1 - np.exp((KNEE - brightest_HW) / (1 - KNEE)))
        light_HW3 *= (compressed_HW / brightest_HW)[..., None]
    return np.rint(255 * cv2.pow(np.minimum(light_HW3, 1), 1 / GAMMA)).astype(np.uint8)


@cache
def _light(transfer: int) -> np.ndarray:
    """Light for each of 65,536 levels, float32: of the screen by its white; for HLG of the scene, 0..1."""
    signal = np.linspace(0, 1, LEVELS)
    if transfer == PQ:
        m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
        power = signal ** (1 / m2)
        light = 10_000 / WHITE * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    elif transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    else:
        light = signal**GAMMA
    return light.astype(np.float32)
