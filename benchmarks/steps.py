"""One training step of each stage on made-up data: the networks and losses of the training scripts, at any size.

For comparing devices, precisions and speeds; nothing is read from a disk, and a VGG has random weights.

Letters: as in the training scripts.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import train_fomm
import train_headpose
import train_motionfield
from datasets.fomm import FommBatch
from datasets.headpose import HeadPoseBatch
from datasets.motionfield import Item, MotionFieldBatch
from engine import device as devices
from engine.config import load
from modules.head_motion_predictor import HeadMotionPredictor
from modules.image_generator import ImageGenerator
from modules.keypoint_detector import KeypointDetector
from modules.motion_field_generator import BOX_SIZE, MotionFieldGenerator
from modules.perceptual import ImagePyramid, VggFeatures
from modules.random_warp import random_warp

CONFIG = Path(__file__).parents[1] / "config"
STAGES = ("fomm", "headpose", "motionfield", "pixels")
Losses = Callable[[], dict[str, Tensor]]


class Stage:
    """The losses of one stage on one batch. `losses()` goes forward; `step()` also goes back and updates by Adam.

    Weights and batch are drawn on the CPU from seed 0, so that they are the same on every device.

    Args:
        name: one of STAGES.
        tiny: the sizes of config/*_tiny.yaml, not the paper's.
        batch: items; None: the paper's (Sec. 4.2).
        precision: fp32 or bf16 (autocast).
        channels_last, compiled: as `run.channels_last` and `run.compile`.
    """

    def __init__(
        self,
        name: str,
        device: torch.device,
        tiny: bool = False,
        batch: int | None = None,
        precision: str = "fp32",
        channels_last: bool = False,
        compiled: bool = False,
    ) -> None:
        torch.manual_seed(0)
        self.device, self.channels_last = device, channels_last
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
        self.module, self.inputs, self.batch = getattr(self, f"_{name}")("tiny" if tiny else "vox", batch)
        if compiled:
            self.module.compile()
        weights = [weight for weight in self.module.parameters() if weight.requires_grad]
        self.adam = torch.optim.Adam(weights, lr=2e-4, betas=(0.5, 0.999), weight_decay=2e-6, fused=True)

    def losses(self) -> dict[str, Tensor]:
        with self.autocast:
            found = self.module(*self.inputs)
        return getattr(found, "losses", found)

    def step(self) -> dict[str, Tensor]:
        """The losses before the update."""
        terms = self.losses()
        torch.stack([term.float() for term in terms.values()]).sum().backward()
        self.adam.step()
        self.adam.zero_grad()
        return {name: term.detach() for name, term in terms.items()}

    def _place(self, module: nn.Module) -> nn.Module:
        return devices.place(module, self.device, self.channels_last)

    def _frozen(self, module: nn.Module) -> nn.Module:
        return self._place(module).requires_grad_(False).eval()

    def _on_device(self, batch: Any) -> Any:
        return type(batch)(*(part.to(self.device) if isinstance(part, Tensor) else part for part in batch))

    def _fomm(self, size_name: str, batch: int | None) -> tuple[nn.Module, tuple, int]:
        config = load(train_fomm.Config, CONFIG / f"fomm_{size_name}.yaml")
        batch, size = batch or config.optim.batch_size, config.image_generator.image_size
        networks = (
            self._place(KeypointDetector(config.keypoint_detector)),
            self._place(ImageGenerator(config.image_generator)),
        )
        judges = self._frozen(ImagePyramid(config.pyramid)), self._frozen(VggFeatures(config.vgg))
        module = train_fomm.GeneratorLosses(*networks, replace(config.weights, perceptual=10.0), *judges)
        pictures = [smooth_pictures(batch, size) for _ in range(2)]
        mouth = torch.tensor([[-0.3, 0.1, 0.3, 0.5]]).repeat(batch, 1)
        eyes = torch.tensor([[-0.4, -0.4, -0.1, -0.2], [0.1, -0.4, 0.4, -0.2]]).repeat(batch, 1, 1)
        item = self._on_device(FommBatch(*pictures, mouth, mouth, eyes, eyes, torch.zeros(batch), 0, 0)).floats()
        return module, (item, random_warp(range(batch), 0, config.warp, self.device), None), batch

    def _headpose(self, size_name: str, batch: int | None) -> tuple[nn.Module, tuple, int]:
        config = load(train_headpose.Config, CONFIG / f"headpose_{size_name}.yaml")
        batch, frames = batch or config.optim.batch_size, config.data.window
        network = self._place(HeadMotionPredictor(config.head_motion_predictor))
        module = train_headpose.PredictorLosses(network, config.weights, config.ssim, first_row=1)
        module.weights = replace(config.weights, adversarial=0.0)
        item = HeadPoseBatch(
            image_CHW=smooth_pictures(batch, config.image_size).float() / 255,
            audio_TAF=torch.randn(batch, frames, 4, 41),
            pose_TP=torch.randn(batch, frames + 1, 6).cumsum(1) / frames,
            valid_T=torch.ones(batch, frames, dtype=torch.bool),
            clip=0,
            index=0,
        )
        return module, (self._on_device(item), None), batch

    def _motionfield(self, size_name: str, batch: int | None) -> tuple[nn.Module, tuple, int]:
        config = load(train_motionfield.Config, CONFIG / f"motionfield_{size_name}.yaml")
        generator, stage_one, item, batch = self._windows(config, size_name, batch, rendered=0)
        return train_motionfield.KeypointLosses(generator, config.keypoints, stage_one), (item, 1.0), batch

    def _pixels(self, size_name: str, batch: int | None) -> tuple[nn.Module, tuple, int]:
        config = load(train_motionfield.Config, CONFIG / f"motionfield_{size_name}_pixels.yaml")
        phase = replace(config.pixels, perceptual=10.0)
        generator, stage_one, item, batch = self._windows(config, size_name, batch, phase.rendered_frames)
        judges = self._frozen(ImagePyramid(phase.pyramid)), self._frozen(VggFeatures(phase.vgg))
        module = train_motionfield.PixelLosses(generator, phase, stage_one, *judges)
        return module, (item, random_warp(range(batch * phase.rendered_frames), 0, phase.warp, self.device)), batch

    def _windows(
        self, config: train_motionfield.Config, size_name: str, batch: int | None, rendered: int
    ) -> tuple[nn.Module, train_motionfield.StageOne, Item, int]:
        one = load(train_fomm.Config, CONFIG / f"fomm_{size_name}.yaml")
        size, count = one.image_generator.image_size, one.image_generator.num_keypoints
        network = replace(config.motion_field_generator, image_size=size, num_keypoints=count)
        batch, frames, side = batch or config.optim.batch_size, network.window, network.map_size - 6
        stage_one = train_motionfield.StageOne(
            self._frozen(KeypointDetector(one.keypoint_detector)),
            self._frozen(ImageGenerator(one.image_generator)),
            size,
        )
        box = torch.zeros(batch, frames, BOX_SIZE, BOX_SIZE, dtype=torch.uint8)
        box[..., 80:82, 80:180] = 255
        window = MotionFieldBatch(
            reference_CHW=smooth_pictures(batch, size).float() / 255,
            reference_head=box[:, 0],
            audio_TAF=torch.randn(batch, frames, 4, 41),
            head_T=box,
            frames_TCHW=smooth_pictures(batch * rendered, size).unflatten(0, (batch, rendered))
            if rendered
            else box[:, :0],
            chosen_R=torch.arange(rendered).repeat(batch, 1),
            mouth_T4=torch.tensor([-0.3, 0.1, 0.3, 0.5]).repeat(batch, frames, 1),
            valid_T=torch.ones(batch, frames, dtype=torch.bool),
            clip=0,
            index=0,
            start=0,
            reference=0,
        )
        heatmap = torch.full((batch, frames, count, side, side), round(255 / side), dtype=torch.uint8)
        jacobian = torch.eye(2).repeat(batch, frames, count, 1, 1)
        position = 0.3 * torch.randn(batch, frames, count, 2)
        targets = (position, jacobian, position[:, 0], jacobian[:, 0], heatmap)
        on_device = [self._on_device(window), *(part.to(self.device) for part in targets)]
        return self._place(MotionFieldGenerator(network)), stage_one, Item(*on_device, clip=0, index=0), batch


def smooth_pictures(count: int, size: int) -> Tensor:
    """Random blots, uint8 [count, 3, size, size]."""
    coarse = torch.rand(count, 3, 8, 8)
    picture = nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8)
