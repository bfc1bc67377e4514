"""From sound and head poses to keypoints by N_M, window by window while the sound comes; then the effects on them.

A frame that lies near the end of a window knows little of the sound after it. So a window gives only frames after
which `look_ahead` more have been heard; the next window ends `2 look_ahead` frames later, and goes on from there. A
quarter of the window is the most, and the usual look-ahead: then windows overlap by half, a frame lies in the middle
half of its window (the first gives its first three quarters), and with the paper's T = 64 this is the released
program's schedule: frames 0-47 from window 0, then 32 frames a window. With less, frames come sooner and cost more.

Letters: T video frame, A audio window in a frame, F audio feature, P pose value, B batch, C H W picture.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from animation.head_poses import HeadPoses
from animation.models import Models
from datasets.pose import shown_head
from modules.face_points import lip_motion, with_lips_apart
from modules.keypoints import Keypoints
from modules.motion_field_generator import MotionFieldGenerator
from modules.relative_head import Reference


class Step(NamedTuple):
    """One window of N_M, in numbers of frames from the start of the sound."""

    start: int  # the window's first frame
    heard: int  # frames that it may know: the sound and the poses before this one
    first: int  # frames first to stop - 1 are kept
    stop: int


def steps(window: int, look_ahead: int) -> Iterator[Step]:
    """Windows without end; together they give every frame exactly once, in order."""
    kept = 0
    for heard in itertools.count(4 * look_ahead, 2 * look_ahead):
        yield Step(max(0, heard - window), heard, kept, heard - look_ahead)
        kept = heard - look_ahead


def piece_sizes(look_ahead: int) -> Iterator[int]:
    """How many more frames each window hears: sound that comes in these pieces is used at once."""
    return itertools.chain([4 * look_ahead], itertools.repeat(2 * look_ahead))


@torch.inference_mode()
def generate_keypoints(
    models: Models,
    generator: MotionFieldGenerator,
    image_BCHW: Tensor,
    sound: Iterable[np.ndarray],
    head_poses: HeadPoses,
    look_ahead: int = 0,
    windows_per_batch: int = 1,
    source: Keypoints | None = None,
) -> Iterator[Keypoints]:
    """N_M over overlapping windows (Sec. 3.3); yields the kept keypoints, in order, in float32 on the device.

    A window is computed as soon as its last frame has come. Only the maps of the windows at hand are held; each frame's
    audio map and pose map are computed once. How the sound is cut into pieces changes nothing.

    Args:
        sound: features of consecutive frames, each [t, A, F], t of any size.
        head_poses: in rad and mm; asked for the poses of the sound as it comes.
        look_ahead: frames heard after a frame before it is given; 0: a quarter of N_M's window, which is the most.
        windows_per_batch: windows computed at once, where the sound for them is there.
        source: keypoints of the picture, a batch of one; only a network with the relative head needs them.
    """
    config = models.motion_field_config
    maps = _Maps(models, generator, head_poses)
    image_map = generator.image_map(image_BCHW)
    pieces, ended = iter(sound), False
    due = steps(config.window, look_ahead or config.window // 4)
    ahead = next(due)
    while not ended or ahead.first < maps.heard:
        while not ended and maps.heard < ahead.heard:
            piece_TAF = next(pieces, None)
            ended = piece_TAF is None
            if piece_TAF is not None:
                maps.hear(piece_TAF)
        group = []
        while len(group) < windows_per_batch and (maps.heard >= ahead.heard or (ended and ahead.first < maps.heard)):
            group.append(ahead)
            ahead = next(due)
        if not group:
            continue
        windows = [maps.window(step.start, config.window, min(step.heard, maps.heard)) for step in group]
        reference = None
        if source is not None:
            reference = Reference(
                source.repeated(len(group)), maps.reference_head.expand(len(group), *maps.reference_head.shape[1:])
            )
        field = generator.from_maps(
            image_map.expand(len(group), -1, -1, -1),
            torch.stack([audio for audio, _ in windows]),
            torch.stack([pose for _, pose in windows]),
            reference,
        )
        for i, step in enumerate(group):
            yield field.window(i).cut(step.first - step.start, min(step.stop, maps.heard) - step.start)
        maps.forget(ahead.start)


class _Maps:
    """Audio maps and pose maps of the frames that windows still need; made in the order of the windows."""

    def __init__(self, models: Models, generator: MotionFieldGenerator, head_poses: HeadPoses):
        self.generator, self.head_poses, self.device = generator, head_poses, models.device
        self.padding = models.motion_field_config.audio_padding
        self.heard = 0  # frames whose sound has come
        self.waiting: list[np.ndarray] = []  # sound of the last of them, from frame `made` on
        self.made = self.forgotten = 0  # maps of frames forgotten to made - 1 are held
        self.last_AF: np.ndarray | None = None  # sound of frame made - 1
        self.audio_maps = self.pose_maps = None
        self.boxes = models.motion_field_config.hourglass
        self.reference_head = torch.from_numpy(shown_head(head_poses.reference_P[None], self.boxes)).to(self.device)

    def hear(self, audio_TAF: np.ndarray) -> None:
        self.waiting.append(audio_TAF)
        self.heard += len(audio_TAF)

    def window(self, start: int, length: int, known: int) -> tuple[Tensor, Tensor]:
        """Maps of frames start to start + length - 1, of which those before `known` may have been heard."""
        self._make(known)
        audio, pose = (maps[start - self.forgotten :] for maps in (self.audio_maps, self.pose_maps))
        missing = length - len(audio)
        if missing > 0:  # past the end, or not known yet: zeros (released program) or the last frame again
            after_AF = np.zeros_like(self.last_AF) if self.padding == "zeros" else self.last_AF
            after = self._mapped(after_AF[None], self.head_poses.after_P[None])
            audio, pose = (
                torch.cat([known, one.expand(missing, *one.shape[1:])])
                for known, one in zip((audio, pose), after, strict=True)
            )
        return audio, pose

    def forget(self, frame: int) -> None:
        """Drop the maps of the frames before this one."""
        drop = min(frame, self.made) - self.forgotten
        self.audio_maps, self.pose_maps = self.audio_maps[drop:], self.pose_maps[drop:]
        self.forgotten += drop

    def _make(self, known: int) -> None:
        if known <= self.made:
            return
        waiting_TAF = np.concatenate(self.waiting)
        new_TAF, rest_TAF = waiting_TAF[: known - self.made], waiting_TAF[known - self.made :]
        self.waiting = [rest_TAF] if len(rest_TAF) else []
        new = self._mapped(new_TAF, self.head_poses.follow(new_TAF))
        held = new if self.audio_maps is None else (self.audio_maps, self.pose_maps)
        if held is not new:
            new = tuple(torch.cat(pair) for pair in zip(held, new, strict=True))
        self.audio_maps, self.pose_maps = new
        self.made, self.last_AF = known, new_TAF[-1]

    def _mapped(self, audio_TAF: np.ndarray, pose_TP: np.ndarray) -> tuple[Tensor, Tensor]:
        parts = audio_TAF, shown_head(pose_TP, self.boxes)
        audio, head = (torch.from_numpy(part).to(self.device)[None] for part in parts)
        return self.generator.audio_map(audio)[0], self.generator.pose_map(head)[0]


def relative_to_source(
    chunks: Iterator[Keypoints], source: Keypoints, closed_lips: bool = False
) -> Iterator[Keypoints]:
    """The motion since the first frame, applied to the source's own keypoints (relative mode of Siarohin et al. 2019b).

    It keeps the source's proportions where absolute keypoints would pull them towards what the audio network expects.

    Args:
        closed_lips: as in N_M's configuration; how far lips are apart is then kept as it is, in the first frame too.
    """
    first = None
    for chunk in chunks:
        if first is None:
            first = chunk.cut(0, 1)
            if closed_lips:
                apart_B = lip_motion(source.position_BK2)[..., 0]
                first = first._replace(position_BK2=with_lips_apart(first.position_BK2, apart_B))
        yield source.moved(first, chunk)


def expressive(chunks: Iterator[Keypoints], scale: float, rest: Keypoints | None = None) -> Iterator[Keypoints]:
    """Motion within the face (lips, jaw) made `scale` times as large; the head's motion and the Jacobians stay (ours).

    The head's motion since the face was at rest is the similarity transform (turn, size, shift) that fits the keypoints
    best; what remains of each keypoint's motion is the face's. Networks trained with an L1 loss make that too small.

    Args:
        rest: of the face, a batch of one; None: the first frame.
    """
    first_K = None if rest is None else torch.view_as_complex(rest.position_BK2.contiguous())[0]
    for chunk in chunks:
        now_BK = torch.view_as_complex(chunk.position_BK2.contiguous())
        if first_K is None:
            first_K = now_BK[0]
        centred_K, centre_B1 = first_K - first_K.mean(), now_BK.mean(dim=1, keepdim=True)
        similarity_B1 = ((now_BK - centre_B1) * centred_K.conj()).sum(1, keepdim=True) / centred_K.abs().square().sum()
        head_BK = centre_B1 + similarity_B1 * centred_K
        yield chunk._replace(position_BK2=torch.view_as_real(head_BK + scale * (now_BK - head_BK)))
