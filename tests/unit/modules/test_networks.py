"""The four networks: shapes, and the properties that the method rests on. Small sizes, random weights."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from datasets.face.rigid_pose import rotation_matrix
from datasets.pose import project
from modules import fuse
from modules.blocks import AntiAliasDownsample, UpBlock
from modules.face_points import lip_motion, with_closed_lips, with_lips_apart
from modules.fourier import FourierConvs
from modules.fuse import RowsFirstConv, enlarging_conv, fuse_for_inference
from modules.head_motion_predictor import HeadMotionPredictor, HeadMotionPredictorConfig, MotionState
from modules.image_generator import (
    DenseMotionConfig,
    ImageGenerator,
    ImageGeneratorConfig,
    added_parts,
    position_maps,
    starting_state,
)
from modules.keypoint_detector import KeypointDetector, KeypointDetectorConfig
from modules.keypoints import Keypoints, coordinate_grid, gaussian_heatmaps, invert_2x2, soft_argmax
from modules.motion_field_generator import MotionFieldGenerator, MotionFieldGeneratorConfig
from modules.perceptual import ImagePyramid
from modules.relative_head import DEPTH_MM, CarriedByHead, Reference, RelativeHead, box_moments
from modules.rigid import FOCAL
from modules.winograd import WinogradConv
from tests.untrained import randomise_norms

SMALL_HEAD = HeadMotionPredictorConfig(embedding=16, resnet_width=4, resnet_depths=(1, 1))
SMALL_FIELD = MotionFieldGeneratorConfig(
    image_size=64, map_size=32, window=32, block_expansion=4, max_features=8, num_blocks=2, num_keypoints=3
)
SMALL_DENSE = DenseMotionConfig(scale_factor=0.5, block_expansion=4, max_features=8, num_blocks=2)
SMALL_GENERATOR = ImageGeneratorConfig(
    image_size=64,
    num_keypoints=3,
    block_expansion=4,
    max_features=8,
    num_bottleneck_blocks=1,
    dense_motion=SMALL_DENSE,
)


def small_generator(**changes):
    torch.manual_seed(0)
    return randomise_norms(ImageGenerator(replace(SMALL_GENERATOR, **changes))).eval()


def keypoints(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    position = torch.rand(count, 3, 2, generator=generator) - 0.5
    jacobian = torch.eye(2) + 0.1 * torch.randn(count, 3, 2, 2, generator=generator)
    return Keypoints(position, jacobian)


# ---- keypoints


def test_grid_has_x_first_and_exact_corners():
    grid = coordinate_grid(3, 5, torch.zeros(1))
    assert grid[0, 0].tolist() == [-1, -1] and grid[0, 4].tolist() == [1, -1] and grid[2, 0].tolist() == [-1, 1]


def test_soft_argmax_of_a_peak_is_its_place():
    heatmap = torch.zeros(1, 1, 9, 9)
    heatmap[0, 0, 2, 6] = 1
    assert torch.allclose(soft_argmax(heatmap), torch.tensor([[[0.5, -0.5]]]))
    gaussian = gaussian_heatmaps(torch.tensor([[[0.5, -0.5]]]), 9, 9)
    assert gaussian[0, 0].argmax() == 2 * 9 + 6 and gaussian.max() == 1


def test_inverse_of_2x2():
    matrix = torch.randn(5, 4, 2, 2, dtype=torch.float64)
    assert torch.allclose(invert_2x2(matrix) @ matrix, torch.eye(2, dtype=torch.float64).expand_as(matrix))


def test_downsampling_keeps_constants_and_every_fourth_pixel_centre():
    down = AntiAliasDownsample(3, 0.25)
    small = down(torch.full((1, 3, 64, 64), 0.7))
    assert small.shape == (1, 3, 16, 16)
    assert torch.allclose(small[:, :, 2:-2, 2:-2], torch.tensor(0.7))
    impulse = torch.zeros(1, 3, 64, 64)
    impulse[..., 32, 32] = 1
    assert down(impulse)[0, 0].argmax() == 8 * 16 + 8
    with pytest.raises(ValueError, match="1/n"):
        AntiAliasDownsample(3, 0.3)


@pytest.mark.parametrize(("scale", "separable"), [(0.5, False), (0.25, True), (0.125, True)])
def test_the_pyramids_large_blurs_run_as_rows_and_columns(scale, separable):
    """The same to rounding as the kernel itself, for k + k taps instead of k * k."""
    torch.manual_seed(0)
    (down,), image = ImagePyramid((scale,)).levels, torch.rand(2, 3, 64, 64)
    whole = F.conv2d(image, down.weight, stride=down.stride, padding=down.taps // 2, groups=3)
    torch.testing.assert_close(down(image), whole, atol=2e-6, rtol=0)
    with FlopCounterMode(display=False) as counter:
        down(image)
    taps = down.taps * (1 + down.stride) if separable else down.taps**2  # rows are made at the full height
    assert counter.get_total_flops() == 2 * whole.numel() * taps


def test_downsampling_and_ssim_stay_exact_under_autocast():
    """In bfloat16 the variances of SSIM cancel to noise; a training run ended in NaN this way."""
    from modules.losses import ssim_map

    torch.manual_seed(0)
    a = 0.8 + 0.01 * torch.rand(1, 3, 32, 32)
    b = a + 0.01 * torch.rand(1, 3, 32, 32)
    down = AntiAliasDownsample(3, 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        similarity, small = ssim_map(a, b), down(a)
    assert torch.equal(similarity, ssim_map(a, b)) and torch.equal(small, down(a))


# ---- head motion predictor


class Operations(TorchDispatchMode):
    """Counts what is handed to a device: each is a kernel or more on a GPU."""

    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += 1
        return operation(*args, **(kwargs or {}))


def test_eq_1_written_out_is_torchs_lstm():
    """Over frames, and over chunks of frames whose state is carried on."""
    torch.manual_seed(0)
    predictor = HeadMotionPredictor(replace(SMALL_HEAD, lstm_layers=3)).eval()
    audio, embedding, hidden, wanted = torch.randn(2, 9, 16), torch.randn(2, 16), None, []
    reference = embedding
    for audio_BE in audio.unbind(1):
        step, hidden = predictor.lstm(torch.cat([audio_BE, embedding], -1)[:, None], hidden)
        embedding = step[:, 0]
        wanted.append(embedding)
    state, parts = MotionState(None, reference, reference), []
    for chunk in (audio[:, :4], audio[:, 4:5], audio[:, 5:]):
        part, hidden_now = predictor._transit(chunk, state)
        state = MotionState(hidden_now, part[:, -1], reference)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), torch.stack(wanted, 1), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.stack(state.hidden), torch.stack(hidden), atol=1e-6, rtol=0)


def test_a_frame_of_eq_1_is_few_operations_forward_and_back():
    """A product and a few curves a layer; what can be done for all frames at once is. No other loop of this project
    starts so many kernels, and each keeps a GPU waiting."""
    predictor = HeadMotionPredictor(SMALL_HEAD)
    state = MotionState(None, torch.randn(1, 16), torch.randn(1, 16))

    def operations(frames):
        with Operations() as forward:
            embeddings, _ = predictor._transit(torch.randn(1, frames, 16), state)
        with Operations() as back:
            embeddings.sum().backward()
        return np.array([forward.count, back.count])

    assert ((operations(30) - operations(10)) / 20 < [2 * 7 + 1, 2 * 6 + 1]).all()


def test_head_motion_has_one_more_row_than_frames_and_hears_only_the_past():
    torch.manual_seed(0)
    predictor = HeadMotionPredictor(SMALL_HEAD).eval()
    image, audio = torch.rand(2, 3, 64, 64), torch.randn(2, 10, 4, 41)
    changed = audio.clone()
    changed[:, 6] += 5
    with torch.no_grad():
        a, b = predictor(image, audio), predictor(image, changed)
    assert a.shape == (2, 11, 6)
    assert torch.equal(a[:, :7], b[:, :7])  # rows 0 to 6 have heard frames up to 5
    assert (a[:, 7:] - b[:, 7:]).abs().amax(dim=(0, 2)).min() > 0


@pytest.mark.parametrize("transition", [True, False], ids=["SET", "without SET"])
def test_head_motion_in_chunks_equals_the_whole(transition):
    torch.manual_seed(0)
    predictor = HeadMotionPredictor(
        HeadMotionPredictorConfig(
            embedding=16, resnet_width=4, resnet_depths=(1, 1), spatial_embedding_transition=transition
        )
    ).eval()
    image, audio = torch.rand(1, 3, 64, 64), torch.randn(1, 11, 4, 41)
    with torch.no_grad():
        whole = predictor(image, audio)
        row, state = predictor.start(image)
        rows = [row[:, None]]
        for part in audio.split(4, dim=1):
            poses, state = predictor.advance(part, state)
            rows.append(poses)
    assert torch.allclose(torch.cat(rows, dim=1), whole, atol=1e-6)


def test_spatial_embedding_transition_feeds_the_last_embedding_back():
    """Eq. 1: without e_{i-1} in step i the poses must change, and only with SET does e_0 reach them through steps."""
    torch.manual_seed(0)
    predictor = HeadMotionPredictor(SMALL_HEAD).eval()
    audio = torch.randn(1, 3, 4, 41)
    with torch.no_grad():
        _, state = predictor.start(torch.rand(1, 3, 64, 64))
        first, after = predictor.advance(audio[:, :1], state)
        second, _ = predictor.advance(audio[:, 1:2], after)
        cut, _ = predictor.advance(audio[:, 1:2], after._replace(embedding_BE=torch.zeros(1, 16)))
        kept, _ = predictor.advance(audio[:, 1:2], after._replace(reference_BE=torch.zeros(1, 16)))
    assert not torch.allclose(second, cut)
    assert torch.equal(second, kept)
    expected = predictor.output(after.embedding_BE)  # Eq. 2: the embedding is what is decoded
    assert torch.allclose(first[:, 0], expected)


def test_picture_decides_the_first_row_alone():
    torch.manual_seed(0)
    predictor = HeadMotionPredictor(SMALL_HEAD).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        a, b = predictor(image, torch.randn(1, 2, 4, 41)), predictor(image, torch.randn(1, 2, 4, 41))
        other = predictor(image * 0.2, torch.randn(1, 2, 4, 41))
    assert torch.equal(a[:, 0], b[:, 0]) and not torch.allclose(a[:, 0], other[:, 0])


# ---- motion field generator


def test_motion_field_shapes_and_start():
    torch.manual_seed(0)
    generator = MotionFieldGenerator(SMALL_FIELD).eval()
    box = torch.randint(0, 2, (2, 32, 256, 256), dtype=torch.uint8) * 255
    field = generator(torch.rand(2, 3, 64, 64), torch.randn(2, 32, 4, 41), box)
    assert field.position_BTK2.shape == (2, 32, 3, 2)
    assert field.heatmap_BTKHW.shape == (2, 32, 3, 26, 26)
    assert torch.allclose(field.heatmap_BTKHW.sum((-1, -2)), torch.ones(2, 32, 3), atol=1e-5)
    assert field.position_BTK2.abs().max() <= 1
    assert torch.allclose(field.jacobian_BTK22, torch.eye(2).expand(2, 32, 3, 2, 2), atol=1e-5)  # Jacobians start at I


def test_motion_field_depends_on_each_of_its_inputs():
    torch.manual_seed(0)
    generator = randomise_norms(MotionFieldGenerator(SMALL_FIELD)).eval()
    image, audio = torch.rand(1, 3, 64, 64), torch.randn(1, 32, 4, 41)
    box = torch.zeros(1, 32, 256, 256)
    box[:, :, 100:140, 100:140] = 255
    base = generator(image, audio, box).position_BTK2
    for changed in ((image * 0.5, audio, box), (image, audio * 2, box), (image, audio, box.flip(-1).roll(30, -2))):
        assert (generator(*changed).position_BTK2 - base).abs().max() > 1e-5


def test_without_jacobians_there_are_none():
    config = MotionFieldGeneratorConfig(
        image_size=64, map_size=32, window=32, block_expansion=4, max_features=8, num_blocks=2, jacobians=False
    )
    generator = MotionFieldGenerator(config)
    assert not any("jacobian" in key for key in generator.state_dict())
    maps = torch.rand(1, 3, 32, 32), torch.randn(1, 32, 2, 32, 32), torch.rand(1, 32, 32, 32)
    assert generator.from_maps(*maps).jacobian_BTK22 is None


RELATIVE_FIELD = replace(SMALL_FIELD, relative_head=True, normalise_audio=True)


def reference_keypoints(batch):
    position = torch.rand(batch, SMALL_FIELD.num_keypoints, 2) - 0.5
    return Keypoints(position, torch.eye(2) + 0.1 * torch.randn(batch, SMALL_FIELD.num_keypoints, 2, 2))


def test_the_relative_head_starts_from_the_references_keypoints():
    torch.manual_seed(0)
    generator = MotionFieldGenerator(RELATIVE_FIELD).eval()
    reference = Reference(reference_keypoints(2), torch.zeros(2, 256, 256, dtype=torch.uint8))
    box = torch.randint(0, 2, (2, 32, 256, 256), dtype=torch.uint8) * 255
    field = generator(torch.rand(2, 3, 64, 64), torch.randn(2, 32, 4, 41), box, reference)
    keypoints = reference.keypoints
    assert torch.equal(field.position_BTK2, keypoints.position_BK2[:, None].expand(-1, 32, -1, -1))
    assert torch.equal(field.jacobian_BTK22, keypoints.jacobian_BK22[:, None].expand(-1, 32, -1, -1, -1))
    assert field.heatmap_BTKHW is None


def test_without_hourglass_sound_poses_and_the_references_shape_are_what_moves_keypoints():
    torch.manual_seed(0)
    generator = MotionFieldGenerator(replace(RELATIVE_FIELD, hourglass=False)).eval()
    assert not any(name.startswith(("predictor", "embedding")) for name in generator.state_dict())
    audio, image = torch.randn(2, 32, 4, 41), torch.rand(2, 3, 64, 64)
    pose = torch.tensor([0.1, 0, 0, 20.0, 30, 300]).repeat(2, 32, 1)
    reference = Reference(reference_keypoints(2), pose[:, 0])
    field = generator(image, audio, pose, reference)
    keypoints = reference.keypoints
    assert torch.allclose(field.position_BTK2, keypoints.position_BK2[:, None].expand(-1, 32, -1, -1), atol=1e-5)
    assert torch.equal(field.jacobian_BTK22, keypoints.jacobian_BK22[:, None].expand(-1, 32, -1, -1, -1))
    torch.nn.init.normal_(generator.relative_head.listeners[0].change.weight)
    torch.nn.init.normal_(generator.relative_head.carry.turn.weight)
    moved = generator(image, audio, pose, reference).position_BTK2 - keypoints.position_BK2[:, None]
    assert moved.abs().max() > 0.01
    wider = keypoints._replace(position_BK2=2 * keypoints.position_BK2)
    others = {
        "sound": generator(image, audio + 1, pose, reference),
        "pose": generator(image, audio, pose + 0.1, reference),
        "shape": generator(image, audio, pose, reference._replace(keypoints=wider)),
    }
    for what, other in others.items():
        start = wider if what == "shape" else keypoints
        assert not torch.allclose(other.position_BTK2 - start.position_BK2[:, None], moved, atol=1e-3), what
    shifted = keypoints._replace(position_BK2=keypoints.position_BK2 + 0.2)  # the same face elsewhere
    again = generator(image, audio, pose, reference._replace(keypoints=shifted)).position_BTK2
    assert torch.allclose(again - shifted.position_BK2[:, None], moved, atol=1e-4)


def test_keypoints_are_carried_as_points_of_the_head_that_the_pose_moves():
    """True points of a turning head, found in the picture by their depths, are where the camera sees them."""
    torch.manual_seed(0)
    carried = CarriedByHead(num_keypoints=5, jacobians=False)
    place_K3 = 40 * torch.randn(5, 3)
    with torch.no_grad():
        carried.by_place[:, 0, 0] = place_K3[:, 2] / DEPTH_MM
    pose_TP = torch.randn(7, 6) * torch.tensor([0.3, 0.3, 0.3, 20, 20, 30]) + torch.tensor([0, 0, 0, 0, 0, 300.0])
    wanted = [project(place_K3.numpy(), np.concatenate([axis_angle(pose[:3]), pose[3:]])) for pose in pose_TP.numpy()]
    wanted_TK2 = torch.from_numpy(np.stack(wanted) / 128 - 1).float()
    change = carried(pose_TP[None], pose_TP[None, :1], wanted_TK2[:1])[0]
    assert torch.allclose(change, wanted_TK2 - wanted_TK2[:1], atol=1e-4)
    with torch.no_grad():
        carried.by_place[2, 0, 1] = 1  # not of the head
    change = carried(pose_TP[None], pose_TP[None, :1], wanted_TK2[:1])[0]
    assert change[:, 2].abs().max() == 0 and change[1:, 3].abs().min() > 0


def test_what_a_keypoint_is_depends_on_where_it_lies():
    """Behind the head's middle by 5 cm at its top and as far before it at its chin, and down there not of the head."""
    carried = CarriedByHead(num_keypoints=2, jacobians=False)
    with torch.no_grad():
        carried.by_place[:, 2] = torch.tensor([-50 / DEPTH_MM, 1])  # of y
    pose = torch.tensor([[0, 0, 0, 30, 0, 600.0]])
    places_K2 = torch.tensor([[0, -100.0], [0, 100]])  # mm
    position = (places_K2 + pose[0, 3:5]) * FOCAL / 600
    depth_BK, share_BK = carried.of_places(position[None], pose)
    assert torch.allclose(depth_BK, torch.tensor([[50.0, -50]]), atol=1e-3)
    assert torch.allclose(share_BK, torch.tensor([[1.25, 0]]), atol=1e-5)  # no more than that


