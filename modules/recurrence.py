"""The recurrence of Eq. 1 as one operation, forward and back: an LSTM that hears, beside the sound, its own last output.

torch's LSTM cannot feed its output back, and called once a frame it starts some forty kernels for each, most of them for
gradients: on a GPU a step of 256 frames then waits for Python. Here a frame of a layer is nine short operations forward and
eight back, and gradients of the weights are one product for all frames.

Letters: T frame, N layer, S the T N steps in their order (all layers of a frame, then the next frame), B batch, E embedding,
G the four gates of an LSTM side by side (4E: input, forget, cell, output).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Recurrence(torch.autograd.Function):
    """Every frame's output [T, B, E], and each layer's output and cell state [N, B, E] after the last frame.

    Args, as `apply` takes them:
        heard_TBG: what layer 0 makes of the sound, biases included.
        fed_BE: what is fed back to layer 0 in the first frame.
        hidden_NBE, cells_NBE: each layer's output and cell state before the first frame.
        weights_NIG: (N, 2E, 4E), of what comes from below (in layer 0: what is fed back) and of the layer's own output.
        biases_NG: of each layer; that of layer 0 is not used, as it is in heard_TBG.
    """

    @staticmethod
    def forward(
        ctx: Any,
        heard_TBG: Tensor,
        fed_BE: Tensor,
        hidden_NBE: Tensor,
        cells_NBE: Tensor,
        weights_NIG: Tensor,
        biases_NG: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (layers, _, width), (batch, size) = weights_NIG.shape, fed_BE.shape
        steps = len(heard_TBG) * layers
        read_SBI, gates_SBG = heard_TBG.new_empty(steps, batch, 2 * size), heard_TBG.new_empty(steps, batch, width)
        cells_SBE, curved_SBE, outputs_SBE = heard_TBG.new_empty(3, steps, batch, size).unbind(0)
        weights, biases, heard = weights_NIG.unbind(0), biases_NG.unbind(0), heard_TBG.unbind(0)
        hidden, cells, below = list(hidden_NBE.unbind(0)), list(cells_NBE.unbind(0)), fed_BE
        rows = (read_SBI, gates_SBG, *gates_SBG.chunk(4, dim=-1), cells_SBE, curved_SBE, outputs_SBE)
        for s, (read, gates, enter, keep, new, leave, cell, curved, output) in enumerate(
            zip(*(part.unbind(0) for part in rows), strict=True)
        ):
            t, n = divmod(s, layers)
            torch.cat([below, hidden[n]], dim=-1, out=read)
            torch.addmm(biases[n] if n else heard[t], read, weights[n], out=gates)
            for gate in (enter, keep, leave):
                gate.sigmoid_()
            new.tanh_()
            torch.mul(keep, cells[n], out=cell).addcmul_(enter, new)
            torch.mul(leave, torch.tanh(cell, out=curved), out=output)
            hidden[n], cells[n], below = output, cell, output
        ctx.save_for_backward(read_SBI, gates_SBG, cells_SBE, curved_SBE, cells_NBE, weights_NIG)
        # Copies: what is saved for the way back is nobody else's to change.
        return outputs_SBE[layers - 1 :: layers].clone(), torch.stack(hidden), torch.stack(cells)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs_TBE: Tensor, d_hidden_NBE: Tensor, d_cells_NBE: Tensor) -> tuple[Tensor, ...]:
        read_SBI, gates_SBG, cells_SBE, curved, first_cells_NBE, weights_NIG = ctx.saved_tensors
        layers, _, size = first_cells_NBE.shape
        enter, keep, new, leave = gates_SBG.chunk(4, dim=-1)
        before = torch.cat([first_cells_NBE, cells_SBE[:-layers]])
        # How far gates and cells move with what comes back to them: for all steps at once.
        to_cell = leave * (1 - curved.square())
        to_gates = torch.stack([new * enter * (1 - enter), before * keep * (1 - keep), enter * (1 - new.square())], -2)
        to_leave = curved * leave * (1 - leave)
        d_gates_SBG = torch.empty_like(gates_SBG)
        three, last = d_gates_SBG[..., : 3 * size].unflatten(-1, (3, size)), d_gates_SBG[..., 3 * size :]
        rows = [part.unbind(0) for part in (to_cell, to_gates, to_leave, keep, d_gates_SBG, three, last)]
        weights, d_outputs = weights_NIG.transpose(1, 2).unbind(0), d_outputs_TBE.unbind(0)
        d_hidden, d_cells = list(d_hidden_NBE.unbind(0)), list(d_cells_NBE.unbind(0))
        d_below = torch.zeros_like(d_hidden[0])
        for s in reversed(range(len(gates_SBG))):
            t, n = divmod(s, layers)
            cell_by, gates_by, leave_by, kept, d_gates, d_three, d_leave = (part[s] for part in rows)
            if n == layers - 1:  # the frame's output; below it lies what the next frame was fed
                d_below = d_below + d_outputs[t]
            d_output = d_below + d_hidden[n]
            d_cell = torch.addcmul(d_cells[n], d_output, cell_by)
            torch.mul(d_cell[:, None], gates_by, out=d_three)
            torch.mul(d_output, leave_by, out=d_leave)
            d_below, d_hidden[n] = torch.mm(d_gates, weights[n]).chunk(2, dim=-1)
            d_cells[n] = d_cell * kept
        d_heard_TBG = d_gates_SBG[::layers]
        by_layer = [
            part.unflatten(0, (-1, layers)).transpose(0, 1).flatten(1, 2) for part in (read_SBI, d_gates_SBG)
        ]  # (N, T B, 2E) and (N, T B, 4E)
        d_weights_NIG = torch.bmm(by_layer[0].transpose(1, 2), by_layer[1])
        d_biases_NG = by_layer[1].sum(1)
        d_biases_NG[0].zero_()
        return d_heard_TBG, d_below, torch.stack(d_hidden), torch.stack(d_cells), d_weights_NIG, d_biases_NG
