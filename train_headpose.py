"""Stage 2: train the head motion predictor N_H (Sec. 3.2, Eqs. 1-4). Needs no other stage.

    python train_headpose.py --config config/headpose_tiny.yaml                    # a smoke run, on synthetic clips
    torchrun --nproc_per_node 4 train_headpose.py --config config/headpose_vox.yaml data.root=data/vox

The same command resumes. See docs/TRAINING.md.

Letters: B batch, T video frame, A audio window in a frame, F audio feature, P pose value, C H W image.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from animation.weights import read_weights
from datasets.augment import PlacementJitter
from datasets.errors import DataError
from datasets.headpose import HeadPoseBatch, HeadPoseData, HeadPoseDataConfig
from datasets.synthetic import SyntheticConfig, make_if_absent
from engine import command, pictures
from engine.checkpoint import CheckpointError
from engine.config import ConfigError, Count, to_dict
from engine.run import OptimConfig, Run, RunConfig, RunError
from engine.run_folder import fingerprint
from modules import losses, measures
from modules.discriminators import PoseDiscriminator, PoseDiscriminatorConfig, only_judging
from modules.head_motion_predictor import HeadMotionPredictor, HeadMotionPredictorConfig

AXES = ("rx", "ry", "rz", "tx", "ty", "tz")


@dataclass(frozen=True)
class WeightConfig:
    """Weight of each loss, by the name under which it is logged; a loss of weight 0 is not computed.

    Eq. 4 adds its two terms as they are.
    """

    ssim: float = 1.0
    adversarial: float = 1.0
    discriminator: float = 1.0
    motion_size: float = 0.0  # ours: heads that move as far and as fast as people's; for trainings on few people
    l1: float = 0.0  # the ablation "with L1" (Sec. 5.4): ssim 0, l1 1


@dataclass(frozen=True)
class SsimConfig:
    """What Eq. 3 leaves open. "C1 and C2 are two small constants": Wang et al. 2004's, for values in [0, 1]."""

    c1: float = 0.01**2
    c2: float = 0.03**2
    # "map": mean, deviation and covariance over the whole 6xT image, the letter of Eq. 3. "channel": of each row alone.
    # Over the whole map the fixed differences between axes dominate the covariance, so that a still head in the right
    # place costs little; row by row only moving along pays (docs/TRAINING.md).
    statistics: Literal["map", "channel"] = "map"


@dataclass(frozen=True)
class OptimHeadPose(OptimConfig):
    """Sec. 4.2: batch 64."""

    batch_size: int = 64


@dataclass(frozen=True)
class ValidationConfig:
    """Held-out clips, each from its first frame."""

    split: str = "val"
    clips: Count = 32
    batch_size: Count = 8


@dataclass(frozen=True)
class Config:
    """Everything `train_headpose.py` can be told."""

    run: RunConfig
    data: HeadPoseDataConfig = HeadPoseDataConfig()
    image_size: Count = 256  # pixels, square (Sec. 4.1)
    head_motion_predictor: HeadMotionPredictorConfig = HeadMotionPredictorConfig()
    discriminator: PoseDiscriminatorConfig = PoseDiscriminatorConfig()
    ssim: SsimConfig = SsimConfig()
    weights: WeightConfig = WeightConfig()
    # Ours: weights.motion_size asks for the mean of how far such people move, else for the median, which is less.
    mean_motion_size: bool = False
    optim: OptimHeadPose = OptimHeadPose()
    validation: ValidationConfig = ValidationConfig()
    initial_weights: str = ""  # start from a weights file, a run folder or a released checkpoint
    synthetic: SyntheticConfig | None = None  # draw this corpus if data.root holds none

    def __post_init__(self) -> None:
        if self.weights.adversarial and self.data.window < self.discriminator.shortest:
            raise ValueError(f"data.window must be at least {self.discriminator.shortest} for the pose discriminator")
        if self.head_motion_predictor.image_size not in (0, self.image_size):
            raise ValueError("head_motion_predictor.image_size follows image_size: set that one")


class Prediction(NamedTuple):
    """The predictor's losses, and what the discriminator is shown: T+1 poses, each still past the clip's end."""

    losses: dict[str, Tensor]
    pose_BTP: Tensor  # without gradients
    wanted_BTP: Tensor


