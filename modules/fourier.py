"""Convolutions with large kernels as products of spectra, for float32 on CPUs.

A 7x7 kernel costs 49 products a pixel, its spectrum one complex product. The Fourier transform is exact up to rounding
(1e-5 of the output's deviation); its wrapping round the picture's edges does not reach the pixels that are kept, since
these convolutions do not pad.

Letters: B batch, T frame, C input and O output channels, H W picture, digits literal.
"""

import torch
from torch import Tensor, nn


class FourierConv(nn.Module):
    """What a trained `conv` of stride 1 computes on pictures of one size, without padding in H and W.

    2-D, or 3-D with its taps in time padded so that T stays: those are summed one by one.

    Args:
        conv: nn.Conv2d or nn.Conv3d.
        size: H = W of the pictures.
    """

    def __init__(self, conv: nn.Conv2d | nn.Conv3d, size: int) -> None:
        super().__init__()
        weight = conv.weight.detach().double()
        self.is_film = weight.ndim == 5
        if not self.is_film:
            weight = weight[:, :, None]
        self.size, self.kept, self.taps = size, size - weight.shape[-1] + 1, weight.shape[2]
        spectra = torch.fft.rfft2(weight, s=(size, size)).conj()  # conj: taps are not mirrored
        spectra = spectra.permute(3, 4, 1, 2, 0).flatten(3, 4).flatten(0, 1)
        self.register_buffer("spectra", spectra.to(torch.complex64).contiguous())
        self.register_buffer("bias", conv.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Float32 [B, C, H, W] or [B, C, T, H, W] -> the same with O channels and what is left of H and W."""
        if not self.is_film:
            return self._of_film(x)
        return torch.stack([self._of_film(film_CTHW.movedim(0, 1)).movedim(1, 0) for film_CTHW in x])

    def _of_film(self, x_TCHW: Tensor) -> Tensor:
        frames = len(x_TCHW)
        spectra = torch.fft.rfft2(x_TCHW).flatten(2).permute(2, 0, 1).contiguous()
        products = torch.bmm(spectra, self.spectra).unflatten(2, (self.taps, -1)).movedim(2, 0)
        total = products[self.taps // 2]
        for n in range(self.taps):
            shift = n - self.taps // 2  # frame t hears frame t + shift through tap n
            if shift:
                into, of = slice(max(0, -shift), frames - max(0, shift)), slice(max(0, shift), frames + min(0, shift))
                total[:, into] += products[n][:, of]
        maps = torch.fft.irfft2(total.permute(1, 2, 0).unflatten(2, (self.size, -1)), s=(self.size, self.size))
        return maps[..., : self.kept, : self.kept] + self.bias[:, None, None]
