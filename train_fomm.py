"""Stage 1: train the keypoint detector N_D and the image generator N_I on video, self-supervised (Sec. 3.1, 4.2).

Losses and settings are those of Siarohin et al. 2019b ("FOMM"), which the paper follows: a driving frame is redrawn
from a source frame of the same clip through the motion of their keypoints.

    python train_fomm.py --config config/fomm_tiny.yaml                       # a smoke run, on synthetic clips
    torchrun --nproc_per_node 4 train_fomm.py --config config/fomm_vox.yaml data.root=data/vox

The same command resumes. See docs/TRAINING.md.

Letters: B batch, C H W image.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from animation.weights import read_weights
from datasets.clips import load_manifest, mouth_boxes
from datasets.errors import DataError
from datasets.fomm import FommBatch, FommData, FommDataConfig
from datasets.media.image import to_float
from datasets.sampling import choices
from datasets.synthetic import SyntheticConfig, make_if_absent
from engine import command, pictures
from engine.checkpoint import CheckpointError
from engine.config import ConfigError, to_dict
from engine.run import OptimConfig, Run, RunConfig, RunError
from engine.vgg_weights import fill_vgg
from modules import losses, measures
from modules.discriminators import ImageDiscriminatorConfig, MultiScaleDiscriminator, only_judging
from modules.image_generator import ImageGenerator, ImageGeneratorConfig, Rendering, starting_state
from modules.keypoint_detector import KeypointDetector, KeypointDetectorConfig
from modules.perceptual import ImagePyramid, VggConfig, VggFeatures
from modules.random_warp import RandomWarp, RandomWarpConfig, random_warp
from modules.reconstruction import ReconstructionWeights, reconstruction_losses


@dataclass(frozen=True)
class WeightConfig(ReconstructionWeights):
    """Weight of each loss, by the name under which it is logged; a loss of weight 0 is not computed.

    Defaults are FOMM's vox-256.
    """

    equivariance_position: float = 10.0
    equivariance_jacobian: float = 10.0
    # Ours: tie the last four keypoints to the mouth. In small trainings the keypoints otherwise leave it out.
    lips: float = 0.0
    lip_shape: float = 0.0
    # How much further apart the lip keypoints are pulled than the lips are. Not a weight. Lips open by a pixel or two
    # of 128, which is half a cell of a small network's maps.
    lip_gain: float = 1.0
    # Ours: what N_I paints must be right by itself, before `source_skip` mixes it with the warped source. Otherwise the
    # painting exaggerates, and its share in the mixture stays small.
    painted: float = 0.0
    adversarial: float = 0.0  # FOMM's vox-adv: 1. The two below count only then.
    feature_matching: float = 10.0
    discriminator: float = 1.0


@dataclass(frozen=True)
class OptimFomm(OptimConfig):
    """Sec. 4.2: batch 28 for N_D and N_I."""

    batch_size: int = 28


@dataclass(frozen=True)
class ValidationConfig:
    """Held-out pairs: the first frame of a clip as the source, another frame of it as the driving frame."""

    split: str = "val"
    pairs: int = 64
    batch_size: int = 8


@dataclass(frozen=True)
class Config:
    """Everything `train_fomm.py` can be told."""

    run: RunConfig
    data: FommDataConfig = FommDataConfig()
    keypoint_detector: KeypointDetectorConfig = KeypointDetectorConfig()
    image_generator: ImageGeneratorConfig = ImageGeneratorConfig()
    discriminator: ImageDiscriminatorConfig = ImageDiscriminatorConfig()
    warp: RandomWarpConfig = RandomWarpConfig()
    vgg: VggConfig = VggConfig()
    pyramid: tuple[float, ...] = (1.0, 0.5, 0.25, 0.125)  # scales of the reconstruction losses (FOMM)
    weights: WeightConfig = WeightConfig()
    # Ours: False trains N_I alone under the N_D of initial_weights, so that an N_M of that N_D stays right.
    train_detector: bool = True
    optim: OptimFomm = OptimFomm()
    validation: ValidationConfig = ValidationConfig()
    initial_weights: str = ""  # start from a weights file, a run folder or a released checkpoint
    synthetic: SyntheticConfig | None = None  # draw this corpus if data.root holds none

    def __post_init__(self) -> None:
        if self.keypoint_detector.num_keypoints != self.image_generator.num_keypoints:
            raise ValueError("keypoint_detector.num_keypoints and image_generator.num_keypoints must be equal")
        keypoints = self.discriminator.keypoints
        if self.weights.adversarial and keypoints not in (0, self.keypoint_detector.num_keypoints):
            raise ValueError("discriminator.keypoints must be 0 or the detector's num_keypoints")
        if not (self.train_detector or self.initial_weights):
            raise ValueError("train_detector=false needs initial_weights, from which N_D comes")
        if (self.weights.lips or self.weights.lip_shape) and self.keypoint_detector.num_keypoints <= losses.LIPS:
            raise ValueError(
                f"weights.lips and lip_shape take {losses.LIPS} keypoints; keypoint_detector.num_keypoints must be more"
            )


class Reconstruction(NamedTuple):
    """The generator's losses, and what the discriminator is shown, without gradients."""

    losses: dict[str, Tensor]
    image_BCHW: Tensor
    position_BK2: Tensor  # of the driving keypoints


