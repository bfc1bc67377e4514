"""From head poses and sound to keypoints by N_M, streamed window by window; and what may be done to keypoints then.

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
from modules.keypoints import Keypoints, compose_2x2, invert_2x2
from modules.motion_field_generator import MotionFieldGenerator, Reference


class Emission(NamedTuple):
    """Slots `first` to `stop - 1` of window `window` are kept; slot s of window w is frame w * window_length / 2 + s."""

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

    `source`: keypoints of the picture [1, K, 2], which only a network with the relative head needs.
    Only the maps of the windows at hand are held; each frame's audio map and pose map are computed once.
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
        field = generator.from_maps(
            image_map.expand(len(group), -1, -1, -1),
            torch.stack([audio_maps[s : s + config.window] for s in starts]),
            torch.stack([pose_maps[s : s + config.window] for s in starts]),
            None
            if source is None
            else Reference(repeated(source, len(group)), reference_box.expand(len(group), -1, -1)),
        )
        for i, kept in enumerate(group):
            jacobian = None if field.jacobian_BTK22 is None else field.jacobian_BTK22[i, kept.first : kept.stop]
            yield Keypoints(field.position_BTK2[i, kept.first : kept.stop], jacobian)
        audio_maps, pose_maps = audio_maps[len(group) * hop :], pose_maps[len(group) * hop :]


def repeated(keypoints: Keypoints, count: int) -> Keypoints:
    """One keypoint set as a batch of `count` equal ones, without a copy."""
    jacobian = keypoints.jacobian_BK22
    return Keypoints(
        keypoints.position_BK2.expand(count, -1, -1), None if jacobian is None else jacobian.expand(count, -1, -1, -1)
    )


def _padded_audio(audio_TAF: np.ndarray, start: int, stop: int, padding: str) -> np.ndarray:
    """Features of frames start to stop - 1; past the end zeros (released program) or the last frame again."""
    audio = audio_TAF[start:stop]
    after = np.zeros_like(audio_TAF[-1:]) if padding == "zeros" else audio_TAF[-1:]
    return np.concatenate([audio, np.repeat(after, stop - start - len(audio), axis=0)])


def at_rest(source: Keypoints, frames: int, chunk: int = 256) -> Iterator[Keypoints]:
    """The source's own keypoints for every frame: nothing moves."""
    for start in range(0, frames, chunk):
        yield repeated(source, min(chunk, frames - start))


def relative_to_source(chunks: Iterator[Keypoints], source: Keypoints) -> Iterator[Keypoints]:
    """Transfer motion on to the source's own keypoints: what changed since the first frame is applied to the source.

    Positions by difference, Jacobians by product, as in the relative mode of Siarohin et al. 2019b; it keeps the source's
    proportions where absolute keypoints would pull them towards what the audio network expects.
    """
    first = None
    for chunk in chunks:
        if first is None:
            first = Keypoints(chunk.position_BK2[:1], None if chunk.jacobian_BK22 is None else chunk.jacobian_BK22[:1])
        position = source.position_BK2 + chunk.position_BK2 - first.position_BK2
        jacobian = None
        if chunk.jacobian_BK22 is not None and source.jacobian_BK22 is not None:
            jacobian = compose_2x2(
                compose_2x2(chunk.jacobian_BK22, invert_2x2(first.jacobian_BK22)), source.jacobian_BK22
            )
        yield Keypoints(position, jacobian)


def expressive(chunks: Iterator[Keypoints], scale: float) -> Iterator[Keypoints]:
    """Positions moved by the face make `scale` times the way; the head's own motion and the Jacobians stay (ours).

    The head's motion since the first frame is the best similarity between the keypoints then and now (turn, size and
    place in the picture); what it leaves over is the face's: lips, jaw. Networks trained by an L1 loss play such motion
    down.
    """
    first_K = None
    for chunk in chunks:
        now_BK = torch.view_as_complex(chunk.position_BK2.contiguous())
        if first_K is None:
            first_K = now_BK[0]
        centred_K, centre_B1 = first_K - first_K.mean(), now_BK.mean(dim=1, keepdim=True)
        similarity_B1 = ((now_BK - centre_B1) * centred_K.conj()).sum(1, keepdim=True) / centred_K.abs().square().sum()
        head_BK = centre_B1 + similarity_B1 * centred_K
        yield Keypoints(torch.view_as_real(head_BK + scale * (now_BK - head_BK)), chunk.jacobian_BK22)
