"""Tiles, text and curves for the report, drawn with OpenCV on RGB arrays."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from gaussian_head.media.image import resize

Colour = tuple[int, int, int]
Picture = UInt8[ndarray, "_ _ 3"]
"""RGB, 0..255, of any size."""

PAPER: Colour = (250, 250, 248)
INK: Colour = (40, 40, 44)
FAINT: Colour = (205, 205, 200)
ALARM: Colour = (214, 40, 40)
CURVES: tuple[Colour, ...] = ((31, 119, 180), (230, 130, 14), (44, 140, 60))
GAP = 8
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def text_line(content: str, width: int, *, scale: float = 0.5, colour: Colour = INK) -> Picture:
    """Draw one line of (ASCII) text on paper, `width` px wide."""
    strip = np.full((int(44 * scale) + 4, width, 3), PAPER, np.uint8)
    cv2.putText(strip, content, (4, int(30 * scale) + 2), _FONT, scale, colour, 1, cv2.LINE_AA)
    return strip


def tile(picture: Picture, label: str, size: tuple[int, int], *, alarm: bool = False) -> Picture:
    """Shrink a picture to `size` (width, height), keeping its shape, with a label; a red frame raises an alarm."""
    width, height = size
    scale = min(width / picture.shape[1], height / picture.shape[0])
    small = resize(picture, max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    canvas = np.full((height, width, 3), PAPER, np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small
    box = cv2.getTextSize(label, _FONT, 0.42, 1)[0]
    cv2.rectangle(canvas, (0, 0), (box[0] + 8, box[1] + 9), ALARM if alarm else INK, -1)
    cv2.putText(canvas, label, (4, box[1] + 4), _FONT, 0.42, PAPER, 1, cv2.LINE_AA)
    if alarm:
        cv2.rectangle(canvas, (1, 1), (small.shape[1] - 2, small.shape[0] - 2), ALARM, 3)
    return canvas


def row(pictures: Sequence[Picture]) -> Picture:
    """Put pictures of one height side by side, with gaps."""
    gap = np.full((pictures[0].shape[0], GAP, 3), PAPER, np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)]
    return np.concatenate(parts[:-1], 1)


def page(rows: Sequence[Picture]) -> Picture:
    """Stack rows on a sheet of paper, padded to the widest."""
    width = max(strip.shape[1] for strip in rows) + 2 * GAP
    sheet = []
    for strip in rows:
        room = ((GAP, 0), (GAP, width - GAP - strip.shape[1]), (0, 0))
        sheet.append(np.stack([np.pad(strip[..., c], room[:2], constant_values=PAPER[c]) for c in range(3)], -1))
    sheet.append(np.full((GAP, width, 3), PAPER, np.uint8))
    return np.concatenate(sheet)


def plot(
    curves: dict[str, Float[ndarray, "T"]], title: str, size: tuple[int, int], *,
    marked: Sequence[int] = (), divider: int | None = None,
) -> Picture:  # fmt: skip
    """Draw curves over frames.

    Args:
        curves: Up to three, by name; NaN leaves a gap.
        title: With the unit.
        size: Width and height, px.
        marked: Frames to mark in red.
        divider: Frame before which a line is drawn (train | val).
    """
    width, height = size
    left, top, bottom = 52, 22, height - 8
    canvas = np.full((height, width, 3), PAPER, np.uint8)
    values = np.stack(list(curves.values())).astype(float)
    low, high = _range(values)
    columns = np.linspace(left, width - 6, values.shape[1])

    def line_of(value: float) -> int:
        return int(round(bottom - (value - low) / (high - low) * (bottom - top)))

    for frame in marked:
        cv2.line(canvas, (int(columns[frame]), top), (int(columns[frame]), bottom), (250, 190, 190), 2)
    for value in (low, (low + high) / 2, high):
        cv2.line(canvas, (left, line_of(value)), (width - 6, line_of(value)), FAINT, 1)
        cv2.putText(canvas, f"{value:.4g}", (2, line_of(value) + 4), _FONT, 0.36, INK, 1, cv2.LINE_AA)
    if divider is not None and divider < values.shape[1]:
        cv2.line(canvas, (int(columns[divider]), top), (int(columns[divider]), bottom), INK, 1)
    for curve, colour in zip(values, CURVES, strict=False):
        for piece in np.ma.clump_unmasked(np.ma.masked_invalid(curve)):
            points = np.stack([columns[piece], [line_of(value) for value in curve[piece]]], -1)
            cv2.polylines(canvas, [np.int32(points * 8)], False, colour, 1, cv2.LINE_AA, 3)
    cv2.putText(canvas, title, (left, 14), _FONT, 0.42, INK, 1, cv2.LINE_AA)
    x = left + cv2.getTextSize(title, _FONT, 0.42, 1)[0][0] + 16
    for name, colour in zip(curves, CURVES, strict=False):
        cv2.putText(canvas, name, (x, 14), _FONT, 0.42, colour, 1, cv2.LINE_AA)
        x += cv2.getTextSize(name, _FONT, 0.42, 1)[0][0] + 12
    return canvas


def _range(values: Float[ndarray, "C T"]) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    return (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)
