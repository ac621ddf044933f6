"""Read OpenFace-format action units: one row a frame, intensities 0..5 in columns `AUxx_r`."""

from __future__ import annotations

import csv

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
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{(key or "").strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
    if len(rows) < frames:
        raise UserError(f"{path} has {len(rows)} rows but the clip has {frames} frames; give one row a frame.")
    columns = [f"AU{unit:02d}_r" for unit in EXPRESSION_ACTION_UNITS]
    missing = [name for name in columns if name not in rows[0]]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}; use OpenFace's FeatureExtraction output.")
    values = np.array([[_number(row[name]) for name in columns] for row in rows[:frames]], dtype=np.float32)
    values[:, -1] = np.clip(values[:, -1], 0, BLINK_LIMIT)
    return values


def _number(text: str | None) -> float:
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return value if np.isfinite(value) else 0.0
