"""Stage 3: train the motion field generator N_M under the frozen networks of stage one (Sec. 3.3).

    phase keypoints (Eq. 5): keypoints, Jacobians and heatmaps of N_D are the targets, computed once for each clip
    phase pixels (Eqs. 6-7): N_I renders some frames, which are compared with the video

    python train_motionfield.py --config config/motionfield_tiny.yaml fomm.checkpoint=runs/fomm_tiny
    torchrun --nproc_per_node 4 train_motionfield.py --config config/motionfield_vox.yaml fomm.checkpoint=runs/fomm
    torchrun --nproc_per_node 4 train_motionfield.py --config config/motionfield_vox_pixels.yaml fomm.checkpoint=runs/fomm

The same command resumes. See docs/TRAINING.md.

Letters: B batch, T frame of a window, R rendered frame, K keypoint, A audio window in a frame, F audio feature, C H W image.
"""

import hashlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from animation.models import build_networks, component_config, read_weights
from datasets.clips import Clip
from datasets.errors import DataError
from datasets.media.image import to_float
from datasets.motionfield import MotionFieldBatch, MotionFieldData, MotionFieldDataConfig
from datasets.synthetic import SyntheticConfig, make_if_absent
from datasets.targets import Targets, TargetStore, decode_heatmap, encode_heatmap
from engine import command, pictures
from engine.checkpoint import CheckpointError, Weights
from engine.config import ConfigError, to_dict
from engine.run import OptimConfig, Run, RunConfig, RunError
from modules import losses, measures
from modules.image_generator import ImageGenerator, ImageGeneratorConfig, Rendering, SourceEncoding
from modules.keypoint_detector import KeypointDetector, KeypointDetectorConfig
from modules.keypoints import Keypoints
from modules.motion_field_generator import MotionField, MotionFieldGenerator, MotionFieldGeneratorConfig, Reference
from modules.perceptual import ImagePyramid, VggConfig, VggError, VggFeatures, load_vgg
from modules.random_warp import RandomWarp, RandomWarpConfig, random_warp
from modules.reconstruction import ReconstructionWeights, reconstruction_losses

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FommConfig:
    """The trained stage one."""

    checkpoint: str  # a run folder of train_fomm.py, a weights file, or a released checkpoint


@dataclass(frozen=True)
class TargetConfig:
    """Where N_D's findings are kept; nothing else may change there."""

    dir: str = ""  # empty: `targets/` inside data.root, shared by all runs with this detector
    batch_size: int = 32  # frames


@dataclass(frozen=True)
class KeypointWeights:
    """Eq. 5: lambda_m, lambda_p, lambda_j (Sec. 3.3)."""

    heatmap: float = 1.0
    position: float = 10.0
    jacobian: float = 10.0
    lips: float = 0.0  # ours: the mouth's motion as a whole; for a stage one that was trained with weights.lips
    # "decays to zero after a certain time": ours. At batch 4 this is some 5 and 10 hours of the paper's week.
    heatmap_hold_steps: int = 10_000
    heatmap_decay_steps: int = 10_000


@dataclass(frozen=True)
class PixelWeights(ReconstructionWeights):
    """Eq. 7: lambda'_p 100, lambda_rec (`perceptual`), lambda_eq^P and lambda_eq^J 10 (Sec. 3.3)."""

    position: float = 100.0
    lips: float = 0.0  # ours, as in the first phase
    equivariance_position: float = 10.0
    equivariance_jacobian: float = 10.0


@dataclass(frozen=True)
class VggConfig16(VggConfig):
    """Sec. 3.3 names VGG-16."""

    network: str = "vgg16"


@dataclass(frozen=True)
class OptimMotionField(OptimConfig):
    """Sec. 4.2: batch 4."""

    batch_size: int = 4


@dataclass(frozen=True)
class ValidationConfig:
    """Held-out windows, each from its clip's first frame, and how many frames of each are rendered."""

    split: str = "val"
    clips: int = 16
    rendered: int = 8


