"""`diff_gaussian_rasterization`, of Inria or a fork, as an adapter's `draw`.

Three channels a pass, one of the first two passes' six being alpha. What it does otherwise than `cuda_ext.rasterize` is
in `cuda_ext.diff_gaussian_rasterization`. Its near plane is fixed. It limits the Jacobian's x/z symmetrically about the
optical axis, which an off-centre picture, such as a crop, may lie outside of: so the picture is drawn within
a larger one that is centred. Radii are those on the larger picture.
"""

from __future__ import annotations

from types import ModuleType

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cuda_ext.adapters.scene import Scene

NEAR = 0.2
Z_NEAR, Z_FAR = 0.01, 100.0
"""Of the projection matrix; they decide nothing."""


def draw(module: ModuleType, scene: Scene) -> tuple[Float[Tensor, "C H W"], Float[Tensor, "1 H W"], Int[Tensor, " N"]]:
    """Blend the channels over 0; return them, alpha, and radii.

    Raises:
        ValueError: Another near plane than the fixed one is asked for.
    """
    if scene.near != NEAR:
        raise ValueError(f"diff_gaussian_rasterization: near is fixed at {NEAR}, got {scene.near}.")
    pads = [_padding(float(scene.K[i, 2]), size) for i, size in enumerate((scene.width, scene.height))]
    (left, right), (top, bottom) = pads
    width, height = left + scene.width + right, top + scene.height + bottom
    rasterizer = module.GaussianRasterizer(raster_settings=_settings(module, scene, (left, top), (width, height)))
    share = scene.means.new_tensor([scene.width / width, scene.height / height])
    centers = torch.zeros_like(scene.means[:, :2]) if scene.means2d is None else scene.means2d * share
    channels = torch.cat([scene.channels, torch.ones_like(scene.channels[:, :1])], 1)
    count = channels.shape[1]
    channels = torch.nn.functional.pad(channels, (0, -count % 3))
    pictures = []
    for colors in channels.split(3, 1):
        picture, radii, *_ = rasterizer(
            means3D=scene.means,
            means2D=torch.nn.functional.pad(centers, (0, 1)),
            opacities=scene.opacities[:, None],
            colors_precomp=colors.contiguous(),
            scales=scene.scales,
            rotations=torch.nn.functional.normalize(scene.quats, dim=-1),
        )
        pictures.append(picture[:, top : top + scene.height, left : left + scene.width])
    picture = torch.cat(pictures)
    return picture[: count - 1], picture[count - 1 : count], radii


def _padding(center: float, size: int) -> tuple[int, int]:
    """Return how many pixels before and after make a picture of `size` px centred (to half a pixel) at `center`."""
    return max(0, round(size - 2 * center)), max(0, round(2 * center - size))


def _settings(module: ModuleType, scene: Scene, corner: tuple[int, int], size: tuple[int, int]) -> tuple:
    """Write our camera as theirs: transposed matrices, tangents of half the field of view, black behind.

    The background is a picture because GaussianTalker's fork reads one; the others read its first three values.
    """
    K, (width, height) = scene.K.tolist(), size
    tangents = width / (2 * K[0][0]), height / (2 * K[1][1])
    projection = scene.viewmat.new_tensor([
        [1 / tangents[0], 0, 2 * (K[0][2] + corner[0]) / width - 1, 0],
        [0, 1 / tangents[1], 2 * (K[1][2] + corner[1]) / height - 1, 0],
        [0, 0, Z_FAR / (Z_FAR - Z_NEAR), -Z_FAR * Z_NEAR / (Z_FAR - Z_NEAR)],
        [0, 0, 1, 0],
    ])  # fmt: skip
    fields = {
        "image_height": height,
        "image_width": width,
        "tanfovx": tangents[0],
        "tanfovy": tangents[1],
        "bg": scene.means.new_zeros(3, height, width),
        "scale_modifier": 1.0,
        "viewmatrix": scene.viewmat.T.contiguous(),
        "projmatrix": (projection @ scene.viewmat).T.contiguous(),
        "sh_degree": 0,
        "campos": -scene.viewmat[:3, :3].T @ scene.viewmat[:3, 3],
        "prefiltered": False,
        "debug": False,
        "antialiasing": False,  # newer ones have it and require it
    }
    settings = module.GaussianRasterizationSettings
    return settings(**{name: value for name, value in fields.items() if name in settings._fields})
