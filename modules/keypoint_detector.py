"""Keypoint detector N_D (Sec. 3.1), adopted from Siarohin et al. 2019b."""

from dataclasses import dataclass

from torch import Tensor, nn

from modules.blocks import AntiAliasDownsample
from modules.hourglass import Hourglass2d
from modules.keypoints import DetectedKeypoints, identity_jacobian_, soft_argmax, spatial_softmax, weighted_jacobian
from modules.limits import at_least, one_nth


@dataclass(frozen=True)
class KeypointDetectorConfig:
    """Sizes of N_D; the defaults are those of vox-256 (Siarohin et al. 2019b), which the paper adopts (Sec. 4.2)."""

    num_keypoints: int = 10
    jacobians: bool = True
    temperature: float = 0.1
    scale_factor: float = 0.25  # the detector works at this fraction of the picture's size
    block_expansion: int = 32
    max_features: int = 1024
    num_blocks: int = 5
    lid_keypoints: int = 0  # ours: 4 where those before the lips' four are tied to the lids (`modules.face_points`)

    def __post_init__(self) -> None:
        at_least(1, self, "num_keypoints", "block_expansion", "max_features", "num_blocks")
        at_least(0, self, "lid_keypoints")
        one_nth("scale_factor", self.scale_factor)
        if self.temperature <= 0:
            raise ValueError(f"temperature must be more than 0, found {self.temperature}")


class KeypointDetector(nn.Module):
    """image_BCHW in [0, 1] -> K positions in [-1, 1], their Jacobians and the heatmaps they come from."""

    def __init__(self, config: KeypointDetectorConfig):
        super().__init__()
        self.config, self.temperature = config, config.temperature
        self.down = AntiAliasDownsample(3, config.scale_factor)
        self.predictor = Hourglass2d(3, config.block_expansion, config.max_features, config.num_blocks)
        self.kp = nn.Conv2d(self.predictor.out_channels, config.num_keypoints, 7)
        self.jacobian = None
        if config.jacobians:
            self.jacobian = nn.Conv2d(self.predictor.out_channels, 4 * config.num_keypoints, 7)
            identity_jacobian_(self.jacobian.weight, self.jacobian.bias)

    def forward(self, image_BCHW: Tensor) -> DetectedKeypoints:
        features = self.predictor(self.down(image_BCHW))
        heatmap = spatial_softmax(self.kp(features), self.temperature)  # (B, K, H/4 - 6, W/4 - 6)
        jacobian = None if self.jacobian is None else weighted_jacobian(self.jacobian(features), heatmap)
        return DetectedKeypoints(soft_argmax(heatmap), jacobian, heatmap)
