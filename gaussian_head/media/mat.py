"""The `.mat` files in which the one-shot pipelines pass face coefficients on (specs/one_shot.md 0, vico.md 1.2)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.media.files import replacing


def read_mat(path: Path) -> dict[str, ndarray]:
    """Read a file's arrays by name.

    Raises:
        FileNotFoundError: No such file.
        UserError: It cannot be read.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; make it with: python -m data_utils.coefficients VIDEO")
    try:
        document = loadmat(path)
    except (MatReadError, ValueError, TypeError, NotImplementedError, OSError) as error:
        raise UserError(f"{path} is no readable .mat file (version 7.2 or older); write it again.") from error
    return {key: np.asarray(value) for key, value in document.items() if not key.startswith("__")}


def read_deep3d(path: Path) -> tuple[Float32[ndarray, "T 257"], Float32[ndarray, "T 5"]]:
    """Read coefficients and transform parameters as Deep3DFaceRecon, ViCo and the 2023 challenge's entries keep them.

    Raises:
        UserError: The file cannot be read, or does not hold `coeff` [T, 257] and `transform_params` [T, 5].
    """
    arrays = read_mat(path)
    coefficients = _take(arrays, "coeff", (257,), path)
    transforms = _take(arrays, "transform_params", (5,), path)
    if len(coefficients) != len(transforms):
        raise UserError(
            f"{path}: coeff has {len(coefficients)} rows, transform_params {len(transforms)}; extract them again."
        )
    return coefficients, transforms


def write_deep3d(path: Path, coefficients: Float[ndarray, "T 257"], transforms: Float[ndarray, "T 5"]) -> None:
    """Write `coeff` [T, 257] and `transform_params` [T, 5], float32, atomically."""
    _write(path, {"coeff": coefficients, "transform_params": transforms})


def read_sadtalker(path: Path) -> tuple[Float32[ndarray, "T M"], Float32[ndarray, "1 257"] | None]:
    """Read SadTalker's motion vectors and, where they are, all coefficients of the first frame.

    Returns:
        `coeff_3dmm` [T, 70] or [T, 73] (with the crop), and `full_3dmm` [1, 257]: files that SadTalker generated have
        none.

    Raises:
        UserError: The file cannot be read, or holds something else.
    """
    arrays = read_mat(path)
    motion = _take(arrays, "coeff_3dmm", (70, 73), path)
    return motion, _take(arrays, "full_3dmm", (257,), path) if "full_3dmm" in arrays else None


def write_sadtalker(path: Path, motion: Float[ndarray, "T M"], first: Float[ndarray, "1 257"]) -> None:
    """Write `coeff_3dmm` [T, 70 or 73] and `full_3dmm` [1, 257], float32, atomically."""
    _write(path, {"coeff_3dmm": motion, "full_3dmm": first})


def _take(arrays: dict[str, ndarray], key: str, widths: tuple[int, ...], path: Path) -> Float32[ndarray, "T W"]:
    expected = f"{key} [frames, {' or '.join(map(str, widths))}]"
    if key not in arrays:
        raise UserError(f"{path} must hold {expected}; it holds {', '.join(sorted(arrays)) or 'nothing'}.")
    values = arrays[key]
    if values.ndim != 2 or values.shape[1] not in widths or values.dtype.kind not in "fiu":
        raise UserError(f"{path} must hold {expected}, got {list(values.shape)} of {values.dtype}.")
    broken = np.flatnonzero(~np.isfinite(values).all(1))
    if len(broken):
        raise UserError(f"{path}, {key} of frame {broken[0]} (of {len(broken)} such) is not finite; extract it again.")
    return values.astype(np.float32)


def _write(path: Path, arrays: dict[str, ndarray]) -> None:
    from scipy.io import savemat

    with replacing(path) as temporary, temporary.open("wb") as file:
        savemat(file, {key: np.float32(value) for key, value in arrays.items()})
