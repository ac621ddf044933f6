"""Stage `action_units` with the blendshapes of MediaPipe's face landmarker: brows, blinks and jaw.

The other units are measured on the mesh, as in `action_units`: `eyeWide` does not follow wide eyes, `cheekSquint` and
`noseSneer` never leave 0 (docs/formats.md). A blendshape rests at another score in every face, so, as on the mesh, what
counts is its rise above the subject's own median.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from data_utils.action_units import BLINK_INTENSITY, FULL_INTENSITY, extract_action_units
from data_utils.face_task import FaceTask, read_face_task
from data_utils.stage import Progress, no_progress
from gaussian_head.data.layout import SubjectLayout

MEASURES: dict[int, tuple[str, ...]] = {
    1: ("browInnerUp",),
    2: ("browOuterUpLeft", "browOuterUpRight"),
    4: ("browDownLeft", "browDownRight"),
    26: ("jawOpen",),
    45: ("eyeBlinkLeft", "eyeBlinkRight"),
}
"""Per unit the blendshapes that mean it; those of two sides are averaged."""
GAIN = FULL_INTENSITY
"""Intensity for a rise of 1: what regression on the mesh's units gives on real clips (docs/formats.md)."""


def extract_blendshape_units(layout: SubjectLayout, progress: Progress = no_progress) -> dict[str, Any]:
    """Write `au.csv` as `extract_action_units` does, with the units of MEASURES from the blendshapes.

    Raises:
        FileNotFoundError: The landmarks were not made by the task, or there are none.
        UserError: Its file is damaged, or the landmarks and the frames differ in number.
    """
    units = measure_blendshape_units(read_face_task(layout))
    facts = extract_action_units(layout, progress, units)
    return {"action_units": "blendshapes", "from_blendshapes": [f"AU{unit:02d}" for unit in units], **facts}


def measure_blendshape_units(task: FaceTask) -> dict[int, Float[ndarray, "T"]]:
    """Return the units of MEASURES: 0..5, and AU45 0..2.5, a closed eye, as on the mesh."""
    scores = {unit: task.score(*names) for unit, names in MEASURES.items()}
    units = {unit: np.clip(GAIN * (score - np.median(score)), 0, FULL_INTENSITY) for unit, score in scores.items()}
    return units | {45: units[45].clip(max=BLINK_INTENSITY)}
