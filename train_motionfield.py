"""Stage 3: train the motion field generator N_M under the frozen networks of stage one (Sec. 3.3).

    phase keypoints (Eq. 5): keypoints, Jacobians and heatmaps of N_D are the targets, computed once for each clip
    phase pixels (Eqs. 6-7): N_I renders some frames, which are compared with the video

    python train_motionfield.py --config config/motionfield_tiny.yaml               # a smoke run, after fomm_tiny
    torchrun --nproc_per_node 4 train_motionfield.py --config config/motionfield_vox.yaml data.root=data/vox
    torchrun --nproc_per_node 4 train_motionfield.py --config config/motionfield_vox_pixels.yaml data.root=data/vox

The same command resumes. See docs/TRAINING.md.

Letters: B batch, T frame of a window, R rendered frame, K keypoint, A audio window in a frame, F audio feature,
C H W image.
"""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from animation.models import load_models
from animation.weights import read_weights
from datasets.clips import Clip
from datasets.errors import DataError
from datasets.media.video_writer import VideoWriter
from datasets.motionfield import Item, MotionFieldBatch, MotionFieldData, MotionFieldDataConfig, Windows
from datasets.synthetic import SyntheticConfig, make_if_absent
from datasets.targets import NO_HEATMAPS, Targets, TargetStore, decode_heatmap, encode_heatmap
from datasets.voices import VoiceStore
from engine import command, pictures
from engine.checkpoint import CheckpointError
from engine.config import ConfigError, Count, CountOrNone, to_dict
from engine.loading import in_order
from engine.run import OptimConfig, Run, RunConfig, RunError
from engine.run_folder import fingerprint
from engine.vgg_weights import fill_vgg
from modules import face_points, losses, measures
from modules.fuse import fuse_for_inference
from modules.image_generator import ImageGenerator, Rendering, SourceEncoding
from modules.keypoint_detector import KeypointDetector
from modules.keypoints import Keypoints
from modules.limits import one_nth
from modules.motion_field_generator import MotionFieldGenerator, MotionFieldGeneratorConfig
from modules.perceptual import ImagePyramid, VggConfig, VggFeatures
from modules.random_warp import RandomWarp, RandomWarpConfig, random_warp
from modules.reconstruction import ReconstructionWeights, reconstruction_losses
from modules.relative_head import MotionField, Reference

logger = logging.getLogger(__name__)

STAGE_ONE = ("keypoint_detector", "image_generator")


@dataclass(frozen=True)
class FommConfig:
    """The trained stage one."""

    checkpoint: str  # a run folder of train_fomm.py, a weights file, or a released checkpoint


@dataclass(frozen=True)
class TargetConfig:
    """Where N_D's findings, and features in other voices, are kept; nothing else may change there."""

    dir: str = ""  # empty: `targets/` inside data.root, shared by all runs with this detector
    batch_size: Count = 32  # frames
    # bf16: keypoints some 0.001 off (of [-1, 1]) in half the time, on machines that compute in it
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class KeypointPhaseConfig:
    """The first phase: lambda_m, lambda_p and lambda_j of Eq. 5 (Sec. 3.3). A loss of weight 0 is not computed."""

    heatmap: float = 1.0
    position: float = 10.0
    jacobian: float = 10.0
    lips: float = 0.0  # ours: the mouth's motion as a whole; for a stage one that was trained with weights.lips
    lip_size: float = 0.0  # ours: how far and how fast the mouth moves, whenever it does; beside `lips`
    # "decays to zero after a certain time": ours. At batch 4 this is some 5 and 10 hours of the paper's week.
    heatmap_hold_steps: CountOrNone = 10_000
    heatmap_decay_steps: CountOrNone = 10_000


@dataclass(frozen=True)
class VggConfig16(VggConfig):
    """Sec. 3.3 names VGG-16."""

    network: str = "vgg16"