def axis_angle(angle_3):
    return cv2.Rodrigues(rotation_matrix(angle_3[None])[0])[0][:, 0]


@pytest.mark.parametrize("turn", [(0, 1.57, 0), (0, 1.66, 0), (3.1, 0, 0), (0, 0, 3.3)])
@pytest.mark.parametrize("away", [20.0, 20_000.0])
def test_whatever_a_pose_says_carried_keypoints_stay_with_the_head(turn, away):
    torch.manual_seed(0)
    carried = CarriedByHead(num_keypoints=3, jacobians=False)
    with torch.no_grad():
        carried.by_place[:, 0, 0] = torch.tensor([-20, 0, 60]) / DEPTH_MM
    position, pose = 2 * torch.rand(1, 3, 2) - 1, torch.tensor([*turn, 0, 0, away])
    for reference in (pose, pose.new_zeros(6)):
        still = carried(reference[None, None], reference[None, None], position)
        assert still.abs().max() < 1e-3
        nudged = carried((reference + torch.tensor([0, 0.05, 0, 0, 0, 0]))[None, None], reference[None, None], position)
        assert nudged.abs().max() < 0.4
        for here, there in ((-reference, reference), (reference, -reference)):
            other = carried(here[None, None], there[None, None], position)
            assert other.isfinite().all() and other.abs().max() < 1e5


