"""6-D head pose: its camera, its normalisation, and the 3-D box drawn from it (Sec. 3.3).

Letters: T video frame, P pose value (rx, ry, rz in rad; tx, ty, tz in mm), H W picture.

The camera is OpenFace's default guess for a 256x256 picture. The rotation triple is handed to the projection as an
axis-angle vector although OpenFace reports Euler angles: this is what the released model was trained with.
"""

from dataclasses import dataclass

import cv2
import numpy as np

BOX_SIZE = 256  # pixels; pose pictures are always drawn at this size, whatever the size of the frames
FOCAL_LENGTH = 233.333  # pixels, x and y
CAMERA_MATRIX = np.array(
    [[FOCAL_LENGTH, 0.0, BOX_SIZE / 2], [0.0, FOCAL_LENGTH, BOX_SIZE / 2], [0.0, 0.0, 1.0]], dtype=np.float64
)
NEAR_HALF_MM, FAR_HALF_MM, DEPTH_MM = 75.0, 100.0, 100.0
LINE_THICKNESS = 2  # pixels


def _square(half: float, z: float) -> list[tuple[float, float, float]]:
    return [(-half, -half, z), (-half, half, z), (half, half, z), (half, -half, z), (-half, -half, z)]


# Two closed squares, 5 points each, in the head's own frame.
BOX_POINTS_MM = np.array(_square(NEAR_HALF_MM, 0.0) + _square(FAR_HALF_MM, DEPTH_MM), dtype=np.float64)


@dataclass(frozen=True)
class PoseRange:
    """Per-axis limits that scale a pose to about [-1, 1]: (rx, ry, rz) in rad, (tx, ty, tz) in mm.

    The defaults are those of the released VoxCeleb model; a training run stores those of its own corpus.
    """

    minimum: tuple[float, float, float, float, float, float] = (-0.639, -0.501, -0.47, -102.6, -32.5, 184.6)
    maximum: tuple[float, float, float, float, float, float] = (0.411, 0.547, 0.433, 159.1, 116.5, 376.5)

    def __post_init__(self) -> None:
        if not all(low < high for low, high in zip(self.minimum, self.maximum, strict=True)):
            raise ValueError(
                f"pose range needs minimum < maximum on all six axes, found {self.minimum} and {self.maximum}"
            )

    def normalise(self, pose_TP: np.ndarray) -> np.ndarray:
        """rad and mm [..., 6] -> about [-1, 1], float32."""
        low, high = np.array(self.minimum, np.float32), np.array(self.maximum, np.float32)
        return ((np.asarray(pose_TP, np.float32) - low) / (high - low) * 2 - 1).astype(np.float32)

    def denormalise(self, pose_TP: np.ndarray) -> np.ndarray:
        """About [-1, 1] [..., 6] -> rad and mm, float32. Inverse of `normalise`."""
        low, high = np.array(self.minimum, np.float32), np.array(self.maximum, np.float32)
        return (np.asarray(pose_TP, np.float32) + 1) / 2 * (high - low) + low


RELEASED_RANGE = PoseRange()


def project(points_mm: np.ndarray, pose_P: np.ndarray) -> np.ndarray:
    """Head-frame points [N, 3] in mm -> pixels [N, 2] (x, y) of a 256x256 picture, under one pose [6] (rad, mm)."""
    pose = np.asarray(pose_P, np.float64)
    points, _ = cv2.projectPoints(points_mm, pose[:3], pose[3:], CAMERA_MATRIX, None)
    return points[:, 0]


def moved_with_picture(pose_TP: np.ndarray, box_4: np.ndarray) -> np.ndarray:
    """Poses after the picture was scaled and moved.

    Args:
        pose_TP: rad and mm.
        box_4: where the former picture's left, top, right and bottom now lie; they were -1, -1, 1, 1.

    A picture half as large is a head twice as far away; sideways it moves in proportion to its distance (exact for
    points at the head's own distance).
    """
    moved_TP = np.array(pose_TP, np.float32)
    scale, shift_2 = (box_4[2] - box_4[0]) / 2, (box_4[:2] + box_4[2:]) / 2
    moved_TP[:, 5] /= scale
    moved_TP[:, 3:5] += moved_TP[:, 5:] * (shift_2 * (BOX_SIZE / 2 / FOCAL_LENGTH))
    return moved_TP


def shown_head(pose_TP: np.ndarray, boxes: bool) -> np.ndarray:
    """Head poses as N_M sees them: boxes, uint8 [T, 256, 256], or, without Hourglass-3D, the poses, float32 [T, 6]."""
    return render_boxes(pose_TP) if boxes else np.asarray(pose_TP, np.float32)


def render_boxes(pose_TP: np.ndarray) -> np.ndarray:
    """Draw the head box of each pose (Sec. 3.3: "we draw a 3D box ... and project it to the image").

    Args:
        pose_TP: [T, 6], rotation in rad, translation in mm.

    Returns:
        uint8 [T, 256, 256], 0 or 255: the paper calls it binary, the released model reads 0/255 and so do we.
        Coordinates are truncated toward zero, lines are 2 pixels wide and not anti-aliased.
    """
    canvas = np.zeros((len(pose_TP), BOX_SIZE, BOX_SIZE), np.uint8)
    for picture, pose in zip(canvas, pose_TP, strict=True):
        corners = np.clip(project(BOX_POINTS_MM, pose), -(2**15), 2**15).astype(np.int32)
        cv2.polylines(picture, [corners], isClosed=True, color=255, thickness=LINE_THICKNESS)
        for near in (1, 2, 3):  # corner 0 is joined by the polyline's own closing edge
            cv2.line(picture, tuple(corners[near].tolist()), tuple(corners[near + 5].tolist()), 255, LINE_THICKNESS)
    return canvas
