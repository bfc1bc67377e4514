"""How near a motion is to the true one: HE and KE of Table 2.

Letters: T video frame, P pose value, K keypoint.
"""

import numpy as np

from datasets.pose import PoseRange


def head_pose_error(pose_TP: np.ndarray, true_TP: np.ndarray, pose_range: PoseRange) -> float:
    """HE: mean L1 distance of head poses (rad, mm) after each axis is scaled by the corpus's range to [-1, 1]."""
    return float(np.abs(pose_range.normalise(pose_TP) - pose_range.normalise(true_TP)).mean())


def keypoint_error(position_TK2: np.ndarray, true_TK2: np.ndarray) -> float:
    """KE: mean L1 distance of keypoint positions in [-1, 1]."""
    return float(np.abs(position_TK2 - true_TK2).mean())
