"""Weights of a stage one as the beginning of one with more keypoints (ours).

Keypoints that are tied to the lips, and before them to the lids, are the last ones of both, so new ones come before
those that the old N_D had tied.
What the old keypoints did stays as it was: nothing reads the new ones yet, and their masks begin as the old ones' mean.

Letters: K keypoint; states are those of `KeypointDetector` and `ImageGenerator`.
"""

import torch
from torch import Tensor

from modules.face_points import LIPS
from modules.keypoint_detector import KeypointDetectorConfig

HOURGLASS = "dense_motion_network.hourglass."
FIRST = f"{HOURGLASS}encoder.down_blocks.0.conv.weight"
CHANNELS = 4  # of one motion at the dense motion network's input: its heatmap and the picture it moved


def old_places(old: KeypointDetectorConfig, new: int) -> list[int]:
    """Where each keypoint of an old N_D is among `new` ones."""
    count, tied = old.num_keypoints, LIPS + old.lid_keypoints
    return [*range(count - tied), *range(new - tied, new)]


def widened(
    component: str, state: dict[str, Tensor], own: dict[str, Tensor], old: KeypointDetectorConfig, new: int
) -> dict[str, Tensor]:
    """The state of a network beside the N_D `old`, in the shapes of one with `new` keypoints (first weights: `own`).

    Args:
        component: keypoint_detector or image_generator; of another the state is returned as it is.
    """
    places = old_places(old, new)
    state = {name: value.to(own[name].dtype) for name, value in state.items() if name in own}  # files may keep 16 bits
    if component == "keypoint_detector":
        return state | _detector(state, own, places)
    return state | _generator(state, own, places, new) if component == "image_generator" else state


def _detector(state: dict[str, Tensor], own: dict[str, Tensor], places: list[int]) -> dict[str, Tensor]:
    """New heatmaps begin as `own` says, new Jacobians as the identity."""
    entries = [4 * place + entry for place in places for entry in range(4)]
    rows = {"kp.weight": places, "kp.bias": places, "jacobian.weight": entries, "jacobian.bias": entries}
    return {name: own[name].index_copy(0, torch.tensor(at), state[name]) for name, at in rows.items() if name in state}


def _generator(state: dict[str, Tensor], own: dict[str, Tensor], places: list[int], new: int) -> dict[str, Tensor]:
    motions = [0, *(place + 1 for place in places)]  # the background's comes first
    inputs = [CHANNELS * motion + channel for motion in motions for channel in range(CHANNELS)]
    painted = state["dense_motion_network.occlusion.weight"].shape[1] - len(inputs)  # the hourglass's own features
    features = [*range(painted), *(painted + channel for channel in inputs)]
    found = {FIRST: _columns(state[FIRST], own[FIRST], inputs)}
    for name in ("mask", "occlusion"):
        weight = f"dense_motion_network.{name}.weight"
        found[weight] = _columns(state[weight], own[weight], features)
    for part in ("weight", "bias"):
        name = f"dense_motion_network.mask.{part}"
        old = found.get(name, state[name])
        average = old.mean(0, keepdim=True).expand(new + 1, *old.shape[1:])
        found[name] = average.index_copy(0, torch.tensor(motions), old)
    if "keypoint_maps.weight" in state:
        both = [*places, *(new + place for place in places)]  # of the driving frame, then of the source
        found["keypoint_maps.weight"] = _columns(state["keypoint_maps.weight"], own["keypoint_maps.weight"], both)
    return found


def _columns(old: Tensor, own: Tensor, places: list[int]) -> Tensor:
    """Old input channels at their new places, nothing from the others."""
    return old.new_zeros(len(old), own.shape[1], *old.shape[2:]).index_copy(1, torch.tensor(places), old)
