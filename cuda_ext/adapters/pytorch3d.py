"""`pytorch3d.renderer.mesh.rasterize_meshes` behind the interface of `cuda_ext.rasterize_mesh`.

It differs in which triangle gets a pixel that lies on an edge, and leaves a triangle out only when all of it lies
before `near`. Its pictures' shorter side spans [-1, 1], x to the left and y up.
"""

from __future__ import annotations

import importlib

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cuda_ext.adapters.rasterizers import RasterizerMissingError
from cuda_ext.mesh import MeshFragments

INSTALL = "see pytorch3d's INSTALL.md, or leave it: the rasterizer of cuda_ext does the same"


def rasterize_mesh_by_pytorch3d(
    vertices: Float[Tensor, "B V 3"], faces: Int[Tensor, "F 3"], width: int, height: int, *, near: float = 1e-6
) -> MeshFragments:
    """Rasterize by pytorch3d; arguments and results are those of `cuda_ext.rasterize_mesh`.

    Raises:
        RasterizerMissingError: It cannot be imported.
    """
    try:
        structures = importlib.import_module("pytorch3d.structures")
        renderer = importlib.import_module("pytorch3d.renderer.mesh")
    except (ImportError, OSError) as error:
        raise RasterizerMissingError(f"pytorch3d cannot be imported ({error}); {INSTALL}.") from error
    half = min(width, height) / 2
    middle = vertices.new_tensor([width / 2, height / 2])
    placed = torch.cat([(middle - vertices[..., :2]) / half, vertices[..., 2:]], -1)
    meshes = structures.Meshes(verts=placed, faces=faces.long().expand(len(vertices), -1, -1))
    index, depth, barycentrics, _ = renderer.rasterize_meshes(
        meshes,
        image_size=(height, width),
        blur_radius=0.0,
        faces_per_pixel=1,
        perspective_correct=True,
        cull_backfaces=False,
        z_clip_value=near,
    )
    index, depth, barycentrics = index[..., 0], depth[..., 0], barycentrics[..., 0, :]
    shown = index >= 0
    first = torch.arange(len(vertices), device=index.device)[:, None, None] * len(faces)  # theirs count on and on
    index = torch.where(shown, index - first, index)
    return MeshFragments(
        index.to(torch.int32),
        torch.where(shown[..., None], barycentrics, torch.zeros_like(barycentrics)),
        torch.where(shown, depth, torch.zeros_like(depth)),
    )
