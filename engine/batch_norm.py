"""BatchNorm over all ranks where torch's SyncBatchNorm does not serve: on CPUs, and inside a compiled network.

SyncBatchNorm only works "with GPU modules", and it breaks a compiled graph at every norm. With the one below, N ranks
with a batch of B/N compute what one rank computes with B, on gloo too, and a network of it is one graph.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import _functional_collectives as collectives
from torch.nn.modules.batchnorm import _BatchNorm


class _SumOverRanks(torch.autograd.Function):
    """The sum of all ranks' values. Each rank's loss depends on every rank's value: gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _sum_over_ranks(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _sum_over_ranks(gradient)


def _sum_over_ranks(value: Tensor) -> Tensor:
    # Unlike torch.distributed.all_reduce, which changes its argument, this one can be compiled.
    everybody = dist.distributed_c10d._get_default_group()
    return collectives.wait_tensor(collectives.all_reduce(value.contiguous(), "sum", everybody))


class RankBatchNorm(_BatchNorm):
    """BatchNorm1d/2d/3d whose training statistics are those of all ranks' samples; gradients pass through the sums."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected 2 dimensions or more, found {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        axes = [0, *range(2, input.dim())]
        x = input.float()
        count = dist.get_world_size() * x.numel() / x.shape[1]
        mean = _SumOverRanks.apply(x.sum(axes)) / count
        shape = [1, -1] + [1] * (x.dim() - 2)
        centred = x - mean.view(shape)
        variance = _SumOverRanks.apply(centred.square().sum(axes)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(input.dtype)


def synchronise_batch_norm(module: nn.Module, traceable: bool) -> nn.Module:
    """Replace every BatchNorm by one over all ranks, keeping parameters, buffers and their names.

    `traceable`: the module will be compiled. Else GPUs get torch's own, whose kernels are faster when not compiled.
    """
    if not traceable and any(parameter.is_cuda for parameter in module.parameters()):
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                setattr(parent, name, _over_ranks(child))
    return module


def _over_ranks(norm: _BatchNorm) -> RankBatchNorm:
    shared = RankBatchNorm(norm.num_features, norm.eps, norm.momentum)
    shared.weight, shared.bias = norm.weight, norm.bias
    shared.running_mean, shared.running_var = norm.running_mean, norm.running_var
    shared.num_batches_tracked = norm.num_batches_tracked
    return shared
