"""One video to be scored."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.videos.truth import Footage


@dataclass
class Candidate:
    """Attributes:
    footage: its frames, 8 bits, of the truth's size; no more than the truth has.
    pcm: the sound it is scored with, int16 16 kHz, from frame 0 on.
    sound: the file that this sound comes from.
    pose_TP: head pose, rad and mm: the one that drove it, or was measured in it; None if it is not known.
    position_TK2, jacobian_TK22: keypoints, from where the pose is; None if they are not known.
    notes: what the reader of this clip's numbers should know, a sentence each.
    """

    footage: Footage
    pcm: np.ndarray
    sound: Path
    pose_TP: np.ndarray | None = None
    position_TK2: np.ndarray | None = None
    jacobian_TK22: np.ndarray | None = None
    notes: tuple[str, ...] = ()
