"""Public weights: where they are looked for, and how they are read safely.

Nothing here is downloaded by itself and nothing is replaced by something else: a part whose file is missing says so.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from gaussian_head.errors import UserError
from gaussian_head.networks.weight_table import FOLDER, TABLE, WeightFile

WRAPPERS = ("state_dict", "net_recon", "params_ema", "model", "net_G_ema")
"""Keys under which training programs keep a network's tensors beside their own things."""
FOLDER_VARIABLE = "GAUSSIAN_HEAD_CHECKPOINTS"
"""Environment variable that names another folder, looked into first."""


_DAMAGE = (
    pickle.UnpicklingError, struct.error, SafetensorError, RuntimeError, EOFError, ValueError, LookupError, TypeError,
    AttributeError, AssertionError, ArithmeticError, OSError,
)  # fmt: skip
"""What torch and safetensors raise on damaged files (found by truncating files and changing bytes)."""


class WeightsMissingError(UserError):
    """A network's file is not here; the message names it."""


def find_weights(name: str, given: Path | None = None) -> Path:
    """Return the file of a network.

    Looked for, in this order: `given`, the environment variable GAUSSIAN_HEAD_<NAME>, the folder that
    GAUSSIAN_HEAD_CHECKPOINTS names, `checkpoints/`, the hub's cache of torch, that of Hugging Face.

    Raises:
        WeightsMissingError: It is in none of them, or `given` or the variable names no file.
        KeyError: `name` is not in TABLE.
    """
    weights = TABLE[name]
    named = given or (Path(os.environ[weights.variable]) if os.environ.get(weights.variable) else None)
    files = (weights.file, *weights.aliases)
    if named is not None:
        inside = [named / Path(file).name for file in files] if weights.repository else []
        for path in (named, *inside):
            if path.is_file():
                return path
        raise WeightsMissingError(f"{named} is no file; it was named for {weights.file} ({weights.unlocks}).")
    places = [folder / file for folder in search_folders() for file in files]
    if weights.repository and (snapshot := hub_snapshot(weights.repository)):
        places += [snapshot / Path(file).name for file in files]
    for path in places:
        if path.is_file():
            return path
    raise WeightsMissingError(f"needs {weights.file}, see scripts/prepare.sh")


def require_weights(names: Sequence[str], purpose: str) -> None:
    """Refuse to begin what lacks weights.

    Args:
        names: Keys of TABLE.
        purpose: What needs them.

    Raises:
        WeightsMissingError: Some are missing; the message names all of them, their place, and what to run.
    """
    missing = []
    for name in names:
        try:
            find_weights(name)
        except WeightsMissingError:
            missing.append(name)
    if missing:
        files = ", ".join(TABLE[name].file for name in missing)
        raise WeightsMissingError(
            f"{purpose} needs {files} in {search_folders()[0].resolve()}; to fetch them, or to be told where they are "
            f"got: bash scripts/prepare.sh {' '.join(missing)}"
        )


def search_folders() -> list[Path]:
    """Return the folders that are searched, first to last."""
    folders = [Path(os.environ[FOLDER_VARIABLE])] if os.environ.get(FOLDER_VARIABLE) else []
    return [*folders, FOLDER, Path(torch.hub.get_dir()) / "checkpoints"]


def hub_cache() -> Path:
    """Return the folder where programs of Hugging Face keep what they download."""
    if os.environ.get("HF_HUB_CACHE"):
        return Path(os.environ["HF_HUB_CACHE"])
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return Path(home) / "hub"


def hub_snapshot(repository: str) -> Path | None:
    """Return a repository's folder in that cache, of the revision that `main` last was; None where there is none."""
    folder = hub_cache() / f"models--{repository.replace('/', '--')}"
    revision = folder / "refs" / "main"
    return folder / "snapshots" / revision.read_text().strip() if revision.is_file() else None


