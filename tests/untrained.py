"""A small model with random weights, for tests of everything around the networks, and random statistics for any.

It is no talking head: the picture is carried through (source skip) and sways with what random networks make of the
sound.
"""

import torch

from animation.weights import NETWORKS
from datasets.pose import RELEASED_RANGE
from engine.checkpoint import Weights
from engine.config import to_dict
from modules.head_motion_predictor import HeadMotionPredictorConfig
from modules.image_generator import DenseMotionConfig, ImageGeneratorConfig
from modules.keypoint_detector import KeypointDetectorConfig
from modules.motion_field_generator import MotionFieldGeneratorConfig


def untrained_weights(image_size: int = 128, num_keypoints: int = 10, seed: int = 0) -> Weights:
    """Networks of some 100 kB with random weights and the configurations that describe them.

    Args:
        image_size: pixels, 64, 128 or 256.
    """
    scale = 32 / image_size
    configs = {
        "keypoint_detector": KeypointDetectorConfig(
            num_keypoints=num_keypoints, scale_factor=scale, block_expansion=8, max_features=32, num_blocks=3
        ),
        "image_generator": ImageGeneratorConfig(
            image_size=image_size,
            num_keypoints=num_keypoints,
            block_expansion=8,
            max_features=32,
            num_bottleneck_blocks=1,
            dense_motion=DenseMotionConfig(scale_factor=scale, block_expansion=8, max_features=32, num_blocks=3),
            align_corners=True,
            source_skip=True,
        ),
        "head_motion_predictor": HeadMotionPredictorConfig(embedding=32, resnet_width=8, resnet_depths=(1, 1)),
        "motion_field_generator": MotionFieldGeneratorConfig(
            image_size=image_size,
            num_keypoints=num_keypoints,
            map_size=32,
            block_expansion=8,
            max_features=16,
            num_blocks=3,
        ),
    }
    weights = Weights(configs={component: to_dict(config) for component, config in configs.items()})
    weights.configs["pose_range"] = to_dict(RELEASED_RANGE)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for component, config in configs.items():
            network_class, _ = NETWORKS[component]
            weights.states[component] = network_class(config).state_dict()
    return weights


def randomise_norms(network):
    """Give BatchNorm layers statistics and gains that a wrong fold would show."""
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            if module.affine:
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, 0, 0.1)
    return network
