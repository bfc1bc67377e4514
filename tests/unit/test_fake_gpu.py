"""Every stage's losses, update and validation, the renderer and what judges videos, on a GPU that only pretends."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import train_fomm
import train_headpose
import train_motionfield
from animation.head_poses import GivenHeadPoses
from animation.motion import generate_keypoints
from animation.render import Renderer
from datasets.fomm import FommBatch
from datasets.headpose import HeadPoseBatch
from datasets.motionfield import Item, MotionFieldBatch
from datasets.targets import TargetStore
from engine.batch_norm import RankBatchNorm
from engine.config import load
from engine.run import OptimConfig, Run, RunConfig
from evaluation.scores import identity
from evaluation.scores.fidelity import picture_scores
from evaluation.scores.networks import Networks
from evaluation.scores.sync import SyncNet, lip_sync
from modules.discriminators import ImageDiscriminatorConfig, MultiScaleDiscriminator, PoseDiscriminator, only_judging
from modules.fuse import LowPrecision
from modules.head_motion_predictor import HeadMotionPredictor
from modules.image_generator import ImageGenerator
from modules.keypoint_detector import KeypointDetector
from modules.keypoints import Keypoints
from modules.motion_field_generator import MotionFieldGenerator
from modules.part_reader import PartReaderConfig, PartReaders
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
    ours = (
        "mouth",
        "lips",
        "lip_shape",
        "lids",
        "lid_shape",
        "kept",
        "painted",
        "opening",
        "opening_features",
        "realness",
    )
    weights = replace(config.weights, perceptual=1.0, pixel=1.0, adversarial=1.0, **dict.fromkeys(ours, 1.0))
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
    teacher = gpu.build(KeypointDetector, config.keypoint_detector).eval()
    readers = gpu.build(PartReaders, PartReaderConfig(crop=16, width=4, max_width=8, num_blocks=2), True)
    losses = train_fomm.GeneratorLosses(detector, generator, weights, pyramid, vgg, teacher=teacher, true_openings=0.5)
    size = config.image_generator.image_size
    picture, mouth = gpu.tensor(BATCH, 3, size, size, dtype=torch.uint8), gpu.tensor(BATCH, 4)
    eyes = gpu.tensor(BATCH, 2, 4)
    batch = FommBatch(picture, picture, mouth, mouth, eyes, eyes, gpu.tensor(BATCH), clip=0, index=[0, 1]).floats()
    warp = random_warp(range(BATCH), 0, config.warp, gpu.device)
    with only_judging(critic):
        redrawn = losses(batch, warp, critic, readers)
    settled(gpu, redrawn.losses)
    settled(gpu, train_fomm.ReaderLosses(readers, 1.0)(batch, 0, redrawn.image_BCHW))
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


class StageThree(NamedTuple):
    config: train_motionfield.Config
    generator: MotionFieldGenerator
    stage_one: train_motionfield.StageOne
    item: Item  # a batch of windows


def stage_three(gpu: FakeGpu, phase_name: str, relative: bool, items_on: FakeGpu) -> StageThree:
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
    frames, rendered = network.window, 2
    maps = size // one_stride(stage_one.detector) - 6
    tensor = items_on.tensor
    window = MotionFieldBatch(
        reference_CHW=tensor(BATCH, 3, size, size),
        reference_head=tensor(BATCH, 256, 256, dtype=torch.uint8),
        audio_TAF=tensor(BATCH, frames, 4, 41),
        head_T=tensor(BATCH, frames, 256, 256, dtype=torch.uint8),
        frames_TCHW=tensor(BATCH, rendered, 3, size, size, dtype=torch.uint8),
        chosen_R=tensor(BATCH, rendered, dtype=torch.int64),
        mouth_T4=tensor(BATCH, frames, 4),
        valid_T=tensor(BATCH, frames, dtype=torch.bool),
        clip=0,
        index=0,
        start=0,
        reference=0,
    )
    heatmap = tensor(BATCH, frames, count, maps, maps, dtype=torch.uint8)
    position, jacobian = tensor(BATCH, frames, count, 2), tensor(BATCH, frames, count, 2, 2)
    item = Item(window, position, jacobian, position[:, 0], jacobian[:, 0], heatmap, 0, 0)
    return StageThree(config, gpu.build(MotionFieldGenerator, network), stage_one, item)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("phase_name", ["keypoints", "pixels"])
def test_stage_three(gpu: FakeGpu, phase_name: str, relative: bool) -> None:
    config, generator, stage_one, item = stage_three(gpu, phase_name, relative, items_on=gpu)
    if phase_name == "keypoints":
        settled(gpu, train_motionfield.KeypointLosses(generator, config.keypoints, stage_one)(item, 1.0))
        return
    pixels = replace(config.pixels, rendered_frames=2, perceptual=1.0, pixel=1.0, mouth=1.0)
    vgg = gpu.build(VggFeatures, VggConfig("vgg16", ("relu1_1",)))
    losses = train_motionfield.PixelLosses(generator, pixels, stage_one, gpu.build(ImagePyramid, pixels.pyramid), vgg)
    in_bf16: list[bool] = []
    stage_one.detector.register_forward_pre_hook(lambda *_: in_bf16.append(torch.is_autocast_enabled("cuda")))
    run = SimpleNamespace(settings=SimpleNamespace(seed=0), device=gpu.device)
    settled(gpu, losses(item, train_motionfield.PixelPhase(pixels).at(run, item._replace(index=range(BATCH)))))
    assert in_bf16 == [False, False]  # of the reference and of the warped frames, as in the targets


def one_stride(detector: KeypointDetector) -> int:
    return detector.down.stride


@contextlib.contextmanager
def judging() -> Iterator[None]:
    """Without gradients; reading a number of a tensor that holds none gives 0."""
    zero = mock.patch.multiple(Tensor, item=lambda _: 0.0, __float__=lambda _: 0.0, __int__=lambda _: 2)
    with zero, torch.inference_mode():
        yield


@pytest.fixture
def cuda() -> Iterator[FakeGpu]:
    with fake_gpu("cuda") as found:
        yield found


HOST = FakeGpu("cpu")  # where validation's items wait


def test_validation_of_stage_one(cuda: FakeGpu) -> None:
    config = load(train_fomm.Config, CONFIG / "fomm_tiny.yaml")
    detector = cuda.build(KeypointDetector, config.keypoint_detector).eval()
    generator = cuda.build(ImageGenerator, config.image_generator).eval()
    networks = nn.ModuleDict({"keypoint_detector": detector, "image_generator": generator})
    size = config.image_generator.image_size
    pictures = HOST.tensor(BATCH, 3, size, size)
    held_out = train_fomm.HeldOut(pictures, pictures, HOST.tensor(BATCH, 4))
    with judging():
        found = train_fomm.validate(networks, held_out, config, cuda.device)
    assert {"psnr", "source_mouth_psnr"} <= found.keys()


def test_validation_of_stage_two(cuda: FakeGpu) -> None:
    config = load(train_headpose.Config, CONFIG / "headpose_tiny.yaml")
    predictor = cuda.build(HeadMotionPredictor, config.head_motion_predictor).eval()
    window, size = config.data.window, config.image_size
    item = HeadPoseBatch(
        image_CHW=HOST.tensor(3, size, size),
        audio_TAF=HOST.tensor(window, 4, 41),
        pose_TP=HOST.tensor(window + 1, 6),
        valid_T=HOST.tensor(window, dtype=torch.bool),
        clip=0,
        index=0,
    )
    rows, valid = HOST.tensor(BATCH, window + 1, 6), HOST.tensor(BATCH, window + 1, dtype=torch.bool)
    held_out = train_headpose.HeldOut([item] * BATCH, rows, valid, HOST.tensor(6))
    networks = nn.ModuleDict({"head_motion_predictor": predictor})
    with judging():
        found = train_headpose.validate(networks, held_out, config, cuda.device)
    assert {"he", "still_he"} <= found.keys()


def test_validation_of_stage_three(cuda: FakeGpu) -> None:
    config, generator, stage_one, batch = stage_three(cuda, "keypoints", relative=True, items_on=HOST)
    first = MotionFieldBatch(*(value[0] if isinstance(value, Tensor) else value for value in batch.window))
    item = Item(first, *(value[0] for value in batch[1:6]), 0, 0)
    held_out = train_motionfield.HeldOut(None, [item] * BATCH, stage_one)
    config = replace(config, validation=replace(config.validation, rendered=2))
    networks = nn.ModuleDict({"motion_field_generator": generator.eval()})
    with judging():
        found = train_motionfield.validate(networks, held_out, config, cuda.device)
    assert {"ke", "detected_psnr"} <= found.keys()


def test_targets_of_stage_three(cuda: FakeGpu, tmp_path: Path) -> None:
    _, _, stage_one, _ = stage_three(cuda, "keypoints", relative=True, items_on=HOST)
    size = stage_one.image_size
    frames = np.zeros((3, size, size, 3), np.uint8)
    clip = SimpleNamespace(
        frames=3, row=SimpleNamespace(pictures="a"), read_frames=lambda numbers, _: frames[: len(numbers)]
    )
    here = SimpleNamespace(process_index=0, num_processes=1, wait_for_everyone=lambda: None)
    run = SimpleNamespace(
        accelerator=here,
        device=cuda.device,
        is_main=False,
        settings=SimpleNamespace(workers=0),
        until_stopped=iter,
    )

    def numpy(tensor: Tensor) -> np.ndarray:
        assert tensor.device.type == "cpu"
        return np.zeros(tensor.shape, str(tensor.dtype).removeprefix("torch."))

    store, config = TargetStore(tmp_path, "key"), train_motionfield.TargetConfig(batch_size=2)
    with judging(), mock.patch.object(Tensor, "numpy", numpy):
        train_motionfield.fill_targets(run, store, [clip], stage_one, config, heatmaps=True)
    targets = store.read("a", range(3), heatmaps=True)
    assert [array.dtype for array in targets] == [np.float32, np.float32, np.uint8]


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("relative", [True, False])
def test_keypoints_along_a_sound(cuda: FakeGpu, relative: bool, dtype: torch.dtype | None) -> None:
    config, generator, stage_one, _ = stage_three(cuda, "keypoints", relative, items_on=HOST)
    size, count = stage_one.image_size, stage_one.detector.kp.out_channels
    if dtype is not None:  # as inference does it
        generator.predictor = LowPrecision(generator.predictor, dtype)
    models = SimpleNamespace(device=cuda.device, motion_field_config=config.motion_field_generator)
    frames = config.motion_field_generator.window + 3
    poses = GivenHeadPoses(np.zeros((frames, 6), np.float32))
    sound = [np.zeros((frames, 4, 41), np.float32)]
    source = Keypoints(cuda.tensor(1, count, 2), cuda.tensor(1, count, 2, 2)) if relative else None
    picture = cuda.tensor(1, 3, size, size)
    found = Keypoints.cat(list(generate_keypoints(models, generator.eval(), picture, sound, poses, 0, 2, source)))
    assert found.position_BK2.shape == (frames, count, 2)
    assert {(part.device.type, part.dtype) for part in found} == {("cuda", torch.float32)}


@pytest.mark.parametrize(("compiled", "wanted"), [(True, RankBatchNorm), (False, nn.SyncBatchNorm)])
def test_batch_norm_over_ranks(tmp_path: Path, compiled: bool, wanted: type[nn.Module]) -> None:
    """Torch's own breaks a compiled graph; ours is slower where nothing is compiled."""
    settings = RunConfig(str(tmp_path), max_steps=1, device="cpu", tensorboard=False, compile=compiled)
    run = Run("toy", SimpleNamespace(run=settings))
    run.accelerator = SimpleNamespace(num_processes=2, prepare=lambda module: module)
    with fake_gpu("cuda") as gpu:
        network = gpu.build(lambda: nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)))
        with mock.patch("engine.device.place", lambda module, *_: module):  # it lies there already
            placed = run.place(network)
        assert type(placed[1]) is wanted
        assert {value.device.type for value in placed.state_dict().values()} == {"cuda"}


