"""A stage one with more keypoints begins as the one that it goes on from."""

from dataclasses import replace

import torch

from modules.added_keypoints import old_places, widened
from modules.image_generator import DenseMotionConfig, ImageGenerator, ImageGeneratorConfig
from modules.keypoint_detector import KeypointDetector, KeypointDetectorConfig
from modules.keypoints import Keypoints

OLD, NEW = 6, 10
PLACES = [0, 1, 6, 7, 8, 9]  # two free keypoints, then the four of the lips
DETECTOR = KeypointDetectorConfig(num_keypoints=OLD, block_expansion=8, max_features=16, num_blocks=2)
DENSE = DenseMotionConfig(scale_factor=0.5, block_expansion=8, max_features=16, num_blocks=2, keypoint_prior=2.0)
GENERATOR = ImageGeneratorConfig(
    image_size=32, num_keypoints=OLD, block_expansion=8, max_features=16, num_bottleneck_blocks=1, dense_motion=DENSE,
    source_skip=True, keypoint_maps=True,
)  # fmt: skip


def grown(kind: type, config: KeypointDetectorConfig | ImageGeneratorConfig, name: str):
    """A network and its successor with more keypoints, both in evaluation mode."""
    torch.manual_seed(0)
    old, new = kind(config), kind(replace(config, num_keypoints=NEW))
    halves = {key: value.half() if value.ndim == 4 else value for key, value in old.state_dict().items()}
    old.load_state_dict(halves)  # the demo model's file keeps kernels in 16 bits
    new.load_state_dict(widened(name, halves, new.state_dict(), DETECTOR, NEW))
    return old.eval(), new.eval()


def test_what_is_tied_stays_the_last() -> None:
    assert old_places(DETECTOR, NEW) == PLACES
    assert old_places(replace(DETECTOR, num_keypoints=10, lid_keypoints=4), 13) == [0, 1, *range(5, 13)]


def test_old_keypoints_are_found_where_they_were_and_new_jacobians_are_the_identity() -> None:
    old, new = grown(KeypointDetector, DETECTOR, "keypoint_detector")
    picture = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        before, after = old(picture), new(picture)
    assert torch.allclose(after.position_BK2[:, PLACES], before.position_BK2, atol=1e-5)
    assert torch.allclose(after.jacobian_BK22[:, PLACES], before.jacobian_BK22, atol=1e-5)
    assert torch.allclose(after.jacobian_BK22[:, 2:6], torch.eye(2).expand(2, 4, 2, 2), atol=1e-6)


def test_without_the_new_motions_the_picture_is_the_old_one() -> None:
    old, new = grown(ImageGenerator, GENERATOR, "image_generator")
    with torch.no_grad():
        new.dense_motion_network.mask.bias[3:7] = -1e4  # the new keypoints' motions count nowhere
    picture = torch.rand(2, 3, 32, 32)
    driving, source = (torch.rand(2, OLD, 2) - 0.5 for _ in range(2))
    jacobian = torch.eye(2) + 0.1 * torch.rand(2, OLD, 2, 2)

    def more(keypoints_BK: torch.Tensor) -> torch.Tensor:
        return torch.rand(2, NEW, *keypoints_BK.shape[2:]).index_copy(1, torch.tensor(PLACES), keypoints_BK)

    with torch.no_grad():
        before = old(picture, Keypoints(driving, jacobian), Keypoints(source, jacobian.mT))
        after = new(picture, *(Keypoints(*k).map(more) for k in ((driving, jacobian), (source, jacobian.mT))))
    assert torch.allclose(after.motion.deformation_BHW2, before.motion.deformation_BHW2, atol=1e-4)
    assert torch.allclose(after.image_BCHW, before.image_BCHW, atol=1e-4)
