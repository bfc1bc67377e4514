"""All numbers of one video.

Letters: T video frame, H W C picture, N mesh point, K keypoint, D coordinate.
"""

from dataclasses import dataclass, field

import numpy as np

from datasets.clips import SAMPLES_PER_FRAME
from datasets.face.mesh import mouth_of
from datasets.pose import PoseRange
from evaluation.metrics import METRICS, Part
from evaluation.rows import Row
from evaluation.scores import closed_lips, liveliness, sync
from evaluation.scores.fidelity import picture_scores
from evaluation.scores.identity import csim
from evaluation.scores.motion_error import head_pose_error, keypoint_error
from evaluation.scores.networks import Networks
from evaluation.videos.candidate import Candidate
from evaluation.videos.truth import Truth, shortened

NO_FACE = "no face found in most frames"
ONE_FRAME = "no frame beside the given one"


@dataclass
class Scores:
    """What could be measured of one video, and what could not."""

    metrics: dict[str, float] = field(default_factory=dict)  # metric -> number
    missing: dict[str, str] = field(default_factory=dict)  # metric -> why there is no number
    notes: dict[str, str] = field(default_factory=dict)  # metric -> what its reader should know, a sentence

    def add(self, name: str, value: float, otherwise: str) -> None:
        """Note a number or, where it is not finite, the reason."""
        if np.isfinite(value):
            self.metrics[name] = float(value)
        else:
            self.missing[name] = otherwise

    def lack(self, part: Part, reason: str) -> None:
        """Note the reason for every number that needs a part of the video which is not known."""
        self.missing |= {name: reason for name, metric in METRICS.items() if part in metric.of}


def score_video(row: Row, candidate: Candidate, truth: Truth, networks: Networks, pose_range: PoseRange) -> Scores:
    """All numbers of one video; those of a whole set of clips, like FID, are computed in `evaluation.report`.

    Frame 0, which is the source picture, does not count where videos are held against their truth.
    """
    truth = shortened(truth, len(candidate.footage))
    wanted = {name for name, metric in METRICS.items() if name not in row.exempt and metric.over == "clip"}
    scores = Scores()
    if any("frames" in METRICS[name].of for name in wanted):
        _score_pictures(scores, candidate, truth, networks)
    _score_motion(scores, candidate, truth, pose_range)
    _score_faces(scores, candidate, truth, networks)
    if len(candidate.footage) < 2:
        scores.missing = dict.fromkeys(scores.missing, ONE_FRAME)
    scores.missing |= networks.missing
    unsaid = wanted - scores.metrics.keys() - scores.missing.keys()
    assert not unsaid, unsaid
    return Scores(
        {name: value for name, value in scores.metrics.items() if name in wanted},
        {name: reason for name, reason in scores.missing.items() if name in wanted},
        {name: note for name, note in scores.notes.items() if name in wanted},
    )


def _score_pictures(scores: Scores, candidate: Candidate, truth: Truth, networks: Networks) -> None:
    frames, wanted = candidate.footage.frames_THWC[1:], truth.footage.frames_THWC[1:]
    for name, value in picture_scores(frames, wanted, truth.mouth_T4[1:], networks).items():
        scores.add(name, value, "the true mouth's place is not known")


def _score_motion(scores: Scores, candidate: Candidate, truth: Truth, pose_range: PoseRange) -> None:
    if candidate.keypoints is None or truth.keypoints is None:
        scores.lack("keypoints", "needs --checkpoint with N_D")
    else:
        position_TK2, true_TK2 = (each.keypoints.position_BK2.numpy() for each in (candidate, truth))
        scores.add("ke", keypoint_error(position_TK2[1:], true_TK2[1:]), "keypoints are not finite")
    if candidate.pose_TP is None or truth.pose_TP is None:
        scores.lack("poses", _no_face(candidate))
        return
    scores.add("he", head_pose_error(candidate.pose_TP[1:], truth.pose_TP[1:], pose_range), "poses are not finite")
    distance = liveliness.spectrum_distance(candidate.pose_TP[1:, :3], truth.pose_TP[1:, :3])
    scores.add("spectrum", distance, "fewer than 50 frames, or a head that never turns")
    scores.add("diversity", liveliness.head_deviation(candidate.pose_TP).mean, "poses are not finite")
    pauses_s = liveliness.motion_beats(candidate.pose_TP[:, None, :3])
    beats_s = liveliness.sound_beats(_heard(candidate))
    scores.add("beat_alignment", liveliness.beat_alignment(beats_s, pauses_s), "no beat is heard in the sound")


