"""What is measured: name, meaning and direction of every number in the tables.

A new metric is a line here and the line of `evaluation.scores.score` (or, for a number of a whole set of clips, of
`evaluation.report`) that computes it; docs/EVALUATION.md describes how, and the protocol's version changes.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

Part = Literal["frames", "face", "poses", "keypoints", "sound"]  # of a video; "face": the mesh found in its frames


@dataclass(frozen=True)
class Metric:
    """One number, and how to read it."""

    table: Literal["Pictures", "Motion", "Sound"]  # of results.md
    name: str  # key in results.json
    title: str  # head of its column
    # "truth": nearer to the row of the true videos; "one", "zero": nearer to 1, to 0
    better: Literal["higher", "lower", "truth", "one", "zero"]
    digits: int  # after the point, in the tables
    about: str  # one line for the reader
    of: tuple[Part, ...]  # the parts of a video that decide it
    compares: bool = False  # whether it holds a video against its truth, frame by frame or as a set
    network: str = ""  # the published network that measures it, a field of `NetworkPaths`
    over: Literal["clip", "set"] = "clip"  # one number a clip and their mean, or one number of all clips


ARROWS = {"higher": "↑", "lower": "↓", "truth": "→ truth", "one": "→ 1", "zero": "→ 0"}

FRAMES: tuple[Part, ...] = ("frames",)
FACE: tuple[Part, ...] = ("face",)
POSES: tuple[Part, ...] = ("poses",)
LIPS: tuple[Part, ...] = ("face", "sound")
picture, motion, sound = (partial(Metric, table) for table in ("Pictures", "Motion", "Sound"))

_METRICS = (
    picture("psnr", "PSNR dB", "higher", 2, "peak signal-to-noise ratio of each frame", FRAMES, True),
    picture("ssim", "SSIM", "higher", 3, "structural similarity of each frame", FRAMES, True),
    picture("mouth_psnr", "PSNR mouth", "higher", 2, "PSNR inside the true mouth's box", FRAMES, True),
    picture("mouth_ssim", "SSIM mouth", "higher", 3, "SSIM inside the true mouth's box", FRAMES, True),
    picture("lpips", "LPIPS", "lower", 4, "learned perceptual distance, AlexNet, version 0.1", FRAMES, True, "lpips"),
    picture(
        "fid", "FID", "lower", 2, "Frechet distance of Inception features, all frames", FRAMES, True, "inception", "set"
    ),
    picture(
        "csim", "CSIM", "higher", 3, "cosine of ArcFace embeddings of frames and source picture", FACE, False, "arcface"
    ),
    picture("background", "Background", "lower", 2, "variation outside the head by the true one's", FACE, True),
    motion("he", "HE", "lower", 4, "head pose error: mean L1 of poses scaled to [-1, 1]", POSES, True),
    motion("ke", "KE", "lower", 4, "keypoint error: mean L1 of positions in [-1, 1]", ("keypoints",), True),
    motion("pose_velocity", "Pose velocity", "lower", 3, "Frechet distance of head velocities", POSES, True, "", "set"),
    motion("spectrum", "Spectrum", "lower", 3, "distance of head turns in their frequencies, 0 to 1", POSES, True),
    motion("diversity", "Head turns °", "truth", 2, "deviation of head angles over a clip, degrees", POSES),
    motion("turns_seen", "Turns seen °", "truth", 2, "the same, measured in the frames", FACE),
    motion("jitter", "Jitter px", "truth", 3, "tremble of the face mesh, pixels of 256", FACE),
    motion("blink_rate", "Blinks/s", "truth", 2, "blinks a second", FACE),
    motion("lowest_lids", "Lowest lids", "truth", 2, "lowest eye aspect ratio of a clip by its median", FACE),
    sound("lse_c", "LSE-C", "higher", 3, "SyncNet: median less minimum distance over shifts", LIPS, False, "syncnet"),
    sound("lse_d", "LSE-D", "lower", 3, "SyncNet distance at the best shift", LIPS, False, "syncnet"),
    sound("av_offset", "Offset", "zero", 2, "frames by which lips are late, by SyncNet", LIPS, False, "syncnet"),
    sound("opening_truth", "Mouth/truth", "higher", 3, "correlation with the true mouth's opening", FACE, True),
    sound("opening_deviation", "Opening dev.", "one", 2, "deviation of the mouth's opening by the truth's", FACE, True),
    sound("opening_mean", "Opening mean", "one", 2, "mean of the mouth's opening by the truth's", FACE, True),
    sound("lips_shut", "P, b, m shut", "higher", 2, "of these sounds with true lips shut, those shut here", FACE, True),
    sound("lips_open", "Open", "higher", 2, "of the frames with true lips apart, those with lips apart", FACE, True),
    sound("opening_loudness", "Mouth/loudness", "higher", 3, "correlation of opening and level in dB", LIPS),
    sound("beat_alignment", "Beats", "truth", 3, "nearness of head pauses to beats of the sound", ("poses", "sound")),
)
METRICS = {metric.name: metric for metric in _METRICS}
