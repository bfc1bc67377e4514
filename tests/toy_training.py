"""The smallest training script: what engine.run promises, tried without networks and clips that take long.

python tests/toy_training.py --config FILE.yaml key=value ...
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

sys.path.insert(0, str(Path(__file__).parents[1]))

from engine import command
from engine.checkpoint import CheckpointError
from engine.config import ConfigError
from engine.run import OptimConfig, Run, RunConfig, RunError


@dataclass(frozen=True)
class ToyOptim(OptimConfig):
    batch_size: int = 8
    lr: float = 1e-2


@dataclass(frozen=True)
class Config:
    run: RunConfig
    optim: ToyOptim = ToyOptim()
    stage: str = "toy"
    nan_at: int = -1  # item whose picture is not finite
    steep_at: int = -1  # item whose loss is finite and its gradient is not
    huge_at: int = -1  # item that is wanted a million times as large
    missing_at: int = -1  # item whose file is gone
    pause_s: float = 0.0


class Batch(NamedTuple):
    x_CHW: Tensor
    wanted: Tensor
    clip: int
    index: int


class Toy(Dataset):
    def __init__(self, config: Config) -> None:
        self.config = config

    def __getitem__(self, n: int) -> Batch:
        if n == self.config.missing_at:
            raise FileNotFoundError(2, "No such file or directory", "clips/gone/frames.zip")
        time.sleep(self.config.pause_s)
        generator = torch.Generator().manual_seed(self.config.run.seed * 1000 + n)
        x = torch.randn(3, 8, 8, generator=generator)
        if n == self.config.nan_at:
            x[0, 0, 0] = torch.nan
        if n == self.config.steep_at:
            x.zero_()
        wanted = (4 + x.mean((1, 2)).sum()) * (1e6 if n == self.config.huge_at else 1)
        return Batch(x, wanted, n % 5, n)


class Losses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 6), nn.Flatten(0)
        )

    def forward(self, x: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        error = self.net(x) - wanted
        # Always 0; for a black picture its gradient is 0 times infinity.
        steep = 0 * (self.net[3].weight.sum() * x.abs().sum((1, 2, 3))).abs().sqrt().mean()
        return {"square": error.square().mean(), "absolute": 0.1 * error.abs().mean() + steep}


class Critic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(1, 1)

    def forward(self, wanted: Tensor) -> dict[str, Tensor]:
        return {"critic": (self.net(wanted[:, None]) - 1).square().mean()}


def main(config: Config) -> None:
    with Run(config.stage, config) as run:
        module, critic = Losses(), Critic()
        run.export({"net": module.net}, {"net": {"size": 8}})
        losses, critic_losses = run.place(module), run.place(critic)
        optim, critic_optim = run.optimizer(losses, config.optim), run.optimizer(critic_losses, config.optim)
        run.resume()
        held_out = torch.stack([Toy(config)[10**6 + n].x_CHW for n in range(8)])
        for batch in run.batches(Toy(config), config.optim.batch_size):
            run.update(optim, losses(batch.x_CHW, batch.wanted))
            run.update(critic_optim, critic_losses(batch.wanted))
            if run.validates():
                with run.evaluating() as networks:
                    error = (
                        (networks["net"](held_out.to(run.device)).cpu() - held_out.mean((2, 3)).sum(1) - 4).abs().mean()
                    )
                run.record({"error": float(error)}, best="error", higher_is_better=False)


if __name__ == "__main__":
    with command.clean_exit(CheckpointError, ConfigError, RunError):
        main(command.from_command_line(Config, __doc__))