@dataclass(frozen=True)
class PixelPhaseConfig(ReconstructionWeights):
    """The second phase: lambda'_p 100, lambda_rec (`perceptual`), lambda_eq^P and lambda_eq^J 10 of Eq. 7."""

    position: float = 100.0
    lips: float = 0.0  # ours, as in the first phase
    lip_size: float = 0.0
    equivariance_position: float = 10.0
    equivariance_jacobian: float = 10.0
    # Frames of each window that are rendered in a step. Eq. 7 sums over all T = 64, which at batch 4 would be 256
    # pictures a step; a random few have the same mean.
    rendered_frames: Count = 4
    warp: RandomWarpConfig = RandomWarpConfig()
    vgg: VggConfig16 = VggConfig16()
    pyramid: tuple[float, ...] = (1.0, 0.5, 0.25, 0.125)  # "multiple resolutions" (Sec. 3.3): FOMM's

    def __post_init__(self) -> None:
        one_nth("pixels.pyramid", *self.pyramid)


@dataclass(frozen=True)
class OptimMotionField(OptimConfig):
    """Sec. 4.2: batch 4."""

    batch_size: int = 4


@dataclass(frozen=True)
class ValidationConfig:
    """Held-out windows, each from its clip's first frame, and how many frames of each are rendered."""

    split: str = "val"
    clips: Count = 16
    rendered: Count = 8


@dataclass(frozen=True)
class Config:
    """Everything `train_motionfield.py` can be told. One of `keypoints` and `pixels` is given, and says the phase."""

    run: RunConfig
    fomm: FommConfig
    keypoints: KeypointPhaseConfig | None = None  # first phase (Eq. 5)
    pixels: PixelPhaseConfig | None = None  # second phase (Eqs. 6-7)
    data: MotionFieldDataConfig = MotionFieldDataConfig()
    # num_keypoints and image_size are taken from stage one, num_features from the corpus.
    motion_field_generator: MotionFieldGeneratorConfig = MotionFieldGeneratorConfig()
    targets: TargetConfig = TargetConfig()
    optim: OptimMotionField = OptimMotionField()
    validation: ValidationConfig = ValidationConfig()
    # Start N_M from a weights file or a run folder; the second phase from that of the first.
    initial_weights: str = ""
    synthetic: SyntheticConfig | None = None  # draw this corpus if data.root holds none

    def __post_init__(self) -> None:
        if (self.keypoints is None) == (self.pixels is None):
            raise ValueError(
                "give one of the sections keypoints (the first phase, Eq. 5) and pixels (the second, Eqs. 6-7);"
                " `keypoints: null` takes away that of a base"
            )


class StageOne(NamedTuple):
    """N_D and N_I, frozen: they guide and render, and are not trained."""

    detector: KeypointDetector
    generator: ImageGenerator
    image_size: int

    def keypoints(self, image_BCHW: Tensor) -> Keypoints:
        """What N_D finds, in float32 as in the targets and at inference, whatever type N_M is trained in."""
        with torch.autocast(image_BCHW.device.type, enabled=False):
            return self.detector(image_BCHW.float()).keypoints


# ---- the two phases


class KeypointLosses(nn.Module):
    """N_M with the losses of Eq. 5."""

    def __init__(self, field_generator: MotionFieldGenerator, config: KeypointPhaseConfig, jacobians: bool) -> None:
        super().__init__()
        self.field_generator, self.config, self.jacobians = field_generator, config, jacobians

    def forward(self, item: Item, heatmap_weight: float) -> dict[str, Tensor]:
        window, config = item.window, self.config
        source = Keypoints(item.reference_position_K2, item.reference_jacobian_K22 if self.jacobians else None)
        field: MotionField = predict(self.field_generator, window, source)
        terms = {}
        if heatmap_weight and field.heatmap_BTKHW is not None:
            # Summed over cells: a mean over 58 x 58 of maps that sum to 1 would be too small to help with lambda_m = 1.
            wanted = decode_heatmap(item.heatmap_TKHW.float())
            difference = (field.heatmap_BTKHW - wanted).abs().sum((-2, -1))
            heatmap = losses.masked_l1(difference, torch.zeros_like(difference), window.valid_T)
            terms["heatmap"] = heatmap_weight * heatmap
        terms |= position_losses(field, item, config)
        if field.jacobian_BTK22 is not None:
            jacobian = losses.masked_l1(field.jacobian_BTK22, item.jacobian_TK22, window.valid_T)
            terms["jacobian"] = config.jacobian * jacobian
        return terms


