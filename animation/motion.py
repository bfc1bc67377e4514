"""From sound and head poses to keypoints by N_M, streamed window by window; then the effects on them.

Windows overlap by half. The first and last quarter of a window know little of what lies beyond it, so a frame is taken
from the window in whose middle half it lies; the first window gives its first three quarters. With the paper's T = 64
this is the released program's schedule: frames 0-47 from window 0, then 32 frames a window.

Letters: T video frame, A audio window in a frame, F audio feature, P pose value, B batch, C H W picture.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from animation.head_poses import HeadPoses
from animation.models import Models
from datasets.pose import render_boxes
from modules.keypoints import Keypoints
from modules.motion_field_generator import MotionFieldGenerator, Reference


class Emission(NamedTuple):
    """Slots `first` to `stop - 1` of a window are kept; slot s of window w is frame w * window_length / 2 + s."""

    window: int
    first: int
    stop: int


def emission_schedule(num_frames: int, window_length: int) -> list[Emission]:
    """Windows to run for `num_frames` >= 1 frames, in order; together they give every frame exactly once."""
    hop, quarter = window_length // 2, window_length // 4
    schedule = []
    window = 0
    while True:
        first = 0 if window == 0 else quarter
        stop = min(window_length - quarter, num_frames - window * hop)
        schedule.append(Emission(window, first, stop))
        if window * hop + stop >= num_frames:
            return schedule
        window += 1


@torch.inference_mode()
def generate_keypoints(
    models: Models,
    generator: MotionFieldGenerator,
    image_BCHW: Tensor,
    audio_TAF: np.ndarray,
    head_poses: HeadPoses,
    windows_per_batch: int = 1,
    source: Keypoints | None = None,
) -> Iterator[Keypoints]:
    """N_M over overlapping windows (Sec. 3.3); yields the kept keypoints, in order, in float32 on the device.

    Only the maps of the windows at hand are held; each frame's audio map and pose map are computed once.

    Args:
        head_poses: in rad and mm.
        windows_per_batch: windows computed at once.
        source: keypoints of the picture, a batch of one; only a network with the relative head needs them.
    """
    config = models.motion_field_config
    hop = config.window // 2
    schedule = emission_schedule(len(audio_TAF), config.window)
    image_map = generator.image_map(image_BCHW)
    if source is not None:
        reference_box = torch.from_numpy(render_boxes(head_poses.reference_P[None])).to(models.device)
    audio_maps = pose_maps = None
    ready = 0  # frames whose maps have been computed
    for group_start in range(0, len(schedule), windows_per_batch):
        group = schedule[group_start : group_start + windows_per_batch]
        stop = group[-1].window * hop + config.window
        audio = _padded_audio(audio_TAF, ready, stop, config.audio_padding)
        boxes = render_boxes(head_poses.slice(ready, stop))
        new_audio = generator.audio_map(torch.from_numpy(audio).to(models.device)[None])[0]
        new_pose = generator.pose_map(torch.from_numpy(boxes).to(models.device)[None])[0]
        audio_maps = new_audio if audio_maps is None else torch.cat([audio_maps, new_audio])
        pose_maps = new_pose if pose_maps is None else torch.cat([pose_maps, new_pose])
        ready = stop
        starts = range(0, len(group) * hop, hop)
        reference = None
        if source is not None:
            reference = Reference(source.repeated(len(group)), reference_box.expand(len(group), -1, -1))
        field = generator.from_maps(
            image_map.expand(len(group), -1, -1, -1),
            torch.stack([audio_maps[s : s + config.window] for s in starts]),
            torch.stack([pose_maps[s : s + config.window] for s in starts]),
            reference,
        )
        for i, kept in enumerate(group):
            yield field.window(i).cut(kept.first, kept.stop)
        audio_maps, pose_maps = audio_maps[len(group) * hop :], pose_maps[len(group) * hop :]


def _padded_audio(audio_TAF: np.ndarray, start: int, stop: int, padding: str) -> np.ndarray:
    """Features of frames start to stop - 1; past the end zeros (released program) or the last frame again."""
    audio = audio_TAF[start:stop]
    after = np.zeros_like(audio_TAF[-1:]) if padding == "zeros" else audio_TAF[-1:]
    return np.concatenate([audio, np.repeat(after, stop - start - len(audio), axis=0)])


def at_rest(source: Keypoints, frames: int, chunk: int = 256) -> Iterator[Keypoints]:
    """The source's own keypoints for every frame: nothing moves."""
    for start in range(0, frames, chunk):
        yield source.repeated(min(chunk, frames - start))


def relative_to_source(chunks: Iterator[Keypoints], source: Keypoints) -> Iterator[Keypoints]:
    """The motion since the first frame, applied to the source's own keypoints (relative mode of Siarohin et al. 2019b).

    It keeps the source's proportions where absolute keypoints would pull them towards what the audio network expects.
    """
    first = None
    for chunk in chunks:
        if first is None:
            first = chunk.cut(0, 1)
        yield source.moved(first, chunk)


def expressive(chunks: Iterator[Keypoints], scale: float) -> Iterator[Keypoints]:
    """Motion within the face (lips, jaw) made `scale` times as large; the head's motion and the Jacobians stay (ours).

    The head's motion since the first frame is the similarity transform (turn, size, shift) that fits the keypoints
    best; what remains of each keypoint's motion is the face's. Networks trained with an L1 loss make that too small.
    """
    first_K = None
    for chunk in chunks:
        now_BK = torch.view_as_complex(chunk.position_BK2.contiguous())
        if first_K is None:
            first_K = now_BK[0]
        centred_K, centre_B1 = first_K - first_K.mean(), now_BK.mean(dim=1, keepdim=True)
        similarity_B1 = ((now_BK - centre_B1) * centred_K.conj()).sum(1, keepdim=True) / centred_K.abs().square().sum()
        head_BK = centre_B1 + similarity_B1 * centred_K
        yield chunk._replace(position_BK2=torch.view_as_real(head_BK + scale * (now_BK - head_BK)))
