"""A talking head live: sound in as it comes, frames out as soon as they can be known."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from animation.generate import Animator
from animation.head_poses import read_head_pose
from animation.job import Summary
from animation.motion import piece_sizes
from datasets.audio import Level
from datasets.audio_stream import AHEAD, streamed_features
from datasets.media.streams import FPS, SAMPLE_RATE


class Stream:
    """Frames of one picture that speaks what is heard, while it is heard.

        stream = Stream(Animator(models, options), Path("face.jpg"))
        for frames_NHW3 in stream.frames(blocks):  # blocks: int16 [n], 16 kHz mono, from a microphone, a queue, ...
            show(frames_NHW3)

    For the same sound the frames are those of the whole file (`Animator.animate`), but for what nobody can know in the
    middle of it; `datasets.audio_stream` says what that is, docs/STREAM.md by how much frames differ. How the sound is
    cut into blocks changes nothing. Memory does not grow.

    Blocks are taken when frames are asked for; nothing runs in the background. For sound of other rates see
    `datasets.media.live_sound`.

    Args:
        image: the picture, a file.
        head_pose: head poses to use instead of N_H's, a file; the last is held when they end.
        level: of all the sound to come, where it is known; else the loudest so far counts.

    Raises:
        DataError, OptionError: files or options that cannot be used.
    """

    def __init__(
        self, animator: Animator, image: Path, head_pose: Path | None = None, level: Level | None = None
    ) -> None:
        self.animator, self.level = animator, level
        self.summary = Summary(Path("-"))
        self.image_BCHW, full_size = animator.picture(image, self.summary)
        self.head_pose_TP = None if head_pose is None else read_head_pose(head_pose)
        with torch.inference_mode():
            self.source = animator.models.keypoint_detector(self.image_BCHW).keypoints
        self.renderer = animator.renderer(self.image_BCHW, self.source, animator.batch_size, full_size)

    @property
    def delay_s(self) -> float:
        """Seconds of sound that are heard after a frame's own before it is made; at most, computing not counted.

        At the beginning four times the look-ahead must be heard; from then on the next window's frames are made when
        its last has been heard, three times the look-ahead after its first.
        """
        return 4 * self.animator.look_ahead / FPS + AHEAD / SAMPLE_RATE

    def frames(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Frames uint8 [n, H, W, 3], RGB, 25 a second, n >= 1; after the last block what is left.

        Args:
            blocks: consecutive sound, int16 [n] each, 16 kHz mono, n of any size.
        """
        sound = streamed_features(
            blocks, piece_sizes(self.animator.look_ahead), self.animator.models.audio_features, self.level
        )
        plan = self.animator.motion_of(
            self.image_BCHW, self.source, sound, head_pose_TP=self.head_pose_TP, keep_poses=False
        )
        return self.renderer.frames(self.animator.moved(plan.chunks, self.source), ahead=False)