class GeneratorLosses(nn.Module):
    """N_D and N_I with everything that trains them."""

    def __init__(
        self,
        detector: KeypointDetector,
        generator: ImageGenerator,
        weights: WeightConfig,
        pyramid: ImagePyramid,
        vgg: VggFeatures | None,
        train_detector: bool = True,
    ) -> None:
        super().__init__()
        self.detector, self.generator, self.weights = detector, generator, weights
        self.train_detector = train_detector
        self.detector.requires_grad_(train_detector)
        self.frozen = (pyramid, vgg)  # in a tuple: not trained, so not part of the state
        self.train()

    def train(self, mode: bool = True) -> "GeneratorLosses":
        super().train(mode)
        self.detector.train(mode and self.train_detector)
        return self

    def forward(
        self, batch: FommBatch, warp: RandomWarp, discriminator: MultiScaleDiscriminator | None
    ) -> Reconstruction:
        weights = self.weights
        pyramid, vgg = self.frozen
        source_BCHW, driving_BCHW, driving_mouth_B4 = batch.source_CHW, batch.driving_CHW, batch.driving_mouth_4
        source = self.detector(source_BCHW).keypoints
        driving = self.detector(driving_BCHW).keypoints
        rendering: Rendering = self.generator(source_BCHW, driving, source)
        image_BCHW = rendering.image_BCHW
        terms = reconstruction_losses(image_BCHW, driving_BCHW, driving_mouth_B4, weights, pyramid, vgg)
        if weights.painted:
            weight_B1HW = losses.region_weight(driving_mouth_B4, *image_BCHW.shape[-2:], weights.mouth)
            parts = rendering.painted_BCHW, driving_BCHW, weight_B1HW
            terms["painted"] = weights.painted * (losses.pixel_l1(*parts) + losses.gradient_l1(*parts))
        if self.train_detector and (weights.lips or weights.lip_shape):
            terms |= lip_losses(
                torch.cat([source.position_BK2, driving.position_BK2]),
                torch.cat([batch.source_mouth_4, driving_mouth_B4]),
                batch.turn.repeat(2),
                weights,
            )
        if weights.adversarial:
            terms |= adversarial_losses(discriminator, image_BCHW, driving_BCHW, driving.position_BK2, weights)
        if self.train_detector and (weights.equivariance_position or weights.equivariance_jacobian):
            transformed = self.detector(warp.image(driving_BCHW, self.generator.align_corners)).keypoints
            terms["equivariance_position"] = weights.equivariance_position * losses.equivariance_position(
                driving.position_BK2, transformed.position_BK2, warp
            )
            if weights.equivariance_jacobian and driving.jacobian_BK22 is not None:
                terms["equivariance_jacobian"] = weights.equivariance_jacobian * losses.equivariance_jacobian(
                    driving, transformed, warp
                )
        return Reconstruction(terms, image_BCHW.detach(), driving.position_BK2.detach())


