"""Coefficients of whole data sets: ViCo's feature files and PIRender's LMDB (specs/vico.md 1.3 and 7.1).

Plain arrays of each layout; `geometry.coefficients.FaceCoefficients` names their columns.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.media.files import replacing

VICO_MOVING, VICO_FIXED = "angle.exp.trans", "id.gamma.tex"
PIRENDER_WIDTH = 260
_DAMAGE = (
    pickle.UnpicklingError, struct.error, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError,
    AssertionError, OSError,
)  # fmt: skip
"""What torch raises on damaged files."""
_PIRENDER_KEY, _LENGTH_KEY = b"-coeff_3dmm", b"-length"


def read_vico(path: Path) -> tuple[Float32[ndarray, "T 73"], Float32[ndarray, "T 187"]]:
    """Read what moves and what stays from `video_feats/<uuid>.<role>.bin`; code inside is never run.

    Raises:
        FileNotFoundError: No such file.
        UserError: It is damaged, would run code, or holds something else.
    """
    import torch

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; ViCo's preprocessing writes it (rearrange_recon_coeffs.py).")
    try:
        with torch.serialization.safe_globals(_numpy_arrays()):
            arrays = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        first = str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be read as plain arrays (damaged, or it holds code): {first}") from error
    parts = []
    for key, width in ((VICO_MOVING, 73), (VICO_FIXED, 187)):
        values = np.asarray(arrays.get(key)) if isinstance(arrays, dict) else np.zeros(0)
        if values.ndim != 2 or values.shape[1] != width or values.dtype.kind != "f":
            raise UserError(f"{path} must hold {key} [frames, {width}], got {list(values.shape)} of {values.dtype}.")
        parts.append(_finite(values, f"{path}, {key}"))
    if len(parts[0]) != len(parts[1]):
        raise UserError(f"{path}: {VICO_MOVING} has {len(parts[0])} rows, {VICO_FIXED} {len(parts[1])}; write it anew.")
    return parts[0], parts[1]


def write_vico(path: Path, moving: Float[ndarray, "T 73"], fixed: Float[ndarray, "T 187"]) -> None:
    """Write a feature file as ViCo's programs read it, float32, atomically."""
    import torch

    with replacing(path) as temporary:
        torch.save({VICO_MOVING: np.float32(moving), VICO_FIXED: np.float32(fixed)}, temporary)


def parse_pirender(value: bytes, frames: int) -> Float32[ndarray, "T 260"]:
    """Read the value `<video>-coeff_3dmm` of PIRender's LMDB.

    Nothing in it names its number type: PIRender takes it for float32, yet a writer that was handed float64 stored
    that. The number of frames decides.

    Args:
        value: Numbers in rows, as they lie in memory.
        frames: T, of the video; its own value is `<video>-length`.

    Raises:
        UserError: The value has the length of neither, or a number is not finite.
    """
    for kind in (np.float32, np.float64):
        if frames > 0 and len(value) == frames * PIRENDER_WIDTH * np.dtype(kind).itemsize:
            rows = np.frombuffer(value, kind).reshape(frames, PIRENDER_WIDTH)
            return _finite(rows, "coefficients of an LMDB")
    raise UserError(
        f"coefficients of an LMDB: {frames} frames of {PIRENDER_WIDTH} numbers must take "
        f"{frames * PIRENDER_WIDTH * 4} bytes (float32) or twice as many, got {len(value)}; write the LMDB again."
    )


def pack_pirender(rows: Float[ndarray, "T 260"]) -> bytes:
    """Return the value of `<video>-coeff_3dmm`: float32 whatever came."""
    return np.ascontiguousarray(rows, np.float32).tobytes()


def read_pirender(folder: Path) -> Iterator[tuple[str, Float32[ndarray, "T 260"]]]:
    """Go through the videos of PIRender's LMDB folder, by name; one video's numbers are held at a time.

    Raises:
        FileNotFoundError: No such folder.
        UserError: The package `lmdb` is not installed, the folder is no LMDB, or a video's numbers are damaged.
    """
    try:
        import lmdb
    except ImportError as error:
        raise UserError("reading an LMDB needs the package lmdb; install it: pip install lmdb") from error
    if not (folder / "data.mdb").is_file():
        raise FileNotFoundError(
            f"{folder} is no LMDB: it holds no data.mdb; give PIRender's folder, as in vox_lmdb/256."
        )
    try:
        with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as reading:
            for key in reading.cursor().iternext(keys=True, values=False):
                if key.endswith(_PIRENDER_KEY):
                    video = key.removesuffix(_PIRENDER_KEY)
                    yield video.decode(), parse_pirender(reading.get(key), _frames(reading.get(video + _LENGTH_KEY)))
    except lmdb.Error as error:
        raise UserError(f"{folder} is no readable LMDB ({error}); copy or write it again.") from error


def _frames(length: bytes | None) -> int:
    return int(length) if length is not None and length.isdigit() else 0


def _finite(values: Float[ndarray, "T W"], what: str) -> Float32[ndarray, "T W"]:
    broken = np.flatnonzero(~np.isfinite(values).all(1))
    if len(broken):
        raise UserError(f"{what}: frame {broken[0]} (of {len(broken)} such) is not finite; extract it again.")
    return values.astype(np.float32)


def _numpy_arrays() -> list[object]:
    """Return what numpy's arrays of floats are pickled by; they run nothing."""
    rebuild = np.zeros(1).__reduce__()[0]
    kinds = {type(np.dtype(kind)) for kind in (np.float32, np.float64)}
    # numpy 2 moved the function; files name it as the numpy that wrote them did
    names = [(rebuild, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    return [*names, np.ndarray, np.dtype, *kinds]