class PixelLosses(nn.Module):
    """N_M with the losses of Eq. 7; what renders and judges is frozen."""

    def __init__(
        self,
        field_generator: MotionFieldGenerator,
        config: PixelPhaseConfig,
        stage_one: StageOne,
        pyramid: ImagePyramid,
        vgg: VggFeatures | None,
    ) -> None:
        super().__init__()
        self.field_generator, self.config = field_generator, config
        self.frozen = (stage_one, pyramid, vgg)  # in a tuple: not trained, so not part of the state

    def forward(self, item: Item, warp: RandomWarp) -> dict[str, Tensor]:
        window, config = item.window, self.config
        stage_one, pyramid, vgg = self.frozen
        source = stage_one.keypoints(window.reference_CHW)
        field: MotionField = predict(self.field_generator, window, source)
        terms = position_losses(field, item, config)
        driving = field.frames(window.chosen_R)
        wanted_NCHW = rearrange(window.frames_TCHW, "b r c h w -> (b r) c h w").float() / 255
        mouth_N4 = window.mouth_T4.gather(1, window.chosen_R[..., None].expand(-1, -1, 4)).flatten(0, 1)
        image_NCHW = render(stage_one, window.reference_CHW, source, driving).image_BCHW
        terms |= reconstruction_losses(image_NCHW, wanted_NCHW, mouth_N4, config, pyramid, vgg)
        # L_eq of a network that sees sound and not the frame: FOMM's formula with the predicted keypoints in the place
        # of the driving frame's. What N_D finds in the warped frame, warped back, must be what N_M predicted.
        transformed = stage_one.keypoints(warp.image(wanted_NCHW, stage_one.generator.align_corners))
        terms["equivariance_position"] = config.equivariance_position * losses.equivariance_position(
            driving.position_BK2, transformed.position_BK2, warp
        )
        if driving.jacobian_BK22 is not None and transformed.jacobian_BK22 is not None:
            terms["equivariance_jacobian"] = config.equivariance_jacobian * losses.equivariance_jacobian(
                driving, transformed, warp
            )
        return terms


def position_losses(
    field: MotionField, item: Item, config: KeypointPhaseConfig | PixelPhaseConfig
) -> dict[str, Tensor]:
    """Positions against N_D's (Eqs. 5 and 7), and the motion of the lips among them (ours)."""
    wanted, valid = item.position_TK2, item.window.valid_T
    terms = {"position": config.position * losses.masked_l1(field.position_BTK2, wanted, valid)}
    if config.lips:
        terms["lips"] = config.lips * losses.lip_motion_loss(field.position_BTK2, wanted, valid)
    if config.lip_size:
        lips = face_points.lip_motion(field.position_BTK2), face_points.lip_motion(wanted)
        size = losses.motion_size_loss(*lips, valid, of_the_mean=True, smallest=losses.SMALLEST_LIP_MOTION)
        terms["lip_size"] = config.lip_size * size
    return terms


class KeypointPhase:
    """Eq. 5: what N_D finds in each frame is the target."""

    best, higher_is_better = "ke", False
    rendered_frames = 0  # no frame of a window is looked at

    def __init__(self, config: KeypointPhaseConfig) -> None:
        self.config = config

    def heatmap_steps(self, network: MotionFieldGeneratorConfig) -> int:
        """After so many steps heatmaps count no more; the relative head has none."""
        if network.relative_head or not self.config.heatmap:
            return 0
        return self.config.heatmap_hold_steps + self.config.heatmap_decay_steps

    def losses(self, generator: MotionFieldGenerator, stage_one: StageOne, run: Run) -> nn.Module:
        return KeypointLosses(generator, self.config, jacobians=stage_one.detector.jacobian is not None)

    def at(self, run: Run, item: Item) -> float:
        """What the losses take beside the item: the weight of the heatmaps at this step."""
        config = self.config
        left = losses.heatmap_weight(run.step - 1, config.heatmap_hold_steps, config.heatmap_decay_steps)
        return config.heatmap * left