def lip_losses(position_BK2: Tensor, mouth_B4: Tensor, turn_B: Tensor, weights: WeightConfig) -> dict[str, Tensor]:
    """What ties four keypoints to the mouth: where they are, and how far apart (ours)."""
    points_B42 = losses.lip_points(mouth_B4, turn_B, weights.lip_gain)
    known_B = (mouth_B4[:, 2] > mouth_B4[:, 0]).to(position_BK2)
    terms = {}
    if weights.lips:
        terms["lips"] = weights.lips * losses.lip_l1(position_BK2, points_B42, known_B)
    if weights.lip_shape:
        terms["lip_shape"] = weights.lip_shape * losses.lip_shape_l1(position_BK2, points_B42, known_B)
    return terms


def adversarial_losses(
    discriminator: MultiScaleDiscriminator,
    image_BCHW: Tensor,
    wanted_BCHW: Tensor,
    position_BK2: Tensor,
    weights: WeightConfig,
) -> dict[str, Tensor]:
    """LSGAN and feature matching against a discriminator that is not trained here (FOMM's vox-adv)."""
    fake = discriminator(image_BCHW, position_BK2.detach())
    real = discriminator(wanted_BCHW, position_BK2.detach())
    pairs = list(zip(fake, real, strict=True))
    scores = [losses.lsgan_generator(f.score) for f, _ in pairs]
    terms = {"adversarial": weights.adversarial * torch.stack(scores).sum()}
    if weights.feature_matching:
        distances = [losses.feature_l1(f.features, r.features) for f, r in pairs]
        terms["feature_matching"] = weights.feature_matching * torch.stack(distances).sum()
    return terms


class DiscriminatorLosses(nn.Module):
    """The discriminator with what trains it."""

    def __init__(self, discriminator: MultiScaleDiscriminator, weights: WeightConfig) -> None:
        super().__init__()
        self.discriminator, self.weights = discriminator, weights

    def forward(self, real_BCHW: Tensor, fake_BCHW: Tensor, position_BK2: Tensor) -> dict[str, Tensor]:
        fake = self.discriminator(fake_BCHW, position_BK2)
        real = self.discriminator(real_BCHW, position_BK2)
        terms = [losses.lsgan_discriminator(r.score, f.score) for r, f in zip(real, fake, strict=True)]
        return {"discriminator": self.weights.discriminator * torch.stack(terms).sum()}


class HeldOut(NamedTuple):
    """Validation pairs, made once: [N, C, H, W] each, and the driving frames' mouth boxes [N, 4]."""

    source: Tensor
    driving: Tensor
    mouth: Tensor


def held_out_pairs(config: Config) -> HeldOut:
    """`validation.pairs` pairs, the clips in turn; the driving frame is a fixed random one."""
    clips = load_manifest(config.data.root, config.validation.split)
    pairs, mouths = [], []
    for n in range(config.validation.pairs):
        clip = clips[n % len(clips)]
        frame = int(choices(0, n).integers(min(1, clip.frames - 1), clip.frames))
        pairs.append(to_float(clip.read_frames([0, frame], config.image_generator.image_size)))
        mouths.append(torch.from_numpy(mouth_boxes(clip.mouth()[[frame]]).astype("float32"))[0])
    source, driving = torch.stack(pairs).unbind(1)
    return HeldOut(source, driving, torch.stack(mouths))


def redraw(networks: nn.ModuleDict, source_BCHW: Tensor, driving_BCHW: Tensor) -> Rendering:
    """The driving frame, drawn from the source frame."""
    source = networks["keypoint_detector"](source_BCHW).keypoints
    driving = networks["keypoint_detector"](driving_BCHW).keypoints
    return networks["image_generator"](source_BCHW, driving, source)


