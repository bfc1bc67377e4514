"""How alive a talking head looks, whether or not it moves as the true one did: head, beats, eyes, mouth, background.

Every function takes the arrays of one clip (or of two to compare) and returns NaN where nothing can be measured: too
few frames, or no face. A frame in which no face was found is a row of NaN.

Letters: T video frame (25 a second), P pose value (rx pitch, ry yaw, rz roll in rad, tx, ty, tz in mm), N mesh point of
mediapipe's 468 (x, y, z in pixels), K point, D coordinate, S sample of sound, F frequency band, H W C picture.
"""

import fcntl
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh
from scipy.ndimage import gaussian_filter1d
from scipy.signal import argrelmin, periodogram

from datasets.clips import SAMPLES_PER_FRAME
from datasets.face.mesh import mouth_of
from datasets.face.rigid_pose import fill_gaps
from datasets.media.streams import FPS, SAMPLE_RATE

NAN = float("nan")

# ---- head pose


class HeadDeviation(NamedTuple):
    """Standard deviation over time, degrees; `mean` is that of the three axes."""

    pitch: float
    yaw: float
    roll: float
    mean: float


def head_deviation(pose_TP: np.ndarray) -> HeadDeviation:
    """How much a head turns. KDTalker's head-pose diversity is the mean of this over clips.

    KDTalker takes Hopenet's angles, in degrees as here. SadTalker's "diversity" (about 0.278) is something else: the
    deviation of Hopenet's features. NaN for fewer than two frames with a pose.
    """
    angle_T3 = _whole_rows(pose_TP)[:, :3]
    if len(angle_T3) < 2:
        return HeadDeviation(NAN, NAN, NAN, NAN)
    pitch, yaw, roll = np.degrees(angle_T3.std(0)).tolist()
    return HeadDeviation(pitch, yaw, roll, (pitch + yaw + roll) / 3)