class PixelPhase:
    """Eqs. 6-7: N_I renders some frames from N_M's keypoints, which are compared with the video."""

    best, higher_is_better = "psnr", True

    def __init__(self, config: PixelPhaseConfig) -> None:
        self.config, self.rendered_frames = config, config.rendered_frames

    def heatmap_steps(self, network: MotionFieldGeneratorConfig) -> int:
        return 0

    def losses(self, generator: MotionFieldGenerator, stage_one: StageOne, run: Run) -> nn.Module:
        vgg = None
        if self.config.perceptual:
            vgg = run.freeze(VggFeatures(self.config.vgg))
            fill_vgg(vgg, self.config.vgg.network, self.config.vgg.weights)
        pyramid = run.freeze(ImagePyramid(self.config.pyramid))
        return PixelLosses(generator, self.config, stage_one, pyramid, vgg)

    def at(self, run: Run, item: Item) -> RandomWarp:
        """What the losses take beside the item: a warp for each rendered frame, the same for the same item."""
        count = self.rendered_frames
        numbers = [n * count + r for n in item.index for r in range(count)]
        return random_warp(numbers, run.settings.seed, self.config.warp, run.device)


def predict(generator: nn.Module, window: MotionFieldBatch, source: Keypoints | None) -> MotionField:
    """N_M on a batch of windows; `source`: N_D's keypoints of their references, which only the relative head needs."""
    reference = None if source is None else Reference(source, window.reference_head)
    return generator(window.reference_CHW, window.audio_TAF, window.head_T, reference)


def render(stage_one: StageOne, reference_BCHW: Tensor, source: Keypoints, driving: Keypoints) -> Rendering:
    """B * R pictures from B references and their keypoints; each reference is encoded once."""
    count = len(driving.position_BK2) // len(reference_BCHW)
    encoding = stage_one.generator.encode(reference_BCHW)
    encoding = SourceEncoding(*(part.repeat_interleave(count, 0) for part in encoding))
    return stage_one.generator.render(encoding, driving, source.map(lambda part: part.repeat_interleave(count, 0)))


# ---- targets


def check_heatmap_size(network: MotionFieldGeneratorConfig, detector: KeypointDetector, image_size: int) -> None:
    """The heatmaps that Eq. 5 compares must have one size. Raises ConfigError."""
    side = image_size // detector.down.stride
    if side != network.map_size:
        raise ConfigError(
            f"N_D of fomm.checkpoint finds keypoints on maps of {side}x{side}, N_M on {network.map_size}x"
            f"{network.map_size}, and the first phase compares their heatmaps: set"
            f" motion_field_generator.map_size={side}, or leave heatmaps out with keypoints.heatmap=0"
        )


def check_shares(config: Config, ranks: int) -> None:
    """Each listener of N_M learns from its own windows of what a rank is given at a time. Raises ConfigError."""
    windows = config.optim.batch_size // (ranks * config.run.accumulate)
    listeners = config.motion_field_generator.listeners
    if windows < listeners > 1:
        raise ConfigError(
            f"motion_field_generator.listeners={listeners} want a window each, but optim.batch_size="
            f"{config.optim.batch_size} gives {ranks} rank(s) {windows} at a time (run.accumulate="
            f"{config.run.accumulate}): take a larger batch or fewer listeners"
        )


