"""Public weights: which files exist, under which terms, where they are looked for, and how they are read safely.

Nothing here is downloaded by itself and nothing is replaced by something else: a part whose file is missing says so.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gaussian_head.errors import UserError

FOLDER = Path("checkpoints")
"""Where weights are put by default, relative to the working folder."""
FOLDER_VARIABLE = "GAUSSIAN_HEAD_CHECKPOINTS"
"""Environment variable that names another folder, looked into first."""


class WeightsMissingError(UserError):
    """A network's file is not here; the message names it."""


@dataclass(frozen=True)
class WeightFile:
    """One public file."""

    name: str
    """Key in `TABLE`, as in `syncnet`."""
    file: str
    """Its published file name."""
    unlocks: str
    """What works once it is there."""
    licence: str
    """Its terms, in short."""
    source: str
    """Where a person gets it."""
    sha256: str = ""
    """Of the published file, where known."""
    aliases: tuple[str, ...] = ()
    """Other names under which it is published."""


TABLE: dict[str, WeightFile] = {
    weights.name: weights
    for weights in (
        WeightFile(
            "alexnet", "alexnet-owt-7be5be79.pth", "LPIPS", "BSD-3-Clause (torchvision)",
            "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        ),
        WeightFile(
            "inception", "pt_inception-2015-12-05-6726825d.pth", "FID", "Apache-2.0 (TensorFlow's, ported)",
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
            aliases=("weights-inception-2015-12-05-6726825d.pth",),
        ),
        WeightFile(
            "i3d", "i3d_torchscript.pt", "FVD", "Apache-2.0 (DeepMind's, converted)",
            "the link in metrics.py of github.com/Stanford-AIMI/Laughing-Matters",
        ),
        WeightFile(
            "arcface", "ms1mv3_arcface_r100_fp16/backbone.pth", "CSIM", "non-commercial research only (insightface)",
            "the model zoo of github.com/deepinsight/insightface, folder ms1mv3_arcface_r100_fp16",
            aliases=("backbone.pth", "ms1mv3_arcface_r100_fp16_backbone.pth"),
        ),
        WeightFile(
            "syncnet", "syncnet_v2.model", "AVOffset, AVConf, Sync-C, Sync-D", "MIT (code); weights as published",
            "http://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model",
        ),
        WeightFile(
            "s3fd", "sfd_face.pth", "the face detector of AVOffset, AVConf, Sync-C, Sync-D", "as published",
            "https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/sfd_face.pth",
        ),
    )
}  # fmt: skip


def find_weights(name: str, given: Path | None = None) -> Path:
    """Return the file of a network.

    Looked for, in this order: `given`, the environment variable GAUSSIAN_HEAD_<NAME>, the folder that
    GAUSSIAN_HEAD_CHECKPOINTS names, `checkpoints/`, the hub's cache of torch.

    Raises:
        WeightsMissingError: It is in none of them, or `given` or the variable names no file.
        KeyError: `name` is not in TABLE.
    """
    weights = TABLE[name]
    variable = f"GAUSSIAN_HEAD_{name.upper()}"
    named = given or (Path(os.environ[variable]) if os.environ.get(variable) else None)
    if named is not None:
        if not named.is_file():
            raise WeightsMissingError(f"{named} is no file; it was named for {weights.file} ({weights.unlocks}).")
        return named
    for folder in search_folders():
        for file in (weights.file, *weights.aliases):
            if (folder / file).is_file():
                return folder / file
    raise WeightsMissingError(f"needs {weights.file}, see scripts/prepare.sh")


def search_folders() -> list[Path]:
    """Return the folders that are searched, first to last."""
    folders = [Path(os.environ[FOLDER_VARIABLE])] if os.environ.get(FOLDER_VARIABLE) else []
    return [*folders, FOLDER, Path(torch.hub.get_dir()) / "checkpoints"]


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from a .safetensors file or a checkpoint of torch; code inside is never run.

    A checkpoint that wraps its tensors (`{"state_dict": ...}`) is unwrapped.

    Raises:
        UserError: The file is damaged, holds objects that are no tensors, or would run code.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        first = str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be read as plain tensors (damaged, or it holds code): {first}") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UserError(f"{path} must map names to tensors; it holds something else.")
    return loaded


Network = TypeVar("Network", bound=nn.Module)


def load_into(network: Network, path: Path) -> Network:
    """Fill a network from a file of the same names and shapes; returns it frozen and in evaluation mode.

    Raises:
        UserError: The file cannot be read, or is another network's.
    """
    try:
        network.load_state_dict(load_state_dict(path))
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise UserError(f"{path} holds another network than {type(network).__name__}: {first}") from error
    return network.eval().requires_grad_(False)


def sha256_of(path: Path) -> str:
    """Return a file's hash, for reports."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
