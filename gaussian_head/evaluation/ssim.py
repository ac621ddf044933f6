"""Structural similarity (Wang et al. 2004) as the loss has it: 11 x 11 Gaussian window of 1.5 px, zeros outside."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cuda_ext import l1_ssim


def measure_ssim(picture: UInt8[np.ndarray, "H W 3"], truth: UInt8[np.ndarray, "H W 3"]) -> float:
    """Return the mean over pixels and channels; 1 for equal pictures."""
    return float(l1_ssim(_unit(picture), _unit(truth))[1])


def _unit(image: UInt8[np.ndarray, "H W 3"]) -> Float[Tensor, "3 H W"]:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
