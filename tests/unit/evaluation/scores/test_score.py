"""All numbers of one clip, with a face finder that is told what to find."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from datasets.pose import PoseRange
from evaluation.metrics import METRICS
from evaluation.rows import ROWS, TRUTH
from evaluation.scores.identity import ArcFace
from evaluation.scores.networks import NetworkPaths, Networks, load_networks
from evaluation.scores.score import score_video
from evaluation.scores.sync import SyncNet
from evaluation.videos.candidate import Candidate
from evaluation.videos.truth import Footage, shortened
from evaluation.videos.words import Word
from modules.keypoints import Keypoints
from tests.unit.evaluation.toys import CPU, MOUTH, OPENING, Told, a_truth, noise, speaking_mesh


def test_a_clip_scored_against_itself_is_perfect_and_frame_0_does_not_count():
    finder = Told(speaking_mesh(OPENING))
    truth = a_truth(finder)
    frames = truth.footage.frames_THWC.copy()
    frames[0] = 0
    position, pose = np.zeros((40, 10, 2)), truth.pose_TP.copy()
    position[0], pose[0] = 9, 9
    candidate = Candidate(
        Footage(frames, finder), truth.pcm, truth.sound, pose, Keypoints(torch.from_numpy(position), None)
    )
    scores = score_video(ROWS["full"], candidate, truth, load_networks(NetworkPaths(), CPU), PoseRange())
    perfect = {"psnr": 100, "ssim": 1, "mouth_psnr": 100, "mouth_ssim": 1, "he": 0, "ke": 0, "background": 1}
    perfect |= {"opening_truth": 1, "opening_deviation": 1, "opening_mean": 1, "lips_open": 1, "lowest_lids": 1}
    assert scores.missing["lips_shut"] == "needs `alignments` with the clip's words"
    assert scores.missing["spectrum"] == "fewer than 50 frames, or a head that never turns" and not scores.notes
    assert {name: scores.metrics[name] for name in perfect} == pytest.approx(perfect, abs=1e-5)
    assert scores.metrics["opening_loudness"] > 0.9 and scores.metrics["jitter"] < 0.1
    assert scores.missing["lpips"].startswith("needs alexnet")
    assert finder.asked == 2  # once a video


def test_turns_are_seen_in_the_frames_whatever_pose_drove_them():
    still_TN3 = speaking_mesh(OPENING)
    roll_T11 = (0.2 * np.sin(np.arange(40) / 6))[:, None, None]
    x, y, z = np.split(still_TN3 - np.float32([32, 32, 0]), 3, axis=-1)
    rolled_TN3 = np.concatenate(
        [x * np.cos(roll_T11) - y * np.sin(roll_T11) + 32, x * np.sin(roll_T11) + y * np.cos(roll_T11) + 32, z], -1
    )
    driving = {"still": np.zeros((40, 6)), "turning": np.tile(np.sin(np.arange(40) / 6)[:, None] / 5, 6)}
    for mesh_TN3, seen in ((still_TN3, 0.0), (rolled_TN3, np.degrees(roll_T11.std()) / 3)):
        for name, pose_TP in driving.items():
            truth = a_truth(Told(mesh_TN3))
            candidate = Candidate(truth.footage, truth.pcm, truth.sound, pose_TP.astype(np.float32))
            found = score_video(ROWS["full"], candidate, truth, load_networks(NetworkPaths(), CPU), PoseRange()).metrics
            assert (
                0.8 * seen <= found["turns_seen"] <= 2 * seen + 0.15
            )  # these points are no face: other axes turn, too
            assert (found["diversity"] > 1) == (name == "turning")


def test_the_truth_and_given_poses_are_not_praised():
    truth = a_truth(Told(speaking_mesh(OPENING)))
    candidate = Candidate(truth.footage, truth.pcm, truth.sound, truth.pose_TP, Keypoints(torch.zeros(40, 10, 2), None))
    by_row = {
        row.name: score_video(row, candidate, truth, load_networks(NetworkPaths(), CPU), PoseRange()).metrics.keys()
        for row in (TRUTH, ROWS["gt-head"], ROWS["gt-keypoint"], ROWS["wrong-audio"])
    }
    assert "psnr" not in by_row["truth"] and {"opening_loudness", "diversity"} <= by_row["truth"]
    assert "he" not in by_row["gt-head"] and {"psnr", "ke"} <= by_row["gt-head"]
    assert not {"he", "ke"} & by_row["gt-keypoint"]
    assert by_row["wrong-audio"] <= {"opening_loudness", "lse_c", "lse_d", "av_offset", "beat_alignment"}


def test_faces_that_are_not_looked_for_are_reported_missing():
    truth = a_truth(None)
    candidate = Candidate(Footage(truth.footage.frames_THWC, None), truth.pcm, truth.sound)
    truth, networks = replace(truth, keypoints=None), load_networks(NetworkPaths(), CPU)
    scores = score_video(ROWS["still"], candidate, truth, networks, PoseRange())
    assert scores.missing["opening_truth"] == scores.missing["he"] == "needs landmarks=true and `make pose-tools`"
    assert scores.missing["ke"] == "needs --checkpoint with N_D"
    clip_metrics = {name for name, metric in METRICS.items() if metric.over == "clip"}
    assert clip_metrics == scores.metrics.keys() | scores.missing.keys()


def test_identity_and_lip_networks_see_the_faces():
    """Untrained, but the wiring is seen: equal frames are one identity, and SyncNet gives all three numbers."""
    torch.manual_seed(0)
    with torch.no_grad():
        networks = Networks(CPU, syncnet=SyncNet().eval(), arcface=ArcFace(18).eval(), missing={"lpips": "needs X"})
    finder = Told(speaking_mesh(OPENING[:12]))
    truth = shortened(a_truth(finder), 12)
    same = Footage(truth.footage.frames_THWC[:1].repeat(12, 0), finder)
    scores = {
        name: score_video(
            ROWS["full"], Candidate(footage, truth.pcm, truth.sound), truth, networks, PoseRange()
        ).metrics
        for name, footage in (("same", same), ("changing", truth.footage))
    }
    # Only the mouth of the given mesh moves, and alignment does not look at it.
    assert scores["same"]["csim"] == pytest.approx(1, abs=1e-5)
    assert scores["changing"]["csim"] < 1 - 1e-4
    assert {"lse_c", "lse_d", "av_offset"} <= scores["same"].keys() and scores["same"]["lse_d"] > 0


def test_spectrum_is_of_head_angles_after_frame_0():
    swing = np.sin(2 * np.pi * np.arange(51) / 25)
    true_pose, pose = np.tile(np.float32([0, 0, 0, 50, 50, 300]), (2, 51, 1))
    true_pose[:, 0], pose[:, 0] = swing, 2 * swing
    true_pose[:, 3], pose[:, 3] = swing, (-1.0) ** np.arange(51)  # places do not count
    pose[0] = 99
    frames = noise(8, 51, 16, 16, 3)
    truth = replace(
        a_truth(None),
        footage=Footage(frames, None),
        pose_TP=true_pose,
        mouth_T4=np.tile(MOUTH, (51, 1)),
        keypoints=None,
    )
    candidate = Candidate(truth.footage, truth.pcm, truth.sound, pose)
    metrics = {
        row: score_video(ROWS[row], candidate, truth, load_networks(NetworkPaths(), CPU), PoseRange()).metrics
        for row in ("full", "gt-head")
    }
    assert metrics["full"]["spectrum"] == pytest.approx(0, abs=1e-6) and "spectrum" not in metrics["gt-head"]


def test_a_mouth_that_opens_half_as_far_and_does_not_close_is_told_from_the_truth():
    """The lips touch in one frame, at a "b"; their generated copy moves half as far, and is wide open."""
    opening_T = OPENING.copy()
    opening_T[20] = 0
    half_T = 3 + (opening_T - opening_T.mean()) / 2
    truth = replace(a_truth(Told(speaking_mesh(opening_T))), words=[Word(0.8, 1.1, "blue")])
    found = {
        name: score_video(
            ROWS["full"],
            Candidate(Footage(truth.footage.frames_THWC, Told(speaking_mesh(value_T))), truth.pcm, truth.sound),
            truth,
            load_networks(NetworkPaths(), CPU),
            PoseRange(),
        ).metrics
        for name, value_T in (("same", opening_T), ("half", half_T))
    }
    assert found["same"]["lips_shut"] == 1 and found["half"]["lips_shut"] == 0
    assert found["half"]["opening_deviation"] == pytest.approx(0.5, abs=1e-5)
    assert found["half"]["opening_mean"] == pytest.approx(half_T[1:].mean() / opening_T[1:].mean(), abs=1e-5)
    assert found["half"]["opening_truth"] == pytest.approx(1, abs=1e-5)  # which is why it does not tell them apart


def test_of_a_single_frame_the_reason_is_that_there_is_no_other():
    truth = shortened(a_truth(None), 1)
    candidate = Candidate(truth.footage, truth.pcm, truth.sound, truth.pose_TP, truth.keypoints)
    scores = score_video(ROWS["full"], candidate, truth, load_networks(NetworkPaths(), CPU), PoseRange())
    assert not scores.metrics and scores.missing["lpips"].startswith("needs alexnet")
    for name in ("psnr", "mouth_psnr", "ke", "he", "diversity"):
        assert scores.missing[name] == "no frame beside the given one", name