def network_key(network: nn.Module, image_size: int, precision: str = "fp32") -> str:
    """Short hash of a network's weights, the size of its pictures, and its precision."""
    digest = hashlib.sha256(f"1 {image_size}{'' if precision == 'fp32' else f' {precision}'}".encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def fill_targets(
    run: Run, store: TargetStore, clips: list[Clip], stage_one: StageOne, config: TargetConfig, heatmaps: bool
) -> None:
    """Have the targets of all clips in the store, with or without heatmaps; ranks share the clips."""
    in_bf16 = config.precision == "bf16"
    bf16 = torch.autocast(run.device.type, torch.bfloat16, enabled=in_bf16)
    detector = stage_one.detector
    if run.device.type == "cpu":
        detector = fuse_for_inference(detector, None if in_bf16 else torch.float32)

    @torch.inference_mode()
    def detect(frames_NHWC: np.ndarray | Tensor) -> Targets:
        frames = rearrange(torch.as_tensor(frames_NHWC).to(run.device), "n h w c -> n c h w").float() / 255
        with bf16:
            keypoints = detector(frames)
        jacobian = keypoints.jacobian_BK22
        if jacobian is None:  # of a stage one without Jacobians: N_I moves each keypoint's surroundings by a shift
            jacobian = torch.eye(2).expand(*keypoints.position_BK2.shape, 2)
        heatmap = encode_heatmap(keypoints.heatmap_BKHW.float()).cpu().numpy() if heatmaps else NO_HEATMAPS
        return Targets(keypoints.position_BK2.float().cpu().numpy(), jacobian.float().cpu().numpy(), heatmap)

    mine = clips[run.accelerator.process_index :: run.accelerator.num_processes]
    bar = partial(tqdm, desc="targets", disable=None if run.is_main else True)
    load = partial(loaded, run)
    count = store.fill(mine, detect, stage_one.image_size, config.batch_size, heatmaps, load, bar)
    if count:
        logger.info("targets of %d clips computed, kept in %s", count, store.folder)
    run.accelerator.wait_for_everyone()


def fill_voices(run: Run, voices: VoiceStore, clips: list[Clip]) -> None:
    """Have the features of all clips in other voices; ranks share the clips."""
    mine = clips[run.accelerator.process_index :: run.accelerator.num_processes]
    bar = partial(tqdm, desc="voices", disable=None if run.is_main else True)
    if count := voices.fill(mine, partial(loaded, run), bar):
        logger.info("%d clips in other voices computed, kept in %s", count, voices.folder)
    run.accelerator.wait_for_everyone()


def loaded(run: Run, dataset: Dataset) -> Iterator[Any]:
    """Every item once, by the run's workers, which end when the run is asked to stop."""
    with closing(in_order(dataset, run.settings.workers)) as items:
        yield from run.until_stopped(items)


# ---- validation


class HeldOut(NamedTuple):
    """Validation windows, each from its clip's first frame, which is also the reference; and what renders them."""

    windows: Windows
    items: list[Item]  # the first of them, in memory
    stage_one: StageOne


def held_out(config: Config, stage_one: StageOne, store: TargetStore) -> Windows:
    settings = replace(
        config.data,
        split=config.validation.split,
        random_start=False,
        identity_sampling=False,
        repeats=1,
        augment=False,
        voices=(),
    )
    network = config.motion_field_generator
    data = MotionFieldData(
        settings, 0, stage_one.image_size, network.window, network.audio_padding, boxes=network.hourglass
    )
    return Windows(data, store, heatmaps_until=0)


def validate(networks: nn.ModuleDict, held_out: HeldOut, config: Config, device: torch.device) -> dict[str, float]:
    """KE (mean L1 of keypoint positions, Table 2) and rendered frames, next to bounds from below and above.

    ke: of the prediction; still_ke: of the reference's keypoints repeated; other_ke: of the prediction from another
    clip's sound. lips, other_lips (if the lips have a weight): correlation of the mouth's opening, as the keypoints of
    the lips have it, with N_D's, for the right sound and another clip's. psnr, ssim, mouth_psnr: of frames rendered
    from the prediction; still_...: of the reference picture repeated (lower bound); detected_...: of frames rendered
    from N_D's own keypoints, the most that stage one can do (upper bound).
    """
    generator, stage_one = networks["motion_field_generator"], held_out.stage_one
    phase = config.keypoints or config.pixels
    items, rendered = held_out.items, config.validation.rendered
    metrics: dict[str, list[Tensor]] = {}

    def note(name: str, values: Tensor) -> None:
        metrics.setdefault(name, []).append(values.float().reshape(-1).cpu())

    for n, item in enumerate(items):
        window = to_batch(item, device).window
        position, valid = item.position_TK2[None].to(device), window.valid_T
        reference = window.reference_CHW
        source = stage_one.keypoints(reference)
        field = predict(generator, window, source)
        other_audio = items[(n + 1) % len(items)].window.audio_TAF[None].to(device)
        other = predict(generator, window._replace(audio_TAF=other_audio), source)
        note("ke", losses.masked_l1(field.position_BTK2, position, valid))
        note("other_ke", losses.masked_l1(other.position_BTK2, position, valid))
        note("still_ke", losses.masked_l1(source.position_BK2[:, None].expand_as(position), position, valid))
        if phase.lips:
            wanted = face_points.lip_motion(position)[..., 0]
            for name, keypoints in (("lips", field), ("other_lips", other)):
                note(name, measures.correlation(face_points.lip_motion(keypoints.position_BTK2)[..., 0], wanted, valid))
        # Frame 0 is the reference itself.
        chosen = torch.linspace(1, int(valid.sum()) - 1, rendered, device=device).round().long()[None]
        frames = window.frames_TCHW[0, chosen[0]].float() / 255
        mouth = window.mouth_T4[0, chosen[0]]
        detected = MotionField(position, item.jacobian_TK22[None].to(device), None)
        drawn = {
            "": render(stage_one, reference, source, field.frames(chosen)).image_BCHW,
            "detected_": render(stage_one, reference, source, detected.frames(chosen)).image_BCHW,
            "still_": reference.expand_as(frames),
        }
        for name, image in drawn.items():
            note(f"{name}psnr", measures.psnr(image, frames))
            note(f"{name}ssim", measures.ssim(image, frames))
            note(f"{name}mouth_psnr", measures.box_psnr(image, frames, mouth))
    return {name: float(torch.cat(values).nanmean()) for name, values in metrics.items()}


def to_batch(item: Item, device: torch.device) -> Item:
    """One item as a batch of one, on the device."""
    window = MotionFieldBatch(*(v[None].to(device) if isinstance(v, Tensor) else v for v in item.window))
    return item._replace(window=window)


def draw_samples(run: Run, networks: nn.ModuleDict, held_out: HeldOut, count: int = 2) -> None:
    """For a few held-out clips: sheets of frames, and a video with sound: truth, N_D's keypoints, prediction."""
    generator, (windows, _, stage_one) = networks["motion_field_generator"], held_out
    clips = {clip.index: clip for clip in windows.data.clips}
    for n in range(min(count, len(windows))):
        item = windows[n]
        window = to_batch(item, run.device).window
        reference = window.reference_CHW
        source = stage_one.keypoints(reference)
        field = predict(generator, window, source)
        every = torch.arange(int(item.window.valid_T.sum()), device=run.device)[None]
        detected = MotionField(item.position_TK2[None].to(run.device), item.jacobian_TK22[None].to(run.device), None)
        columns = {
            "truth": window.frames_TCHW[0, every[0]].float() / 255,
            "N_D's keypoints": render(stage_one, reference, source, detected.frames(every)).image_BCHW,
            "prediction": render(stage_one, reference, source, field.frames(every)).image_BCHW,
        }
        sheet = every[0, :: max(1, every.shape[1] // 6)]
        shown = {name: images[sheet] for name, images in columns.items()}
        shown["prediction"] = pictures.with_points(shown["prediction"], field.position_BTK2[0, sheet])
        shown["truth"] = pictures.with_points(shown["truth"], item.position_TK2[sheet.cpu()])
        pictures.save_columns(run.sample_path(f"window{n}.jpg"), shown)
        write_video(run.sample_path(f"window{n}.mp4"), torch.cat(list(columns.values()), -1), clips[item.clip])


def write_video(path: Path, frames_NCHW: Tensor, clip: Clip) -> None:
    """The frames with the clip's sound."""
    frames_NHWC = (frames_NCHW.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    with VideoWriter(path, sound=clip.folder / "audio.wav") as writer:
        writer.write(frames_NHWC)


# ---- main


def main(config: Config) -> None:
    models = load_models([Path(config.fomm.checkpoint)], torch.device("cpu"), STAGE_ONE)
    image_size = models.image_config.image_size
    key = network_key(models.keypoint_detector, image_size, config.targets.precision)
    inputs = {"keypoint_detector": key}
    if config.pixels:  # in the first phase N_I only draws samples
        inputs["image_generator"] = network_key(models.image_generator, image_size)
    network_config = replace(
        config.motion_field_generator, image_size=image_size, num_keypoints=models.image_config.num_keypoints
    )
    phase = KeypointPhase(config.keypoints) if config.keypoints else PixelPhase(config.pixels)
    if phase.heatmap_steps(network_config):
        check_heatmap_size(network_config, models.keypoint_detector, image_size)
    with Run("motionfield", config) as run:
        check_shares(config, run.accelerator.num_processes)
        with run.accelerator.main_process_first():
            make_if_absent(config.data.root, config.synthetic)
        stage_one = StageOne(run.freeze(models.keypoint_detector), run.freeze(models.image_generator), image_size)
        kept = Path(config.targets.dir or Path(config.data.root) / "targets")
        store = TargetStore(kept, key)
        windows = MotionFieldData(
            config.data,
            seed=config.run.seed,
            size=image_size,
            window=network_config.window,
            audio_padding=network_config.audio_padding,
            pictures=phase.rendered_frames,
            boxes=network_config.hourglass,
            kept=kept,
        )
        network_config = replace(network_config, num_features=windows.audio_features.count)
        heatmaps_until = phase.heatmap_steps(network_config) * config.optim.batch_size
        data = Windows(windows, store, heatmaps_until)
        held_out_windows = held_out(config, stage_one, store)
        for clips, heatmaps in ((data.data.clips, heatmaps_until > 0), (held_out_windows.data.clips, False)):
            fill_targets(run, store, clips, stage_one, config.targets, heatmaps)
        fill_voices(run, windows.voices, windows.clips)
        items = [held_out_windows[n] for n in range(min(config.validation.clips, len(held_out_windows)))]
        validation = HeldOut(held_out_windows, items, stage_one)

        generator = MotionFieldGenerator(network_config)
        networks = {"motion_field_generator": generator}
        if config.initial_weights:
            read_weights([Path(config.initial_weights)]).load_into(networks, config.initial_weights)
        stored = {"motion_field_generator": network_config, "audio_features": windows.audio_features}
        run.export(networks, {name: to_dict(value) for name, value in stored.items()})
        generator_losses = run.place(phase.losses(generator, stage_one, run))
        optim = run.optimizer(generator_losses, config.optim)
        inputs["corpus"] = fingerprint(clip.row.contents for clip in windows.clips)
        run.resume(inputs)

        item: Item
        for item in run.batches(data, config.optim.batch_size):
            run.update(optim, generator_losses(item, phase.at(run, item)))
            if run.validates():
                with run.evaluating() as trained:
                    metrics = validate(trained, validation, config, run.device)
                run.record(metrics, phase.best, phase.higher_is_better)
            if run.samples():
                with run.evaluating() as trained:
                    draw_samples(run, trained, validation)


if __name__ == "__main__":
    with command.clean_exit(CheckpointError, ConfigError, DataError, RunError):
        main(command.from_command_line(Config, __doc__))