def load_state_dict(path: Path, part: str = "") -> dict[str, Tensor]:
    """Read tensors by name from a .safetensors file or a checkpoint of torch; code inside is never run.

    A checkpoint that wraps its tensors (`{"state_dict": ...}`, see WRAPPERS) is unwrapped.

    Args:
        path: The file.
        part: Key of the network that is meant, where a checkpoint of torch holds several.

    Raises:
        UserError: The file is damaged, holds objects that are no tensors, or would run code.
    """
    try:
        if path.suffix == ".safetensors":
            _loaded.add(path.absolute())
            return load_file(path)
        with torch.serialization.safe_globals(_numpy_numbers()):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: a truncated archive
            raise
        if isinstance(error, pickle.UnpicklingError) and "Unsupported global" in str(error):
            raise UserError(
                f"{path} cannot be read as plain tensors: it holds objects besides (or is damaged), and reading those "
                "can run any code. To take out the tensors and run nothing: python -m gaussian_head.convert_weights "
                f"{path} {path.with_suffix('.safetensors')}"
            ) from error
        first = str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be read as plain tensors (damaged, or none of torch): {first}") from error
    if isinstance(loaded, dict):
        loaded = next((loaded[key] for key in (part, *WRAPPERS) if isinstance(loaded.get(key), dict)), loaded)
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UserError(f"{path} must map names to tensors; it holds something else.")
    _loaded.add(path.absolute())
    return loaded


