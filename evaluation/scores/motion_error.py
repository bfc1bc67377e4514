"""How near a motion is to the true one: HE and KE of Table 2, and the mouth's opening.

Letters: T video frame, P pose value, K keypoint, S sample of sound.
"""

import numpy as np

from datasets.clips import SAMPLES_PER_FRAME
from datasets.pose import PoseRange

QUIETEST_DB = -60.0  # of full scale: below it a room is heard, no speech; ours
FULL_SCALE = 32768


def head_pose_error(pose_TP: np.ndarray, true_TP: np.ndarray, pose_range: PoseRange) -> float:
    """HE: mean L1 distance of head poses (rad, mm) after each axis is scaled by the corpus's range to [-1, 1]."""
    return float(np.abs(pose_range.normalise(pose_TP) - pose_range.normalise(true_TP)).mean())


def keypoint_error(position_TK2: np.ndarray, true_TK2: np.ndarray) -> float:
    """KE: mean L1 distance of keypoint positions in [-1, 1]."""
    return float(np.abs(position_TK2 - true_TK2).mean())


def loudness(pcm_S: np.ndarray, frames: int) -> np.ndarray:
    """Level of the sound during each frame in dB of full scale, at least -60, [T]."""
    pcm = np.pad(pcm_S[: frames * SAMPLES_PER_FRAME], (0, max(0, frames * SAMPLES_PER_FRAME - len(pcm_S))))
    power_T = ((pcm.reshape(frames, SAMPLES_PER_FRAME) / FULL_SCALE) ** 2).mean(1)
    return np.maximum(10 * np.log10(np.maximum(power_T, 1e-12)), QUIETEST_DB)
