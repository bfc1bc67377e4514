"""3x3 convolutions with a quarter of the multiplications, for float32 on CPUs (Lavin and Gray 2016, F(4x4, 3x3)).

Four pixels in a row of a convolution with three taps take 12 products when each is computed by itself, and 6 by
Winograd's way: six sums of the input times six sums of the taps, summed again. In two directions that makes 36 products
for 4x4 pixels, where the plain way takes 144. All channels of all tiles see the same 36 sums of taps, so the products
are 36 matrix products. Results differ from the plain way's by rounding: 1e-4 of the output's deviation at most.

Letters: B batch, T frame, C input and O output channels, H W picture, N tiles of 4x4 pixels.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TILE = 4  # pixels of a side that are computed together
SEEN = TILE + 2  # pixels of a side that they depend on
# Interpolation at the points 0, 1, -1, 2, -2 and infinity: input, taps, output.
FROM_INPUT_66 = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
FROM_TAPS_63 = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
TO_OUTPUT_46 = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])


class WinogradConv(nn.Module):
    """What a trained `conv` computes: 2-D with 3x3 taps, or 3-D with 3x3x3, of stride 1 and padding 1.

    In three dimensions only H and W go Winograd's way; the taps in time are summed within the matrix products.
    """

    def __init__(self, conv: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        weight = conv.weight.detach().double()
        self.is_film = weight.ndim == 5
        if not self.is_film:
            weight = weight[:, :, None]
        taps = torch.from_numpy(FROM_TAPS_63)
        products = torch.einsum("ar,octrs,bs->abtco", taps, weight, taps).flatten(2, 3).flatten(0, 1)
        self.register_buffer("taps", products.to(conv.weight).contiguous())  # [36, time's taps and C, O]
        self.register_buffer("bias", conv.bias.detach().clone())
        self.register_buffer("from_input", torch.from_numpy(np.kron(FROM_INPUT_66, FROM_INPUT_66)).to(conv.weight))
        self.register_buffer("to_output", torch.from_numpy(np.kron(TO_OUTPUT_46, TO_OUTPUT_46)).to(conv.weight))

    def forward(self, x: Tensor) -> Tensor:
        """Float32 [B, C, H, W] or [B, C, T, H, W] -> the same with O channels, which are last in memory."""
        if self.is_film:
            return torch.stack([self._of_film(film_THWC) for film_THWC in x.movedim(1, -1)]).movedim(-1, 1)
        # Picture by picture: what one needs stays in the cache.
        pictures = x.movedim(1, -1).split(1)
        return torch.cat([self._output(self._sums(one), 1, *one.shape[1:3]) for one in pictures]).movedim(-1, 1)

    def _of_film(self, x_THWC: Tensor) -> Tensor:
        sums_36TNC = F.pad(self._sums(x_THWC), (0, 0, 0, 0, 1, 1))  # before the first and after the last frame: zeros
        return self._output(sums_36TNC, *x_THWC.shape[:3])

    def _sums(self, x_THWC: Tensor) -> Tensor:
        """Each tile's 36 sums of the input -> [36, T, N, C]."""
        frames, height, width, channels = x_THWC.shape
        surplus = -height % TILE, -width % TILE
        x_THWC = F.pad(x_THWC, (0, 0, 1, 1 + surplus[1], 1, 1 + surplus[0]))
        seen = x_THWC.unfold(1, SEEN, TILE).unfold(2, SEEN, TILE)  # (T, tiles down, tiles across, C, 6, 6)
        sums = self.from_input @ seen.permute(4, 5, 0, 1, 2, 3).reshape(SEEN**2, -1)
        return sums.view(SEEN**2, frames, -1, channels)

    def _output(self, sums_36TNC: Tensor, frames: int, height: int, width: int) -> Tensor:
        """The products, and the output's pixels from them -> [T, H, W, O]."""
        channels = sums_36TNC.shape[-1]
        products = None
        for n, taps_36CO in enumerate(self.taps.split(channels, dim=1)):
            heard = sums_36TNC[:, n : n + frames].flatten(1, 2)
            products = torch.bmm(heard, taps_36CO) if products is None else products.baddbmm_(heard, taps_36CO)
        pixels = self.to_output @ products.view(SEEN**2, -1)
        down, across = -(-height // TILE), -(-width // TILE)
        pixels = pixels.view(TILE, TILE, frames, down, across, -1).permute(2, 3, 0, 4, 1, 5)
        pixels = pixels.reshape(frames, down * TILE, across * TILE, -1)
        return pixels[:, :height, :width] + self.bias