def _score_faces(scores: Scores, candidate: Candidate, truth: Truth, networks: Networks) -> None:
    """What is measured on the frames themselves, by the face mesh."""
    footage, faces_TN3, true_TN3 = candidate.footage, candidate.footage.faces, truth.footage.faces
    if faces_TN3 is None or true_TN3 is None:
        scores.lack("face", _no_face(candidate))
        return
    head_4 = liveliness.head_box(np.concatenate([faces_TN3, true_TN3]))
    steady = liveliness.background_stability(footage.frames_THWC[1:], truth.footage.frames_THWC[1:], head_4)
    scores.add("background", steady.ratio, "the head fills the picture, or the true background stands entirely still")
    scores.add("turns_seen", liveliness.head_deviation(footage.pose_TP).mean, "poses are not finite")
    points_TD = (faces_TN3[..., :2] * footage.to_256).reshape(len(footage), -1)
    scores.add("jitter", liveliness.jitter(points_TD), "fewer than four frames")
    eyes_T = liveliness.eye_aspect_ratio(footage.mesh_TN3)
    scores.add("blink_rate", liveliness.blink_rate(eyes_T), "less than a second of a face")
    scores.add("lowest_lids", liveliness.least_open(eyes_T), NO_FACE)
    opening_T, true_T = (liveliness.mouth_opening(mesh_TN3)[1:] for mesh_TN3 in (faces_TN3, true_TN3))
    level_T = liveliness.loudness(candidate.pcm, len(footage))[1:]
    scores.add("opening_truth", liveliness.correlation(opening_T, true_T), "a mouth does not move")
    amount = liveliness.amount(opening_T, true_T)
    scores.add("opening_deviation", amount.deviation, "the true mouth does not move")
    scores.add("opening_mean", amount.mean, "the true mouth does not move")
    _score_closures(scores, faces_TN3, true_TN3, truth)
    scores.add("opening_loudness", liveliness.correlation(opening_T, level_T), "mouth or loudness does not change")
    if networks.arcface is not None:
        source = truth.footage.frames_THWC[0], true_TN3[0]
        identity = csim(networks.arcface, footage.frames_THWC[1:], footage.mesh_TN3[1:], *source)
        scores.add("csim", identity.similarity, NO_FACE)
        if identity.faces < 1:
            frames = len(footage) - 1
            seen = round(identity.faces * frames)
            scores.notes["csim"] = f"CSIM is of {seen} of {frames} frames: no face in the others"
    if networks.syncnet is not None:
        crops_THWC = sync.face_crops(footage.frames_THWC, mesh_boxes(faces_TN3))
        lips = sync.lip_sync(networks.syncnet, crops_THWC, _heard(candidate))
        for name, value in (("lse_c", lips.confidence), ("lse_d", lips.distance), ("av_offset", lips.offset)):
            scores.add(name, value, "fewer than 8 frames")


def _score_closures(scores: Scores, faces_TN3: np.ndarray, true_TN3: np.ndarray, truth: Truth) -> None:
    """Whether the lips close and part where the true ones do."""
    mouth_T4, true_T4 = mouth_of(faces_TN3), mouth_of(true_TN3)
    moments = closed_lips.shut_moments(truth.words or [], len(truth))
    found = closed_lips.closure(mouth_T4[:, 3] / mouth_T4[:, 2], true_T4[:, 3] / true_T4[:, 2], moments)
    no_words = "needs `alignments` with the clip's words" if truth.words is None else "no p, b or m with lips shut"
    scores.add("lips_shut", found.shut, no_words)
    scores.add("lips_open", found.open, "the true lips are never plainly apart")


def mesh_boxes(mesh_TN3: np.ndarray) -> np.ndarray:
    """Left, top, right, bottom of each mesh, [T, 4]."""
    return np.concatenate([mesh_TN3[..., :2].min(1), mesh_TN3[..., :2].max(1)], axis=1)


def _heard(candidate: Candidate) -> np.ndarray:
    """The sound of the frames."""
    return candidate.pcm[: len(candidate.footage) * SAMPLES_PER_FRAME]


def _no_face(candidate: Candidate) -> str:
    return "needs landmarks=true and `make pose-tools`" if candidate.footage.finder is None else NO_FACE
