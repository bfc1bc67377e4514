"""BatchNorm over all ranks on CPUs, where torch's SyncBatchNorm does not work ("only work with GPU modules").

With it N ranks with a batch of B/N compute what one rank computes with B, on gloo too.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


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
        mean = all_reduce(x.sum(axes)) / count
        shape = [1, -1] + [1] * (x.dim() - 2)
        centred = x - mean.view(shape)
        variance = all_reduce(centred.square().sum(axes)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(input.dtype)


def synchronise_batch_norm(module: nn.Module) -> nn.Module:
    """Replace every BatchNorm by one over all ranks, keeping parameters, buffers and their names."""
    if any(parameter.is_cuda for parameter in module.parameters()):
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
