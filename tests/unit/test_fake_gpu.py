"""Every stage's losses, and the renderer, on a GPU that only pretends: all tensors meet on one device."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import train_fomm
import train_headpose
import train_motionfield
from animation.render import Renderer
from datasets.fomm import FommBatch
from datasets.headpose import HeadPoseBatch
from datasets.motionfield import Item, MotionFieldBatch
from engine.config import load
from modules.discriminators import ImageDiscriminatorConfig, MultiScaleDiscriminator, PoseDiscriminator, only_judging
from modules.head_motion_predictor import HeadMotionPredictor
from modules.image_generator import ImageGenerator
from modules.keypoint_detector import KeypointDetector
from modules.keypoints import Keypoints
from modules.motion_field_generator import MotionFieldGenerator
from modules.perceptual import ImagePyramid, VggConfig, VggFeatures
from modules.random_warp import random_warp
from tests.fake_gpu import FakeGpu, fake_gpu

CONFIG = Path(__file__).parents[2] / "config"
BATCH = 2


@pytest.fixture(params=["cuda", "meta"])
def gpu(request: pytest.FixtureRequest) -> Iterator[FakeGpu]:
    with fake_gpu(request.param) as found:
        yield found


def settled(gpu: FakeGpu, terms: dict[str, Tensor]) -> None:
    """Losses are float32 numbers on the device, whatever autocast does, and can be gone back through."""
    for name, term in terms.items():
        assert (term.device.type, term.dtype, term.shape) == (gpu.device.type, torch.float32, ()), name
    if gpu.device.type == "meta":
        torch.stack(list(terms.values())).sum().backward()


def fomm(gpu: FakeGpu, pyramid_on: FakeGpu) -> None:
    config = load(train_fomm.Config, CONFIG / "fomm_tiny.yaml")
    weights = replace(config.weights, perceptual=1.0, pixel=1.0, mouth=1.0, adversarial=1.0, lips=1.0, lip_shape=1.0)
    detector, generator = (
        gpu.build(KeypointDetector, config.keypoint_detector),
        gpu.build(ImageGenerator, config.image_generator),
    )
    vgg, pyramid = (
        gpu.build(VggFeatures, VggConfig("vgg16", ("relu1_1",))),
        pyramid_on.build(ImagePyramid, config.pyramid),
    )
    judge = ImageDiscriminatorConfig(block_expansion=4, num_blocks=2, keypoints=config.keypoint_detector.num_keypoints)
    critic = gpu.build(MultiScaleDiscriminator, judge)
    losses = train_fomm.GeneratorLosses(detector, generator, weights, pyramid, vgg)
    size = config.image_generator.image_size
    picture, mouth = gpu.tensor(BATCH, 3, size, size, dtype=torch.uint8), gpu.tensor(BATCH, 4)
    batch = FommBatch(picture, picture, mouth, mouth, gpu.tensor(BATCH), clip=0, index=0).floats()
    warp = random_warp(range(BATCH), 0, config.warp, gpu.device)
    with only_judging(critic):
        redrawn = losses(batch, warp, critic)
    settled(gpu, redrawn.losses)
    shown = batch.driving_CHW, redrawn.image_BCHW, redrawn.position_BK2
    settled(gpu, train_fomm.DiscriminatorLosses(critic, weights)(*shown))


def test_stage_one(gpu: FakeGpu) -> None:
    fomm(gpu, pyramid_on=gpu)


def test_what_was_left_on_the_cpu_is_noticed(gpu: FakeGpu) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        fomm(gpu, pyramid_on=FakeGpu("cpu"))


@pytest.mark.parametrize("transition", [True, False])
def test_stage_two(gpu: FakeGpu, transition: bool) -> None:
    config = load(train_headpose.Config, CONFIG / "headpose_tiny.yaml")
    network = replace(config.head_motion_predictor, spatial_embedding_transition=transition)
    weights = replace(config.weights, l1=1.0)
    critic = gpu.build(PoseDiscriminator, config.discriminator)
    losses = train_headpose.PredictorLosses(gpu.build(HeadMotionPredictor, network), weights, config.ssim, first_row=1)
    window = config.data.window
    batch = HeadPoseBatch(
        image_CHW=gpu.tensor(BATCH, 3, config.image_size, config.image_size),
        audio_TAF=gpu.tensor(BATCH, window, 4, 41),
        pose_TP=gpu.tensor(BATCH, window + 1, 6),
        valid_T=gpu.tensor(BATCH, window, dtype=torch.bool),
        clip=0,
        index=0,
    )
    with only_judging(critic):
        predicted = losses(batch, critic)
    settled(gpu, predicted.losses)
    settled(gpu, train_headpose.DiscriminatorLosses(critic, weights)(predicted.wanted_BTP, predicted.pose_BTP))


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("phase_name", ["keypoints", "pixels"])
def test_stage_three(gpu: FakeGpu, phase_name: str, relative: bool) -> None:
    one = load(train_fomm.Config, CONFIG / "fomm_tiny.yaml")
    size, count = one.image_generator.image_size, one.image_generator.num_keypoints
    name = "motionfield_tiny" if phase_name == "keypoints" else "motionfield_tiny_pixels"
    config = load(train_motionfield.Config, CONFIG / f"{name}.yaml")
    network = replace(config.motion_field_generator, image_size=size, num_keypoints=count, relative_head=relative)
    stage_one = train_motionfield.StageOne(
        gpu.build(KeypointDetector, one.keypoint_detector).eval(),
        gpu.build(ImageGenerator, one.image_generator).eval(),
        size,
    )
    generator = gpu.build(MotionFieldGenerator, network)
    frames, rendered = network.window, 2
    maps = size // one_stride(stage_one.detector) - 6
    window = MotionFieldBatch(
        reference_CHW=gpu.tensor(BATCH, 3, size, size),
        reference_box_HW=gpu.tensor(BATCH, 256, 256, dtype=torch.uint8),
        audio_TAF=gpu.tensor(BATCH, frames, 4, 41),
        box_THW=gpu.tensor(BATCH, frames, 256, 256, dtype=torch.uint8),
        frames_TCHW=gpu.tensor(BATCH, rendered, 3, size, size, dtype=torch.uint8),
        chosen_R=gpu.tensor(BATCH, rendered, dtype=torch.int64),
        mouth_T4=gpu.tensor(BATCH, frames, 4),
        valid_T=gpu.tensor(BATCH, frames, dtype=torch.bool),
        clip=0,
        index=0,
        start=0,
    )
    heatmap = gpu.tensor(BATCH, frames, count, maps, maps, dtype=torch.uint8)
    item = Item(window, gpu.tensor(BATCH, frames, count, 2), gpu.tensor(BATCH, frames, count, 2, 2), heatmap, 0, 0)
    if phase_name == "keypoints":
        settled(gpu, train_motionfield.KeypointLosses(generator, config.keypoints, stage_one)(item, 1.0))
        return
    pixels = replace(config.pixels, rendered_frames=rendered, perceptual=1.0, pixel=1.0, mouth=1.0)
    vgg = gpu.build(VggFeatures, VggConfig("vgg16", ("relu1_1",)))
    losses = train_motionfield.PixelLosses(generator, pixels, stage_one, gpu.build(ImagePyramid, pixels.pyramid), vgg)
    settled(gpu, losses(item, random_warp(range(BATCH * rendered), 0, pixels.warp, gpu.device)))


def one_stride(detector: KeypointDetector) -> int:
    return detector.down.stride


def test_renderer() -> None:
    """Its own autocast, and a picture in bytes at the end."""
    with fake_gpu("cuda") as gpu, torch.autocast("cuda", enabled=False):
        config = load(train_fomm.Config, CONFIG / "fomm_tiny.yaml").image_generator
        generator, size, count = gpu.build(ImageGenerator, config).eval(), config.image_size, config.num_keypoints
        source = Keypoints(gpu.tensor(1, count, 2), gpu.tensor(1, count, 2, 2))
        picture = gpu.tensor(1, 3, size, size)
        renderer = Renderer(generator, picture, source, batch_size=4, truncate=False, dtype=torch.bfloat16)
        frames = renderer._render(gpu.tensor(4, count, 2), gpu.tensor(4, count, 2, 2))
        assert (frames.device.type, frames.dtype, frames.shape) == ("cuda", torch.uint8, (4, size, size, 3))
