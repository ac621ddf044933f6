"""Pictures that say more than figures: truth, picture and difference, one above the other."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from gaussian_head.media.image import resize

DIFFERENCE_GAIN = 4
TILE_PX = 256
LABEL_PX = 22
INK = (40, 40, 40)


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
    """Lay out truth above picture above their difference (times 4), one column a frame.

    Args:
        truths: True pictures by frame number; without any, the pictures stand alone.
        pictures: The ones that are judged.
        row: Name of the report's row they belong to.
    """
    columns = []
    for k in sorted(pictures):
        picture, tiles = pictures[k], [pictures[k]]
        if truths:
            apart = np.abs(picture.astype(np.int16) - truths[k]) * DIFFERENCE_GAIN
            tiles = [truths[k], picture, apart.clip(0, 255).astype(np.uint8)]
        width = round(TILE_PX * picture.shape[1] / picture.shape[0])
        column = np.concatenate([resize(tile, width, TILE_PX) for tile in tiles])
        label = np.full((LABEL_PX, width, 3), 255, np.uint8)
        columns.append(np.concatenate([_write(label, f"frame {k}", 6, 16), column]))
    sheet = np.concatenate(columns, 1)
    footer = np.full((LABEL_PX, sheet.shape[1], 3), 255, np.uint8)
    told = f"{row}: ground truth, picture, difference x{DIFFERENCE_GAIN}" if truths else row
    return np.concatenate([sheet, _write(footer, told, 6, 16)])


def _write(image: UInt8[np.ndarray, "H W 3"], text: str, x: int, y: int, ink: tuple[int, int, int] = INK) -> np.ndarray:
    return cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, ink, 1, cv2.LINE_AA)
