"""Face boxes and 468-point face meshes, measured by mediapipe in an environment of its own.

mediapipe cannot live beside today's protobuf and numpy, so `make pose-tools` installs it into .venv-pose (needs the
network once; the networks are inside the wheel), and one process a worker answers through pipes.

Letters: N picture, H W picture size; 468 mesh points, (x, y, z) in pixels, z away from the camera on the scale of x.
"""

import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

ENVIRONMENT = Path(__file__).parents[2] / ".venv-pose"
POINTS, MAX_FACES = 468, 8
LIP_LEFT, LIP_RIGHT, LIP_TOP, LIP_BOTTOM, INNER_TOP, INNER_BOTTOM = 61, 291, 0, 17, 13, 14
# Of the eye on the left of the picture, then of the one on the right: its two corners, three points of each lid.
EYE_CORNERS = ((33, 133), (362, 263))
UPPER_LIDS = ((160, 159, 158), (385, 386, 387))
LOWER_LIDS = ((144, 145, 153), (380, 374, 373))


class EstimatorError(RuntimeError):
    """The estimator is missing or does not run: no fault of a video, so preparing stops."""


def available() -> bool:
    """Whether `make pose-tools` has been run."""
    return (ENVIRONMENT / "bin" / "python").exists()


class LandmarkFinder:
    """A running mediapipe; use as a context. One video at a time."""

    def __enter__(self) -> "LandmarkFinder":
        if not available():
            raise EstimatorError(
                f"{ENVIRONMENT} not found: install the head-pose estimator with `make pose-tools`, once"
            )
        command = [str(ENVIRONMENT / "bin" / "python"), str(Path(__file__).with_name("mesh_server.py"))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOG_minloglevel": "3", "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment.pop("PYTHONPATH", None)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        assert self.process.stdin and self.process.stdout  # pipes, as asked for
        self._questions, self._answers = self.process.stdin, self.process.stdout
        if self._answers.readline() != b"ready\n":
            self.__exit__()
            raise EstimatorError(
                f"the head-pose estimator does not start; see `{' '.join(command)}`, or `make pose-tools` again"
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._questions.close()
        self._answers.close()
        self.process.terminate()
        self.process.wait()

    def meshes(self, frames: Iterable[np.ndarray]) -> np.ndarray:
        """The face mesh of each picture of one video, uint8 RGB [H, W, 3] -> float32 [N, 468, 3], NaN without face."""
        points = list(self._ask("mesh", frames, (POINTS, 3)))
        return np.stack(points) if points else np.empty((0, POINTS, 3), np.float32)

    def boxes(self, frame: np.ndarray) -> np.ndarray:
        """The face boxes of one picture: float32 [faces, 5] = left, top, right, bottom in pixels, score."""
        (faces,) = self._ask("boxes", [frame], (MAX_FACES, 5))
        return faces[np.isfinite(faces[:, 0])]

    def _ask(self, what: str, frames: Iterable[np.ndarray], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        for number, frame in enumerate(frames):
            try:
                if number == 0:
                    self._questions.write(f"{what} {frame.shape[0]} {frame.shape[1]}\n".encode())
                self._questions.write(b"frame\n" + np.ascontiguousarray(frame, np.uint8).tobytes())
                self._questions.flush()
                reply = self._answers.read(int(np.prod(shape)) * 4)
            except BrokenPipeError:
                reply = b""
            if not reply:
                raise EstimatorError("the head-pose estimator stopped; run the same command again to continue")
            yield np.frombuffer(reply, np.float32).reshape(shape)


def mouth_of(mesh_N3: np.ndarray) -> np.ndarray:
    """Mouth centre x, y, width and opening between the inner lips: meshes [..., 468, 3] -> [..., 4], same pixels."""
    point = mesh_N3[..., :2]
    centre = (
        point[..., LIP_LEFT, :] + point[..., LIP_RIGHT, :] + point[..., LIP_TOP, :] + point[..., LIP_BOTTOM, :]
    ) / 4
    width = np.linalg.norm(point[..., LIP_LEFT, :] - point[..., LIP_RIGHT, :], axis=-1)
    opening = np.linalg.norm(point[..., INNER_TOP, :] - point[..., INNER_BOTTOM, :], axis=-1)
    return np.concatenate([centre, width[..., None], opening[..., None]], axis=-1)


def eyes_of(mesh_N3: np.ndarray) -> np.ndarray:
    """Centre x, y, width and opening of both eyes, the left one in the picture first.

    Meshes [..., 468, 3] -> [..., 2, 4], same pixels. Opening by width is the eye aspect ratio (Soukupova, Cech 2016).
    """
    point = mesh_N3[..., :2]
    corner, upper, lower = (point[..., np.array(which), :] for which in (EYE_CORNERS, UPPER_LIDS, LOWER_LIDS))
    centre = (corner.mean(-2) + (upper.mean(-2) + lower.mean(-2)) / 2) / 2
    width = np.linalg.norm(corner[..., 0, :] - corner[..., 1, :], axis=-1)
    opening = np.linalg.norm(upper - lower, axis=-1).mean(-1)
    return np.concatenate([centre, width[..., None], opening[..., None]], axis=-1)