@dataclass(frozen=True)
class Config:
    """Everything `train_motionfield.py` can be told."""

    run: RunConfig
    fomm: FommConfig
    phase: Literal["keypoints", "pixels"] = "keypoints"
    data: MotionFieldDataConfig = MotionFieldDataConfig()
    # num_keypoints and image_size are taken from stage one.
    motion_field_generator: MotionFieldGeneratorConfig = MotionFieldGeneratorConfig()
    targets: TargetConfig = TargetConfig()
    keypoints: KeypointWeights = KeypointWeights()
    pixels: PixelWeights = PixelWeights()
    # Frames of each window that are rendered in a step of the second phase. Eq. 7 sums over all T = 64, which at batch 4
    # would be 256 pictures a step; a random few have the same mean.
    rendered_frames: int = 4
    warp: RandomWarpConfig = RandomWarpConfig()
    vgg: VggConfig16 = VggConfig16()
    pyramid: tuple[float, ...] = (1.0, 0.5, 0.25, 0.125)  # "multiple resolutions" (Sec. 3.3): FOMM's
    optim: OptimMotionField = OptimMotionField()
    validation: ValidationConfig = ValidationConfig()
    initial_weights: str = (
        ""  # start N_M from a weights file, a run folder (phase pixels: that of phase keypoints), ...
    )
    synthetic: SyntheticConfig | None = None  # draw this corpus if data.root holds none

    def __post_init__(self) -> None:
        if self.rendered_frames < 1 or self.validation.rendered < 1:
            raise ValueError("rendered_frames and validation.rendered must be at least 1")


class Frozen(NamedTuple):
    """Stage one: guides and renders, is not trained."""

    detector: KeypointDetector
    generator: ImageGenerator
    image_size: int


class Item(NamedTuple):
    """A window with its targets; `heatmap_TKHW` is coded (datasets.targets) and empty once it counts no more."""

    window: MotionFieldBatch
    position_TK2: Tensor
    jacobian_TK22: Tensor
    heatmap_TKHW: Tensor
    clip: int
    index: int


class Windows(Dataset):
    """Windows of the corpus with N_D's targets. `heatmaps_until`: items from this one on carry no heatmaps."""

    def __init__(self, data: MotionFieldData, store: TargetStore, heatmaps_until: int) -> None:
        self.data, self.store, self.heatmaps_until = data, store, heatmaps_until
        self.names = {clip.index: clip.row.id for clip in data.clips}
        self.last = {clip.index: clip.frames - 1 for clip in data.clips}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, n: int) -> Item:
        window = self.data[n]
        rows = np.minimum(window.start + np.arange(len(window.valid_T)), self.last[window.clip])
        found = self.store.read(self.names[window.clip], rows, heatmaps=n < self.heatmaps_until)
        return Item(window, *(torch.from_numpy(array) for array in found), clip=window.clip, index=n)


class KeypointLosses(nn.Module):
    """N_M with the losses of Eq. 5."""

    def __init__(self, field_generator: MotionFieldGenerator, weights: KeypointWeights, frozen: Frozen) -> None:
        super().__init__()
        self.field_generator, self.weights = field_generator, weights
        self.frozen = (frozen,)  # in a tuple: not trained, so not part of the state

    def forward(self, item: Item, heatmap_factor: float) -> dict[str, Tensor]:
        window, weights = item.window, self.weights
        relative = self.field_generator.relative_head is not None
        source = self.frozen[0].detector(window.reference_CHW).keypoints if relative else None
        field: MotionField = predict(self.field_generator, window, source)
        found = {}
        if heatmap_factor and field.heatmap_BTKHW is not None:
            # Summed over cells: a mean over 58 x 58 of maps that sum to 1 would be too small to help with lambda_m = 1.
            wanted = decode_heatmap(item.heatmap_TKHW.float())
            difference = (field.heatmap_BTKHW - wanted).abs().sum((-2, -1))
            heatmap = losses.masked_l1(difference, torch.zeros_like(difference), window.valid_T)
            found["heatmap"] = weights.heatmap * heatmap_factor * heatmap
        found["position"] = weights.position * losses.masked_l1(field.position_BTK2, item.position_TK2, window.valid_T)
        if weights.lips:
            found["lips"] = weights.lips * losses.lip_motion_loss(
                field.position_BTK2, item.position_TK2, window.valid_T
            )
        if field.jacobian_BTK22 is not None:
            jacobian = losses.masked_l1(field.jacobian_BTK22, item.jacobian_TK22, window.valid_T)
            found["jacobian"] = weights.jacobian * jacobian
        return found