class PredictorLosses(nn.Module):
    """N_H with everything that trains it (Eq. 4)."""

    def __init__(
        self,
        predictor: HeadMotionPredictor,
        weights: WeightConfig,
        ssim: SsimConfig,
        first_row: int,
        mean_motion_size: bool = False,
    ) -> None:
        super().__init__()
        self.mean_motion_size = mean_motion_size
        self.predictor, self.weights, self.ssim, self.first_row = predictor, weights, ssim, first_row

    def forward(self, batch: HeadPoseBatch, discriminator: PoseDiscriminator | None) -> Prediction:
        weights = self.weights
        wanted_BTP, valid_BT = aligned(batch.pose_TP, self.first_row), with_first_row(batch.valid_T)
        predicted_BTP = self.predictor(batch.image_CHW, batch.audio_TAF).float()
        terms = {}
        if weights.ssim:
            ssim = losses.pose_ssim_loss(predicted_BTP, wanted_BTP, **vars(self.ssim), valid_BT=valid_BT)
            terms["ssim"] = weights.ssim * ssim
        if weights.motion_size:
            size = losses.motion_size_loss(predicted_BTP, wanted_BTP, valid_BT, self.mean_motion_size)
            terms["motion_size"] = weights.motion_size * size
        if weights.l1:
            terms["l1"] = weights.l1 * losses.masked_l1(predicted_BTP, wanted_BTP, valid_BT)
        if weights.adversarial:
            shown_BTP = held_past_end(predicted_BTP, valid_BT)
            terms["adversarial"] = weights.adversarial * losses.lsgan_generator(discriminator(shown_BTP))
        real_BTP = held_past_end(wanted_BTP, valid_BT)
        return Prediction(terms, held_past_end(predicted_BTP.detach(), valid_BT), real_BTP)


class DiscriminatorLosses(nn.Module):
    """The discriminator with what trains it (Eq. 4)."""

    def __init__(self, discriminator: PoseDiscriminator, weights: WeightConfig) -> None:
        super().__init__()
        self.discriminator, self.weights = discriminator, weights

    def forward(self, real_BTP: Tensor, fake_BTP: Tensor) -> dict[str, Tensor]:
        loss = losses.lsgan_discriminator(self.discriminator(real_BTP), self.discriminator(fake_BTP))
        return {"discriminator": self.weights.discriminator * loss}


def aligned(pose_BTP: Tensor, first_row: int) -> Tensor:
    """Poses of frames s ... s+T -> the T+1 rows that N_H should give (see `HeadMotionPredictorConfig.first_pose_row`).

    Row 0 is the reference picture's, frame s. With `first_row` 1 (Eqs. 1-2) row i+1, after audio i, is that of frame
    s+i; with 0 (the released model) it is that of frame s+i+1.
    """
    return pose_BTP if first_row == 0 else torch.cat([pose_BTP[:, :1], pose_BTP[:, :-1]], dim=1)


def held_past_end(pose_BTP: Tensor, valid_BT: Tensor) -> Tensor:
    """Past a clip's end, where nothing is known, a sequence's own last valid pose, without a gradient.

    The real and the predicted sequence must end alike, and each in its own pose: a predicted one that went on with the
    true last pose would jump there by the prediction's error, and the discriminator would look for nothing else.
    `valid_BT` is True from the first row up to the clip's end.
    """
    last_B = valid_BT.sum(1) - 1
    last_BP = pose_BTP.detach()[torch.arange(len(last_B), device=last_B.device), last_B]
    return torch.where(valid_BT[..., None], pose_BTP, last_BP[:, None])


def with_first_row(valid_BT: Tensor) -> Tensor:
    """Which of the T+1 rows are known: row 0, the picture's own pose, always is."""
    return torch.cat([torch.ones_like(valid_BT[:, :1]), valid_BT], dim=1)


class HeldOut(NamedTuple):
    """Validation clips, each from its first frame, and what is wanted of N_H for them."""

    items: list[HeadPoseBatch]
    wanted_BTP: Tensor  # the T+1 rows
    valid_BT: Tensor  # which of them are known
    mean_P: Tensor  # mean pose of the training corpus


def held_out(config: Config, training: HeadPoseData) -> HeldOut:
    settings = replace(
        config.data,
        split=config.validation.split,
        random_start=False,
        identity_sampling=False,
        repeats=1,
        augment=False,
        placement=PlacementJitter(),
    )
    data = HeadPoseData(settings, seed=0, size=config.image_size)
    items = [data[n] for n in range(min(config.validation.clips, len(data)))]
    wanted = aligned(torch.stack([item.pose_TP for item in items]), config.head_motion_predictor.first_pose_row)
    valid = with_first_row(torch.stack([item.valid_T for item in items]))
    return HeldOut(items, wanted, valid, mean_pose(training))


def mean_pose(data: HeadPoseData) -> Tensor:
    """Mean normalised pose of the corpus, every speaker counting the same, from at most 20 clips of each."""
    speakers: dict[str, list[np.ndarray]] = {}
    for clip in data.clips:
        means = speakers.setdefault(clip.row.identity, [])
        if len(means) < 20:
            means.append(data.pose_range.normalise(clip.pose()).mean(0))
    return torch.from_numpy(np.mean([np.mean(means, axis=0) for means in speakers.values()], axis=0))


def predict(predictor: HeadMotionPredictor, items: list[HeadPoseBatch], shift: int, device: torch.device) -> Tensor:
    """Poses [N, T+1, P] of all items; `shift` 1 gives each the next one's sound."""
    audio = [items[(n + shift) % len(items)].audio_TAF for n in range(len(items))]
    parts = []
    for n in range(0, len(items), 8):
        image = torch.stack([item.image_CHW for item in items[n : n + 8]]).to(device)
        parts.append(predictor(image, torch.stack(audio[n : n + 8]).to(device)).float().cpu())
    return torch.cat(parts)


