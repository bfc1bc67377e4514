"""What is measured: names, meaning and direction of every number in the tables.

The functions that measure are in `evaluation.scores`; docs/EVALUATION.md holds the protocol, whose version changes with
any number.
"""

from dataclasses import dataclass
from typing import Literal

PROTOCOL = "audio2head-evaluation/2"
Table = Literal["Pictures", "Motion", "Sound"]


@dataclass(frozen=True)
class Metric:
    """Attributes:
    name: key in results.json.
    title: head of its column.
    better: which way is better; "truth": nearer to the row of the true videos; "zero": nearer to 0.
    digits: after the point, in the tables.
    table: which table of results.md.
    about: one line for the reader.
    held_against: whether it compares a video with its truth, frame by frame or as a set.
    over: "clip": one number a clip, and their mean; "set": one number of all clips.
    """

    name: str
    title: str
    better: Literal["higher", "lower", "truth", "zero"]
    digits: int
    table: Table
    about: str
    held_against: bool = False
    over: Literal["clip", "set"] = "clip"


ARROWS = {"higher": "↑", "lower": "↓", "truth": "→ truth", "zero": "→ 0"}

PICTURES: Table = "Pictures"
MOTION: Table = "Motion"
SOUND: Table = "Sound"

METRICS = {
    metric.name: metric
    for metric in (
        Metric("psnr", "PSNR dB", "higher", 2, PICTURES, "peak signal-to-noise ratio of each frame", True),
        Metric("ssim", "SSIM", "higher", 3, PICTURES, "structural similarity of each frame", True),
        Metric("mouth_psnr", "PSNR mouth", "higher", 2, PICTURES, "PSNR inside the true mouth's box", True),
        Metric("mouth_ssim", "SSIM mouth", "higher", 3, PICTURES, "SSIM inside the true mouth's box", True),
        Metric("lpips", "LPIPS", "lower", 4, PICTURES, "learned perceptual distance, AlexNet, version 0.1", True),
        Metric("fid", "FID", "lower", 2, PICTURES, "Frechet distance of Inception features, all frames", True, "set"),
        Metric("csim", "CSIM", "higher", 3, PICTURES, "cosine of ArcFace embeddings of frames and source picture"),
        Metric("background", "Background", "lower", 2, PICTURES, "variation outside the head by the true one's", True),
        Metric("he", "HE", "lower", 4, MOTION, "head pose error: mean L1 of poses scaled to [-1, 1]", True),
        Metric("ke", "KE", "lower", 4, MOTION, "keypoint error: mean L1 of positions in [-1, 1]", True),
        Metric(
            "pose_velocity", "Pose velocity", "lower", 3, MOTION, "Frechet distance of head velocities", True, "set"
        ),
        Metric("spectrum", "Spectrum", "lower", 3, MOTION, "distance of head turns in their frequencies, 0 to 1", True),
        Metric("diversity", "Head turns °", "truth", 2, MOTION, "deviation of head angles over a clip, degrees"),
        Metric("jitter", "Jitter px", "truth", 3, MOTION, "tremble of the face mesh, pixels of 256"),
        Metric("blink_rate", "Blinks/s", "truth", 2, MOTION, "blinks a second"),
        Metric("lse_c", "LSE-C", "higher", 3, SOUND, "SyncNet confidence: median less minimum distance over shifts"),
        Metric("lse_d", "LSE-D", "lower", 3, SOUND, "SyncNet distance at the best shift"),
        Metric("av_offset", "Offset", "zero", 2, SOUND, "frames by which lips are late at SyncNet's best shift"),
        Metric("opening_truth", "Mouth/truth", "higher", 3, SOUND, "correlation with the true mouth's opening", True),
        Metric("opening_loudness", "Mouth/loudness", "higher", 3, SOUND, "correlation of opening and level in dB"),
        Metric("beat_alignment", "Beats", "truth", 3, SOUND, "nearness of head pauses to beats of the sound"),
    )
}
