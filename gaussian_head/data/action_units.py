"""Read OpenFace-format action units: one row a frame, intensities 0..5 in columns `AUxx_r`."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import EXPRESSION_ACTION_UNITS
from gaussian_head.media.openface import read_frames

BLINK_LIMIT = 2.0
"""AU45 is clipped to 0..2 (specs/gaussian_head.md a.5)."""


def read_action_units(layout: SubjectLayout, frames: int) -> Float[np.ndarray, "T 6"]:
    """Read the action units that condition the motion fields (EXPRESSION_ACTION_UNITS, in that order).

    Any version's file will do (`media.openface`): frames that failed are interpolated. Values that are no numbers count
    as 0.

    Raises:
        FileNotFoundError: `au.csv` is missing.
        UserError: A column is missing, or the file has fewer rows than the clip has frames.
    """
    path = layout.action_units
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; run: python -m data_utils.process {layout.video}")
    intensities = read_frames(path, EXPRESSION_ACTION_UNITS).intensities
    if len(intensities) < frames:
        raise UserError(f"{path} has {len(intensities)} rows but the clip has {frames} frames; give one row a frame.")
    values = np.nan_to_num(intensities[:frames]).astype(np.float32)
    values[:, -1] = np.clip(values[:, -1], 0, BLINK_LIMIT)
    return values
