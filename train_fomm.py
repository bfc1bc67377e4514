"""Stage 1: train the keypoint detector N_D and the image generator N_I on video, self-supervised (Sec. 3.1, 4.2).

Losses and settings are those of Siarohin et al. 2019b ("FOMM"), which the paper follows: a driving frame is redrawn
from a source frame of the same clip through the motion of their keypoints.

    python train_fomm.py --config config/fomm_tiny.yaml                       # a smoke run, on synthetic clips
    torchrun --nproc_per_node 4 train_fomm.py --config config/fomm_vox.yaml data.root=data/vox

The same command resumes. See docs/TRAINING.md.

Letters: B batch, C H W image.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from animation.weights import component_config, read_weights
from datasets.clips import load_manifest, mouth_boxes
from datasets.errors import DataError
from datasets.fomm import FommBatch, FommData, FommDataConfig
from datasets.media.image import to_float
from datasets.sampling import choices
from datasets.synthetic import SyntheticConfig, make_if_absent
from engine import command, pictures
from engine.checkpoint import CheckpointError, load_strict
from engine.config import ConfigError, Count, Share, to_dict
from engine.run import OptimConfig, Run, RunConfig, RunError
from engine.run_folder import fingerprint
from engine.vgg_weights import fill_vgg
from modules import face_points, losses, measures
from modules.added_keypoints import old_places, widened
from modules.discriminators import ImageDiscriminatorConfig, MultiScaleDiscriminator, only_judging
from modules.image_generator import ImageGenerator, ImageGeneratorConfig, Rendering, starting_state
from modules.keypoint_detector import KeypointDetector, KeypointDetectorConfig
from modules.keypoints import Keypoints
from modules.limits import one_nth
from modules.part_reader import PartReaderConfig, PartReaders, openings, parts_of, shaken
from modules.perceptual import ImagePyramid, VggConfig, VggFeatures
from modules.random_warp import RandomWarp, RandomWarpConfig, random_warp
from modules.reconstruction import ReconstructionWeights, pixel_weight, reconstruction_losses

logger = logging.getLogger(__name__)

READER_LR = 1e-3  # at the first of `part_reader.first_steps`, falling to 0


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
    # Ours: the same for the four keypoints before those, and the lids of both eyes.
    lids: float = 0.0
    lid_shape: float = 0.0
    lid_gain: float = 1.0
    # Ours: hold the free keypoints and all Jacobians to those of the N_D of initial_weights, from which a new N_D, of
    # another size or with more keypoints, learns them. Jacobians of keypoints that one lacks are held to the identity.
    kept: float = 0.0
    # Ours: what N_I paints must be right by itself, before `source_skip` mixes it with the warped source. Otherwise the
    # painting exaggerates, and its share in the mixture stays small.
    painted: float = 0.0
    # Ours: mouth and eyes are as far open as in the driving frame, and show the same, by what `modules.part_reader`
    # reads in them; `realness`: their crops look like true ones (LSGAN). `reader` weighs that network's own training.
    opening: float = 0.0
    opening_features: float = 0.0
    realness: float = 0.0
    reader: float = 1.0
    adversarial: float = 0.0  # FOMM's vox-adv: 1. The two below count only then.
    feature_matching: float = 10.0
    discriminator: float = 1.0

    @property
    def draws(self) -> bool:
        """Whether any loss needs N_I's picture; without one N_I is not run, and N_D learns alone."""
        terms = (self.perceptual, self.pixel, self.gradient, self.ssim, self.painted, self.adversarial)
        return any(terms) or self.reads

    @property
    def reads(self) -> bool:
        """Whether any loss needs the readers of mouths and eyes."""
        return bool(self.opening or self.opening_features or self.realness)


@dataclass(frozen=True)
class OptimFomm(OptimConfig):
    """Sec. 4.2: batch 28 for N_D and N_I."""

    batch_size: int = 28


@dataclass(frozen=True)
class ValidationConfig:
    """Held-out pairs: the first frame of a clip as the source, another frame of it as the driving frame."""

    split: str = "val"
    pairs: Count = 64
    batch_size: Count = 8


