"""Runs inside .venv-pose, never in the main environment: face boxes and face meshes of the pictures on stdin.

Protocol (see `datasets.face.mesh`). "ready\\n" is the first thing on stdout. "mesh H W\\n" starts a new video,
"boxes H W\\n" asks for boxes; then come pictures: "frame\\n" and H * W * 3 bytes of RGB each. The answer to a picture
is float32, in pixels, NaN where nothing was found: 468 points (x, y, z), or 8 boxes (left, top, right, bottom, score).
"""

import os
import sys
from typing import Any

import mediapipe
import numpy as np

MAX_FACES, POINTS = 8, 468


def boxes(detector: Any, picture_HW3: np.ndarray) -> np.ndarray:
    height, width = picture_HW3.shape[:2]
    faces = np.full((MAX_FACES, 5), np.nan, np.float32)
    for row, face in zip(faces, detector.process(picture_HW3).detections or [], strict=False):
        box = face.location_data.relative_bounding_box
        left, top = box.xmin * width, box.ymin * height
        row[:] = [left, top, left + box.width * width, top + box.height * height, face.score[0]]
    return faces


def mesh(detector: Any, picture_HW3: np.ndarray) -> np.ndarray:
    height, width = picture_HW3.shape[:2]
    faces = detector.process(picture_HW3).multi_face_landmarks
    if not faces:
        return np.full((POINTS, 3), np.nan, np.float32)
    points = [
        (point.x * width, point.y * height, point.z * width) for point in faces[0].landmark[:POINTS]
    ]  # then irises
    return np.array(points, np.float32)


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the libraries print goes to stderr
    solutions = mediapipe.solutions
    answers.write(b"ready\n")
    answers.flush()
    detector: Any = None
    measure, height, width = boxes, 0, 0
    while line := sys.stdin.buffer.readline():
        words = line.decode().split()
        if words[0] != "frame":
            if measure is mesh or words[0] == "mesh":  # the mesh follows a face from picture to picture, boxes do not
                if detector is not None:
                    detector.close()
                detector = None
            if words[0] == "mesh":
                measure, detector = mesh, solutions.face_mesh.FaceMesh(max_num_faces=1, refine_landmarks=True)
            elif detector is None:
                measure = boxes
                detector = solutions.face_detection.FaceDetection(model_selection=1, min_detection_confidence=0.5)
            height, width = int(words[1]), int(words[2])
            continue
        pixels = sys.stdin.buffer.read(height * width * 3)
        answers.write(measure(detector, np.frombuffer(pixels, np.uint8).reshape(height, width, 3)).tobytes())
        answers.flush()


if __name__ == "__main__":
    main()
