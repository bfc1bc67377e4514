"""Where the face is: one square for a whole clip, as in Siarohin et al. 2019, or spans of a video that hold one face.

A square is placed once per clip, so the background stands still while the head moves. Boxes are (left, top, right,
bottom) in pixels of the source. Letters: N box, S sampled picture, H W picture.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np

from datasets.errors import DataError
from datasets.media.streams import FPS
from datasets.prepare.sources import FaceBoxes, HeadBox

FindBoxes = Callable[[np.ndarray], np.ndarray]  # picture [H, W, 3] -> [faces, 4 or more]

DETECT_EVERY = 5  # frames of 25 a second: a head moves little in 0.2 s
RIVAL_HEIGHT = 0.6  # a second face this high, relative to the first, makes the picture ambiguous
CUT_DIFFERENCE = 25.0  # mean change of a 32x18 thumbnail, of 255, from one 25th of a second to the next
TRACK_OVERLAP = 0.25  # FOMM's rule: a track ends when the face leaves its first box (IoU)
REFERENCE_HEIGHTS = (240, 270, 288, 360, 480, 576, 720, 1080)  # of downloads that face lists were made on


class Square(NamedTuple):
    """Whole pixels of the source, inside the picture."""

    x: int
    y: int
    side: int


class Span(NamedTuple):
    """A stretch of a video with one face: times in seconds, end exclusive."""

    start_s: float
    end_s: float
    square: Square


def crop(frame: np.ndarray, square: Square, size: int) -> np.ndarray:
    """Cut out the square and scale it to size x size, uint8 RGB."""
    part = frame[square.y : square.y + square.side, square.x : square.x + square.side]
    if square.side == size:
        return np.ascontiguousarray(part)
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if square.side > size else cv2.INTER_CUBIC)


def fit(centre_x: float, centre_y: float, side: float, height: int, width: int) -> Square:
    """The square moved, and if need be shrunk, into the picture: no invented pixels, no distortion."""
    whole = min(round(side), height, width)
    x = min(max(round(centre_x - whole / 2), 0), width - whole)
    y = min(max(round(centre_y - whole / 2), 0), height - whole)
    return Square(x, y, whole)


def middle_square(height: int, width: int) -> Square:
    """The largest square in the middle."""
    return fit(width / 2, height / 2, min(height, width), height, width)


def head_square(box: HeadBox, height: int, width: int) -> Square:
    """A head box of a list, made square by its longer side."""
    left, right, top, bottom = box.left * width, box.right * width, box.top * height, box.bottom * height
    return fit((left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top), height, width)


def face_square(boxes_N4: np.ndarray, margin: float, height: int, width: int) -> Square:
    """A square about the union of face boxes (brows to chin), `margin` faces high, larger if the face moves further."""
    left, top = boxes_N4[:, :2].min(axis=0)
    right, bottom = boxes_N4[:, 2:4].max(axis=0)
    face_height = float(np.median(boxes_N4[:, 3] - boxes_N4[:, 1]))
    side = max(margin * face_height, 1.2 * (right - left), 1.2 * (bottom - top))
    return fit((left + right) / 2, (top + bottom) / 2, side, height, width)


def find_face(frames: Iterable[np.ndarray], find_boxes: FindBoxes, min_face: int) -> np.ndarray:
    """The one face of a stretch, every DETECT_EVERY frames: boxes [N, 4].

    Raises:
        DataError: no face in most pictures, two faces, or a face lower than `min_face` pixels.
    """
    boxes, sampled, ambiguous = [], 0, 0
    for number, frame in enumerate(frames):
        if number % DETECT_EVERY:
            continue
        sampled += 1
        faces = find_boxes(frame)
        if len(faces):
            boxes.append(_largest(faces)[:4])
            ambiguous += _rivals(faces)
    if sampled == 0 or len(boxes) < 0.5 * sampled:
        raise DataError(f"no face: found in {len(boxes)} of {sampled} pictures looked at")
    if ambiguous > 0.5 * sampled:
        raise DataError(f"several faces of similar size in {ambiguous} of {sampled} pictures looked at")
    boxes_N4 = np.array(boxes)
    face_height = np.median(boxes_N4[:, 3] - boxes_N4[:, 1])
    if face_height < min_face:
        raise DataError(f"face is {face_height:.0f} pixels high, wanted at least {min_face}")
    near = np.abs(_centres(boxes_N4) - np.median(_centres(boxes_N4), axis=0)).max(axis=1) < 1.5 * face_height
    return boxes_N4[near]


def listed_square(
    listed: FaceBoxes, frames: Iterable[np.ndarray], find_boxes: FindBoxes, margin: float, height: int, width: int
) -> Square:
    """The square about listed face boxes. Their scale, not known, is the one at which they cover the face in the file.

    Raises:
        DataError: no face, or none of the usual download heights makes the list fit.
    """
    box = np.array([listed.left, listed.top, listed.right, listed.bottom])
    sampled = (find_boxes(frame) for n, frame in enumerate(frames) if n % DETECT_EVERY == 0)
    samples = [faces for faces in sampled if len(faces)]
    if not samples:
        raise DataError("no face: found in no picture looked at")

    def cover(scale: float) -> float:
        """Mean over pictures of the best face's share of pixels, of its own and of the list's height."""
        scores = []
        for faces in samples:
            overlap = [_inside(face, box * scale) for face in faces]
            face = faces[int(np.argmax(overlap))]
            ratio = (face[3] - face[1]) / (listed.face_height * scale)
            scores.append(max(overlap) * min(ratio, 1 / ratio))
        return float(np.mean(scores))

    scale = max((height / reference for reference in REFERENCE_HEIGHTS), key=cover)
    if cover(scale) < 0.5:
        raise DataError(f"the listed face boxes do not meet a face (best agreement {cover(scale):.2f} of 1)")
    left, top, right, bottom = box * scale
    side = max(margin * listed.face_height * scale, 1.1 * (right - left), 1.1 * (bottom - top))
    return fit((left + right) / 2, (top + bottom) / 2, side, height, width)


def find_spans(
    frames: Iterable[np.ndarray], find_boxes: FindBoxes, margin: float, min_face: int, min_frames: int, max_frames: int
) -> Iterator[Span]:
    """Stretches with one face that is large enough, cut at shots, from frames at 25 a second; times from frame 0."""
    track: list[np.ndarray] = []
    first, number, height, width, thumbnail = 0, -1, 0, 0, None

    def spans(last: int) -> Iterator[Span]:
        """The track up to frame `last` (exclusive), in pieces of at most max_frames."""
        for start in range(first, last, max_frames):
            end = min(start + max_frames, last)
            part = track[(start - first) // DETECT_EVERY : -(-(end - first) // DETECT_EVERY)]
            if end - start >= min_frames and part:
                yield Span(start / FPS, end / FPS, face_square(np.array(part), margin, height, width))

    for number, frame in enumerate(frames):
        height, width = frame.shape[:2]
        before, thumbnail = thumbnail, cv2.resize(frame, (32, 18), interpolation=cv2.INTER_AREA).astype(np.float32)
        if before is not None and np.abs(thumbnail - before).mean() > CUT_DIFFERENCE:
            yield from spans(number)
            track = []
        if track and (number - first) % DETECT_EVERY:
            continue
        faces = find_boxes(frame)
        face = _largest(faces)[:4] if len(faces) and not _rivals(faces) else None
        if face is not None and face[3] - face[1] < min_face:
            face = None
        if track and (face is None or _iou(face, track[0]) < TRACK_OVERLAP):
            yield from spans(number - DETECT_EVERY + 1)
            track = []
        if face is not None:
            if not track:
                first = number
            track.append(face)
    if track:
        yield from spans(number + 1)


def _largest(faces: np.ndarray) -> np.ndarray:
    return faces[np.argmax(faces[:, 3] - faces[:, 1])]


def _rivals(faces: np.ndarray) -> bool:
    heights = np.sort(faces[:, 3] - faces[:, 1])[::-1]
    return len(heights) > 1 and heights[1] > RIVAL_HEIGHT * heights[0]


def _centres(boxes_N4: np.ndarray) -> np.ndarray:
    return (boxes_N4[:, :2] + boxes_N4[:, 2:4]) / 2


def _overlap_area(a: np.ndarray, b: np.ndarray) -> float:
    size = np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2])
    return float(np.prod(np.maximum(size, 0)))


def _area(box: np.ndarray) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _inside(face: np.ndarray, box: np.ndarray) -> float:
    """Share of the face's area that lies in the box."""
    return _overlap_area(face, box) / _area(face)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    shared = _overlap_area(a, b)
    return shared / (_area(a) + _area(b) - shared)
