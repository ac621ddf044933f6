"""Differentiable operators for Gaussian heads, usable on their own: `rasterize` and `l1_ssim`.

Each operator has a plain PyTorch twin (`_reference.py`, the oracle) and a compiled one (`csrc/`), loaded on first use.
"""

from cuda_ext._cuda import check_pair_room
from cuda_ext.rasterize import Rasterization, rasterize
from cuda_ext.ssim import l1_ssim

__all__ = ["Rasterization", "check_pair_room", "l1_ssim", "rasterize"]
