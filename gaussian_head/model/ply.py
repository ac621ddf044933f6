"""Gaussians as PLY files in the layout of 3D Gaussian Splatting (Kerbl et al. 2023), which viewers of the field read.

One element `vertex`, float32 properties, all as stored, before activation:
`x y z`, `nx ny nz` (zeros), `f_dc_0..2` (sh0), `f_rest_*` (shN, channel by channel: all of red, green, blue),
`opacity` (logit), `scale_0..2` (logarithm), `rot_0..3` (w, x, y, z, of any length).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyParseError
from torch import Tensor

from gaussian_head.errors import UserError
from gaussian_head.media.files import replacing

DEGREES = {3 * ((degree + 1) ** 2 - 1): degree for degree in range(4)}
"""Spherical-harmonics degree by number of `f_rest_*` properties."""


def _properties(rest: int) -> list[str]:
    """Names of a vertex's properties in their usual order."""
    colors = [f"f_dc_{i}" for i in range(3)] + [f"f_rest_{i}" for i in range(rest)]
    shape = [f"scale_{i}" for i in range(3)] + [f"rot_{i}" for i in range(4)]
    return ["x", "y", "z", "nx", "ny", "nz", *colors, "opacity", *shape]


def write_ply(path: Path, gaussians: dict[str, Tensor]) -> None:
    """Write Gaussians atomically, bit by bit as given.

    Args:
        path: The file.
        gaussians: The stored parameters, float32, by the names of `Gaussians.NAMES`, such as a `state_dict()`.
    """
    rest = gaussians["shN"].shape[1] * 3
    columns = [
        gaussians["means"],
        torch.zeros_like(gaussians["means"]),
        gaussians["sh0"].flatten(1),
        gaussians["shN"].transpose(1, 2).flatten(1),
        gaussians["opacity_logits"][:, None],
        gaussians["log_scales"],
        gaussians["quats"],
    ]
    table = torch.cat([column.detach().cpu() for column in columns], 1).contiguous().numpy()
    vertices = table.astype("<f4", copy=False).view([(name, "<f4") for name in _properties(rest)])[:, 0]
    with replacing(path) as temporary:
        PlyData([PlyElement.describe(vertices, "vertex")], byte_order="<").write(temporary)


def read_ply(path: Path) -> dict[str, Tensor]:
    """Read Gaussians that this or another program wrote; properties of other names are left out.

    Returns:
        float32 tensors by the names of `Gaussians.NAMES`; `Gaussians(count, degree).load_state_dict` takes them.

    Raises:
        FileNotFoundError: No such file.
        UserError: It is no PLY file of Gaussians.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a PLY file of Gaussians.")
    try:
        vertices = PlyData.read(path)["vertex"].data
    except (PlyParseError, KeyError, ValueError) as error:
        raise UserError(f"{path} is no PLY file with an element `vertex`, or damaged ({error}).") from error
    held = vertices.dtype.names
    rest = sum(name.startswith("f_rest_") for name in held)
    missing = [name for name in _properties(rest) if name not in held and name not in ("nx", "ny", "nz")]
    if missing or rest not in DEGREES:
        raise UserError(
            f"{path} must hold x y z f_dc_* f_rest_* (0, 9, 24 or 45 of them) opacity scale_* rot_*; "
            f"it has {rest} f_rest_* and lacks {', '.join(missing) or 'nothing else'}."
        )

    def take(*names: str) -> Tensor:
        return torch.from_numpy(np.stack([vertices[name].astype(np.float32) for name in names], 1))

    harmonics = take(*(f"f_rest_{i}" for i in range(rest))) if rest else torch.zeros(len(vertices), 0)
    return {
        "means": take("x", "y", "z"),
        "quats": take(*(f"rot_{i}" for i in range(4))),
        "log_scales": take(*(f"scale_{i}" for i in range(3))),
        "opacity_logits": take("opacity")[:, 0],
        "sh0": take(*(f"f_dc_{i}" for i in range(3)))[:, None],
        "shN": harmonics.reshape(len(vertices), 3, rest // 3).transpose(1, 2).contiguous(),
    }
