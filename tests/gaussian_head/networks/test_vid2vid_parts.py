"""Parts of face-vid2vid's networks that have an oracle of their own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from gaussian_head.networks.vid2vid_blocks import SpectralConvolution
from gaussian_head.networks.vid2vid_generator import convolve_enlarged


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_convolving_repeated_pixels(factor: int) -> None:
    convolution, x = nn.Conv2d(3, 5, 3, padding=1), torch.rand(2, 3, 4, 6)
    expected = convolution(interpolate(x, scale_factor=float(factor)))
    found = convolve_enlarged(convolution, x, factor)
    assert torch.allclose(found, expected, atol=1e-6)
    slopes = [torch.autograd.grad(y.square().sum(), convolution.weight)[0] for y in (found, expected)]
    assert torch.allclose(*slopes, rtol=1e-4)


def test_spectral_norm_finds_the_largest_singular_value() -> None:
    convolution = SpectralConvolution(3, 8, 3)
    x = torch.rand(1, 3, 8, 8)
    for _ in range(50):
        convolution(x)
    convolution.eval()
    before = convolution.weight_u.clone()
    singular = torch.linalg.svdvals(convolution.weight_orig.flatten(1))[0]
    expected = nn.functional.conv2d(x, convolution.weight_orig / singular, convolution.bias, padding=1)
    assert torch.allclose(convolution(x), expected, atol=1e-4)
    assert torch.equal(convolution.weight_u, before)  # evaluation changes nothing