def test_carried_keypoints_are_float32_under_autocast():
    torch.manual_seed(0)
    carried = CarriedByHead(num_keypoints=3, jacobians=True)
    pose, position = torch.tensor([0.1, 0.2, 0.3, 20, 30, 300]).repeat(1, 2, 1), torch.rand(1, 3, 2)
    plain = carried(pose, 0.9 * pose[:, :1], position)
    with torch.autocast("cpu", torch.bfloat16):
        inside = carried(pose, 0.9 * pose[:, :1], position)
    assert inside.dtype == torch.float32 and torch.equal(inside, plain)


def test_listeners_learn_apart_and_speak_as_one():
    torch.manual_seed(0)
    config = replace(RELATIVE_FIELD, hourglass=False, listeners=3)
    generator = MotionFieldGenerator(config)
    head = generator.relative_head
    for listener in head.listeners:
        torch.nn.init.normal_(listener.change.weight)
    audio, pose = torch.randn(6, 32, 4, 41), torch.zeros(6, 32, 6) + 300
    reference = Reference(reference_keypoints(6), pose[:, 0])
    generator(torch.rand(6, 3, 64, 64), audio, pose, reference).position_BTK2[2:4].square().sum().backward()
    heard = [listener.listen.weight.grad.abs().sum() > 0 for listener in head.listeners]
    assert heard == [False, True, False]  # windows 2 and 3 of 6 are the second one's share

    def moved():
        return generator(torch.rand(6, 3, 64, 64), audio, pose, reference).position_BTK2

    generator.eval()
    together, each = moved(), []
    listeners = head.listeners
    for listener in listeners:
        head.listeners = torch.nn.ModuleList([listener])
        each.append(moved())
    assert torch.allclose(together, torch.stack(each).mean(0), atol=1e-5)
    assert not torch.allclose(each[0], each[1], atol=1e-2)


