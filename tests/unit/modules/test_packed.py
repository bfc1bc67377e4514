"""Convolutions over an enlarged map, computed on the small one."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modules.blocks import UpBlock
from modules.fuse import fuse_for_inference
from modules.motion_field_generator import MotionFieldGenerator, MotionFieldGeneratorConfig
from modules.packed import PackedEnd, PackedUpBlock, conv_of_phases, phases_conv
from tests.untrained import randomise_norms

needs_bf16 = pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="needs AVX-512 of the CPU")


def phases_of(large):
    """A large map [B, C, 2 H, 2 W] (or 3-D) as `phases_conv` lays it out; what it leaves open is 0."""
    batch, channels, *sizes = large.shape
    dims = len(sizes)
    phases = large.new_zeros(batch, 2**dims, channels, *(size // 2 + 1 for size in sizes))
    for n, phase in enumerate(itertools.product(range(2), repeat=dims)):
        here = (slice(p, p + size // 2) for p, size in zip(phase, sizes, strict=True))
        phases[(slice(None), n, slice(None), *here)] = large[(..., *(slice(p, None, 2) for p in phase))]
    return phases.flatten(1, 2)


@pytest.mark.parametrize("kind, sizes", [(nn.Conv2d, (4, 6)), (nn.Conv3d, (2, 4, 6))])
def test_phases_are_the_convolution_over_the_enlarged_map(kind, sizes):
    torch.manual_seed(0)
    conv, x = kind(3, 5, 3, padding=1).double(), torch.randn(2, 3, *sizes).double()
    with torch.no_grad():
        found, expected = phases_conv(conv)(x), phases_of(conv(F.interpolate(x, scale_factor=2, mode="nearest")))
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


@needs_bf16
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


@needs_bf16
def test_hourglass_3d_packed_is_near_the_plain_one():
    torch.manual_seed(0)
    config = MotionFieldGeneratorConfig(
        num_keypoints=4, window=16, map_size=32, block_expansion=8, max_features=32, num_blocks=3
    )
    plain = MotionFieldGenerator(config).eval()
    randomise_norms(plain)
    packed = fuse_for_inference(plain, torch.bfloat16)
    assert not any(isinstance(m, nn.Conv3d | nn.BatchNorm3d) for m in packed.predictor.modules())
    volume = torch.randn(2, 6, 16, 32, 32)
    with torch.inference_mode():
        found, expected = packed.predictor(volume), plain.predictor(volume)
        assert found.dtype == torch.float32 and found.shape == expected.shape
        assert 0 < (found - expected).square().mean().sqrt() < 0.02 * expected.std()
        maps = volume[:, :3, 0], torch.randn(2, 16, 2, 32, 32), volume[:, 3]
        near = packed.from_maps(*maps).position_BTK2 - plain.from_maps(*maps).position_BTK2
        assert 0 < near.abs().max() < 5e-3
