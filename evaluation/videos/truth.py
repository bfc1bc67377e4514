"""The truth that a video is held against: a prepared clip, or a video file with its sound.

Letters: T video frame (25 fps), H W C picture (RGB, uint8), N mesh point, P pose value, A F audio window and feature.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets import audio
from datasets.clips import FEATURE_TAIL_SAMPLES, SAMPLES_PER_FRAME, Clip, load_audio_features
from datasets.errors import DataError
from datasets.face.mesh import LandmarkFinder, mouth_of
from datasets.face.rigid_pose import fill_gaps, pose_of, smooth
from datasets.files import file_digest
from datasets.media.image import resized
from datasets.media.sound import sound_of
from datasets.media.video_reader import frames_of
from datasets.pose import BOX_SIZE, FOCAL_LENGTH
from evaluation.videos.words import Word, words_of
from modules.keypoints import Keypoints

MIN_FOUND = 0.7  # share of frames in which a face must be found, else nothing is said about it; as in datasets.prepare


class Footage:
    """Frames of one video, and the face meshes in them, which are searched when they are first asked for."""

    def __init__(self, frames_THWC: np.ndarray, finder: LandmarkFinder | None) -> None:
        self.frames_THWC, self.finder = frames_THWC, finder

    def __len__(self) -> int:
        return len(self.frames_THWC)

    @cached_property
    def mesh_TN3(self) -> np.ndarray | None:
        """[T, 468, 3] in pixels, NaN where no face is; None if it is not to be looked for."""
        return None if self.finder is None else self.finder.meshes(self.frames_THWC)

    @cached_property
    def faces(self) -> np.ndarray | None:
        """`mesh_TN3` with short gaps interpolated; None if it was not looked for, or a face is in too few frames."""
        if self.mesh_TN3 is None:
            return None
        if np.isfinite(self.mesh_TN3).all((1, 2)).mean() < MIN_FOUND:
            return None
        return fill_gaps(self.mesh_TN3.reshape(len(self), -1)).reshape(self.mesh_TN3.shape)

    @cached_property
    def pose_TP(self) -> np.ndarray | None:
        """Head pose measured as `datasets.prepare` does (rad, mm); the camera looks at the picture's middle."""
        if self.faces is None:
            return None
        centre = (BOX_SIZE / 2, BOX_SIZE / 2 * self.frames_THWC.shape[1] / self.frames_THWC.shape[2])
        return smooth(pose_of(self.faces * self.to_256, FOCAL_LENGTH, centre)).astype(np.float32)

    @property
    def to_256(self) -> float:
        """Pixels -> pixels of a picture 256 wide."""
        return BOX_SIZE / self.frames_THWC.shape[2]

    def cut(self, frames: int) -> "Footage":
        """The first `frames` frames; meshes already found are kept."""
        if frames == len(self):
            return self
        part = Footage(self.frames_THWC[:frames], self.finder)
        if "mesh_TN3" in self.__dict__ and self.mesh_TN3 is not None:
            part.__dict__["mesh_TN3"] = self.mesh_TN3[:frames]
        return part


@dataclass
class Truth:
    """One clip, read."""

    id: str
    identity: str  # the speaker
    sound: Path  # the file whose sound goes with the frames
    footage: Footage
    pcm: np.ndarray  # int16, 16 kHz mono, from frame 0 on; about T * 640 samples
    pose_TP: np.ndarray | None  # head pose, rad and mm; None if it is not known
    mouth_T4: np.ndarray  # mouth centre x, y, width, opening in pixels of a picture 256 wide; NaN where unknown
    clip: Clip | None = None  # the prepared clip that it is, if it is one
    keypoints: Keypoints | None = None  # N_D's of every frame, on the CPU, once it has looked
    words: list[Word] | None = None  # what is said and when, if somebody has aligned it

    def __len__(self) -> int:
        return len(self.footage)

    def features(self, setting: audio.AudioFeatureConfig) -> np.ndarray:
        """[T, A=4, F] as inference computes them: those stored with a prepared clip, if they are of this setting."""
        if self.clip is not None and load_audio_features(self.clip.folder.parents[1]) == setting:
            return self.clip.features()
        return audio.features(self.pcm, setting)


