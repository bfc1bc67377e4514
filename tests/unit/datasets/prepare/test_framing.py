"""Crops, tracks and resampling: pure functions."""

import numpy as np
import pytest

from datasets.errors import DataError
from datasets.prepare.clip import _usable
from datasets.prepare.framing import crop, face_square, find_face, find_spans, fit, head_square, listed_square
from datasets.prepare.sources import FaceBoxes, HeadBox


def test_a_square_stays_inside_the_picture():
    assert fit(10, 10, 100, 200, 300) == (0, 0, 100)
    assert fit(290, 190, 100, 200, 300) == (200, 100, 100)
    assert fit(150, 100, 500, 200, 300) == (50, 0, 200)


def test_a_head_box_scales_with_the_file():
    box = HeadBox(0.25, 0.1, 0.5, 0.9)
    x, y, side = head_square(box, 360, 640)
    assert side == 288 and x + side / 2 == 240 and y == 36
    assert head_square(box, 720, 1280) == (2 * x, 2 * y, 2 * side)


def test_a_face_square_holds_all_boxes():
    boxes = np.array([[100, 100, 150, 160], [190, 110, 240, 170.0]])
    square = face_square(boxes, 1.85, 480, 640)
    assert square.x <= 100 and square.x + square.side >= 240 and square.y <= 100


def test_crop_scales_both_ways():
    frame = np.zeros((100, 200, 3), np.uint8)
    frame[20:60, 50:90] = 200
    part = crop(frame, fit(70, 40, 40, 100, 200), 64)
    assert part.shape == (64, 64, 3) and (part == 200).all()


def boxes_of(faces):
    return lambda frame: np.array(faces.get(int(frame[0, 0, 0]), []), float).reshape(-1, 4)


def pictures(numbers, shots=None):
    """Frames that carry their number in a corner; a shot is a grey level."""
    for number in numbers:
        frame = np.full((90, 160, 3), (shots or {}).get(number, 100), np.uint8)
        frame[0, 0] = number
        yield frame


ONE, AWAY, SMALL = [[40, 20, 70, 55]], [[110, 20, 140, 55]], [[40, 20, 48, 30]]


def test_spans_end_at_cuts_and_where_the_face_goes():
    faces = dict.fromkeys(range(0, 40), ONE) | dict.fromkeys(range(40, 80), AWAY) | dict.fromkeys(range(100, 140), ONE)
    shots = dict.fromkeys(range(120, 140), 200)
    spans = list(find_spans(pictures(range(140), shots), boxes_of(faces), 1.85, 30, 15, 1000))
    frames = [(round(s.start_s * 25), round(s.end_s * 25)) for s in spans]
    assert [start for start, _ in frames] == [0, 40, 100, 120]
    assert (
        frames[0][1] in range(36, 41) and frames[1][1] in range(76, 81) and frames[2][1] == 120 and frames[3][1] == 140
    )


def test_spans_need_one_large_face():
    faces = (
        dict.fromkeys(range(30), ONE + AWAY)
        | dict.fromkeys(range(30, 60), SMALL)
        | dict.fromkeys(range(60, 90), ONE + SMALL)
    )
    spans = list(find_spans(pictures(range(90)), boxes_of(faces), 1.85, 30, 15, 1000))
    assert [(round(s.start_s * 25), round(s.end_s * 25)) for s in spans] == [(60, 90)]


def test_long_spans_are_cut_into_clips():
    spans = list(find_spans(pictures(range(100)), boxes_of(dict.fromkeys(range(100), ONE)), 1.85, 30, 15, 40))
    assert [(round(s.start_s * 25), round(s.end_s * 25)) for s in spans] == [(0, 40), (40, 80), (80, 100)]


@pytest.mark.parametrize(
    ("faces", "complaint"),
    [([], "no face"), (ONE + AWAY, "several faces"), (SMALL, "10 pixels high, wanted at least 30")],
)
def test_a_face_that_cannot_be_used_says_why(faces, complaint):
    with pytest.raises(DataError, match=complaint):
        find_face(pictures(range(20)), boxes_of(dict.fromkeys(range(20), faces)), 30)


def test_a_list_of_unknown_scale_finds_its_scale():
    """A face at 120-160 x 90-150 of a 480-line file, listed on a 360-line download: three quarters of it."""
    faces = {n: [[120, 90, 170, 150]] for n in range(10)}
    frames = [np.full((480, 640, 3), n, np.uint8) for n in range(10)]
    listed = FaceBoxes(90 - 5, 67 - 5, 127 + 5, 112 + 5, 45.0)
    square = listed_square(listed, frames, boxes_of(faces), 1.85, 480, 640)
    assert abs(square.x + square.side / 2 - 145) < 3 and abs(square.side - 1.85 * 60) < 3
    with pytest.raises(DataError, match="do not meet a face"):
        listed_square(FaceBoxes(500, 300, 600, 400, 100.0), frames, boxes_of(faces), 1.85, 480, 640)


def test_the_longest_usable_run_is_kept():
    found = np.zeros(100, bool)
    found[5:40] = found[45:60] = found[80:90] = True
    assert _usable(found) == (5, 60)
    assert _usable(np.zeros(10, bool)) == (0, 0)
