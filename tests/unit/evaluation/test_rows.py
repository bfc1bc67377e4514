"""What follows from the fields of a row: numbers that say nothing in it, networks it needs, videos that are kept."""

from evaluation.metrics import METRICS
from evaluation.rows import FOR_GIVEN, GIVEN, ROWS, TRUTH, Row

HEARD = {"opening_loudness", "lse_c", "lse_d", "av_offset", "beat_alignment"}  # numbers that the sound decides
POSES = {"he", "pose_velocity", "spectrum", "diversity", "beat_alignment"}  # numbers that head poses (and sound) decide


def test_numbers_that_are_taken_from_the_truth_say_nothing():
    exempt = {row.name: row.exempt for row in (TRUTH, GIVEN, *ROWS.values()) if row.exempt}
    assert exempt == {
        "truth": {name for name, metric in METRICS.items() if metric.compares},
        "gt-head": POSES,
        "gt-keypoint": POSES | {"ke"},
        "wrong-audio": METRICS.keys() - HEARD,
    }


def test_a_row_needs_the_networks_that_make_its_frames():
    left_out = {
        row.name: {"keypoint_detector", "image_generator", "head_motion_predictor", "motion_field_generator"}
        - set(row.networks)
        for row in ROWS.values()
    }
    both = {"head_motion_predictor", "motion_field_generator"}
    assert left_out["full"] == left_out["l1"] == left_out["one-stage"] == left_out["wrong-audio-generated"] == set()
    assert left_out["gt-head"] == {"head_motion_predictor"}
    assert left_out["gt-keypoint"] == left_out["other-keypoints"] == both
    assert ROWS["still"].networks == ROWS["wrong-audio"].networks == TRUTH.networks == ()


def test_only_frames_of_our_making_are_kept_as_videos():
    assert {row.name for row in (TRUTH, GIVEN, *ROWS.values()) if not row.ours} == {"truth", "generated", "wrong-audio"}


def test_given_videos_get_the_floors_that_need_no_network():
    assert FOR_GIVEN == ("still", "wrong-audio")


def test_a_new_row_is_described_by_its_fields_alone():
    row = Row("n_d-of-other-sound", "true poses under another sound", poses="true", sound="other")
    assert row.exempt == POSES and row.needs_other and row.ours and row.key == "n_d_of_other_sound"