def test_an_update(tmp_path: Path) -> None:
    """Stepped, given back and watched where the network lies; the gradients are put there."""
    settings = RunConfig(str(tmp_path), max_steps=1, device="cpu", tensorboard=False)
    with Run("toy", SimpleNamespace(run=settings)) as run, fake_gpu("cuda") as gpu:
        run.device, run.step, run._batch = gpu.device, 1, SimpleNamespace(index=[], clip=[])
        network = gpu.build(nn.Linear, 3, 3)
        run.export({"net": network}, {})
        optimizer = run.optimizer(network, OptimConfig(batch_size=1, lr=0.1))

        def backward(loss: Tensor) -> None:
            assert loss.device.type == gpu.device.type
            for parameter in network.parameters():
                parameter.grad = torch.zeros_like(parameter)

        with mock.patch.object(run.accelerator, "backward", backward):
            run.update(optimizer, {"loss": network(gpu.tensor(1, 3)).sum()})
        with run.evaluating() as networks:
            assert networks["net"](gpu.tensor(1, 3)).device.type == "cuda"
        assert {value.device.type for value in run._norms.values()} == {"cuda"}
        state = optimizer.adam.state[network.weight]
        assert {value.device.type for value in state.values()} == {"cuda"}


def test_networks_that_judge_videos(cuda: FakeGpu) -> None:
    frames, pcm = np.zeros((60, 64, 64, 3), np.uint8), np.zeros(60 * 640, np.int16)
    syncnet, arcface = cuda.build(SyncNet).eval(), cuda.build(identity.ArcFace, 18).eval()
    perceptual = cuda.build(nn.Conv2d, 3, 1, 64)
    networks = Networks(cuda.device, lpips=lambda image, wanted, normalize: perceptual(image - wanted))
    with judging():
        assert lip_sync(syncnet, frames, pcm).max_shift == 15
        embedding = identity.embed(arcface, np.zeros((2, 112, 112, 3), np.uint8))
        assert embedding.device.type == "cpu" and embedding.shape == (2, 512)
        assert {"lpips", "mouth_ssim"} <= picture_scores(frames, frames, np.zeros((60, 4)), networks).keys()


def test_renderer() -> None:
    """Its own autocast, and a picture in bytes at the end."""
    with fake_gpu("cuda") as gpu, torch.autocast("cuda", enabled=False):
        config = load(train_fomm.Config, CONFIG / "fomm_tiny.yaml").image_generator
        generator, size, count = gpu.build(ImageGenerator, config).eval(), config.image_size, config.num_keypoints
        source = Keypoints(gpu.tensor(1, count, 2), gpu.tensor(1, count, 2, 2))
        picture = gpu.tensor(1, 3, size, size)
        renderer = Renderer(generator, picture, source, batch_size=4, truncate=False, dtype=torch.bfloat16)
        frames = renderer.render_batch(gpu.tensor(4, count, 2), gpu.tensor(4, count, 2, 2))
        assert (frames.device.type, frames.dtype, frames.shape) == ("cuda", torch.uint8, (4, size, size, 3))
