"""Which frame comes from which window, and the effects on keypoints."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from animation.generate import moving_generator
from animation.head_poses import PredictedHeadPoses
from animation.models import load_models
from animation.motion import Step, expressive, generate_keypoints, piece_sizes, relative_to_source, steps
from animation.render import rebatch
from animation.weights import DEMO_WEIGHTS
from engine.checkpoint import save_weights
from engine.device import computes_bf16
from modules.face_points import with_lips_apart
from modules.keypoints import Keypoints


def moving(frames: int, seed: int = 0) -> Keypoints:
    generator = torch.Generator().manual_seed(seed)
    position = torch.rand(1, 4, 2, generator=generator) - 0.5 + 0.1 * torch.randn(frames, 4, 2, generator=generator)
    return Keypoints(position, torch.eye(2) + 0.1 * torch.randn(frames, 4, 2, 2, generator=generator))


def in_chunks(keypoints: Keypoints, *lengths: int):
    stops = list(itertools.accumulate(lengths, initial=0))
    return (keypoints.cut(start, stop) for start, stop in itertools.pairwise(stops))


def test_windows_are_the_released_programs_schedule():
    """Frames 0-47 from frames 0-63, then 32 of each window, which begins 32 frames after the one before."""
    first = list(itertools.islice(steps(64, 16), 3))
    assert first == [Step(0, 64, 0, 48), Step(32, 96, 48, 80), Step(64, 128, 80, 112)]


@pytest.mark.parametrize("look_ahead", [1, 5, 8])
def test_windows_give_every_frame_once_and_hear_as_far_as_was_asked(look_ahead):
    some_steps = list(itertools.islice(steps(32, look_ahead), 40))
    assert [step.first for step in some_steps] == [0, *(step.stop for step in some_steps[:-1])]
    for step, size in zip(some_steps, itertools.accumulate(piece_sizes(look_ahead)), strict=False):
        assert step.heard == size == step.stop + look_ahead
        assert step.start <= step.first and step.heard <= step.start + 32


@pytest.fixture(scope="module")
def models(tmp_path_factory, small_weights):
    path = tmp_path_factory.mktemp("models") / "model.safetensors"
    save_weights(path, small_weights(64))
    return load_models([path], torch.device("cpu"))


def keypoints(models, pieces, look_ahead=0, windows=1, generator=None) -> Keypoints:
    generator = generator or models.motion_field_generator
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    poses = PredictedHeadPoses(models, image)
    return Keypoints.cat(generate_keypoints(models, generator, image, pieces, poses, look_ahead, windows))


def features(frames: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((frames, 4, 41)).astype(np.float32)


@pytest.mark.parametrize(("frames", "look_ahead"), [(1, 0), (49, 0), (50, 8)])
def test_how_the_sound_is_cut_changes_nothing(models, frames, look_ahead):
    audio_TAF = features(frames)
    whole = keypoints(models, [audio_TAF], look_ahead)
    assert len(whole.position_BK2) == frames
    one_by_one = keypoints(models, (audio_TAF[i : i + 1] for i in range(frames)), look_ahead)
    odd = keypoints(models, [audio_TAF[:7], audio_TAF[7:7], audio_TAF[7:]], look_ahead)
    assert torch.equal(whole.position_BK2, one_by_one.position_BK2) and torch.equal(whole[0], odd[0])


def test_the_demo_model_hears_in_pieces_and_past_the_end():
    """A network without Hourglass-3D, whose maps have other shapes."""
    demo = load_models([DEMO_WEIGHTS], torch.device("cpu"))
    shape = (21, 4, demo.audio_features.count)
    audio_TAF = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        source = demo.keypoint_detector(image).keypoints

    def found(*pieces: np.ndarray) -> Keypoints:
        poses = PredictedHeadPoses(demo, image)
        chunks = generate_keypoints(demo, demo.motion_field_generator, image, pieces, poses, 4, 1, source)
        return Keypoints.cat(list(chunks))

    whole, cut = found(audio_TAF), found(audio_TAF[:2], audio_TAF[2:20], audio_TAF[20:])
    assert len(whole.position_BK2) == 21 and torch.equal(whole.position_BK2, cut.position_BK2)


def test_several_windows_at_once_are_the_same_but_for_rounding(models):
    one, two = (keypoints(models, [features(60)], windows=windows).position_BK2 for windows in (1, 2))
    assert one.shape == two.shape
    assert ((one - two).abs() < 1e-4).float().mean() > 0.98  # untrained heatmaps have near ties


CONVOLUTIONS = (torch.nn.Conv3d, torch.nn.ConvTranspose3d)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_motion_field_is_computed_in_the_precision_that_is_asked_for(models, device):
    """Prepared for a GPU, Hourglass-3D is plain torch under autocast, which a CPU computes, too."""
    asked = {None: torch.float32, torch.bfloat16: torch.float32}
    if device == "cuda" or (computes_bf16(models.device) and not torch.ops.mkldnn._is_mkldnn_acl_supported()):
        asked[torch.bfloat16] = torch.bfloat16
    if device == "cuda":
        asked[torch.float16] = torch.float32
    for dtype, wanted in asked.items():
        seen, generator = [], moving_generator(replace(models, device=torch.device(device)), dtype)
        for module in generator.predictor.modules():
            if isinstance(module, CONVOLUTIONS) or (device == "cpu" and not list(module.children())):
                module.register_forward_hook(lambda m, given, output, seen=seen: seen.append(output.dtype))
        found = keypoints(models, [features(3)], generator=generator)
        assert set(seen) == {wanted} and found.position_BK2.dtype == torch.float32


def test_keypoints_come_as_soon_as_they_can_be_known(models):
    """With 16 frames of look-ahead the first 48 come when 64 have been heard, 32 more 32 frames later; the rest wait
    for the end."""
    heard, audio_TAF = [], features(100)

    def microphone():
        for i in range(len(audio_TAF)):
            heard.append(i)
            yield audio_TAF[i : i + 1]

    image = torch.rand(1, 3, 64, 64)
    poses = PredictedHeadPoses(models, image)
    chunks = generate_keypoints(models, models.motion_field_generator, image, microphone(), poses)
    assert [(len(chunk.position_BK2), len(heard)) for chunk in chunks] == [(48, 64), (32, 96), (20, 100)]


def test_relative_motion_starts_from_the_sources_keypoints_and_goes_on_across_chunks():
    source, driving = moving(1, seed=1), moving(7)
    relative = Keypoints.cat(relative_to_source(in_chunks(driving, 3, 4), source))
    assert torch.allclose(relative.position_BK2[:1], source.position_BK2, atol=1e-6)
    shift = driving.position_BK2 - driving.position_BK2[:1]
    assert torch.allclose(relative.position_BK2 - source.position_BK2, shift, atol=1e-6)


def test_relative_motion_of_closed_lips_keeps_how_far_they_are_apart():
    source, driving = moving(1, seed=1), moving(7)
    chunks = relative_to_source(in_chunks(driving, 3, 4), source, closed_lips=True)
    position = Keypoints.cat(chunks).position_BK2
    plain = Keypoints.cat(relative_to_source(in_chunks(driving, 3, 4), source)).position_BK2
    assert torch.equal(position[:, :-2], plain[:, :-2])
    across = source.position_BK2[:, 1] - source.position_BK2[:, 0]
    assert torch.allclose(position[0, 1] - position[0, 0], across[0], atol=1e-6)
    lips = torch.tensor([[[-0.2, 0.3], [0.2, 0.3], [0.0, 0.25], [0.0, 0.3]]])  # they speak, the head stays
    speaking = with_lips_apart(lips.expand(5, -1, -1), torch.tensor([3.0, 1.0, 2.0, 4.0, 1.5]))
    spoken = Keypoints(speaking, None)
    (moved,) = relative_to_source(iter([spoken]), Keypoints(lips, None), closed_lips=True)
    assert torch.allclose(moved.position_BK2, speaking, atol=1e-6)
    again = Keypoints(moved.position_BK2, None)  # as a saved motion is rendered
    (same,) = relative_to_source(iter([again]), Keypoints(lips, None), closed_lips=True)
    assert torch.allclose(same.position_BK2, speaking, atol=1e-6)


def test_expression_grows_while_the_head_moves_as_before():
    """A turn, growth and shift of all keypoints is the head's; one keypoint's own motion is the face's."""
    first = moving(1).position_BK2
    angle, size, shift = torch.tensor(0.3), 1.2, torch.tensor([0.1, -0.2])
    turn = size * torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    head = first @ turn.T + shift
    jacobian = torch.eye(2).expand(2, 4, 2, 2)
    (rigid,) = expressive(iter([Keypoints(torch.cat([first, head]), jacobian)]), 3.0)
    assert torch.allclose(rigid.position_BK2[1:], head, atol=1e-5)
    spoken = first.clone()
    spoken[0, 3, 1] += 0.05
    (louder,) = expressive(iter([Keypoints(torch.cat([first, spoken]), jacobian)]), 3.0)
    (same,) = expressive(iter([Keypoints(torch.cat([first, spoken]), jacobian)]), 1.0)
    assert torch.allclose(same.position_BK2[1:], spoken, atol=1e-6)
    opening = (louder.position_BK2[1, 3, 1] - louder.position_BK2[1, :3, 1].mean()).item()
    assert opening - (first[0, 3, 1] - first[0, :3, 1].mean()).item() > 0.07
    assert louder.jacobian_BK22 is jacobian
    rest = Keypoints(first, jacobian[:1])  # of a face that already speaks in the first frame
    (from_rest,) = expressive(iter([Keypoints(spoken, jacobian[:1])]), 3.0, rest)
    assert torch.equal(from_rest.position_BK2, louder.position_BK2[1:])


@pytest.mark.parametrize("jacobians", [True, False])
def test_batches_have_one_size_and_say_how_many_are_real(jacobians):
    whole = moving(7)
    whole = whole if jacobians else Keypoints(whole.position_BK2, None)
    of_each_chunk = list(rebatch(in_chunks(whole, 2, 4, 1), 3))
    assert [[count for _, count in batches] for batches in of_each_chunk] == [[], [3, 3], [], [1]]
    batches = [batch for batches in of_each_chunk for batch in batches]
    assert all(len(batch.position_BK2) == 3 for batch, _ in batches)
    real = Keypoints.cat(batch.cut(0, count) for batch, count in batches)
    assert torch.equal(real.position_BK2, whole.position_BK2)
    assert (real.jacobian_BK22 is None) or torch.equal(real.jacobian_BK22, whole.jacobian_BK22)
    assert torch.equal(batches[-1][0].position_BK2, whole.position_BK2[6:].expand(3, -1, -1))