def _numpy_numbers() -> list[object]:
    """Return what numpy's numbers are pickled by: mmcv notes its best score in one. They run nothing."""
    kinds = {type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)}
    scalar = np.float64(0).__reduce__()[0]
    # numpy 2 moved the function; files name it as the numpy that wrote them did
    return [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")] + [np.dtype, *kinds]


Network = TypeVar("Network", bound=nn.Module)
_loaded: set[Path] = set()


def load_into(network: Network, path: Path, prefix: str = "") -> Network:
    """Fill a network from a file of the same names and shapes; returns it frozen and in evaluation mode.

    Args:
        network: Any.
        path: The file.
        prefix: Where names in the file begin with this, those tensors are meant and the prefix is cut off; a checkpoint
            of torch may keep them under that key (without the dot) instead.

    Raises:
        UserError: The file cannot be read, or is another network's: the first names that differ are told.
    """
    held = load_state_dict(path, prefix.removesuffix("."))
    if prefix and any(name.startswith(prefix) for name in held):
        held = {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}
    if faults := _differences(network.state_dict(), held):
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise UserError(
            f"{path} holds another network than {type(network).__name__}: {'; '.join(faults[:3])}{more}; "
            "see scripts/prepare.sh for the file that is meant."
        )
    network.load_state_dict(held, strict=False)
    return network.eval().requires_grad_(False)


def load_from_larger(build: Callable[[], Network], path: Path, whose: str) -> Network:
    """Make a network whose tensors are some of a file's; returns it frozen and in evaluation mode.

    Args:
        build: Makes it; on torch's `meta` device, without memory.
        path: The file.
        whose: What the file is said to be, for the message.

    Raises:
        UserError: The file is damaged, or lacks a tensor of that name and shape.
    """
    held = load_state_dict(path)
    with torch.device("meta"):
        network = build()
    expected = {name: value.shape for name, value in network.state_dict().items()}
    for name, shape in expected.items():
        if name not in held or held[name].shape != shape:
            found = list(held[name].shape) if name in held else "nothing"
            raise UserError(f"{path} is not {whose}: {name} must be {list(shape)}, found {found}; fetch it again.")
    network.load_state_dict({name: held[name].float() for name in expected}, assign=True)
    return network.eval().requires_grad_(False)


def _differences(expected: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> list[str]:
    """Say which names and shapes differ; the counters of batches, which nothing reads, may be absent."""
    faults = []
    for name, value in expected.items():
        if name not in held:
            if not name.endswith("num_batches_tracked"):
                faults.append(f"{name} is missing")
        elif held[name].shape != value.shape:
            faults.append(f"{name} is {list(held[name].shape)}, not {list(value.shape)}")
    return faults + [f"{name} is not its own" for name in held if name not in expected]


def load_program(name: str, given: Path | None = None) -> torch.jit.ScriptModule:
    """Load a torchscript archive. It is a program, so it runs only if it is the published one, or if you named it.

    Args:
        name: Key in TABLE.
        given: The file, named by the user; the environment variable names it likewise.

    Raises:
        WeightsMissingError: As `find_weights`.
        UserError: It is neither the published file nor named, or it cannot be read.
    """
    path, weights = find_weights(name, given), TABLE[name]
    named = given is not None or bool(os.environ.get(weights.variable))
    if not named and sha256_of(path) != weights.sha256:
        raise UserError(
            f"{path} is a program and not the published one (sha256 {weights.sha256[:8]}...); get it again from "
            f"{weights.source}, or run it all the same: {weights.variable}={path}"
        )
    _loaded.add(path.absolute())
    try:
        return torch.jit.load(path, map_location="cpu").eval()
    except RuntimeError as error:
        raise UserError(f"{path} is no readable torchscript archive; get it again from {weights.source}") from error


TASK_PARTS = ("face_detector.tflite", "face_landmarks_detector.tflite", "face_blendshapes.tflite")
"""Networks inside `face_landmarker.task` that are used; the early files without blendshapes lack the last."""


def check_task_bundle(path: Path) -> None:
    """Check that a MediaPipe task file is whole and has the face landmarker's networks; nothing in it is run.

    Raises:
        UserError: It is damaged or another task's file.
    """
    source = f"get it again from {TABLE['face_landmarker'].source}"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged, names = archive.testzip(), archive.namelist()
    except (zipfile.BadZipFile, zlib.error, *_DAMAGE) as error:
        raise UserError(f"{path} cannot be read as a MediaPipe task (damaged: {error}); {source}") from error
    if damaged:
        raise UserError(f"{path} is damaged ({damaged} has another checksum than it should); {source}")
    if missing := [name for name in TASK_PARTS if name not in names]:
        raise UserError(f"{path} is another MediaPipe task: it has no {missing[0]}; {source}")
    _loaded.add(path.absolute())


@dataclass(frozen=True)
class WeightState:
    """What is found of one file."""

    weights: WeightFile
    state: Literal["present", "missing", "corrupt"]
    place: Path
    """Where to put it; a damaged one is replaced there."""
    path: Path | None = None
    """Where it was found."""
    remark: str = ""
    """What is wrong with it, or that it is not the published file."""


def look_at(weights: WeightFile) -> WeightState:
    """Look for a file and at what is inside; takes a second where it is there."""
    place = search_folders()[0] / weights.file
    try:
        path = find_weights(weights.name)
    except WeightsMissingError as error:
        return WeightState(weights, "missing", place, remark=str(error) if os.environ.get(weights.variable) else "")
    if weights.sha256 and sha256_of(path) in (weights.sha256, *weights.other_sha256):
        return WeightState(weights, "present", place, path)
    try:
        if weights.is_program:
            load_program(weights.name)
        elif weights.is_task:
            check_task_bundle(path)
        else:
            load_state_dict(path, weights.part)
    except UserError as error:
        return WeightState(weights, "corrupt", path, path, str(error))
    remark = "not the published file (another sha256)" if weights.sha256 else "the published file's sha256 is not known"
    return WeightState(weights, "present", place, path, remark)


def loaded_hashes() -> dict[str, str]:
    """Return the SHA-256 of every file that this process has loaded and that is still there, by file name."""
    return {path.name: sha256_of(path) for path in sorted(_loaded) if path.is_file()}


def sha256_of(path: Path) -> str:
    """Return a file's hash, for reports."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
