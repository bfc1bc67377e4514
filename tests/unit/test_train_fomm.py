"""Stage one's script: what its readers are shown first, and what its losses and its main hand on."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import train_fomm
from benchmarks.steps import Stage, smooth_pictures
from datasets.fomm import FommBatch
from engine.config import load
from engine.run import Optimizer, Run
from modules import part_reader
from modules.part_reader import PartReaderConfig, PartReaders

TINY = Path(__file__).parents[2] / "config" / "fomm_tiny.yaml"


class Pairs:
    """In the corpus' place: as many pairs as are asked for, as FommData gives them."""

    groups = ()

    def __init__(self, *_: object) -> None:
        pass

    def __getitem__(self, n: int) -> FommBatch:
        torch.manual_seed(n)
        box = torch.tensor([-0.5, -0.2, 0.5, 0.4])
        eyes = box.repeat(2, 1)
        return FommBatch(*smooth_pictures(2, 64), box, box, eyes, eyes, torch.zeros(()), clip=0, index=n)


def test_readers_are_shown_pictures_from_0_to_1_from_their_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    crops = part_reader.crops

    def watched(image_BCHW: Tensor, *rest: object) -> Tensor:
        seen.append(image_BCHW)
        return crops(image_BCHW, *rest)

    monkeypatch.setattr(part_reader, "crops", watched)
    config = PartReaderConfig(crop=16, width=4, max_width=8, num_blocks=2, first_steps=2)
    run = SimpleNamespace(device=torch.device("cpu"), settings=SimpleNamespace(workers=0), until_stopped=iter)
    run._move, run.batches_before = partial(Run._move, run), partial(Run.batches_before, run)
    train_fomm.teach_readers(PartReaders(config), Pairs(), 2, run)
    assert len(seen) == 2 * 3  # steps, parts
    assert all(picture.is_floating_point() and 0.5 < picture.max() <= 1 for picture in seen)


@pytest.mark.parametrize("align_corners", [True, False])
def test_the_driving_frame_is_warped_as_the_generator_warps(warped_how: list[bool], align_corners: bool) -> None:
    stage = Stage("fomm", torch.device("cpu"), tiny=True, batch=1)
    stage.module.generator.align_corners = align_corners
    stage.losses()
    assert warped_how == [align_corners]


def test_the_discriminators_step_starts_without_the_generators_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[bool] = []
    update = Run.update

    def watched(run: Run, optimizer: Optimizer, losses: dict[str, Tensor]) -> None:
        if optimizer.name == "DiscriminatorLosses":
            weights = [weight for group in optimizer.adam.param_groups for weight in group["params"]]
            found.append(all(weight.grad is None for weight in weights))
        update(run, optimizer, losses)

    pictures = smooth_pictures(1, 64).float() / 255
    held_out = train_fomm.HeldOut(pictures, pictures, torch.tensor([[-0.5, -0.2, 0.5, 0.4]]))
    monkeypatch.setattr(Run, "update", watched)
    monkeypatch.setattr(train_fomm, "FommData", Pairs)
    monkeypatch.setattr(train_fomm, "held_out_pairs", lambda config: held_out)
    overrides = [f"run.dir={tmp_path}", "run.max_steps=2", "run.device=cpu", "run.tensorboard=false", "synthetic=null"]
    overrides += ["weights.adversarial=1", "discriminator.block_expansion=4", "discriminator.num_blocks=2"]
    train_fomm.main(load(train_fomm.Config, TINY, overrides))
    assert found == [True, True]
