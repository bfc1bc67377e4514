"""OpenFace: its camera and its CSV files."""

import numpy as np
import pytest

from datasets.errors import DataError
from datasets.face.openface import default_camera, read_csv
from datasets.face.rigid_pose import fill_gaps
from datasets.pose import FOCAL_LENGTH

HEADER_2 = "frame,face_id,timestamp,confidence,success,pose_Tx,pose_Ty,pose_Tz,pose_Rx,pose_Ry,pose_Rz"
HEADER_1 = "frame, timestamp, confidence, success, pose_Tx, pose_Ty, pose_Tz, pose_Rx, pose_Ry, pose_Rz"


def test_openface_guesses_the_released_camera_for_a_square():
    assert default_camera(256, 256)[0] == pytest.approx(FOCAL_LENGTH, abs=1e-3)
    assert default_camera(480, 640) == (500, (320, 240))


@pytest.mark.parametrize("version", [1, 2])
def test_openface_csv_of_both_versions(tmp_path, version):
    lines = [HEADER_1 if version == 1 else HEADER_2]
    for n in range(16):
        face = "" if version == 1 else "0,"
        ok = 0 if n == 5 else 1
        lines.append(f"{n + 1},{face}{n / 15:.3f},0.9,{ok},{10 + n},{20},{300},{0.01 * n},0.1,-0.1")
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines))
    track = read_csv(path)
    assert track.valid_N.sum() == 15
    pose = track.at(np.arange(25) / 25)  # 15 fps -> 25 fps
    failed = np.isnan(pose).any(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(failed), [7, 8, 9])  # between 4/15 s and 6/15 s, exclusive
    np.testing.assert_allclose(pose[~failed, 3], 10 + np.arange(25)[~failed] * 15 / 25, atol=1e-6)
    assert np.isfinite(fill_gaps(pose)).all()
    np.testing.assert_allclose(fill_gaps(pose)[8], [0.01 * 8 * 0.6, 0.1, -0.1, 10 + 8 * 0.6, 20, 300], atol=1e-6)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (HEADER_2, "no rows"),
        ("frame,timestamp\n1,0.0", "confidence is missing"),
        (HEADER_2 + "\n1,0,0.0,0.9,1,1,2,3,x,0,0", "not a number"),
        (HEADER_2 + "\n1,0,0.0,0.9,1,1,2,3,0,0,0\n1,1,0.0,0.9,1,1,2,3,0,0,0", "several faces"),
        (HEADER_2 + "\n1,0,0.0,0.9,1,1,2,3,0,0,0\n2,0,0.0,0.9,1,1,2,3,0,0,0", "do not increase"),
        (HEADER_2 + "\n1,0,0,0.9,1,1,2,3,0,0,0\n2,0,40,0.9,1,1,2,3,0,0,0", "40 apart, wanted seconds"),
    ],
)
def test_a_bad_csv_is_named(tmp_path, text, complaint):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=f"bad.csv.*{complaint}"):
        read_csv(path)