@pytest.mark.parametrize("wrong", [{"listeners": 0}, {"listeners": 4, "hourglass": True}])
def test_several_listeners_are_for_networks_without_hourglass(wrong):
    with pytest.raises(ValueError, match="listeners must be 1, or more with hourglass: false"):
        replace(RELATIVE_FIELD, **{"hourglass": False} | wrong)


@pytest.mark.parametrize("hourglass", [True, False])
def test_closed_lips_move_from_a_closed_mouth_however_open_the_references_is(hourglass):
    torch.manual_seed(0)
    config = replace(RELATIVE_FIELD, hourglass=hourglass, closed_lips=True, num_keypoints=6)
    generator = MotionFieldGenerator(config).eval()
    closed = with_closed_lips(torch.rand(2, 6, 2) - 0.5)
    opened = with_lips_apart(closed, lip_motion(closed)[..., 0] + 2)
    image, audio = torch.rand(2, 3, 64, 64), torch.randn(2, 32, 4, 41)
    box, pose = torch.randint(0, 2, (2, 32, 256, 256), dtype=torch.uint8) * 255, torch.zeros(2, 32, 6)
    pose[..., 5] = 300
    head = box if hourglass else pose

    def moved(position_BK2):
        jacobian = torch.eye(2).expand(2, 6, 2, 2)
        return generator(image, audio, head, Reference(Keypoints(position_BK2, jacobian), head[:, 0])).position_BTK2

    for reference in (closed, opened):  # nothing has been trained
        assert torch.allclose(moved(reference), closed[:, None].expand(-1, 32, -1, -1), atol=1e-5)
    speaks = generator.relative_head if hourglass else generator.relative_head.listeners[0]
    torch.nn.init.normal_(speaks.change.weight)
    assert not torch.allclose(moved(closed), moved(opened), atol=1e-3)  # it is told how far the mouth was open