@dataclass(frozen=True)
class Config:
    """Everything `train_fomm.py` can be told."""

    run: RunConfig
    data: FommDataConfig = FommDataConfig()
    keypoint_detector: KeypointDetectorConfig = KeypointDetectorConfig()
    image_generator: ImageGeneratorConfig = ImageGeneratorConfig()
    discriminator: ImageDiscriminatorConfig = ImageDiscriminatorConfig()
    part_reader: PartReaderConfig = PartReaderConfig()  # ours; read only where `weights.reads`
    warp: RandomWarpConfig = RandomWarpConfig()
    vgg: VggConfig = VggConfig()
    pyramid: tuple[float, ...] = (1.0, 0.5, 0.25, 0.125)  # scales of the reconstruction losses (FOMM)
    weights: WeightConfig = WeightConfig()
    # Ours: False trains N_I alone under the N_D of initial_weights, so that an N_M of that N_D stays right.
    train_detector: bool = True
    # Ours: in this share of the pairs N_I draws lips and lids as far apart as they are in the driving frame, not as N_D
    # finds them; for keypoints tied to both. N_D sees shut eyes as half open, so N_I would never shut them.
    true_openings: Share = 0.0
    optim: OptimFomm = OptimFomm()
    validation: ValidationConfig = ValidationConfig()
    initial_weights: str = ""  # start from a weights file, a run folder or a released checkpoint
    synthetic: SyntheticConfig | None = None  # draw this corpus if data.root holds none

    def __post_init__(self) -> None:
        one_nth("pyramid", *self.pyramid)
        if self.keypoint_detector.num_keypoints != self.image_generator.num_keypoints:
            raise ValueError("keypoint_detector.num_keypoints and image_generator.num_keypoints must be equal")
        keypoints = self.discriminator.keypoints
        if self.weights.adversarial and keypoints not in (0, self.keypoint_detector.num_keypoints):
            raise ValueError("discriminator.keypoints must be 0 or the detector's num_keypoints")
        if not (self.train_detector or self.initial_weights):
            raise ValueError("train_detector=false needs initial_weights, from which N_D comes")
        if (self.weights.lips or self.weights.lip_shape) and self.keypoint_detector.num_keypoints <= face_points.LIPS:
            raise ValueError(
                f"weights.lips and lip_shape take {face_points.LIPS} keypoints;"
                " keypoint_detector.num_keypoints must be more"
            )
        tied = face_points.LIPS + face_points.LIDS
        if (self.weights.lids or self.weights.lid_shape) and self.keypoint_detector.num_keypoints <= tied:
            raise ValueError(f"weights.lids and lid_shape want more than {tied} keypoints, the lips' included")
        if self.weights.kept and not (self.initial_weights and self.train_detector):
            raise ValueError("weights.kept needs train_detector and initial_weights, whose keypoints are kept")
        if self.true_openings and self.keypoint_detector.num_keypoints <= tied:
            raise ValueError(f"true_openings wants more than {tied} keypoints, those of lips and lids included")


