"""Differentiable operators for Gaussian heads, usable on their own.

Of Gaussians: `rasterize`, `l1_ssim`, `place_features`, `deform`; of triangles: `rasterize_mesh`, `interpolate_mesh`.

Each operator has a plain PyTorch twin (`_reference.py`, the oracle) and a compiled one (`csrc/`), loaded on first use.
"""

from cuda_ext._cuda import check_pair_room
from cuda_ext.mesh import MeshFragments, interpolate_mesh, rasterize_mesh
from cuda_ext.motion import Carrier, Moved, deform, place_features
from cuda_ext.rasterize import Rasterization, rasterize
from cuda_ext.ssim import l1_ssim

__all__ = [
    "Carrier",
    "MeshFragments",
    "Moved",
    "Rasterization",
    "check_pair_room",
    "deform",
    "interpolate_mesh",
    "l1_ssim",
    "place_features",
    "rasterize",
    "rasterize_mesh",
]
