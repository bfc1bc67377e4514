"""Stage two's losses: what its discriminator is shown."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import train_headpose
from datasets.headpose import HeadPoseBatch
from datasets.sampling import clamped
from modules.discriminators import PoseDiscriminator, PoseDiscriminatorConfig
from modules.head_motion_predictor import HeadMotionPredictor, HeadMotionPredictorConfig

WINDOW = 48


class OtherTakes(nn.Module):
    """In N_H's place: sequences drawn as the real ones are, so that nothing but how they end can give them away."""

    def __init__(self, pose_BTP: Tensor) -> None:
        super().__init__()
        self.pose_BTP = nn.Parameter(pose_BTP)

    def forward(self, image_BCHW: Tensor, audio_BTAF: Tensor) -> Tensor:
        return self.pose_BTP


def takes(random: np.random.Generator, count: int) -> np.ndarray:
    """Smooth random head poses [count, WINDOW + 1, 6] in about [-1, 1]."""
    steps = random.normal(size=(count, WINDOW + 9, 6))
    smooth = np.apply_along_axis(np.convolve, 1, steps, np.hanning(11)[1:-1] / 5, mode="valid")
    return (0.3 * smooth + 0.3 * random.normal(size=(count, 1, 6))).astype(np.float32)


def shown(frames: int, seed: int) -> train_headpose.Prediction:
    """16 real sequences of clips of so many frames, and as many of the same process in the place of predictions."""
    random = np.random.default_rng(seed)
    real_BTP, other_BTP = takes(random, 16), takes(random, 16)
    real_BTP = real_BTP[:, clamped(0, WINDOW + 1, frames)]  # as HeadPoseData reads them
    valid_BT = (torch.arange(1, WINDOW + 1) < frames).expand(16, -1)
    weights = train_headpose.WeightConfig(ssim=0, adversarial=0)
    losses = train_headpose.PredictorLosses(OtherTakes(torch.from_numpy(other_BTP)), weights, None, first_row=0)
    batch = HeadPoseBatch(None, None, torch.from_numpy(real_BTP), valid_BT, clip=0, index=0)
    return losses(batch, None)


def discriminator_loss(frames: int) -> float:
    """Of the last 30 of 150 steps."""
    torch.manual_seed(0)
    critic = PoseDiscriminator(PoseDiscriminatorConfig(width=16))
    losses = train_headpose.DiscriminatorLosses(critic, train_headpose.WeightConfig())
    optim = torch.optim.Adam(critic.parameters(), 2e-3, betas=(0.5, 0.999))
    found = []
    for step in range(150):
        sequences = shown(frames, step)
        loss = losses(sequences.wanted_BTP, sequences.pose_BTP)["discriminator"]
        optim.zero_grad()
        loss.backward()
        optim.step()
        found.append(loss.item())
    return float(np.mean(found[-30:]))


def test_the_end_of_a_clip_gives_no_prediction_away() -> None:
    """Least squares that cannot tell real from real stay at 0.5, whether the clip fills the window or half of it."""
    whole, half = discriminator_loss(WINDOW + 1), discriminator_loss(WINDOW // 2)
    assert abs(whole - 0.5) < 0.03
    assert abs(half - 0.5) < 0.03


def test_the_judge_of_a_prediction_sees_its_own_last_pose_past_the_end() -> None:
    random = np.random.default_rng(0)
    real_BTP, other_BTP = (torch.from_numpy(takes(random, 2)) for _ in range(2))
    valid_BT = (torch.arange(1, WINDOW + 1) < 20).expand(2, -1)
    weights = train_headpose.WeightConfig(ssim=0)
    losses = train_headpose.PredictorLosses(OtherTakes(other_BTP), weights, None, first_row=0)
    seen = []

    def judge(pose_BTP: Tensor) -> Tensor:
        seen.append(pose_BTP)
        return pose_BTP[..., :1]

    losses(HeadPoseBatch(None, None, real_BTP, valid_BT, clip=0, index=0), judge)
    assert torch.equal(seen[0][:, :20], other_BTP[:, :20])
    assert torch.equal(seen[0][:, 20:], other_BTP[:, 19:20].expand(-1, WINDOW - 19, -1))


def test_past_the_end_a_sequence_holds_its_own_last_pose() -> None:
    pose_BTP = torch.arange(12.0).reshape(1, 6, 2).repeat(2, 1, 1).requires_grad_()
    valid_BT = torch.tensor([[True, True, True, False, False, False], [True] * 6])
    held_BTP = train_headpose.held_past_end(pose_BTP, valid_BT)
    assert held_BTP[0].tolist() == [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5], [4, 5]]
    assert torch.equal(held_BTP[1], pose_BTP[1])
    held_BTP.sum().backward()
    assert pose_BTP.grad[0, :, 0].tolist() == [1, 1, 1, 0, 0, 0]  # the held rows hand nothing back


@pytest.mark.parametrize("transition", [True, False])
def test_the_recurrence_stays_in_float32_under_autocast(transition: bool) -> None:
    config = HeadMotionPredictorConfig(
        embedding=8, resnet_width=4, resnet_depths=(1, 1), spatial_embedding_transition=transition
    )
    predictor = HeadMotionPredictor(config).eval()
    seen = []
    predictor.output.register_forward_hook(lambda output, given, result: seen.extend([given[0].dtype, result.dtype]))
    with torch.autocast("cpu", torch.bfloat16):
        pose_BTP = predictor(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 4, 41))
    assert pose_BTP.dtype == torch.float32
    assert set(seen) == {torch.float32}