class Reconstruction(NamedTuple):
    """The generator's losses, and what the discriminator is shown, without gradients."""

    losses: dict[str, Tensor]
    image_BCHW: Tensor | None  # None where N_D learns alone
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
        teacher: KeypointDetector | None = None,
        true_openings: float = 0.0,
    ) -> None:
        super().__init__()
        self.true_openings = true_openings
        self.detector, self.generator, self.weights = detector, generator, weights
        self.train_detector = train_detector
        self.detector.requires_grad_(train_detector)
        self.generator.requires_grad_(weights.draws)
        self.frozen = (pyramid, vgg, teacher)  # in a tuple: not trained, so not part of the state
        self.train()

    def train(self, mode: bool = True) -> "GeneratorLosses":
        super().train(mode)
        self.detector.train(mode and self.train_detector)
        self.generator.train(mode and self.weights.draws)
        return self

    def forward(
        self,
        batch: FommBatch,
        warp: RandomWarp,
        discriminator: MultiScaleDiscriminator | None,
        readers: PartReaders | None = None,
    ) -> Reconstruction:
        weights, terms, image_BCHW = self.weights, {}, None
        source_BCHW, driving_BCHW = batch.source_CHW, batch.driving_CHW
        source = self.detector(source_BCHW).keypoints
        driving = self.detector(driving_BCHW).keypoints
        if weights.draws:
            driven_by = self._truly_open(driving, batch) if self.true_openings else driving
            rendering: Rendering = self.generator(source_BCHW, driven_by, source)
            image_BCHW = rendering.image_BCHW
            terms |= self._picture_losses(rendering, batch)
        if weights.reads:
            terms |= opening_losses(readers, image_BCHW, batch, weights)
        if self.train_detector:
            terms |= self._tied_losses(Keypoints.cat([source, driving]), batch)
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
        drawn = None if image_BCHW is None else image_BCHW.detach()
        return Reconstruction(terms, drawn, driving.position_BK2.detach())

    def _truly_open(self, driving: Keypoints, batch: FommBatch) -> Keypoints:
        """Lips and lids as far apart as they are, in a share of the batch that the items' numbers decide."""
        mouth_B4, eyes_B24, weights = batch.driving_mouth_4, batch.driving_eyes_24, self.weights
        lips_B42 = face_points.lip_points(mouth_B4, batch.turn, weights.lip_gain)
        lids_B42 = face_points.lid_points(eyes_B24, batch.turn, weights.lid_gain)
        chance = torch.Generator().manual_seed(int(batch.index[0]))
        drawn_B = torch.rand(len(mouth_B4), generator=chance) < self.true_openings
        drawn_B = drawn_B.to(mouth_B4, non_blocking=True)
        chosen_B = drawn_B * _known(mouth_B4) * _known(eyes_B24[:, 0]) * _known(eyes_B24[:, 1])
        position = face_points.with_openings(driving.position_BK2, lips_B42, lids_B42, chosen_B)
        return Keypoints(position, driving.jacobian_BK22)

    def _picture_losses(self, rendering: Rendering, batch: FommBatch) -> dict[str, Tensor]:
        weights = self.weights
        pyramid, vgg, _ = self.frozen
        driving_BCHW, mouth_B4, eyes_B24 = batch.driving_CHW, batch.driving_mouth_4, batch.driving_eyes_24
        terms = reconstruction_losses(rendering.image_BCHW, driving_BCHW, mouth_B4, weights, pyramid, vgg, eyes_B24)
        if weights.painted:
            weight_B1HW = pixel_weight(mouth_B4, eyes_B24, *driving_BCHW.shape[-2:], weights)
            parts = rendering.painted_BCHW, driving_BCHW, weight_B1HW
            terms["painted"] = weights.painted * (losses.pixel_l1(*parts) + losses.gradient_l1(*parts))
        return terms

    def _tied_losses(self, keypoints: Keypoints, batch: FommBatch) -> dict[str, Tensor]:
        """What keypoints are tied to; `keypoints` are the source's, then the driving frame's."""
        weights, terms = self.weights, {}
        if weights.lips or weights.lip_shape:
            mouth_B4 = torch.cat([batch.source_mouth_4, batch.driving_mouth_4])
            terms |= lip_losses(keypoints.position_BK2, mouth_B4, batch.turn.repeat(2), weights)
        if weights.lids or weights.lid_shape:
            eyes_B24 = torch.cat([batch.source_eyes_24, batch.driving_eyes_24])
            terms |= lid_losses(keypoints.position_BK2, eyes_B24, batch.turn.repeat(2), weights)
        if weights.kept:
            teacher = self.frozen[2]
            with torch.no_grad():
                wanted = teacher(torch.cat([batch.source_CHW, batch.driving_CHW])).keypoints
            places = old_places(teacher.config, keypoints.position_BK2.shape[1])
            terms["kept"] = weights.kept * kept_l1(keypoints, wanted, places, weights)
        return terms


def lip_losses(position_BK2: Tensor, mouth_B4: Tensor, turn_B: Tensor, weights: WeightConfig) -> dict[str, Tensor]:
    """What ties four keypoints to the mouth: where they are, and how far apart (ours)."""
    points_B42 = face_points.lip_points(mouth_B4, turn_B, weights.lip_gain)
    known_B = _known(mouth_B4)
    terms = {}
    if weights.lips:
        terms["lips"] = weights.lips * losses.place_l1(position_BK2[:, -face_points.LIPS :], points_B42, known_B)
    if weights.lip_shape:
        terms["lip_shape"] = weights.lip_shape * losses.lip_shape_l1(position_BK2, points_B42, known_B)
    return terms


