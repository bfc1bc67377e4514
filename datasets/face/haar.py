"""Find the face in a picture and frame it as the training data does: a square with head and shoulders.

Offline: the Haar cascades that come with OpenCV 4. Boxes are (left, top, right, bottom) in pixels.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import cv2
import numpy as np

from datasets.errors import DataError

# Side of the square divided by that of the Haar box. Measured: 1.79 on the released demo painting, 1.65-1.75 on clips
# cropped as FOMM does; FOMM's VoxCeleb boxes (Siarohin et al. 2019b) are 1.52 by height, and 1.83 with their usual
# margins of 10 %.
SQUARE_PER_FACE = 1.75
FACE_CENTRE = (0.5, 0.48)  # where in the square the centre of the Haar box goes (x, y); measured medians
WHOLE_SHARE = (
    0.9  # of the picture's short side: if the square is this large, the picture is framed already, take it all
)

SEARCH_SIDE = 640  # pictures are searched at most this long
SMALLEST_FACE = 0.04  # of the short side
LEAST_WINDOWS = 12  # measured: faces 25-400, false finds of two cascades together up to 13 on faces-free pictures
LIKELY_SHARE = 0.25  # of the surest face's windows
FRONTAL = ("frontalface_alt2", "frontalface_default", "frontalface_alt")


class FaceCrop(NamedTuple):
    image: np.ndarray  # uint8 [S, S, 3]; the whole picture [H, W, 3] with mode "none"
    box: tuple[int, int, int, int]
    notice: str | None  # what the user should know: no face, or several


def crop_face(image_HW3: np.ndarray, mode: str) -> FaceCrop:
    """Cut the square around the largest face.

    The square is moved inside the picture; where it does not fit, it shrinks to the short side. Nothing is padded.

    Args:
        image_HW3: uint8 RGB.
        mode: "auto" (find the face; without one the centre square) or "none" (the whole picture, as the released code).

    Raises:
        DataError: another mode.
    """
    height, width = image_HW3.shape[:2]
    if mode == "none":
        return FaceCrop(image_HW3, (0, 0, width, height), None)
    if mode != "auto":
        raise DataError(f"unknown crop mode {mode!r}; use auto or none")
    faces = find_faces(image_HW3)
    if faces:
        box = framing(faces[0], width, height)
        notice = f"{len(faces)} faces found; using the largest, at {faces[0]}" if len(faces) > 1 else None
    else:
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
        notice = "no face found; using the centre square (give a picture cropped to the face with --crop none)"
    left, top, right, bottom = box
    return FaceCrop(np.ascontiguousarray(image_HW3[top:bottom, left:right]), box, notice)


def framing(face: tuple[int, int, int, int], width: int, height: int) -> tuple[int, int, int, int]:
    """The square for a Haar face box in a picture of this size."""
    left, top, right, bottom = face
    short = min(width, height)
    side = round(SQUARE_PER_FACE * max(right - left, bottom - top))
    if side >= WHOLE_SHARE * short:
        side = short
    x = round((left + right) / 2 - FACE_CENTRE[0] * side)
    y = round((top + bottom) / 2 - FACE_CENTRE[1] * side)
    x, y = min(max(x, 0), width - side), min(max(y, 0), height - side)
    return x, y, x + side, y + side


def find_faces(image_HW3: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Boxes of the faces found, largest first.

    Three frontal cascades search the picture. A face is where at least two of them agree; the more windows found it,
    the surer it is. Next to the surest face another one counts only if it is about as sure and shows two eyes. If there
    is no frontal face, the profile cascade searches, to both sides.
    """
    grey_HW = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, SEARCH_SIDE / max(grey_HW.shape))
    if scale < 1:
        grey_HW = cv2.resize(grey_HW, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    grey_HW = cv2.equalizeHist(grey_HW)
    boxes = _frontal(grey_HW) or _profiles(grey_HW)
    boxes.sort(key=lambda box: -box[2])
    faces = []
    for x, y, w, h in boxes:
        left, top = round(x / scale), round(y / scale)
        faces.append((left, top, left + round(w / scale), top + round(h / scale)))
    return faces


def _frontal(grey_HW: np.ndarray) -> list[np.ndarray]:
    groups: list[list[tuple[np.ndarray, int]]] = []  # (box, windows) of each cascade that sees this face
    for name in FRONTAL:
        for box, windows in _detect(name, grey_HW, min_neighbours=3):
            group = next((group for group in groups if _overlap(group[0][0], box) > 0.4), None)
            if group is None:
                groups.append([(box, windows)])
            else:
                group.append((box, windows))
    agreed = [
        (sum(windows for _, windows in group), np.mean([box for box, _ in group], axis=0))
        for group in groups
        if len(group) > 1
    ]
    faces = sorted((face for face in agreed if face[0] >= LEAST_WINDOWS), key=lambda face: -face[0])
    return [
        box
        for rank, (windows, box) in enumerate(faces)
        if rank == 0 or (windows >= LIKELY_SHARE * faces[0][0] and _has_eyes(grey_HW, box))
    ]


@cache
def _cascade(name: str) -> cv2.CascadeClassifier:
    cascade = cv2.CascadeClassifier(f"{cv2.data.haarcascades}haarcascade_{name}.xml")  # type: ignore[attr-defined]
    if cascade.empty():
        raise DataError("this OpenCV has no face cascades; install opencv-python-headless 4.14 (not 5)")
    return cascade


def _detect(name: str, grey_HW: np.ndarray, min_neighbours: int) -> list[tuple[np.ndarray, int]]:
    """(x, y, width, height) and the number of windows that agreed on it, for each find of one cascade."""
    smallest = max(24, round(SMALLEST_FACE * min(grey_HW.shape)))
    if smallest > min(grey_HW.shape):
        return []
    boxes, windows = _cascade(name).detectMultiScale2(grey_HW, 1.06, min_neighbours, minSize=(smallest, smallest))
    return [(np.asarray(box, float), int(count)) for box, count in zip(boxes, windows, strict=True)]


def _profiles(grey_HW: np.ndarray) -> list[np.ndarray]:
    boxes = [box for box, _ in _detect("profileface", grey_HW, min_neighbours=12)]  # looking left
    width = grey_HW.shape[1]
    for (x, y, w, h), _ in _detect("profileface", np.ascontiguousarray(grey_HW[:, ::-1]), min_neighbours=12):
        box = np.array([width - x - w, y, w, h])
        if all(_overlap(box, other) < 0.4 for other in boxes):
            boxes.append(box)
    return boxes


def _has_eyes(grey_HW: np.ndarray, box: np.ndarray) -> bool:
    x, y, w, h = box.astype(int)
    upper_HW = cv2.resize(grey_HW[y : y + int(0.6 * h), x : x + w], (160, 96))
    return len(_cascade("eye_tree_eyeglasses").detectMultiScale(upper_HW, 1.05, 3, minSize=(20, 20))) >= 2


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two (x, y, width, height) boxes."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)
