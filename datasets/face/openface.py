"""OpenFace's head poses: CSV files of versions 1.x and 2.x, and running its FeatureExtraction where it is installed.

Letters: N row of the CSV, T video frame (25 fps), P pose value (rx, ry, rz in rad, tx, ty, tz in mm).
"""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from datasets.errors import DataError
from datasets.files import read_table
from datasets.pose import BOX_SIZE, FOCAL_LENGTH

COLUMNS = ("pose_Rx", "pose_Ry", "pose_Rz", "pose_Tx", "pose_Ty", "pose_Tz")
MIN_CONFIDENCE = 0.7
LARGEST_VALUE = 1e8  # frame numbers, seconds, mm or rad: beyond there is only damage; ours
LONGEST_S = 86_400.0  # a day: no video is longer; ours
LONGEST_STEP_S = 1.0  # between two pictures of most videos it is a thirtieth; ours


@dataclass(frozen=True)
class OpenFaceTrack:
    """Poses by time: time_s [N], pose_NP [N, 6] in the camera of the video it was run on, valid_N [N]."""

    time_s: np.ndarray
    pose_NP: np.ndarray
    valid_N: np.ndarray

    def at(self, time_T: np.ndarray) -> np.ndarray:
        """Poses [T, 6] at times in seconds, linear between rows; NaN next to a failed row or beyond the file."""
        pose_TP = np.column_stack([np.interp(time_T, self.time_s, np.nan_to_num(column)) for column in self.pose_NP.T])
        after = np.clip(np.searchsorted(self.time_s, time_T - 1e-6), 0, len(self.time_s) - 1)
        exact = np.abs(self.time_s[after] - time_T) < 1e-6
        before = np.where(exact, after, np.maximum(after - 1, 0))
        step_s = float(np.median(np.diff(self.time_s))) if len(self.time_s) > 1 else 0.0
        outside = (time_T < self.time_s[0] - step_s) | (time_T > self.time_s[-1] + step_s)
        pose_TP[~(self.valid_N[before] & self.valid_N[after]) | outside] = np.nan
        return pose_TP


def read_csv(path: Path) -> OpenFaceTrack:
    """Read an OpenFace CSV, whose header may have spaces after the commas (1.x and early 2.x) or not.

    Raises:
        DataError: a column is missing, a value is no number, or rows of several faces.
    """
    rows = _rows(path)
    wanted = ("frame", "timestamp", "confidence", "success", *COLUMNS)
    if missing := [name for name in wanted if name not in rows[0]]:
        raise DataError(f"{path}: column {missing[0]} is missing; run OpenFace's FeatureExtraction with -pose")
    if len({row.get("face_id", "0").strip() for row in rows}) > 1:
        raise DataError(f"{path}: rows of several faces; use FeatureExtraction, not FaceLandmarkVidMulti")
    try:
        value_NV = np.array([[float(row[name]) for name in wanted] for row in rows])
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: not a number: {error}; was OpenFace interrupted?") from error
    if not (np.abs(value_NV) <= LARGEST_VALUE).all():  # false of NaN, too
        raise DataError(f"{path} holds values that are not finite or beyond all measure; was OpenFace interrupted?")
    time_s, confidence, success = value_NV[:, 1], value_NV[:, 2], value_NV[:, 3]
    if time_s.min() < 0 or time_s.max() > LONGEST_S:
        raise DataError(f"{path}: timestamps should be seconds from 0 to {LONGEST_S:.0f}")
    if len(time_s) > 1 and not (np.diff(time_s) > 0).all():  # a folder of pictures has no clock
        raise DataError(f"{path}: timestamps do not increase; run OpenFace on the video file, not on pictures")
    if len(time_s) > 1 and (step := np.median(np.diff(time_s))) > LONGEST_STEP_S:
        raise DataError(f"{path}: timestamps are {step:g} apart, wanted seconds; divide milliseconds by 1000")
    return OpenFaceTrack(_unrounded(time_s), value_NV[:, 4:], (success == 1) & (confidence >= MIN_CONFIDENCE))


def _rows(path: Path) -> list[dict[str, str]]:
    """Lines of a CSV by column name, without the spaces that some versions write after the commas."""
    _, rows = read_table(path, "head pose")
    if not rows:
        raise DataError(f"{path}: no rows; was OpenFace interrupted?")
    return [row for _, row in rows]


def _unrounded(time_s: np.ndarray) -> np.ndarray:
    """Timestamps are printed to a millisecond: where they are regular, put them back on their grid."""
    if len(time_s) < 2:
        return time_s
    step_s = (time_s[-1] - time_s[0]) / (len(time_s) - 1)
    grid = time_s[0] + step_s * np.arange(len(time_s))
    return grid if np.abs(grid - time_s).max() < 0.002 else time_s


def default_camera(height: int, width: int) -> tuple[float, tuple[float, float]]:
    """OpenFace's guess of (focal length, centre) of a picture, in pixels: 500 for 640x480, scaled."""
    return (500 * width / 640 + 500 * height / 480) / 2, (width / 2, height / 2)


def run_feature_extraction(program: str, frames: list[np.ndarray]) -> np.ndarray:
    """Poses [T, 6] of square frames by the user's own OpenFace, in the released camera; NaN where it fails.

    Raises:
        DataError: the program is not found, or fails.
    """
    if shutil.which(program) is None:
        raise DataError(f"{program} not found: give the path of OpenFace's FeatureExtraction with --openface-program")
    with tempfile.TemporaryDirectory(prefix="audio2head-") as folder:
        pictures = Path(folder, "clip")
        pictures.mkdir()
        for number, frame in enumerate(frames):
            frame = cv2.resize(frame, (BOX_SIZE, BOX_SIZE), interpolation=cv2.INTER_LINEAR)
            cv2.imwrite(str(pictures / f"{number:06d}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        camera = [f"-{name}" for name in ("fx", "fy", "cx", "cy")]
        values = [FOCAL_LENGTH, FOCAL_LENGTH, BOX_SIZE / 2, BOX_SIZE / 2]
        command = [program, "-fdir", str(pictures), "-out_dir", folder, "-pose"]
        command += [str(word) for pair in zip(camera, values, strict=True) for word in pair]
        done = subprocess.run(command, capture_output=True, text=True)
        result = Path(folder, "clip.csv")
        if done.returncode or not result.is_file():
            raise DataError(f"{program} failed ({done.returncode}): {(done.stderr or done.stdout)[-200:].strip()}")
        rows = {int(float(row["frame"])): row for row in _rows(result)}
    pose_TP = np.full((len(frames), 6), np.nan)
    for number, row in rows.items():
        if 1 <= number <= len(frames) and float(row["success"]) == 1 and float(row["confidence"]) >= MIN_CONFIDENCE:
            pose_TP[number - 1] = [float(row[name]) for name in COLUMNS]
    return pose_TP