def lid_losses(position_BK2: Tensor, eyes_B24: Tensor, turn_B: Tensor, weights: WeightConfig) -> dict[str, Tensor]:
    """The same for four keypoints and the eyes (ours)."""
    points_B42 = face_points.lid_points(eyes_B24, turn_B, weights.lid_gain)
    known_B = _known(eyes_B24[:, 0])
    terms = {}
    if weights.lids:
        lids_B42 = position_BK2[:, -face_points.LIPS - face_points.LIDS : -face_points.LIPS]
        terms["lids"] = weights.lids * losses.place_l1(lids_B42, points_B42, known_B)
    if weights.lid_shape:
        terms["lid_shape"] = weights.lid_shape * losses.lid_shape_l1(position_BK2, points_B42, known_B)
    return terms


def _known(box_B4: Tensor) -> Tensor:
    """1 where a box is not empty, 0 where the place of its part is not known."""
    return (box_B4[:, 2] > box_B4[:, 0]).to(box_B4)


def kept_l1(keypoints: Keypoints, wanted: Keypoints, places: list[int], weights: WeightConfig) -> Tensor:
    """How far keypoints are from those of another N_D, which may lack some; its own are at `places` (ours).

    Positions that are tied to lips or lids do not count; Jacobians do, those that the other lacks against the identity.
    """
    new = keypoints.position_BK2.shape[1]
    tied = {*range(new - face_points.LIPS, new)} if weights.lips else set()
    if weights.lids:
        tied |= {*range(new - face_points.LIPS - face_points.LIDS, new - face_points.LIPS)}
    free = [(place, at) for at, place in enumerate(places) if place not in tied]
    place, at = map(list, zip(*free, strict=True))
    distance = (keypoints.position_BK2[:, place] - wanted.position_BK2[:, at]).abs().mean()
    if keypoints.jacobian_BK22 is not None:
        jacobian_BK22 = torch.eye(2, device=distance.device).expand_as(keypoints.jacobian_BK22).clone()
        jacobian_BK22[:, places] = wanted.jacobian_BK22
        distance = distance + (keypoints.jacobian_BK22 - jacobian_BK22).abs().mean()
    return distance


def opening_losses(
    readers: PartReaders, image_BCHW: Tensor, batch: FommBatch, weights: WeightConfig
) -> dict[str, Tensor]:
    """How differently readers, not trained here, read mouth and eyes of the drawn and of the driving frame (ours)."""
    boxes_B34 = driving_boxes(batch)
    readers.requires_grad_(False)
    drawn = readers(image_BCHW, boxes_B34, batch.turn)
    with torch.no_grad():
        true = readers(batch.driving_CHW, boxes_B34, batch.turn)
    readers.requires_grad_(True)
    terms = {}
    for part, reading in drawn.items():
        known_N = _known(parts_of(boxes_B34, part))
        if weights.opening:
            off_N = (reading.opening_N - true[part].opening_N).abs() * known_N
            terms[f"opening_{part}"] = weights.opening * off_N.mean()
        if weights.opening_features:
            distance = losses.feature_l1(reading.features, true[part].features)
            terms[f"features_{part}"] = weights.opening_features * distance
        if weights.realness:
            terms[f"realness_{part}"] = weights.realness * losses.lsgan_generator(reading.score)
    return terms


def driving_boxes(batch: FommBatch) -> Tensor:
    """The driving frame's mouth and eyes, [B, 3, 4]."""
    return torch.cat([batch.driving_mouth_4[:, None], batch.driving_eyes_24], dim=1)