class PixelLosses(nn.Module):
    """N_M with the losses of Eq. 7; what renders and judges is frozen."""

    def __init__(
        self,
        field_generator: MotionFieldGenerator,
        weights: PixelWeights,
        frozen: Frozen,
        pyramid: ImagePyramid,
        vgg: VggFeatures | None,
    ) -> None:
        super().__init__()
        self.field_generator, self.weights = field_generator, weights
        self.frozen = (frozen, pyramid, vgg)  # in a tuple: not trained, so not part of the state

    def forward(self, item: Item, warp: RandomWarp) -> dict[str, Tensor]:
        window, weights = item.window, self.weights
        frozen, pyramid, vgg = self.frozen
        source = frozen.detector(window.reference_CHW).keypoints
        field: MotionField = predict(self.field_generator, window, source)
        found = {
            "position": weights.position * losses.masked_l1(field.position_BTK2, item.position_TK2, window.valid_T)
        }
        if weights.lips:
            found["lips"] = weights.lips * losses.lip_motion_loss(
                field.position_BTK2, item.position_TK2, window.valid_T
            )
        driving = chosen_frames(field, window.chosen_R)
        wanted_NCHW = rearrange(window.frames_TCHW, "b r c h w -> (b r) c h w").float() / 255
        mouth_N4 = window.mouth_T4.gather(1, window.chosen_R[..., None].expand(-1, -1, 4)).flatten(0, 1)
        image_NCHW = render(frozen, window.reference_CHW, source, driving).image_BCHW
        found |= reconstruction_losses(image_NCHW, wanted_NCHW, mouth_N4, weights, pyramid, vgg)
        # L_eq of a network that sees sound and not the frame: FOMM's formula with the predicted keypoints in the place
        # of the driving frame's. What N_D finds in the warped frame, warped back, must be what N_M predicted.
        transformed = frozen.detector(warp.image(wanted_NCHW)).keypoints
        found["equivariance_position"] = weights.equivariance_position * losses.equivariance_position(
            driving.position_BK2, transformed.position_BK2, warp
        )
        if driving.jacobian_BK22 is not None and transformed.jacobian_BK22 is not None:
            found["equivariance_jacobian"] = weights.equivariance_jacobian * losses.equivariance_jacobian(
                driving, transformed, warp
            )
        return found


def predict(generator: nn.Module, window: MotionFieldBatch, source: Keypoints | None) -> MotionField:
    """N_M on a batch of windows; `source`: N_D's keypoints of their references, which only the relative head needs."""
    reference = None if source is None else Reference(source, window.reference_box_HW)
    return generator(window.reference_CHW, window.audio_TAF, window.box_THW, reference)


def chosen_frames(field: MotionField, chosen_BR: Tensor) -> Keypoints:
    """Keypoints of the chosen frames as one batch of B * R sets."""
    rows = torch.arange(len(chosen_BR), device=chosen_BR.device)[:, None]
    jacobian = None if field.jacobian_BTK22 is None else field.jacobian_BTK22[rows, chosen_BR].flatten(0, 1)
    return Keypoints(field.position_BTK2[rows, chosen_BR].flatten(0, 1), jacobian)


