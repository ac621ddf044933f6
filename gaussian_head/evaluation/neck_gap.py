"""Does the background show between head and torso when the head turns farther than the footage? Ours.

No footage tells what a novel pose looks like, so nothing is compared: what is seen through the neck is counted.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.geometry.cameras import project
from gaussian_head.geometry.landmarks import CHIN, FOREHEAD_TOP, JAW_LINE
from gaussian_head.geometry.rotations import turned
from gaussian_head.media.image import fill_polygon
from gaussian_head.model.head import Head
from gaussian_head.render.backdrop import Behind
from gaussian_head.render.view import Eye, HeadRenderer

TURNS_DEG = ((0.0, 20.0), (0.0, -20.0), (15.0, 0.0), (-15.0, 0.0), (-10.0, 15.0), (-10.0, -15.0))
"""Pitch (positive: nods down) and yaw by which a head is turned beyond what footage shows."""
HALF_WIDTH, ABOVE, BELOW = 0.20, 0.15, 0.12
"""Of the neck looked at: to the chin's sides, above and below the chin, in heights of the face."""


def turn_head(motion: DrivingSequence) -> DrivingSequence:
    """Return one frame's motion (a sequence of one) in each of the poses TURNS_DEG."""
    repeated = {name: part.repeat_interleave(len(TURNS_DEG), 0) for name, part in motion.parts().items()}
    poses = [turned(motion.viewmats[0], *turn) for turn in TURNS_DEG]
    return replace(motion, **repeated | {"viewmats": torch.stack(poses)})


@torch.no_grad()
def neck_gap(head: Head, sequence: DrivingSequence, backdrop: Behind) -> list[float]:
    """Measure how much of the neck is missing.

    Args:
        head: A trained head.
        sequence: Its poses; any.
        backdrop: A torso without a scene (transparent).

    Returns:
        For each frame, the share of the neck's area (`neck_area`) through which one looks: the mean of 1 - coverage
        of head and torso together, 0..1; NaN where the area is outside the picture.
    """
    render = HeadRenderer(head)
    gaps = []
    for i in range(len(sequence)):
        viewmat, size = sequence.viewmats[i], (sequence.width, sequence.height)
        condition = head.space.condition(*sequence.frame(i))
        head_alpha = render(condition, Eye(viewmat, sequence.K, *size)).alpha[0].cpu().numpy()
        open_share = (1 - head_alpha) * (1 - backdrop(sequence, i).alpha[0].cpu().numpy())
        points, _ = project(sequence.landmarks[i].double().numpy(), viewmat.double().numpy(),
                            sequence.K.double().numpy())  # fmt: skip
        area = neck_area(points, *size)
        gaps.append(float(open_share[area].mean()) if area.any() else float("nan"))
    return gaps


def neck_area(points: Float[ndarray, "478 2"], width: int, height: int) -> Bool[ndarray, "H W"]:
    """Mark where a neck must be: beside and below the chin, between the jaw line and a little under it.

    Args:
        points: Projected landmarks, px.
        width: Of the picture, px.
        height: Likewise.
    """
    size = np.linalg.norm(points[FOREHEAD_TOP] - points[CHIN])
    up = (points[FOREHEAD_TOP] - points[CHIN]) / size
    right = np.array([-up[1], up[0]])
    jaw = points[JAW_LINE]
    aside, above = (jaw - points[CHIN]) @ right / size, (jaw - points[CHIN]) @ up / size
    line = jaw[(np.abs(aside) < HALF_WIDTH) & (above < ABOVE)]
    return fill_polygon(np.concatenate([line, (line - BELOW * size * up)[::-1]]), width, height)