class ReaderLosses(nn.Module):
    """The readers of mouths and eyes with what trains them: true frames, and drawn ones if they judge."""

    def __init__(self, readers: PartReaders, weight: float) -> None:
        super().__init__()
        self.readers, self.weight = readers, weight

    def forward(self, batch: FommBatch, seed: int, drawn_BCHW: Tensor | None = None) -> dict[str, Tensor]:
        chance = torch.Generator().manual_seed(seed)
        pictures_BCHW = torch.cat([batch.source_CHW, batch.driving_CHW])
        source_B34 = torch.cat([batch.source_mouth_4[:, None], batch.source_eyes_24], dim=1)
        boxes_B34 = torch.cat([source_B34, driving_boxes(batch)])
        looked_at_B34 = shaken(boxes_B34, self.readers.config.shake, chance)
        true = self.readers(pictures_BCHW, looked_at_B34, batch.turn.repeat(2))
        terms = {}
        for part, reading in true.items():
            opening_N, known_N = openings(parts_of(boxes_B34, part))
            terms[f"reader_{part}"] = self.weight * ((reading.opening_N - opening_N).abs() * known_N).mean()
        if drawn_BCHW is not None:
            for part, drawn in self.readers(drawn_BCHW, looked_at_B34[len(drawn_BCHW) :], batch.turn).items():
                terms[f"judge_{part}"] = self.weight * losses.lsgan_discriminator(true[part].score, drawn.score)
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


def teach_readers(readers: PartReaders, data: FommData, batch_size: int, run: Run) -> None:
    """The first steps of readers, on true frames alone: before that they can say nothing about drawn ones."""
    steps, learner = readers.config.first_steps, ReaderLosses(readers, weight=1.0)
    adam = torch.optim.Adam(readers.parameters(), lr=READER_LR)
    terms: dict[str, Tensor] = {}
    batches = run.batches_before(data, batch_size, steps)
    for step, batch in enumerate(tqdm(batches, desc="readers", total=steps, disable=None, unit="step")):
        terms = learner(batch.floats(), step)
        torch.stack(list(terms.values())).sum().backward()
        for group in adam.param_groups:
            group["lr"] = READER_LR * (1 - step / steps)
        adam.step()
        adam.zero_grad()
    logger.info("readers are off by %s of a part's width", {name: round(off.item(), 3) for name, off in terms.items()})


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
        teacher = None
        if config.initial_weights:
            weights = read_weights([Path(config.initial_weights)])
            stored = component_config(weights, "keypoint_detector", KeypointDetectorConfig)
            if config.weights.kept:
                teacher = KeypointDetector(stored)
                load_strict(teacher, weights.states["keypoint_detector"], config.initial_weights)
                teacher = run.freeze(teacher)
            count = config.keypoint_detector.num_keypoints
            for name in networks.keys() & weights.states.keys():
                state = starting_state(networks[name], weights.states[name])
                if stored.num_keypoints < count:
                    state = widened(name, state, networks[name].state_dict(), stored, count)
                weights.states[name] = state
            weights.load_into(networks, config.initial_weights)
        run.export(networks, {name: to_dict(getattr(config, name)) for name in networks})
        pyramid = run.freeze(ImagePyramid(config.pyramid))
        vgg = None
        if config.weights.perceptual:
            vgg = run.freeze(VggFeatures(config.vgg))
            fill_vgg(vgg, config.vgg.network, config.vgg.weights)
        module = GeneratorLosses(
            detector, generator, config.weights, pyramid, vgg, config.train_detector, teacher, config.true_openings
        )
        generator_losses = run.place(module)
        generator_optim = run.optimizer(generator_losses, config.optim)
        discriminator = None
        if config.weights.adversarial:
            discriminator = MultiScaleDiscriminator(config.discriminator)
            discriminator_losses = run.place(DiscriminatorLosses(discriminator, config.weights))
            discriminator_optim = run.optimizer(discriminator_losses, config.optim)
        readers = None
        if config.weights.reads:
            readers = PartReaders(config.part_reader, judges=config.weights.realness > 0)
            reader_losses = run.place(ReaderLosses(readers, config.weights.reader))
            reader_optim = run.optimizer(reader_losses, config.optim)
        corpus = fingerprint(clip.row.contents for group in data.groups for clip in group)
        if not run.resume({"corpus": corpus}) and readers is not None:
            teach_readers(readers, data, config.optim.batch_size, run)

        batch: FommBatch
        for batch in run.batches(data, config.optim.batch_size):
            batch = batch.floats()
            warp = random_warp(batch.index, config.run.seed, config.warp, run.device)
            with only_judging(discriminator):
                redrawn = generator_losses(batch, warp, discriminator, readers)
            run.update(generator_optim, redrawn.losses)
            if readers is not None:
                drawn = redrawn.image_BCHW if readers.judges else None
                run.update(reader_optim, reader_losses(batch, int(batch.index[0]), drawn))
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