def validate(networks: nn.ModuleDict, held_out: HeldOut, config: Config, device: torch.device) -> dict[str, float]:
    """HE (mean L1 of normalised poses, Table 2) and the loss of Eq. 3 beside a still head; how the head moves.

    he: of the prediction; still_he: of the first true pose repeated, which a predictor does not know; mean_he: of the
    mean training pose, for everybody; motion_he: of the prediction with its first pose replaced by the true one, to be
    compared with still_he; other_he: of the prediction from another clip's sound. ssim_map, ssim_channel: Eq. 3 in both
    readings; still_ssim_...: of a still head in its mean place. std_ratio, speed_ratio: standard deviation over time,
    and mean change from frame to frame, over the truth's. audio_effect: mean difference between predictions from the
    right and from another sound.
    """
    items, wanted, valid, mean_P = held_out
    right, other = (predict(networks["head_motion_predictor"], items, shift, device) for shift in (0, 1))
    still = wanted[:, :1].expand_as(wanted)
    metrics = {
        "he": losses.masked_l1(right, wanted, valid),
        "still_he": losses.masked_l1(still, wanted, valid),
        "motion_he": losses.masked_l1(right - right[:, :1] + wanted[:, :1], wanted, valid),
        "mean_he": losses.masked_l1(mean_P.expand_as(wanted), wanted, valid),
        "other_he": losses.masked_l1(other, wanted, valid),
        "std_ratio": measures.deviation(right, valid) / measures.deviation(wanted, valid),
        "speed_ratio": measures.speed(right, valid) / measures.speed(wanted, valid),
        "audio_effect": losses.masked_l1(right, other, valid),
    }
    mask = valid[..., None]
    mean = ((wanted * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)).expand_as(wanted)
    for statistics in ("map", "channel"):
        for name, pose in (("", right), ("still_", mean)):
            ssim = losses.pose_ssim_loss(pose, wanted, config.ssim.c1, config.ssim.c2, statistics, valid)
            metrics[f"{name}ssim_{statistics}"] = ssim
    return {name: float(value) for name, value in metrics.items()}


def draw_samples(run: Run, networks: nn.ModuleDict, held_out: HeldOut, count: int = 3) -> None:
    """Curves of predicted and true poses of a few held-out clips."""
    chosen = held_out.items[:count]
    right, other = (predict(networks["head_motion_predictor"], chosen, shift, run.device).numpy() for shift in (0, 1))
    for n, item in enumerate(chosen):
        rows = int(held_out.valid_BT[n].sum())
        wanted = held_out.wanted_BTP[n].numpy()
        curves: dict[str, np.ndarray] = {"true": wanted[:rows], "predicted": right[n, :rows]}
        if len(chosen) > 1:
            curves["predicted from another sound"] = other[n, :rows]
        pictures.save_curves(run.sample_path(f"pose{n}.png"), curves, AXES, f"clip {item.clip}, normalised")


def main(config: Config) -> None:
    with Run("headpose", config) as run:
        with run.accelerator.main_process_first():
            make_if_absent(config.data.root, config.synthetic)
        data = HeadPoseData(config.data, config.run.seed, config.image_size)
        validation = held_out(config, data)

        network_config = replace(config.head_motion_predictor, image_size=config.image_size)
        predictor = HeadMotionPredictor(network_config)
        networks = {"head_motion_predictor": predictor}
        if config.initial_weights:
            read_weights([Path(config.initial_weights)]).load_into(networks, config.initial_weights)
        settings = {
            "head_motion_predictor": network_config,
            "pose_range": data.pose_range,
            "audio_features": data.audio_features,
        }
        run.export(networks, {name: to_dict(value) for name, value in settings.items()})
        first_row = config.head_motion_predictor.first_pose_row
        terms = PredictorLosses(predictor, config.weights, config.ssim, first_row, config.mean_motion_size)
        predictor_losses = run.place(terms)
        predictor_optim = run.optimizer(predictor_losses, config.optim)
        discriminator = None
        if config.weights.adversarial:
            discriminator = PoseDiscriminator(config.discriminator)
            discriminator_losses = run.place(DiscriminatorLosses(discriminator, config.weights))
            discriminator_optim = run.optimizer(discriminator_losses, config.optim)
        run.resume({"corpus": fingerprint(clip.row.contents for clip in data.clips)})

        batch: HeadPoseBatch
        for batch in run.batches(data, config.optim.batch_size):
            with only_judging(discriminator):
                predicted = predictor_losses(batch, discriminator)
            run.update(predictor_optim, predicted.losses)
            if discriminator is not None:
                run.update(discriminator_optim, discriminator_losses(predicted.wanted_BTP, predicted.pose_BTP))
            if run.validates():
                with run.evaluating() as trained:
                    metrics = validate(trained, validation, config, run.device)
                run.record(metrics, best=f"ssim_{config.ssim.statistics}", higher_is_better=False)
            if run.samples():
                with run.evaluating() as trained:
                    draw_samples(run, trained, validation)


if __name__ == "__main__":
    with command.clean_exit(CheckpointError, ConfigError, DataError, RunError):
        main(command.from_command_line(Config, __doc__))