def validate(networks: nn.ModuleDict, held_out: HeldOut, config: Config, device: torch.device) -> dict[str, float]:
    """Reconstruction of held-out frames (L1, PSNR, SSIM; PSNR of the mouth) beside repeating the source frame."""
    rows = []
    for part in zip(*(t.to(device).split(config.validation.batch_size) for t in held_out), strict=True):
        source, driving, mouth = part
        image = redraw(networks, source, driving).image_BCHW
        for name, picture in (("", image), ("source_", source)):
            rows.append((f"{name}l1", (picture - driving).abs().mean((1, 2, 3))))
            rows.append((f"{name}psnr", measures.psnr(picture, driving)))
            rows.append((f"{name}ssim", measures.ssim(picture, driving)))
            rows.append((f"{name}mouth_psnr", measures.box_psnr(picture, driving, mouth)))
    names = dict.fromkeys(name for name, _ in rows)
    return {name: float(torch.cat([value for n, value in rows if n == name]).nanmean()) for name in names}


def draw_samples(run: Run, networks: nn.ModuleDict, held_out: HeldOut, count: int = 6) -> None:
    """Source, driving frame, warped source, occlusion, prediction, with keypoints: a picture a person can judge."""
    source, driving = held_out.source[:count].to(run.device), held_out.driving[:count].to(run.device)
    generator, detector = networks["image_generator"], networks["keypoint_detector"]
    rendering = redraw(networks, source, driving)
    warped = generator.warp_source(generator.encode(source), rendering.motion)
    columns = {
        "source": pictures.with_points(source, detector(source).position_BK2),
        "driving": pictures.with_points(driving, detector(driving).position_BK2),
        "warped": warped,
        "occlusion": rendering.motion.occlusion_B1HW,
        "prediction": rendering.image_BCHW,
    }
    pictures.save_columns(run.sample_path("redrawn.jpg"), columns)


def main(config: Config) -> None:
    size = config.image_generator.image_size
    with Run("fomm", config) as run:
        with run.accelerator.main_process_first():
            make_if_absent(config.data.root, config.synthetic)
        data = FommData(config.data, config.run.seed, size)
        validation = held_out_pairs(config)

        detector, generator = KeypointDetector(config.keypoint_detector), ImageGenerator(config.image_generator)
        networks = {"keypoint_detector": detector, "image_generator": generator}
        if config.initial_weights:
            weights = read_weights([Path(config.initial_weights)])
            for name in networks.keys() & weights.states.keys():
                weights.states[name] = starting_state(networks[name], weights.states[name])
            weights.load_into(networks, config.initial_weights)
        run.export(networks, {name: to_dict(getattr(config, name)) for name in networks})
        pyramid = run.freeze(ImagePyramid(config.pyramid))
        vgg = None
        if config.weights.perceptual:
            vgg = run.freeze(VggFeatures(config.vgg))
            fill_vgg(vgg, config.vgg.network, config.vgg.weights)
        module = GeneratorLosses(detector, generator, config.weights, pyramid, vgg, config.train_detector)
        generator_losses = run.place(module)
        generator_optim = run.optimizer(generator_losses, config.optim)
        discriminator = None
        if config.weights.adversarial:
            discriminator = MultiScaleDiscriminator(config.discriminator)
            discriminator_losses = run.place(DiscriminatorLosses(discriminator, config.weights))
            discriminator_optim = run.optimizer(discriminator_losses, config.optim)
        run.resume()

        batch: FommBatch
        for batch in run.batches(data, config.optim.batch_size):
            batch = batch.floats()
            warp = random_warp(batch.index, config.run.seed, config.warp, run.device)
            with only_judging(discriminator):
                redrawn = generator_losses(batch, warp, discriminator)
            run.update(generator_optim, redrawn.losses)
            if discriminator is not None:
                shown = batch.driving_CHW, redrawn.image_BCHW, redrawn.position_BK2
                run.update(discriminator_optim, discriminator_losses(*shown))
            if run.validates():
                with run.evaluating() as trained:
                    metrics = validate(trained, validation, config, run.device)
                run.record(metrics, best="psnr")
            if run.samples():
                with run.evaluating() as trained:
                    draw_samples(run, trained, validation)


if __name__ == "__main__":
    with command.clean_exit(CheckpointError, ConfigError, DataError, RunError):
        main(command.from_command_line(Config, __doc__))