def test_how_far_closed_lips_part_is_for_the_sound_to_say_not_for_the_head():
    torch.manual_seed(0)
    generator = MotionFieldGenerator(replace(RELATIVE_FIELD, hourglass=False, closed_lips=True, num_keypoints=6)).eval()
    torch.nn.init.normal_(generator.relative_head.listeners[0].change.weight, std=0.02)
    keypoints = Keypoints(with_closed_lips(torch.rand(2, 6, 2) - 0.5), torch.eye(2).expand(2, 6, 2, 2))
    image, audio = torch.rand(2, 3, 64, 64), torch.randn(2, 32, 4, 41)
    pose = torch.randn(2, 32, 6) * torch.tensor([0.1, 0.1, 0.1, 9, 9, 9]) + torch.tensor([0, 0, 0, 0, 0, 300.0])
    reference = Reference(keypoints, pose[:, 0])
    moved = generator(image, audio, pose, reference).position_BTK2
    still = generator(image, audio, pose[:, :1].expand(-1, 32, -1), reference).position_BTK2
    other = generator(image, audio + 1, pose, reference).position_BTK2
    assert (moved - still).abs().max() > 0.01
    assert torch.allclose(lip_motion(moved)[..., 0], lip_motion(still)[..., 0], atol=1e-3)
    assert not torch.allclose(lip_motion(moved)[..., 0], lip_motion(other)[..., 0], atol=0.1)


@pytest.mark.parametrize("wrong", [{"relative_head": False}, {"num_keypoints": 4}])
def test_closed_lips_want_the_relative_head_and_keypoints_for_the_lips(wrong):
    with pytest.raises(ValueError, match="closed_lips: true needs relative_head: true and more than the 4 keypoints"):
        replace(RELATIVE_FIELD, **{"num_keypoints": 6, "closed_lips": True} | wrong)


