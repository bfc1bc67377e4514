"""True videos: faces found once, clips shortened whole."""

from pathlib import Path

import numpy as np

from evaluation.videos.truth import Footage, VideoItem, shortened
from tests.unit.evaluation.toys import OPENING, Told, a_truth, noise, speaking_mesh


def test_a_face_in_too_few_frames_counts_as_none():
    mesh = speaking_mesh(OPENING)
    mesh[5:8] = np.nan
    footage = Footage(noise(9, 40, 64, 64, 3), Told(mesh))
    assert np.isfinite(footage.faces).all() and np.isnan(footage.mesh_TN3[6]).all()
    assert footage.pose_TP.shape == (40, 6)
    assert footage.cut(10).mesh_TN3.shape == (10, 468, 3) and footage.finder.asked == 1
    mesh[:20] = np.nan
    assert Footage(noise(9, 40, 64, 64, 3), Told(mesh)).faces is None


def test_shortening_a_truth_shortens_all_of_it():
    truth = shortened(a_truth(None), 7)
    assert len(truth) == len(truth.pose_TP) == len(truth.mouth_T4) == len(truth.keypoints.position_BK2) == 7
    assert shortened(truth, 9) is truth


def test_a_video_item_is_named_by_its_file():
    assert VideoItem(Path("x/anna 1.mp4"), "anna").id == "anna 1"