def shortened(truth: Truth, frames: int) -> Truth:
    """Its first `frames` frames, or all if it has no more; meshes and keypoints already found are kept."""
    if frames >= len(truth):
        return truth
    return replace(
        truth,
        footage=truth.footage.cut(frames),
        pose_TP=None if truth.pose_TP is None else truth.pose_TP[:frames],
        mouth_T4=truth.mouth_T4[:frames],
        keypoints=None if truth.keypoints is None else truth.keypoints.cut(0, frames),
    )


@dataclass(frozen=True)
class PreparedItem:
    """A clip of a prepared corpus, not yet read."""

    clip: Clip
    alignments: str = ""  # the folder of its words (`words_of`)

    @property
    def id(self) -> str:
        return self.clip.row.id

    @property
    def identity(self) -> str:
        return self.clip.row.identity

    @property
    def digest(self) -> str:
        words = words_of(self.clip, self.alignments)
        return self.clip.row.sha256 if words is None else f"{self.clip.row.sha256} {words}"

    def read(self, size: int | None, finder: LandmarkFinder | None) -> Truth:
        """Frames of `size` pixels (None: as prepared). Raises DataError."""
        frames_THWC = self.clip.read_frames(range(self.clip.frames), size)
        return Truth(
            id=self.id,
            identity=self.identity,
            sound=self.clip.folder / "audio.wav",
            footage=Footage(frames_THWC, finder),
            pcm=self.clip.pcm(),
            pose_TP=self.clip.pose(),
            mouth_T4=self.clip.mouth(),
            clip=self.clip,
            words=words_of(self.clip, self.alignments),
        )


@dataclass(frozen=True)
class VideoItem:
    """A video file, not yet read. What a prepared clip stores is measured in it, with `make pose-tools` only."""

    path: Path
    identity: str

    @property
    def id(self) -> str:
        return self.path.stem

    @property
    def digest(self) -> str:
        return file_digest(self.path)

    def read(self, size: int | None, finder: LandmarkFinder | None) -> Truth:
        """Frames scaled to `size` pixels of width (None: as they are). Raises DataError."""
        footage = Footage(read_video(self.path, size), finder)
        faces = footage.faces
        mouth_T4 = np.full((len(footage), 4), np.nan)
        if faces is not None:
            mouth_T4 = mouth_of(faces * footage.to_256)
        return Truth(
            id=self.id,
            identity=self.identity,
            sound=self.path,
            footage=footage,
            pcm=read_sound(self.path, len(footage)),
            pose_TP=footage.pose_TP,
            mouth_T4=mouth_T4,
        )


Item = PreparedItem | VideoItem


def read_video(path: Path, size: int | None = None) -> np.ndarray:
    """All frames at 25 a second, uint8 RGB [T, H, W, 3]; scaled to a width of `size` pixels, if given.

    Raises:
        DataError: no video, damaged, or fewer than two frames.
    """
    frames = []
    for frame in frames_of(path):
        width = frame.shape[1] if size is None else size
        frames.append(resized(frame, round(frame.shape[0] * width / frame.shape[1]), width))
    if len(frames) < 2:
        raise DataError(
            f"{path} has {len(frames)} frames at 25 a second; at least 2 are needed, the first does not count"
        )
    return np.stack(frames)


def read_sound(path: Path, frames: int) -> np.ndarray:
    """The sound of a video, or of the .wav beside it, int16 16 kHz mono, cut or continued with silence to the frames.

    Raises:
        DataError: neither has sound.
    """
    pcm = sound_of(path)
    length = frames * SAMPLES_PER_FRAME + FEATURE_TAIL_SAMPLES
    return np.pad(pcm[:length], (0, max(0, length - len(pcm))))
