"""Convolutions over an enlarged map, computed on the small one."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modules.blocks import UpBlock
from modules.packed import PackedEnd, PackedUpBlock, conv_of_phases, phases_conv


def enlarged(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


def phases_of(large):
    """A large map [B, C, 2 H, 2 W] as `phases_conv` lays it out; what it leaves open is 0."""
    batch, channels, height, width = large.shape
    phases = large.new_zeros(batch, 4, channels, height // 2 + 1, width // 2 + 1)
    for p in range(2):
        for q in range(2):
            place = phases[:, 2 * p + q, :, p : p + height // 2, q : q + width // 2]
            place.copy_(large[:, :, p::2, q::2])
    return phases.flatten(1, 2)


def test_phases_are_the_convolution_over_the_enlarged_map():
    torch.manual_seed(0)
    conv, x = nn.Conv2d(3, 5, 3, padding=1).double(), torch.randn(2, 3, 4, 6).double()
    with torch.no_grad():
        found, expected = phases_conv(conv)(x), phases_of(conv(enlarged(x)))
    assert found.shape == expected.shape
    assert torch.allclose(found[expected != 0], expected[expected != 0], atol=1e-12)


@pytest.mark.parametrize("taps", [3, 7, 11])
def test_a_convolution_of_phases_is_that_of_the_large_map(taps):
    """At the borders, too, where it takes what lies beyond for 0."""
    torch.manual_seed(0)
    conv, large = nn.Conv2d(3, 2, taps, padding=taps // 2).double(), torch.randn(2, 3, 8, 12).double()
    with torch.no_grad():
        found = F.pixel_shuffle(conv_of_phases(conv)(phases_of(large)), 2)
        assert torch.allclose(found, conv(large), atol=1e-12)


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="needs AVX-512 of the CPU")
@pytest.mark.parametrize("height", [2, 16])
def test_packed_enlargements_give_what_plain_ones_do(height):
    torch.manual_seed(0)
    block, conv = UpBlock(8, 4).eval(), nn.Conv2d(4, 3, 7, padding=3)  # its BatchNorm, untrained, changes nothing
    x = torch.randn(2, 8, height, 6)
    with torch.inference_mode():
        up = block(x)
        for found, expected in ((PackedUpBlock(block)(x), up), (PackedEnd(block, conv)(x), conv(up))):
            assert found.shape == expected.shape
            assert (found - expected).abs().max() < 0.03 * expected.std()
