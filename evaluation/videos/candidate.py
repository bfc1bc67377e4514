"""One video to be scored, and how those are made that need no network."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.rows import Row
from evaluation.videos.truth import Footage, Truth
from modules.keypoints import Keypoints


@dataclass
class Candidate:
    """One video to be scored, with all that is known about it."""

    footage: Footage  # its frames, 8 bits, of the truth's size; no more than the truth has
    pcm: np.ndarray  # the sound it is scored with, int16 16 kHz, from frame 0 on
    sound: Path  # the file that this sound comes from
    pose_TP: np.ndarray | None = None  # head pose, rad and mm: what drove it, or was measured in it; None: not known
    keypoints: Keypoints | None = None  # what drove it, or N_D found in it, on the CPU; None: not known
    notes: tuple[str, ...] = ()  # what the reader of this clip's numbers should know, a sentence each


def filmed(row: Row, truth: Truth, other: Truth | None) -> Candidate:
    """The true frames with their own or another clip's sound, or the first of them repeated."""
    footage, pose_TP, keypoints = truth.footage, truth.pose_TP, truth.keypoints
    if row.frames == "first":
        frames = len(truth)
        footage = Footage(np.repeat(footage.frames_THWC[:1], frames, axis=0), footage.finder)
        pose_TP = None if pose_TP is None else np.repeat(pose_TP[:1], frames, axis=0)
        keypoints = None if keypoints is None else keypoints.cut(0, 1).repeated(frames)
    heard = other if row.sound == "other" else truth
    return Candidate(footage, heard.pcm, heard.sound, pose_TP, keypoints)