def test_hourglass_can_be_left_out_only_under_the_relative_head():
    with pytest.raises(ValueError, match="hourglass: false needs relative_head: true"):
        replace(SMALL_FIELD, hourglass=False)


def test_the_relative_head_reads_features_around_each_keypoint():
    """A feature that is 1 in the right half only moves the keypoint that lies there."""
    head = RelativeHead(channels=1, num_keypoints=2, jacobians=True, closed_lips=False)
    with torch.no_grad():
        head.weight[:] = torch.tensor([0.5, -0.25, 0.1, 0.0, 0.0, 0.2])
    reference = Keypoints(torch.tensor([[[-0.6, 0.0], [0.6, 0.0]]]), torch.eye(2).expand(1, 2, 2, 2))
    features = torch.zeros(1, 1, 3, 32, 32)
    features[..., 16:] = 1
    features[:, :, 2] *= 2  # the last frame
    empty = torch.zeros(1, 3, 2, 32, 32), torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    field = head.eval()(features, *empty, reference)
    moved = field.position_BTK2 - reference.position_BK2
    assert moved[:, :, 0].abs().max() < 1e-3
    assert torch.allclose(moved[0, :, 1], torch.tensor([[0.5, -0.25], [0.5, -0.25], [1.0, -0.5]]), atol=1e-3)
    wanted = torch.tensor([[1.1, 0.0], [0.0, 1.2]])
    assert torch.allclose(field.jacobian_BTK22[0, 0, 1], wanted, atol=1e-3)


def test_the_boxes_moments_follow_it():
    box = torch.zeros(1, 3, 33, 33)
    box[0, 0, 12:21, 12:21] = 1  # in the middle, half a unit wide
    box[0, 1, 12:21, 20:29] = 255  # half a unit to the right; brightness does not matter
    box[0, 2, 8:25, 8:25] = 1  # nearer: twice as wide
    middle, right, near = box_moments(box)[0]
    assert torch.allclose(middle[:2], torch.zeros(2), atol=1e-6) and torch.allclose(right[:2], torch.tensor([0.5, 0.0]))
    assert torch.allclose(right[2:], middle[2:], atol=1e-6) and 3 < near[2] / middle[2] < 4


def test_normalised_audio_forgets_each_features_scale():
    torch.manual_seed(0)
    generator = randomise_norms(MotionFieldGenerator(RELATIVE_FIELD)).train()
    audio = torch.randn(2, 32, 4, 41)
    scaled = audio * torch.logspace(-1, 3, 41) + torch.linspace(-30, 200, 41)
    assert torch.allclose(generator.audio_map(audio), generator.audio_map(scaled), atol=1e-2)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="multiples of"):
        MotionFieldGeneratorConfig(window=48)
    with pytest.raises(ValueError, match="map_size 64"):
        MotionFieldGeneratorConfig(image_size=96)


# ---- keypoint detector and image generator


def test_detector_moves_with_the_picture():
    """Shift the picture by whole cells of the small map: positions shift alike, away from the borders."""
    torch.manual_seed(0)
    config = KeypointDetectorConfig(num_keypoints=2, scale_factor=0.5, block_expansion=8, max_features=16, num_blocks=1)
    detector = randomise_norms(KeypointDetector(config)).eval()
    picture = torch.zeros(1, 3, 128, 128)
    picture[..., 40:70, 44:60] = torch.rand(3, 30, 16)
    with torch.no_grad():
        a, b = detector(picture), detector(picture.roll(8, -1))
    mass = a.heatmap_BKHW.roll(4, -1)
    assert torch.allclose(mass[..., 10:-10, 10:-10], b.heatmap_BKHW[..., 10:-10, 10:-10], rtol=0.02, atol=1e-5)


def test_equal_keypoints_give_an_identity_deformation():
    generator = small_generator(align_corners=True)
    source = keypoints(1)
    with torch.no_grad():
        rendering = generator(torch.rand(1, 3, 64, 64), source, source)
    grid = coordinate_grid(32, 32, torch.zeros(1))
    assert torch.allclose(rendering.motion.deformation_BHW2[0], grid, atol=1e-5)
    assert torch.allclose(rendering.motion.mask_BNHW.sum(1), torch.ones(1, 32, 32), atol=1e-5)


@pytest.mark.parametrize("align_corners", [True, False])
def test_the_source_skip_returns_the_source_when_nothing_moves(align_corners):
    """With corners aligned the warped source is the source; the released convention shrinks it by 64/63."""
    generator = small_generator(source_skip=True, align_corners=align_corners)
    torch.nn.init.zeros_(generator.skip.weight)
    torch.nn.init.constant_(generator.skip.bias, -30.0)  # take everything from the source
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        error = (generator(image, keypoints(1), keypoints(1)).image_BCHW - image).abs().max()
    assert (error < 1e-3) == align_corners