def render(frozen: Frozen, reference_BCHW: Tensor, source: Keypoints, driving: Keypoints) -> Rendering:
    """B * R pictures from B references and their keypoints; each reference is encoded once."""
    count = len(driving.position_BK2) // len(reference_BCHW)
    encoding = SourceEncoding(*(part.repeat_interleave(count, 0) for part in frozen.generator.encode(reference_BCHW)))
    jacobian = None if source.jacobian_BK22 is None else source.jacobian_BK22.repeat_interleave(count, 0)
    return frozen.generator.render(
        encoding, driving, Keypoints(source.position_BK2.repeat_interleave(count, 0), jacobian)
    )


# ---- targets


def load_stage_one(path: str) -> tuple[Frozen, Weights]:
    """N_D and N_I of stage one."""
    weights = read_weights([Path(path)])
    names = ("keypoint_detector", "image_generator")
    missing = [name for name in names if name not in weights.states]
    if missing:
        raise CheckpointError(
            f"fomm.checkpoint {path} holds no {' and no '.join(missing)}: give a run of train_fomm.py"
        )
    networks = build_networks(weights, path)
    size = component_config(weights, "image_generator", ImageGeneratorConfig).image_size
    return Frozen(*(networks[name] for name in names), size), weights


def detector_key(weights: Weights, image_size: int) -> str:
    """Short hash of the detector's weights and the size of its pictures."""
    digest = hashlib.sha256(f"1 {image_size}".encode())
    for name, value in sorted(weights.states["keypoint_detector"].items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.inference_mode()
def compute_targets(run: Run, clips: list[Clip], store: TargetStore, frozen: Frozen, batch_size: int) -> None:
    """What N_D finds in every frame of every clip, unless it is kept already; ranks share the clips."""
    mine = [clip for clip in clips[run.accelerator.process_index :: run.accelerator.num_processes]]
    todo = [clip for clip in mine if not store.has(clip.row.id)]
    for clip in tqdm(todo, desc="targets", disable=None if run.is_main else True):
        parts = []
        for first in range(0, clip.frames, batch_size):
            frames = clip.read_frames(range(first, min(first + batch_size, clip.frames)), frozen.image_size)
            found = frozen.detector(to_float(frames).to(run.device))
            jacobian = found.jacobian_BK22
            if jacobian is None:
                jacobian = torch.eye(2).expand(*found.position_BK2.shape, 2)
            heatmap = encode_heatmap(found.heatmap_BKHW.cpu().numpy())
            parts.append((found.position_BK2.cpu().numpy(), jacobian.cpu().numpy(), heatmap))
        store.write(clip.row.id, Targets(*(np.concatenate(part) for part in zip(*parts, strict=True))))
    if todo:
        logger.info("targets of %d clips computed, kept in %s", len(todo), store.folder)
    run.accelerator.wait_for_everyone()


# ---- validation


def held_out(config: Config, size: int, store: TargetStore) -> Windows:
    """Validation windows: from each clip's first frame, which is also the reference."""
    settings = replace(
        config.data,
        split=config.validation.split,
        random_start=False,
        identity_sampling=False,
        repeats=1,
        augment=False,
    )
    network = config.motion_field_generator
    return Windows(MotionFieldData(settings, 0, size, network.window, network.audio_padding), store, heatmaps_until=0)


def validate(
    generator: MotionFieldGenerator,
    items: list[Item],
    frozen: Frozen,
    rendered: int,
    lips: bool,
    device: torch.device,
) -> dict:
    """KE (mean L1 of keypoint positions, Table 2) and rendered frames, beside what costs nothing and what is possible.

    ke: of the prediction; still_ke: of the reference's keypoints repeated; other_ke: of the prediction from another
    clip's sound. lips, other_lips (if `lips`): correlation of the mouth's opening, as the keypoints of the lips have it,
    with N_D's, for the right sound and another clip's. psnr, ssim, mouth_psnr: of frames rendered from the prediction;
    still_...: of the reference picture repeated; detected_...: of frames rendered from N_D's own keypoints, the most
    stage one can do.
    """
    rows: dict[str, list[Tensor]] = {}

    def note(name: str, values: Tensor) -> None:
        rows.setdefault(name, []).append(values.float().reshape(-1).cpu())

    for n, item in enumerate(items):
        window = to_batch(item, device).window
        position, valid = item.position_TK2[None].to(device), window.valid_T
        reference = window.reference_CHW
        source = frozen.detector(reference).keypoints
        field = predict(generator, window, source)
        other_audio = items[(n + 1) % len(items)].window.audio_TAF[None].to(device)
        other = predict(generator, window._replace(audio_TAF=other_audio), source)
        note("ke", losses.masked_l1(field.position_BTK2, position, valid))
        note("other_ke", losses.masked_l1(other.position_BTK2, position, valid))
        note("still_ke", losses.masked_l1(source.position_BK2[:, None].expand_as(position), position, valid))
        if lips:
            wanted = losses.lip_motion(position)[..., 0]
            for name, keypoints in (("lips", field), ("other_lips", other)):
                note(name, measures.correlation(losses.lip_motion(keypoints.position_BTK2)[..., 0], wanted, valid))
        # Frame 0 is the reference itself.
        chosen = torch.linspace(1, int(valid.sum()) - 1, rendered, device=device).round().long()[None]
        frames = window.frames_TCHW[0, chosen[0]].float() / 255
        mouth = window.mouth_T4[0, chosen[0]]
        detected = MotionField(position, item.jacobian_TK22[None].to(device), None)
        drawn = {
            "": render(frozen, reference, source, chosen_frames(field, chosen)).image_BCHW,
            "detected_": render(frozen, reference, source, chosen_frames(detected, chosen)).image_BCHW,
            "still_": reference.expand_as(frames),
        }
        for name, image in drawn.items():
            note(f"{name}psnr", measures.psnr(image, frames))
            note(f"{name}ssim", measures.ssim(image, frames))
            note(f"{name}mouth_psnr", measures.box_psnr(image, frames, mouth))
    return {name: float(torch.cat(values).nanmean()) for name, values in rows.items()}


def to_batch(item: Item, device: torch.device) -> Item:
    """One item as a batch of one, on the device."""
    window = MotionFieldBatch(*(v[None].to(device) if isinstance(v, Tensor) else v for v in item.window))
    return item._replace(window=window)


def draw_samples(run: Run, generator: MotionFieldGenerator, windows: Windows, frozen: Frozen, count: int = 2) -> None:
    """For a few held-out clips: sheets of frames, and a video with sound: truth, N_D's keypoints, prediction."""
    clips = {clip.index: clip for clip in windows.data.clips}
    for n in range(min(count, len(windows))):
        item = windows[n]
        window = to_batch(item, run.device).window
        source = frozen.detector(window.reference_CHW).keypoints
        field = predict(generator, window, source)
        every = torch.arange(int(item.window.valid_T.sum()), device=run.device)[None]
        detected = MotionField(item.position_TK2[None].to(run.device), item.jacobian_TK22[None].to(run.device), None)
        frames = window.frames_TCHW[0, every[0]].float() / 255
        columns = {
            "truth": frames,
            "N_D's keypoints": render(frozen, window.reference_CHW, source, chosen_frames(detected, every)).image_BCHW,
            "prediction": render(frozen, window.reference_CHW, source, chosen_frames(field, every)).image_BCHW,
        }
        sheet = every[0, :: max(1, every.shape[1] // 6)]
        shown = {name: images[sheet] for name, images in columns.items()}
        shown["prediction"] = pictures.with_points(shown["prediction"], field.position_BTK2[0, sheet])
        shown["truth"] = pictures.with_points(shown["truth"], item.position_TK2[sheet.cpu()])
        pictures.save_columns(run.sample_path(f"window{n}.jpg"), shown)
        write_video(run.sample_path(f"window{n}.mp4"), torch.cat(list(columns.values()), -1), clips[item.clip])


def write_video(path: Path, frames_NCHW: Tensor, clip: Clip) -> None:
    """The frames with the clip's sound; left out, with a note, where PyAV is not installed."""
    try:
        from datasets.media.video_writer import VideoWriter

        frames_NHWC = (frames_NCHW.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        with VideoWriter(path, sound=clip.folder / "audio.wav") as writer:
            writer.write(frames_NHWC)
    except ImportError as error:
        logger.warning("no sample video: %s", error)


# ---- main


def main(config: Config) -> None:
    frozen, weights = load_stage_one(config.fomm.checkpoint)
    network_config = replace(
        config.motion_field_generator,
        image_size=frozen.image_size,
        num_keypoints=component_config(weights, "keypoint_detector", KeypointDetectorConfig).num_keypoints,
    )
    with Run("motionfield", config) as run:
        with run.accelerator.main_process_first():
            make_if_absent(config.data.root, config.synthetic)
        frozen = Frozen(run.freeze(frozen.detector), run.freeze(frozen.generator), frozen.image_size)
        key = detector_key(weights, frozen.image_size)
        store = TargetStore(config.targets.dir or Path(config.data.root) / "targets", key)
        pixels = config.phase == "pixels"
        windows = MotionFieldData(
            config.data,
            seed=config.run.seed,
            size=frozen.image_size,
            window=network_config.window,
            audio_padding=network_config.audio_padding,
            pictures=config.rendered_frames if pixels else 0,
        )
        heatmap_steps = config.keypoints.heatmap_hold_steps + config.keypoints.heatmap_decay_steps
        if pixels or network_config.relative_head:
            heatmap_steps = 0
        data = Windows(windows, store, heatmap_steps * config.optim.batch_size)
        validation = held_out(config, frozen.image_size, store)
        compute_targets(run, data.data.clips + validation.data.clips, store, frozen, config.targets.batch_size)
        items = [validation[n] for n in range(min(config.validation.clips, len(validation)))]

        generator = MotionFieldGenerator(network_config)
        networks = {"motion_field_generator": generator}
        if config.initial_weights:
            read_weights([Path(config.initial_weights)]).load_into(networks, config.initial_weights)
        run.export(networks, {"motion_field_generator": to_dict(network_config)})
        if pixels:
            vgg = run.freeze(load_vgg(config.vgg)) if config.pixels.perceptual else None
            pyramid = run.freeze(ImagePyramid(config.pyramid))
            module = run.place(PixelLosses(generator, config.pixels, frozen, pyramid, vgg))
        else:
            module = run.place(KeypointLosses(generator, config.keypoints, frozen))
        optim = run.optimizer(module, config.optim)
        run.resume({"keypoint_detector": key})

        item: Item
        for item in run.batches(data, config.optim.batch_size):
            if pixels:
                numbers = [n * config.rendered_frames + r for n in item.index for r in range(config.rendered_frames)]
                run.update(optim, module(item, random_warp(numbers, config.run.seed, config.warp, run.device)))
            else:
                factor = losses.heatmap_weight(
                    run.step - 1, config.keypoints.heatmap_hold_steps, config.keypoints.heatmap_decay_steps
                )
                run.update(optim, module(item, factor))
            if run.is_main and run.completes(config.run.validate_every):
                with run.evaluating() as trained:
                    network = trained["motion_field_generator"]
                    lips = bool(config.pixels.lips if pixels else config.keypoints.lips)
                    found = validate(network, items, frozen, config.validation.rendered, lips, run.device)
                run.record(found, best="psnr" if pixels else "ke", higher_is_better=pixels)
            if run.is_main and run.completes(config.run.sample_every):
                with run.evaluating() as trained:
                    draw_samples(run, trained["motion_field_generator"], validation, frozen)


if __name__ == "__main__":
    with command.clean_exit(CheckpointError, ConfigError, DataError, RunError, VggError):
        main(command.from_command_line(Config, __doc__))
