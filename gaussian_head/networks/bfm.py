"""Our file of a morphable face model: the tensors of `FaceModel` by name, written by `data_utils.convert_bfm`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import torch
from safetensors.torch import save_file

from gaussian_head.errors import UserError
from gaussian_head.geometry.face_model import LANDMARKS, FaceModel
from gaussian_head.media.files import replacing
from gaussian_head.networks.weights import find_weights, load_state_dict

CONVERT = "python -m data_utils.convert_bfm 01_MorphableModel.mat"
_OPTIONAL = ("left_contour", "right_contour", "skin", "rigid")
_INDICES = ("faces", "vertex_faces", "landmarks", "left_contour", "right_contour", "rigid")


def save_face_model(model: FaceModel, path: Path) -> None:
    """Write a model; the file is whole or absent."""
    tensors = {field.name: getattr(model, field.name) for field in fields(model)}
    with replacing(path) as temporary:
        save_file({name: x.contiguous() for name, x in tensors.items() if x is not None}, temporary)


def load_face_model(given: Path | None = None) -> FaceModel:
    """Read a model.

    Args:
        given: The file; by default that of the table of weights (`bfm`) is looked for.

    Raises:
        WeightsMissingError: There is none.
        UserError: It is damaged, or holds something else; the first fault is named.
    """
    path = find_weights("bfm", given)
    tensors = load_state_dict(path)
    fault = _fault(tensors)
    if fault:
        raise UserError(f"{path} is no face model of ours: {fault}; write it by: {CONVERT}")
    return FaceModel(**{field.name: tensors.get(field.name) for field in fields(FaceModel)})


def _fault(tensors: dict[str, torch.Tensor]) -> str:
    names = [field.name for field in fields(FaceModel)]
    missing = [name for name in names if name not in tensors and name not in _OPTIONAL]
    unknown = sorted(set(tensors) - set(names))
    if missing or unknown:
        return f"missing {missing}, unknown {unknown}"
    vertices = len(tensors["mean_shape"])
    expected = {
        "mean_shape": (vertices, 3), "identity_basis": (vertices, 3, None), "expression_basis": (vertices, 3, None),
        "mean_albedo": (vertices, 3), "albedo_basis": (vertices, 3, None), "faces": (None, 3),
        "vertex_faces": (vertices, None), "landmarks": (LANDMARKS,), "left_contour": (8, None),
        "right_contour": (8, None), "skin": (vertices,), "rigid": (None,),
    }  # fmt: skip
    for name, tensor in tensors.items():
        shape = expected[name]
        if tensor.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, tensor.shape, strict=True)):
            return f"{name} is {list(tensor.shape)}, expected {['*' if n is None else n for n in shape]}"
        dtype = torch.bool if name == "skin" else torch.int64 if name in _INDICES else torch.float32
        if tensor.dtype != dtype:
            return f"{name} is {tensor.dtype}, expected {dtype}"
        if dtype == torch.float32 and not bool(tensor.isfinite().all()):
            return f"{name} holds values that are not finite"
        most = len(tensors["faces"]) if name == "vertex_faces" else vertices - 1
        if name in _INDICES and tensor.numel() and not 0 <= int(tensor.min()) <= int(tensor.max()) <= most:
            return f"{name} names what does not exist"
    return ""
