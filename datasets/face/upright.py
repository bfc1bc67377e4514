"""Frames a face as the training data's faces stand: upright, at their scale and place, in a square for the networks.

A frame is a square of the picture, perhaps turned. Letters: H W picture, S small square's side, digits literal. Points
are (x, y) in pixels; the first pixel's centre is (0, 0), the picture's corner (-0.5, -0.5).
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from datasets.errors import DataError
from datasets.face.finder import Face, find_faces
from datasets.media.image import resize_square

# Where the mesh's box stands in the prepared clips (medians of 44 frames of 11 GRID clips and 41 of 6 VoxCeleb clips):
# its height is 0.56 and 0.57 of the side, its centre at (0.50, 0.56) and (0.46, 0.49).
SQUARE_PER_FACE = 1.77
FACE_CENTRE = (0.5, 0.54)
WHOLE_SHARE = 0.9  # a square this near to the picture's short side takes all of it: such a picture is framed already
LEAST_ROLL = np.radians(3.0)  # training faces roll by so much themselves; up to there nothing is turned
LEAST_SIDE = 32  # pixels of a picture: below, there is nothing to animate


class Frame(NamedTuple):
    """A parallelogram of the picture that the networks see as a square (a square, but for crop "none").

    Attributes:
        corner_2: its upper left corner (of the face, not of the picture), in pixels.
        right_2, down_2: from there to its upper right and lower left corner.
    """

    corner_2: tuple[float, float]
    right_2: tuple[float, float]
    down_2: tuple[float, float]

    @property
    def side(self) -> float:
        """Length of its upper side, pixels."""
        return float(np.hypot(*self.right_2))

    def matrix(self, size: int) -> np.ndarray:
        """Pixel (x, y, 1) of the small square of `size` pixels -> pixel of the picture, [2, 3]."""
        linear_22 = np.column_stack([self.right_2, self.down_2]) / size
        return np.column_stack([linear_22, np.array(self.corner_2) + linear_22 @ (0.5, 0.5)])

    def to_square(self, size: int) -> np.ndarray:
        """Pixel (x, y, 1) of the picture -> pixel of the small square, [2, 3]."""
        return cv2.invertAffineTransform(self.matrix(size))

    def upright(self) -> Frame:
        """A square of the same middle and side that is not turned."""
        middle_2 = np.array(self.corner_2) + (np.array(self.right_2) + np.array(self.down_2)) / 2
        return Frame(tuple((middle_2 - self.side / 2).tolist()), (self.side, 0.0), (0.0, self.side))

    def stretched(self, x: float, y: float) -> Frame:
        """The same part of the picture when its width and height are resized by these factors."""
        factor_2 = np.array([x, y])
        corner_2 = (np.array(self.corner_2) + 0.5) * factor_2 - 0.5
        vectors = (corner_2, np.array(self.right_2) * factor_2, np.array(self.down_2) * factor_2)
        return Frame(*map(_pair, vectors))


def _pair(vector_2: np.ndarray) -> tuple[float, float]:
    return float(vector_2[0]), float(vector_2[1])


class Framing(NamedTuple):
    """The frame chosen in a picture, and what the user should know about it."""

    frame: Frame
    notices: list[str]


def choose_frame(
    image_HW3: np.ndarray,
    mode: str = "auto",
    face: int | None = None,
    box: tuple[int, int, int, int] | None = None,
) -> Framing:
    """Where the networks look in a picture.

    Args:
        image_HW3: uint8 RGB.
        mode: "auto" (find the face and frame it; without one the centre square) or "none" (the whole picture, its
            aspect ratio not kept, as the released code).
        face: number of the face, from 1, as the notice lists them; None takes the largest.
        box: x, y, width, height of a part of the picture to take instead, pixels.

    Raises:
        DataError: a picture below LEAST_SIDE pixels, another mode, no such face, or a box outside the picture.
    """
    height, width = image_HW3.shape[:2]
    if min(height, width) < LEAST_SIDE:
        raise DataError(f"the picture is {width}x{height}; at least {LEAST_SIDE} pixels in both directions are needed")
    if box is not None:
        return Framing(_boxed(box, width, height), [])
    if mode == "none":
        return Framing(Frame((-0.5, -0.5), (width, 0), (0, height)), [])
    if mode != "auto":
        raise DataError(f"unknown crop mode {mode!r}; use auto or none")
    faces = find_faces(image_HW3)
    if not faces:
        if face is not None:
            raise DataError(f"--face {face}: no face was found; say where it is with --crop X,Y,W,H")
        side = min(width, height)
        centre = Frame(((width - side) // 2 - 0.5, (height - side) // 2 - 0.5), (side, 0), (0, side))
        return Framing(centre, ["no face found; using the centre square (say where it is with --crop X,Y,W,H)"])
    if face is not None and not 1 <= face <= len(faces):
        raise DataError(f"--face {face}: the picture has {len(faces)} face(s): {_listed(faces)}")
    chosen, notices = faces[(face or 1) - 1], []
    if face is None and len(faces) > 1:
        notices.append(f"{len(faces)} faces found: {_listed(faces)}; using 1, the largest (--face N takes another)")
    if abs(chosen.roll) > np.radians(60):
        notices.append(f"the face is turned by {np.degrees(chosen.roll):.0f} degrees: is the picture the right way up?")
    return Framing(face_frame(chosen, width, height), notices)


def _listed(faces: list[Face]) -> str:
    return ", ".join(
        f"{number} at {face.box[0]},{face.box[1]} ({face.box[2] - face.box[0]} pixels)"
        for number, face in enumerate(faces, 1)
    )


def face_frame(face: Face, width: int, height: int) -> Frame:
    """The square about a face in a picture of this size, upright with the face.

    It is moved into the picture and shrunk to the short side as if it were not turned; corners that stick out because
    it is see the picture mirrored at its border.
    """
    roll = face.roll if abs(face.roll) > LEAST_ROLL else 0.0
    centre_2, (_, face_height) = face.upright_box
    short = min(width, height)
    side = SQUARE_PER_FACE * face_height
    if side >= WHOLE_SHARE * short:
        side = short
    across_2, along_2 = np.array([np.cos(roll), np.sin(roll)]), np.array([-np.sin(roll), np.cos(roll)])
    middle_2 = centre_2 + side * ((0.5 - FACE_CENTRE[0]) * across_2 + (0.5 - FACE_CENTRE[1]) * along_2)
    middle_2 = np.clip(middle_2, side / 2 - 0.5, np.array([width, height]) - side / 2 - 0.5)
    if roll == 0:  # whole pixels: the networks then see the picture's own
        side = round(side)
        middle_2 = np.rint(middle_2 - side / 2 + 0.5) + side / 2 - 0.5
    corner_2 = middle_2 - side / 2 * (across_2 + along_2)
    return Frame(*map(_pair, (corner_2, side * across_2, side * along_2)))


def _boxed(box: tuple[int, int, int, int], width: int, height: int) -> Frame:
    """The smallest square about a box, moved into the picture."""
    x, y, box_width, box_height = box
    if min(box_width, box_height) < LEAST_SIDE:
        raise DataError(f"--crop {x},{y},{box_width},{box_height}: width and height must be {LEAST_SIDE} or more")
    if x < 0 or y < 0 or x + box_width > width or y + box_height > height:
        raise DataError(f"--crop {x},{y},{box_width},{box_height} leaves the picture, which is {width}x{height}")
    side = min(max(box_width, box_height), width, height)
    left = min(max(x + (box_width - side) // 2, 0), width - side)
    top = min(max(y + (box_height - side) // 2, 0), height - side)
    return Frame((left - 0.5, top - 0.5), (side, 0), (0, side))


def cut(image_HW3: np.ndarray, frame: Frame, size: int) -> np.ndarray:
    """What the networks see of a frame: uint8 [size, size, 3].

    The whole picture is resized as the released code does; a part as the training data is prepared, its pixels averaged
    where it shrinks. What sticks out of the picture is its mirror image.
    """
    height, width = image_HW3.shape[:2]
    if frame == Frame((-0.5, -0.5), (width, 0), (0, height)):
        return resize_square(image_HW3, size)
    own = max(size, round(frame.side))
    corner_2 = np.array(frame.corner_2) + 0.5
    if frame.right_2[1] == 0 and frame.side == round(frame.side) and (corner_2 == np.rint(corner_2)).all():
        left, top, side = *corner_2.astype(int), round(frame.side)
        part = image_HW3[top : top + side, left : left + side]
        if side == size:
            return np.ascontiguousarray(part)
        return cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)
    part = cv2.warpAffine(
        image_HW3,
        frame.matrix(own),
        (own, own),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return part if own == size else cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA)
