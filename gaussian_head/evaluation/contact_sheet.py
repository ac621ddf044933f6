"""Pictures that say more than figures: truth, render and difference side by side, and the mouth's opening over time."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from gaussian_head.media.image import resize

DIFFERENCE_GAIN = 4
TILE_PX = 256
LABEL_PX = 22
INK = (40, 40, 40)
TRUE_INK, PREDICTED_INK = (30, 90, 200), (220, 90, 20)


def choose_frames(frames: list[int], aperture: Float[np.ndarray, " T"], count: int = 8) -> list[int]:
    """Choose frames evenly over a split, the widest open and the most closed mouth among them.

    Args:
        frames: Frame numbers of the split.
        aperture: Mouth opening of each.
        count: How many, at most.
    """
    chosen = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    telling = [int(np.argmax(aperture)), int(np.argmin(aperture))]
    for position in telling:  # takes the place of the nearest one that is not telling itself
        distance = np.where(np.isin(chosen, telling), np.inf, np.abs(chosen - position))
        if position not in chosen and np.isfinite(distance).any():
            chosen[int(np.argmin(distance))] = position
    return [frames[i] for i in sorted(set(chosen.tolist()))]


def draw_contact_sheet(
    truths: dict[int, UInt8[np.ndarray, "H W 3"]], pictures: dict[int, UInt8[np.ndarray, "H W 3"]], row: str
) -> UInt8[np.ndarray, "S R 3"]:
    """Lay out truth above render above their difference (times 4), one column a frame.

    Args:
        truths: True pictures by frame number.
        pictures: Rendered ones.
        row: Name of the report's row they belong to.
    """
    columns = []
    for k in sorted(pictures):
        truth, picture = truths[k], pictures[k]
        apart = np.abs(picture.astype(np.int16) - truth) * DIFFERENCE_GAIN
        tiles = [truth, picture, apart.clip(0, 255).astype(np.uint8)]
        width = round(TILE_PX * truth.shape[1] / truth.shape[0])
        column = np.concatenate([resize(tile, width, TILE_PX) for tile in tiles])
        label = np.full((LABEL_PX, width, 3), 255, np.uint8)
        columns.append(np.concatenate([_write(label, f"frame {k}", 6, 16), column]))
    sheet = np.concatenate(columns, 1)
    footer = np.full((LABEL_PX, sheet.shape[1], 3), 255, np.uint8)
    told = f"{row}: ground truth, render, difference x{DIFFERENCE_GAIN}"
    return np.concatenate([sheet, _write(footer, told, 6, 16)])


def draw_apertures(
    frames: list[int], true_m: Float[np.ndarray, " T"], predicted_m: Float[np.ndarray, " T"], correlation: float
) -> UInt8[np.ndarray, "S R 3"]:
    """Plot the mouth's opening, tracked and predicted from sound, in millimetres over frame numbers."""
    width, height, left, bottom, top = 960, 320, 56, 36, 28
    canvas = np.full((height, width, 3), 255, np.uint8)
    ceiling = max(float(np.max(true_m)), float(np.max(predicted_m)), 1e-3) * 1e3 * 1.1

    def place(values_mm: Float[np.ndarray, " T"]) -> np.ndarray:
        x = np.linspace(left, width - 12, len(frames))
        y = height - bottom - values_mm / ceiling * (height - bottom - top)
        return np.rint(np.stack([x, y], 1)).astype(np.int32)

    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = round(height - bottom - share * (height - bottom - top))
        cv2.line(canvas, (left, y), (width - 12, y), (225, 225, 225), 1)
        _write(canvas, f"{share * ceiling:4.1f}", 8, y + 5)
    for values, ink in ((true_m, TRUE_INK), (predicted_m, PREDICTED_INK)):
        cv2.polylines(
            canvas, [place(np.asarray(values) * 1e3)], isClosed=False, color=ink, thickness=2, lineType=cv2.LINE_AA
        )
    _write(canvas, f"frame {frames[0]} .. {frames[-1]}", left, height - 12)
    _write(canvas, "mouth opening, mm: tracked", left, 18, TRUE_INK)
    return _write(canvas, f"predicted from sound (correlation {correlation:.2f})", left + 260, 18, PREDICTED_INK)


def _write(image: UInt8[np.ndarray, "H W 3"], text: str, x: int, y: int, ink: tuple[int, int, int] = INK) -> np.ndarray:
    return cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, ink, 1, cv2.LINE_AA)
