"""A small network that reads how far a mouth or an eye is open, as a loss on drawn pictures (ours).

Pixel losses hardly see a mouth: where the opening is not sure, the cheapest picture is one that opens half as far. A
reader is trained on true frames beside the generator; what it reads in the drawn frame, and the features it reads it
from, must be those of the true frame. It goes on learning all the time, so that a generator cannot make itself at home
in its errors.

Letters: B batch, C H W image, N part (the mouth of each picture, then left eyes, then right eyes).
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.keypoints import coordinate_grid, warp
from modules.limits import at_least

LEAKY_SLOPE = 0.2
PARTS = ("mouth", "eyes")


@dataclass(frozen=True)
class PartReaderConfig:
    """Sizes of a reader.

    Attributes:
        crop: height and width of what it looks at, pixels.
        width, max_width: channels of the first and at most of the others of its convolutions, which halve the crop.
        num_blocks: convolutions.
        view: height and width of the crop in widths of the part.
        shake: how far crops are moved and scaled at random, in their own size, while it learns.
        first_steps: updates of the readers alone, on true frames, before a training begins.
    """

    crop: int = 48
    width: int = 32
    max_width: int = 128
    num_blocks: int = 4
    view: float = 1.6
    shake: float = 0.08
    first_steps: int = 600

    def __post_init__(self) -> None:
        at_least(1, self, "crop", "width", "max_width")
        if not 2 <= self.num_blocks <= 8 or self.crop % 2**self.num_blocks:
            raise ValueError(
                f"part_reader wants 2 to 8 blocks and a crop divisible by 2^num_blocks, found {self.num_blocks} and "
                f"{self.crop}"
            )


class Reading(NamedTuple):
    """Opening by width [N], the outputs of the convolutions, and a map of scores."""

    opening_N: Tensor
    features: list[Tensor]
    score: Tensor | None  # how much like a true frame's each patch is; None of a reader that does not judge


def crops(image_BCHW: Tensor, box_B4: Tensor, turn_B: Tensor, size: int, view: float) -> Tensor:
    """Upright squares about parts, `view` times as wide as the part whatever its opening -> [B, C, size, size].

    Args:
        box_B4, turn_B: as `face_points.lip_points` takes them; of an unknown part the picture's middle is cut out.
    """
    centre_B2 = (box_B4[:, :2] + box_B4[:, 2:]) / 2
    half_B = (box_B4[:, 2] - box_B4[:, 0]) / 1.5 * view / 2
    cos_B, sin_B = half_B * turn_B.cos(), half_B * turn_B.sin()
    linear_B22 = torch.stack([torch.stack([cos_B, -sin_B], -1), torch.stack([sin_B, cos_B], -1)], -2)
    grid_HW2 = coordinate_grid(size, size, like=box_B4)
    grid_BHW2 = (linear_B22[:, None, None] * grid_HW2[..., None, :]).sum(-1) + centre_B2[:, None, None]
    return warp(image_BCHW, grid_BHW2, align_corners=True, padding="border")


def openings(box_B4: Tensor) -> tuple[Tensor, Tensor]:
    """Opening by width of parts [B], and whether it is known (0 or 1), from boxes of `datasets.clips.mouth_boxes`."""
    width_B = (box_B4[:, 2] - box_B4[:, 0]) / 1.5
    known_B = width_B > 0
    opening_B = (box_B4[:, 3] - box_B4[:, 1] - width_B) / width_B.where(known_B, torch.ones_like(width_B))
    return opening_B, known_B.to(opening_B)


class PartReader(nn.Module):
    """Crops [N, 3, H, W] in [0, 1] -> a Reading."""

    def __init__(self, config: PartReaderConfig, judges: bool) -> None:
        super().__init__()
        widths = [3] + [min(config.max_width, config.width * 2**i) for i in range(config.num_blocks)]
        self.blocks = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=2, padding=1) for before, after in itertools.pairwise(widths)
        )
        self.opening = nn.Linear(widths[-1] * (config.crop // 2**config.num_blocks) ** 2, 1)
        self.score = nn.Conv2d(widths[-2], 1, 3, padding=1) if judges else None

    def forward(self, crop_NCHW: Tensor) -> Reading:
        x = (crop_NCHW - 0.5) * 4
        features = []
        for block in self.blocks:
            x = F.leaky_relu(block(x), LEAKY_SLOPE)
            features.append(x)
        score = None if self.score is None else self.score(features[-2])
        return Reading(self.opening(x.flatten(1))[:, 0].float(), features, score)


class PartReaders(nn.Module):
    """One reader for mouths, one for both eyes; with `judges` they tell true crops from drawn ones, too."""

    def __init__(self, config: PartReaderConfig, judges: bool = False) -> None:
        super().__init__()
        self.config, self.judges = config, judges
        self.readers = nn.ModuleDict({part: PartReader(config, judges) for part in PARTS})

    def forward(self, image_BCHW: Tensor, boxes_B34: Tensor, turn_B: Tensor) -> dict[str, Reading]:
        """Read the mouth and the eyes of pictures in [0, 1]; `boxes_B34` are those of the mouth and the two eyes."""
        found = {}
        for part, which in zip(PARTS, ([0], [1, 2]), strict=True):
            cut = [crops(image_BCHW, boxes_B34[:, n], turn_B, self.config.crop, self.config.view) for n in which]
            found[part] = self.readers[part](torch.cat(cut))
        return found


def shaken(boxes_B34: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Boxes moved and scaled a little at random, the same each time a generator of that seed is given."""
    size_B31 = (boxes_B34[..., 2:3] - boxes_B34[..., :1]) / 1.5
    noise_B33 = torch.rand(*boxes_B34.shape[:2], 3, generator=generator) * 2 - 1
    noise_B33 = amount * noise_B33.to(boxes_B34, non_blocking=True)
    centre = (boxes_B34[..., :2] + boxes_B34[..., 2:]) / 2 + noise_B33[..., :2] * size_B31
    half = (boxes_B34[..., 2:] - boxes_B34[..., :2]) / 2 * noise_B33[..., 2:].exp()
    return torch.cat([centre - half, centre + half], dim=-1)


def parts_of(boxes_B34: Tensor, part: str) -> Tensor:
    """The boxes in the order in which `PartReaders` reads them: [N, 4]."""
    return boxes_B34[:, 0] if part == "mouth" else torch.cat([boxes_B34[:, 1], boxes_B34[:, 2]])
