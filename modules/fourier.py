"""Convolutions with large kernels as products of spectra, for float32 on CPUs.

A 7x7 kernel costs 49 products a pixel, its spectrum one complex product. The Fourier transform is exact up to rounding
(1e-5 of the output's deviation); its wrapping round the picture's edges does not reach the pixels that are kept, since
these convolutions do not pad.

Letters: B batch, T frame, C input and O output channels, H W picture, digits literal.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FourierConvs(nn.Module):
    """What trained convolutions of stride 1 compute on one film of square pictures, without padding in H and W.

    They share the film's spectra, whose products with all their kernels are one matrix product for each frequency.

    Args:
        convs: nn.Conv2d, which see each frame by itself, or nn.Conv3d with taps in time padded so that T stays; the
            latter are summed one by one.
        size: H = W of the pictures.
    """

    def __init__(self, convs: Sequence[nn.Conv2d | nn.Conv3d], size: int) -> None:
        super().__init__()
        weights = [conv.weight.detach().double() for conv in convs]
        weights = [weight if weight.ndim == 5 else weight[:, :, None] for weight in weights]
        self.size = size
        self.taps = [weight.shape[2] for weight in weights]
        self.kept = [size - weight.shape[-1] + 1 for weight in weights]
        spectra = [torch.fft.rfft2(weight, s=(size, size)).conj() for weight in weights]  # conj: taps are not mirrored
        spectra = [part.permute(3, 4, 1, 2, 0).flatten(3, 4).flatten(0, 1) for part in spectra]
        self.columns = [part.shape[-1] for part in spectra]
        self.register_buffer("spectra", torch.cat(spectra, dim=-1).to(torch.complex64).contiguous())
        for n, conv in enumerate(convs):
            self.register_buffer(f"bias{n}", conv.bias.detach()[:, None, None].clone())

    def forward(self, x_BCTHW: Tensor) -> list[Tensor]:
        """-> float32 [B T, O, what is left of H and W] of each convolution."""
        films = [self._of_film(film_CTHW.movedim(0, 1)) for film_CTHW in x_BCTHW]
        return [torch.cat(maps) for maps in zip(*films, strict=True)]

    def _of_film(self, x_TCHW: Tensor) -> list[Tensor]:
        spectra = torch.fft.rfft2(x_TCHW).flatten(2).permute(2, 0, 1).contiguous()
        products = torch.bmm(spectra, self.spectra).split(self.columns, dim=2)
        return [self._maps(n, product) for n, product in enumerate(products)]

    def _maps(self, n: int, products: Tensor) -> Tensor:
        """Of the n-th convolution, from its products."""
        taps, kept, frames = self.taps[n], self.kept[n], products.shape[1]
        products = products.unflatten(2, (taps, -1)).movedim(2, 0)
        total = products[taps // 2]
        for tap in range(taps):
            shift = tap - taps // 2  # frame t hears frame t + shift through this tap
            if shift:
                into, of = slice(max(0, -shift), frames - max(0, shift)), slice(max(0, shift), frames + min(0, shift))
                total[:, into] += products[tap][:, of]
        maps = torch.fft.irfft2(total.permute(1, 2, 0).unflatten(2, (self.size, -1)), s=(self.size, self.size))
        return maps[..., :kept, :kept] + getattr(self, f"bias{n}")