def test_one_source_serves_a_batch_of_driving_frames():
    generator = small_generator(source_skip=True, keypoint_maps=True)
    image, source, driving = torch.rand(1, 3, 64, 64), keypoints(1), keypoints(4, seed=1)
    with torch.no_grad():
        batch = generator.render(generator.encode(image), driving, source).image_BCHW
        for i in range(4):
            alone = generator(
                image, Keypoints(driving.position_BK2[i : i + 1], driving.jacobian_BK22[i : i + 1]), source
            )
            assert torch.allclose(alone.image_BCHW[0], batch[i], atol=1e-5)


def test_jacobians_turn_the_local_motion():
    generator = small_generator(align_corners=True)
    source, driving = keypoints(1), keypoints(1, seed=1)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        full = generator(image, driving, source)
        shift_only = generator(image, Keypoints(driving.position_BK2, None), source)
    assert (full.motion.deformation_BHW2 - shift_only.motion.deformation_BHW2).abs().max() > 1e-3


def test_affine_motion_maps_driving_keypoints_on_source_keypoints():
    from modules.dense_motion import sparse_motions

    source, driving = keypoints(1), keypoints(1, seed=1)
    driving = Keypoints(torch.tensor([[[-0.5, 0.25], [0.0, 0.0], [0.5, 0.5]]]), driving.jacobian_BK22)
    motions = sparse_motions(driving, source, 9, 9)  # (1, 4, 9, 9, 2)
    assert torch.allclose(motions[0, 0], coordinate_grid(9, 9, motions))
    for k, (row, column) in enumerate([(5, 2), (4, 4), (6, 6)]):
        assert torch.allclose(motions[0, k + 1, row, column], source.position_BK2[0, k], atol=1e-6)
    step = motions[0, 1, 5, 3] - motions[0, 1, 5, 2]  # Eq. 4: derivative J_S J_D^-1 along x, one cell = 0.25
    expected = (source.jacobian_BK22[0, 0] @ torch.linalg.inv(driving.jacobian_BK22[0, 0]))[:, 0] * 0.25
    assert torch.allclose(step, expected, atol=1e-5)


def test_keypoint_prior_is_high_at_its_keypoint_and_flat_far_away():
    from modules.dense_motion import FAR, keypoint_prior

    driving = torch.tensor([[[-0.5, 0.25], [0.0, 0.0]]])
    prior = keypoint_prior(driving, 9, 9)
    assert prior.shape == (1, 3, 9, 9)
    assert (prior[0, 0] == FAR).all()
    assert prior[0, 1, 5, 2] == prior[0, 2, 4, 4] == 0 and prior[0, 1, 5, 4] == prior[0, 2, 0, 0] == FAR


def test_keypoint_prior_moves_what_lies_at_a_keypoint_with_it():
    """Random masks mix all motions; with a strong prior the place of a driving keypoint comes from its source."""
    source, image = keypoints(1), torch.rand(1, 3, 64, 64)
    driving = Keypoints(torch.tensor([[[-25 / 31, 21 / 31], [1 / 31, 1 / 31], [21 / 31, -21 / 31]]]), None)
    off = {}
    for prior in (0.0, 4.0):
        dense = replace(SMALL_DENSE, keypoint_prior=prior)
        with torch.no_grad():
            field = small_generator(dense_motion=dense)(image, driving, source).motion.deformation_BHW2[0]
        column, row = ((driving.position_BK2[0] * 31 + 31) / 2).round().long().unbind(-1)
        off[prior] = (field[row, column] - source.position_BK2[0]).abs().max()
    assert off[4.0] < 0.01 < off[0.0]


def test_keypoint_maps_show_the_painter_what_the_warp_does_not():
    """Driving and source keypoints that move alike warp nothing: only a painter who sees places can tell."""
    image, near, far = torch.rand(1, 3, 64, 64), keypoints(1), keypoints(1, seed=2)
    for maps in (False, True):
        generator = small_generator(keypoint_maps=maps, align_corners=True)
        for parameter in (generator.dense_motion_network.occlusion.weight, generator.dense_motion_network.mask.weight):
            torch.nn.init.zeros_(parameter)
        with torch.no_grad():
            change = (generator(image, near, near).image_BCHW - generator(image, far, far).image_BCHW).abs().max()
        assert (change > 1e-3) == maps


def test_keypoint_maps_peak_at_the_keypoints():
    driving = Keypoints(torch.tensor([[[-0.5, 0.25]], [[0.0, 0.0]]]), None)
    source = Keypoints(torch.tensor([[[0.5, -0.25]]]), None)  # one for all
    maps = position_maps(driving, source, 9, 9)
    assert maps.shape == (2, 2, 9, 9)
    assert maps[0, 0, 5, 2] == maps[1, 0, 4, 4] == maps[0, 1, 3, 6] == maps[1, 1, 3, 6] == 1
    assert maps[0, 0, 5, 3] < 1e-4  # a quarter away


def test_added_parts_are_what_plain_weights_lack():
    plain, grown = small_generator(), small_generator(source_skip=True, keypoint_maps=True)
    assert added_parts(plain) == {}
    assert added_parts(grown).keys() == grown.state_dict().keys() - plain.state_dict().keys()
    grown.load_state_dict(starting_state(grown, plain.state_dict()))


