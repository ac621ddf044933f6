"""Take the tensors out of a checkpoint that also holds objects, without running any of the code it names.

A pickle is a program: it calls whatever it names. Here it may name the functions that put tensors together and nothing
else; every other name becomes an `Inert`, which keeps its state and does nothing.
"""

from __future__ import annotations

import collections
import pickle
import types
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import SourceChangeWarning

from gaussian_head.errors import UserError

_MEANT = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    ("torch", "Size"): torch.Size,
}
"""What a pickle may call. Storages and dtypes are torch's own business."""


class Inert:
    """Stands for any object or function that a pickle names; takes everything and does nothing."""

    state: object = None
    dump_patches = False
    """torch asks this of a module's class whose source it finds changed."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __call__(self, *_: object, **__: object) -> Inert:
        """Return another."""
        return Inert()

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        """Take an entry of a list that it stands for."""

    def extend(self, values: object) -> None:
        """Take entries likewise."""

    def add(self, value: object) -> None:
        """Take an entry of a set likewise."""

    def __hash__(self) -> int:
        return id(self)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return _MEANT.get((module, name), Inert)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read every tensor of a checkpoint of torch, by the names of dictionaries and modules that lead to it.

    Raises:
        UserError: It is damaged, a torchscript archive, or no checkpoint of torch.
    """
    with path.open("rb") as file:
        begins_as_zip = file.read(2) == b"PK"  # all that torch looks at before it opens a program
    if begins_as_zip and not zipfile.is_zipfile(path):
        raise UserError(f"{path} cannot be read as a checkpoint of torch: it is a damaged archive.")
    if begins_as_zip:
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise UserError(f"{path} is a torchscript archive, a program; it holds no plain checkpoint.")
    inert = types.ModuleType("inert_pickle")
    inert.Unpickler, inert.load = _Unpickler, lambda file, **given: _Unpickler(file, **given).load()
    try:
        with warnings.catch_warnings(action="ignore", category=SourceChangeWarning):  # no class's source is used
            content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=inert)
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged pickles raise whatever the bytes happen to say
        first = str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be read as a checkpoint of torch, even without its objects: {first}") from error
    found: dict[str, Tensor] = {}
    _collect(content, "", found)
    return found


def _collect(value: Any, name: str, found: dict[str, Tensor]) -> None:  # noqa: ANN401 -- what a pickle holds
    if isinstance(value, Tensor):
        found[name] = value.detach().clone(memory_format=torch.contiguous_format)
        return
    if isinstance(value, Inert):
        value = _members(value.state)
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, part in value.items():
            _collect(part, f"{name}.{key}" if name else str(key), found)


def _members(state: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return what a pickled `nn.Module` would give as its state dict, {} of other objects."""
    if not isinstance(state, dict) or not {"_parameters", "_modules"} <= set(state):
        return {}
    parts = (state.get(part) for part in ("_parameters", "_buffers", "_modules"))
    return {key: member for part in parts if isinstance(part, dict) for key, member in part.items()}
