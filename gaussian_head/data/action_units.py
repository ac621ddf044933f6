"""Read OpenFace-format action units: one row a frame, intensities 0..5 in columns `AUxx_r`."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from jaxtyping import Float

from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import EXPRESSION_ACTION_UNITS

BLINK_LIMIT = 2.0
"""AU45 is clipped to 0..2 (specs/gaussian_head.md a.5)."""


def read_action_units(layout: SubjectLayout, frames: int) -> Float[np.ndarray, "T 6"]:
    """Read the action units that condition the motion fields (EXPRESSION_ACTION_UNITS, in that order).

    Header names may carry OpenFace's leading spaces. Values that are no numbers count as 0.

    Raises:
        FileNotFoundError: `au.csv` is missing.
        UserError: A column is missing, or the file has fewer rows than the clip has frames.
    """
    path = layout.action_units
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; run: python -m data_utils.process {layout.video}")
    intensities, _ = read_intensities(path, EXPRESSION_ACTION_UNITS)
    if len(intensities) < frames:
        raise UserError(f"{path} has {len(intensities)} rows but the clip has {frames} frames; give one row a frame.")
    values = np.nan_to_num(intensities[:frames]).astype(np.float32)
    values[:, -1] = np.clip(values[:, -1], 0, BLINK_LIMIT)
    return values


def read_intensities(
    path: Path, units: tuple[int, ...], others: tuple[str, ...] = ()
) -> tuple[Float[np.ndarray, "T A"], dict[str, Float[np.ndarray, "T"]]]:
    """Read the intensity columns of any file in OpenFace's format.

    Header names may carry OpenFace's leading spaces. Values that are no finite numbers are NaN.

    Args:
        path: The CSV.
        units: Action units wanted.
        others: Further columns wanted where there are such; NaN where not.

    Returns:
        The intensities, and the further columns by name.

    Raises:
        FileNotFoundError: No such file.
        UserError: The file has no rows or is no text, or columns of action units are missing; names them.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist (or is no file); give OpenFace's FeatureExtraction output.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [{(key or "").strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV text ({error}); use OpenFace's FeatureExtraction output.") from error
    if not rows:
        raise UserError(f"{path} has 0 rows; use OpenFace's FeatureExtraction output.")
    columns = [f"AU{unit:02d}_r" for unit in units]
    missing = [name for name in columns if name not in rows[0]]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}; use OpenFace's FeatureExtraction output.")
    intensities = np.array([[_number(row[name]) for name in columns] for row in rows])
    return intensities, {name: np.array([_number(row.get(name)) for row in rows]) for name in others}


def _number(text: object) -> float:
    try:
        value = float(text) if isinstance(text, str) else np.nan
    except ValueError:
        return np.nan
    return value if np.isfinite(value) else np.nan