def pose_velocity_distance(generated: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> float:
    """Frechet distance between the head velocities of two sets of clips (poses [T, P] each): do heads move alike?

    A velocity is the change of a pose to the next frame. Each axis is divided by its standard deviation over the true
    clips, so that radians and millimetres count alike and the number has no unit. It is 0 for equal statistics and
    about 6 for heads that never move (1 for each axis). The clips of a set are pooled. Ours, after others' pose FID.

    Returns: NaN if a set has fewer than two velocities, or the true heads never move along an axis.
    """
    generated_NP, true_NP = (np.concatenate([_velocity(pose_TP) for pose_TP in clips]) for clips in (generated, true))
    if min(len(generated_NP), len(true_NP)) < 2:
        return NAN
    scale_P = true_NP.std(0)
    if _constant(true_NP).any():
        return NAN
    a_NP, b_NP = generated_NP / scale_P, true_NP / scale_P
    return frechet_distance(a_NP.mean(0), np.cov(a_NP.T), b_NP.mean(0), np.cov(b_NP.T))


def frechet_distance(mean_a_D: np.ndarray, cov_a_DD: np.ndarray, mean_b_D: np.ndarray, cov_b_DD: np.ndarray) -> float:
    """Squared 2-Wasserstein distance of two Gaussians (Dowson and Landau 1982), as in FID.

    The trace of (A B)^1/2 is computed as that of (A^1/2 B A^1/2)^1/2, which has the same eigenvalues but is symmetric:
    they stay real, and singular covariances do no harm.
    """
    value_D, vector_DD = eigh(cov_a_DD)
    root_DD = (vector_DD * np.sqrt(value_D.clip(0))) @ vector_DD.T
    shared = np.sqrt(eigh(root_DD @ cov_b_DD @ root_DD, eigvals_only=True).clip(0)).sum()
    distance = ((mean_a_D - mean_b_D) ** 2).sum() + np.trace(cov_a_DD) + np.trace(cov_b_DD) - 2 * shared
    return max(0.0, float(distance))


BANDS_HZ = (0.0, 1.0, 3.0, FPS / 2)  # posture and drift; movements that go with speech; tremble and jitter
SHORTEST_SPECTRUM = 2 * FPS  # frames: below 2 s the bands cannot be told apart


def band_shares(value_TP: np.ndarray, bands_hz: Sequence[float] = BANDS_HZ) -> np.ndarray:
    """Share of a motion's power in each frequency band, [F, P], columns sum to 1.

    From a periodogram with a Hann window, after the linear trend is removed. A frequency on the edge of two bands
    belongs to the upper one. Gaps are interpolated. NaN for fewer than 50 frames, for a column that never changes,
    and where fewer than half of the poses are known.
    """
    shares_FP = np.full((len(bands_hz) - 1, value_TP.shape[1]), NAN)
    filled_TP = _filled(value_TP)
    if filled_TP is None or len(filled_TP) < SHORTEST_SPECTRUM:
        return shares_FP
    frequency, power = periodogram(filled_TP.astype(np.float64), FPS, window="hann", detrend="linear", axis=0)
    moving_P = ~_constant(filled_TP)
    for share_P, low, high in zip(shares_FP, bands_hz[:-1], bands_hz[1:], strict=True):
        inside = (frequency >= low) & ((frequency < high) | (high == bands_hz[-1]))
        share_P[moving_P] = power[inside][:, moving_P].sum(0) / power[:, moving_P].sum(0)
    return shares_FP


def spectrum_distance(generated_TP: np.ndarray, true_TP: np.ndarray) -> float:
    """Whether two motions have their power in the same frequency bands: half the L1 distance of `band_shares`.

    0 for equal shares, 1 for motions that share no band, whatever their size. Mean over the axes along which both move.
    Ours.

    Returns: NaN if there is no such axis, or one of the motions has fewer than 50 frames.
    """
    distance_P = np.abs(band_shares(generated_TP) - band_shares(true_TP)).sum(0) / 2
    known_P = np.isfinite(distance_P)
    return float(distance_P[known_P].mean()) if known_P.any() else NAN


# ---- jitter


def jitter(point_TD: np.ndarray) -> float:
    """Tremble from frame to frame, in the unit of the points: root mean square of third differences / sqrt(20).

    That is the standard deviation, per coordinate, of independent noise on every frame; movements of up to about 1 Hz
    hardly count (sine of amplitude 1: 0.003 at 1 Hz, 0.02 at 2 Hz). Ours: papers define jitter in several ways.

    Args:
        point_TD: poses, or points with their coordinates in one row; all columns in one unit.

    Returns: NaN if there are not four frames in a row.
    """
    third_ND = _whole_rows(np.diff(np.asarray(point_TD, np.float64), 3, axis=0))
    return float(np.sqrt((third_ND**2).mean() / 20)) if len(third_ND) else NAN


# ---- beats

BEAT_SIGMA_S = 0.1
SPEED_SMOOTHING = 5  # frames, standard deviation
BEAT_RATE = 22_050  # Hz: librosa's default, at which KDTalker finds beats
SHORTEST_SOUND_S = 0.5
NUMBA_LOCK = Path(tempfile.gettempdir()) / f"audio2head-numba-{os.getuid()}.lock"


def beat_alignment(sound_beats_s: np.ndarray, motion_beats_s: np.ndarray, sigma_s: float = BEAT_SIGMA_S) -> float:
    """Whether a head moves with the beat: mean over beats of the sound of exp(-d^2 / (2 sigma^2)), in [0, 1].

    d is the distance in seconds to the nearest beat of the motion (Bailando, Siyao et al. 2022; sigma of KDTalker).
    0 for a motion without beats, NaN for sound without.
    """
    if len(sound_beats_s) == 0:
        return NAN
    if len(motion_beats_s) == 0:
        return 0.0
    nearest_s = np.abs(np.subtract.outer(sound_beats_s, motion_beats_s)).min(1)
    return float(np.exp(-(nearest_s**2) / (2 * sigma_s**2)).mean())


def sound_beats(pcm_S: np.ndarray) -> np.ndarray:
    """Times of the beats that librosa hears, seconds; none in silence or in less than 0.5 s. int16, 16 kHz."""
    if len(pcm_S) < SHORTEST_SOUND_S * SAMPLE_RATE:
        return np.empty(0)
    return _beat_tracker()(pcm_S)


@cache
def _beat_tracker() -> Callable[[np.ndarray], np.ndarray]:
    """librosa's beat tracker, imported and compiled by one process at a time.

    Two processes that fill numba's cache at the same time leave broken code there, which crashes whoever calls it later
    (numba#10128).
    """
    import librosa

    def track(pcm_S: np.ndarray) -> np.ndarray:
        wave_S = librosa.resample(pcm_S.astype(np.float32) / 2**15, orig_sr=SAMPLE_RATE, target_sr=BEAT_RATE)
        return librosa.beat.beat_track(y=wave_S, sr=BEAT_RATE, units="time")[1]

    clicks_S = np.zeros(2 * SAMPLE_RATE, np.int16)
    clicks_S[:: SAMPLE_RATE // 4] = 10_000
    with open(NUMBA_LOCK, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        track(clicks_S)
    return track


def motion_beats(point_TKD: np.ndarray) -> np.ndarray:
    """Times in seconds at which a motion pauses: minima of the points' mean speed, smoothed by a Gaussian of 5 frames.

    KDTalker's points are landmarks; the head's angles, [T, K=1, D=3], serve as well. The speed from frame i to i + 1
    counts for the time i / 25 s, as in KDTalker. Gaps are interpolated. No times where fewer than half of the frames
    have a face.
    """
    filled_TD = _filled(point_TKD.reshape(len(point_TKD), -1))
    if filled_TD is None or len(filled_TD) < 2:
        return np.empty(0)
    step_TKD = np.diff(filled_TD.reshape(point_TKD.shape).astype(np.float64), axis=0)
    speed_T = gaussian_filter1d(np.linalg.norm(step_TKD, axis=2).mean(1), SPEED_SMOOTHING)
    return argrelmin(speed_T)[0] / FPS


# ---- eyes and mouth

EYES = ((33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380))  # corner, lid, lid, corner, lid, lid
EYE_CORNERS = (33, 263)  # the outer ones
# Shares of the clip's median aspect ratio. In mediapipe's refined mesh blinks go down to 0.1-0.5 (357 clips of 65
# people); from 0.65 to 0.8 eyes mostly look down.
CLOSED, OPEN = 0.65, 0.8
LONGEST_BLINK_S = 0.5  # longer: the eyes are lowered or closed, which is no blink


def eye_aspect_ratio(mesh_TN3: np.ndarray) -> np.ndarray:
    """Height of the eyes divided by their width, mean of both, [T] (Soukupova and Cech 2016); NaN where no face is."""
    ratios = []
    for eye in EYES:
        p1, p2, p3, p4, p5, p6 = np.moveaxis(mesh_TN3[:, eye, :2], 1, 0)
        opening = np.linalg.norm(p2 - p6, axis=1) + np.linalg.norm(p3 - p5, axis=1)
        ratios.append(opening / (2 * np.linalg.norm(p1 - p4, axis=1)))
    return np.mean(ratios, axis=0)


def blinks(ratio_T: np.ndarray) -> list[tuple[int, int]]:
    """First and one past the last frame of each blink.

    A blink begins where the aspect ratio falls below 0.65 of its median over the clip and ends where it is above 0.8
    again, at most 0.5 s later. Eyes that are closed in the first or last frame, or when the face is lost, do not count.
    """
    spans: list[tuple[int, int]] = []
    begin, seen_open = None, False
    middle = np.nanmedian(ratio_T) if np.isfinite(ratio_T).any() else NAN
    for frame, relative in enumerate(ratio_T / middle):
        if np.isnan(relative):
            begin, seen_open = None, False
        elif relative > OPEN:
            if begin is not None and frame - begin <= LONGEST_BLINK_S * FPS:
                spans.append((begin, frame))
            begin, seen_open = None, True
        elif relative < CLOSED and seen_open:
            begin, seen_open = frame, False
    return spans


def blink_rate(ratio_T: np.ndarray) -> float:
    """Blinks a second of `eye_aspect_ratio`, over the frames with a face; NaN for less than a second of them.

    True videos, as DAWN (2024) measured them: 0.24 on CREMA-D, 0.75 on HDTF.
    """
    seconds = np.isfinite(ratio_T).sum() / FPS
    return len(blinks(ratio_T)) / seconds if seconds >= 1 else NAN


def mouth_opening(mesh_TN3: np.ndarray) -> np.ndarray:
    """Distance of the inner lips divided by that of the eyes' outer corners, [T]; NaN where no face is."""
    left, right = EYE_CORNERS
    return mouth_of(mesh_TN3)[:, 3] / np.linalg.norm(mesh_TN3[:, left] - mesh_TN3[:, right], axis=1)


class Amount(NamedTuple):
    """How far something moves, and how far it is open in the mean, both by the truth's."""

    deviation: float
    mean: float


def amount(value_T: np.ndarray, true_T: np.ndarray) -> Amount:
    """Standard deviation and mean over the frames where both are known, by the truth's; a correlation tells neither.

    NaN for fewer than three such frames, or if the truth stands still but for rounding.
    """
    known_T = np.isfinite(value_T) & np.isfinite(true_T)
    value_T, true_T = value_T[known_T].astype(np.float64), true_T[known_T].astype(np.float64)
    if len(true_T) < 3 or _constant(true_T[:, None])[0]:
        return Amount(NAN, NAN)
    return Amount(float(value_T.std() / true_T.std()), float(value_T.mean() / true_T.mean()))


def least_open(ratio_T: np.ndarray) -> float:
    """The lowest eye aspect ratio of a video by its median: below 0.5 the eyes were closed once. NaN without a face."""
    return float(np.nanmin(ratio_T) / np.nanmedian(ratio_T)) if np.isfinite(ratio_T).any() else NAN


# ---- loudness

QUIETEST_DB = -60.0  # of full scale: what is quieter is the room, not speech; ours
FULL_SCALE = 32768


def loudness(pcm_S: np.ndarray, frames: int) -> np.ndarray:
    """Level of the sound during each frame in dB of full scale, at least -60, [T]."""
    pcm = np.pad(pcm_S[: frames * SAMPLES_PER_FRAME], (0, max(0, frames * SAMPLES_PER_FRAME - len(pcm_S))))
    power_T = ((pcm.reshape(frames, SAMPLES_PER_FRAME) / FULL_SCALE) ** 2).mean(1)
    return np.maximum(10 * np.log10(np.maximum(power_T, 1e-12)), QUIETEST_DB)


# ---- background

# Left, top, right, bottom, as shares of width or height: hair, ears and chin; ours, looked at on GRID clips.
MESH_MARGIN = (0.3, 0.5, 0.3, 0.15)


class Background(NamedTuple):
    """Variation over time outside the head, in 8-bit levels. NaN where the head fills the picture."""

    generated: float
    true: float
    ratio: float  # generated / true


def background_stability(generated_THWC: np.ndarray, true_THWC: np.ndarray, head_4: np.ndarray) -> Background:
    """Whether the background holds still: a ratio of about 1 or below means no flicker; above 2 is too much (ours).

    Args:
        generated_THWC, true_THWC: uint8, pictures of one size; the longer video is cut to the shorter.
        head_4: `head_box` of the meshes of both videos together, in pixels of these pictures.

    Returns: infinite ratio if only the true video stands entirely still, NaN if both do.
    """
    assert generated_THWC.shape[1:] == true_THWC.shape[1:], (generated_THWC.shape, true_THWC.shape)
    frames = min(len(generated_THWC), len(true_THWC))
    generated, true = (background_variation(video[:frames], head_4) for video in (generated_THWC, true_THWC))
    with np.errstate(divide="ignore", invalid="ignore"):
        return Background(generated, true, float(np.divide(generated, true)))


def background_variation(frames_THWC: np.ndarray, head_4: np.ndarray) -> float:
    """Standard deviation over time, mean over the pixels and colours outside a box, in 8-bit levels.

    Shoulders count as background; since they move in the true video too, judge by the ratio to that. NaN if the box
    (left, top, right, bottom) covers the picture or is unknown, or for fewer than two frames.
    """
    outside_HW = np.ones(frames_THWC.shape[1:3], bool)
    if not np.isfinite(head_4).all() or len(frames_THWC) < 2:
        return NAN
    left, top, right, bottom = np.clip(np.round(head_4).astype(int), 0, None)
    outside_HW[top:bottom, left:right] = False
    if not outside_HW.any():
        return NAN
    total, squares = np.zeros((2, outside_HW.sum(), frames_THWC.shape[3]), np.int64)
    for frame_HWC in frames_THWC:
        pixels = frame_HWC[outside_HW].astype(np.int64)
        total += pixels
        squares += pixels**2
    frames = len(frames_THWC)
    return float(np.sqrt(frames * squares - total**2).mean() / frames)  # of integers, so that nothing is rounded off


def head_box(mesh_TN3: np.ndarray) -> np.ndarray:
    """The box that holds the head in all frames, float [4] = left, top, right, bottom in the meshes' pixels.

    The union of the meshes, wider on each side by `MESH_MARGIN` of the largest mesh. NaN if no face was found.
    """
    point_TN2 = mesh_TN3[np.isfinite(mesh_TN3).all(axis=(1, 2)), :, :2]
    if len(point_TN2) == 0:
        return np.full(4, NAN)
    low_T2, high_T2 = point_TN2.min(1), point_TN2.max(1)
    margin_22 = np.reshape(MESH_MARGIN, (2, 2)) * (high_T2 - low_T2).max(0)
    return np.concatenate([low_T2.min(0) - margin_22[0], high_T2.max(0) + margin_22[1]])


# ---- correlation

CONSTANT = 1e-6  # of the largest value: a deviation below it is rounding, the signal stands still


def correlation(a_T: np.ndarray, b_T: np.ndarray) -> float:
    """Pearson's correlation over the frames where both are known.

    NaN for fewer than three such frames, or if one of the signals stands still (but for rounding).
    """
    known_T = np.isfinite(a_T) & np.isfinite(b_T)
    pair_T2 = np.stack([a_T[known_T], b_T[known_T]], axis=1).astype(np.float64)
    if len(pair_T2) < 3 or _constant(pair_T2).any():
        return NAN
    return float(np.corrcoef(pair_T2.T)[0, 1])


# ---- gaps and stillness


def _constant(value_TD: np.ndarray) -> np.ndarray:
    """Whether each column stands still but for rounding, [D]; float64, since float32 rounds by more than `CONSTANT`."""
    value_TD = np.asarray(value_TD, np.float64)
    return value_TD.std(0) <= CONSTANT * np.abs(value_TD).max(0)


def _whole_rows(value_TD: np.ndarray) -> np.ndarray:
    """Rows without NaN, float64."""
    value_TD = np.asarray(value_TD, np.float64)
    return value_TD[np.isfinite(value_TD).all(1)]


def _velocity(pose_TP: np.ndarray) -> np.ndarray:
    """Changes to the next frame [N, P], where both poses are known."""
    return _whole_rows(np.diff(np.asarray(pose_TP, np.float64), axis=0))


def _filled(value_TD: np.ndarray) -> np.ndarray | None:
    """Gaps interpolated, ends held; None if fewer than half of the rows are known."""
    known = np.isfinite(value_TD).all(1)
    return fill_gaps(value_TD) if len(value_TD) and known.mean() >= 0.5 else None
