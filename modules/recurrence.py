"""The recurrence of Eq. 1 as one operation, forward and back: an LSTM that hears its own last output beside the sound.

torch's LSTM cannot feed its output back. A loop over frames that torch differentiates starts thirty kernels for a
frame of a layer, and a GPU waits for Python; here it is seven short operations forward and five back, and gradients of
the weights are one product for all frames.

All outputs stand in one row, layer after layer and frame after frame. What a layer hears from below (layer 0: what is
fed back) is the output before its own, and its own last one lies N back. So a step reads the last N outputs, side by
side as they lie in memory.

Letters: T frame, N layer, S the T N steps, R the N outputs before them and theirs, B batch, E embedding, I the N E
numbers that a step reads, G the four gates of an LSTM side by side (4E: input, forget, cell, output).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Recurrence(torch.autograd.Function):
    """Every frame's output [B, T, E], and each layer's output and cell state [N, B, E] after the last frame.

    Args, as `apply` takes them:
        heard_TBG: what layer 0 makes of the sound, biases included.
        hidden_NBE, cells_NBE: each layer's output and cell state before the first frame.
        below_NEG, own_NEG: each layer's weights, of what comes from below and of its own last output.
        biases_NG: of each layer; that of layer 0 is not used, as it is in heard_TBG.
    """

    @staticmethod
    def forward(
        ctx: Any,
        heard_TBG: Tensor,
        hidden_NBE: Tensor,
        cells_NBE: Tensor,
        below_NEG: Tensor,
        own_NEG: Tensor,
        biases_NG: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (layers, size, width), (frames, batch, _) = own_NEG.shape, heard_TBG.shape
        steps = frames * layers
        weights_NIG = own_NEG.new_zeros(layers, layers, size, width)
        weights_NIG[:, 0] += own_NEG
        weights_NIG[:, -1] += below_NEG
        weights_NIG = weights_NIG.flatten(1, 2)
        # tanh(x) is 2 sigmoid(2 x) - 1: with its inputs doubled, the cell's gate has the same curve as the others.
        doubled_G = own_NEG.new_ones(width)
        doubled_G[2 * size : 3 * size] = 2
        weights, biases = (weights_NIG * doubled_G).unbind(0), (biases_NG * doubled_G).unbind(0)
        heard = (heard_TBG * doubled_G).unbind(0)

        outputs_BRE = heard_TBG.new_empty(batch, layers + steps, size)
        outputs_BRE[:, :layers] = hidden_NBE.transpose(0, 1)
        gates_SBG = heard_TBG.new_empty(steps, batch, width)
        cells_SBE, curved_SBE = heard_TBG.new_empty(2, steps, batch, size).unbind(0)
        rows = [part.unbind(0) for part in (gates_SBG, *gates_SBG.chunk(4, dim=-1), cells_SBE, curved_SBE)]
        read, outputs, cells = _read(outputs_BRE, layers), outputs_BRE.unbind(1), list(cells_NBE.unbind(0))
        for s, (gates, enter, keep, new, leave, cell, curved) in enumerate(zip(*rows, strict=True)):
            t, n = divmod(s, layers)
            torch.addmm(biases[n] if n else heard[t], read[s], weights[n], out=gates).sigmoid_()
            torch.mul(keep, cells[n], out=cell).addcmul_(enter, new, value=2).sub_(enter)
            torch.mul(leave, torch.tanh(cell, out=curved), out=outputs[layers + s])
            cells[n] = cell
        ctx.save_for_backward(outputs_BRE, gates_SBG, cells_SBE, curved_SBE, cells_NBE, weights_NIG)
        # Copies: what is saved for the way back is nobody else's to change.
        hidden_NBE = outputs_BRE[:, -layers:].transpose(0, 1).clone()
        return outputs_BRE[:, 2 * layers - 1 :: layers].clone(), hidden_NBE, cells_SBE[-layers:].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs_BTE: Tensor, d_hidden_NBE: Tensor, d_cells_NBE: Tensor) -> tuple[Tensor, ...]:
        outputs_BRE, gates_SBG, cells_SBE, curved_SBE, first_cells_NBE, weights_NIG = ctx.saved_tensors
        layers, _, size = first_cells_NBE.shape
        enter, keep, half, leave = gates_SBG.chunk(4, dim=-1)
        before = torch.cat([first_cells_NBE, cells_SBE[:-layers]])
        # How far gates and cells move with what comes back to them: for all steps at once.
        to_cell = leave * (1 - curved_SBE.square())
        to_enter, to_keep = (2 * half - 1) * enter * (1 - enter), before * keep * (1 - keep)
        to_gates = torch.stack([to_enter, to_keep, 4 * enter * half * (1 - half)], dim=-2)
        to_leave = curved_SBE * leave * (1 - leave)
        d_gates_SBG = torch.empty_like(gates_SBG)
        three, last = d_gates_SBG[..., : 3 * size].unflatten(-1, (3, size)), d_gates_SBG[..., 3 * size :]
        rows = [part.unbind(0) for part in (to_cell, to_gates, to_leave, keep, d_gates_SBG, three, last)]
        d_outputs_BRE = torch.zeros_like(outputs_BRE)
        d_outputs_BRE[:, 2 * layers - 1 :: layers] = d_outputs_BTE
        d_outputs_BRE[:, -layers:] += d_hidden_NBE.transpose(0, 1)
        d_read, d_outputs = _read(d_outputs_BRE, layers), d_outputs_BRE.unbind(1)
        weights, d_cells = weights_NIG.transpose(1, 2).unbind(0), list(d_cells_NBE.unbind(0))
        for s in reversed(range(len(gates_SBG))):
            cell_by, gates_by, leave_by, kept, d_gates, d_three, d_leave = (part[s] for part in rows)
            n, d_output = s % layers, d_outputs[layers + s]
            d_cell = torch.addcmul(d_cells[n], d_output, cell_by)
            torch.mul(d_cell[:, None], gates_by, out=d_three)
            torch.mul(d_output, leave_by, out=d_leave)
            d_read[s].addmm_(d_gates, weights[n])
            d_cells[n] = d_cell * kept

        def by_layer(part_BSX: Tensor) -> Tensor:  # (N, B T, X)
            return part_BSX.unflatten(1, (-1, layers)).permute(2, 0, 1, 3).flatten(1, 2)

        steps, d_gates_NXG = len(gates_SBG), by_layer(d_gates_SBG.transpose(0, 1))
        own, below = (by_layer(outputs_BRE[:, at : at + steps]).mT for at in (0, layers - 1))
        d_biases_NG = d_gates_NXG.sum(1)
        d_biases_NG[0].zero_()
        d_first = d_outputs_BRE[:, :layers].transpose(0, 1), torch.stack(d_cells)
        return d_gates_SBG[::layers], *d_first, below.bmm(d_gates_NXG), own.bmm(d_gates_NXG), d_biases_NG


def _read(outputs_BRE: Tensor, layers: int) -> tuple[Tensor, ...]:
    """What each step reads, [B, I]: views of the outputs."""
    size = outputs_BRE.shape[-1]
    return outputs_BRE.flatten(1).unfold(1, layers * size, size).unbind(1)