# ---- rewrites for speed


@pytest.mark.parametrize("dims", [2, 3])
def test_enlarging_convolution_is_exact_up_to_the_border(dims):
    torch.manual_seed(0)
    block = randomise_norms(UpBlock(3, 5, dims=dims)).eval()
    x = torch.randn(2, 3, *[6] * dims)
    expected = block.conv(block.enlarge(x))
    assert torch.allclose(enlarging_conv(block.conv)(x), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 5, 8, 8), (1, 5, 7, 13), (1, 5, 3, 6, 4), (2, 5, 1, 5, 9)])
def test_winograds_convolution_equals_the_plain_one(shape):
    torch.manual_seed(0)
    conv = (torch.nn.Conv2d if len(shape) == 4 else torch.nn.Conv3d)(5, 6, 3, padding=1)
    x = torch.randn(shape)
    with torch.no_grad():
        assert torch.allclose(WinogradConv(conv)(x), conv(x), atol=2e-5)


@pytest.mark.parametrize("taps", [1, 3, 7])
@pytest.mark.parametrize("size", [9, 12])
def test_convolution_by_spectra_equals_the_plain_one(taps, size):
    torch.manual_seed(0)
    conv = torch.nn.Conv3d(3, 4, (taps, 7, 7), padding=(taps // 2, 0, 0))
    x = torch.randn(2, 3, 5, size, size)
    flat = torch.nn.Conv2d(3, 4, 7)
    with torch.no_grad():
        film, pictures = conv(x).transpose(1, 2).flatten(0, 1), flat(x.transpose(1, 2).flatten(0, 1))
        for convs, wanted in (([conv, flat], [film, pictures]), ([conv], [film])):
            found = FourierConvs(convs, size)(x)
            assert len(found) == len(wanted)
            assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, wanted, strict=True))


def test_convolution_row_by_row_equals_the_plain_one():
    torch.manual_seed(0)
    conv, x = torch.nn.Conv2d(4, 3, 7, padding=3), torch.randn(2, 4, 10, 12)
    with torch.no_grad():
        assert torch.allclose(RowsFirstConv(conv)(x), conv(x), atol=1e-5)


@pytest.mark.parametrize("cpu_dtype", [None, torch.float32])
def test_fused_networks_equal_the_plain_ones_and_leave_them_alone(cpu_dtype, monkeypatch):
    monkeypatch.setattr(fuse, "WINOGRAD_CHANNELS", range(1, 99))
    plain = small_generator(source_skip=True, keypoint_maps=True)
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    fused = fuse_for_inference(plain, cpu_dtype)
    kinds = {type(module) for module in fused.modules()}
    assert kinds.issuperset({WinogradConv, RowsFirstConv}) == (cpu_dtype is not None)
    inputs = torch.rand(1, 3, 64, 64), keypoints(3, seed=1), keypoints(1)
    with torch.no_grad():
        assert torch.allclose(fused(*inputs).image_BCHW, plain(*inputs).image_BCHW, atol=1e-5)
    assert all(torch.equal(before[key], value) for key, value in plain.state_dict().items())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in fused.first.modules())

    torch.manual_seed(0)
    field = randomise_norms(MotionFieldGenerator(SMALL_FIELD)).eval()
    maps = torch.rand(1, 3, 32, 32), torch.randn(1, 32, 2, 32, 32), torch.rand(1, 32, 32, 32) * 255
    with torch.no_grad():
        a, b = field.from_maps(*maps), fuse_for_inference(field, cpu_dtype).from_maps(*maps)
    np.testing.assert_allclose(a.position_BTK2, b.position_BTK2, atol=1e-4)
    np.testing.assert_allclose(a.jacobian_BTK22, b.jacobian_BTK22, atol=1e-4)


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="needs AVX-512 of the CPU")
@pytest.mark.parametrize("ours", [False, True])
def test_packed_networks_are_as_near_to_the_plain_ones_as_autocast_is(ours):
    plain = small_generator(source_skip=ours, keypoint_maps=ours)
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    packed = fuse_for_inference(plain, torch.bfloat16)
    assert not any(isinstance(m, torch.nn.Conv2d | torch.nn.BatchNorm2d) for m in packed.modules())
    inputs = torch.rand(1, 3, 64, 64), keypoints(3, seed=1), keypoints(1)
    with torch.no_grad():
        expected = plain(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            usual = plain(*inputs)
        found = packed(*inputs)
    for what in ("image_BCHW", "painted_BCHW"):
        error = (getattr(found, what) - getattr(expected, what)).square().mean().sqrt()
        usual_error = (getattr(usual, what) - getattr(expected, what)).square().mean().sqrt()
        assert 0 < error < 2 * usual_error + 1e-4, (what, error, usual_error)
    assert found.image_BCHW.dtype == found.motion.deformation_BHW2.dtype == torch.float32
    assert all(torch.equal(before[key], value) for key, value in plain.state_dict().items())
