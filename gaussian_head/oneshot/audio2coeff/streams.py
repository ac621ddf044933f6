"""Sequences of any length, a row a frame, worked on as they come: cross-faded, smoothed, re-timed, cut into blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray
from scipy.signal import savgol_filter

from gaussian_head.media.time_bases import Rate

Row = Float[ndarray, "M"]
Block = Float[ndarray, "n M"]
SMOOTHING_FRAMES, SMOOTHING_ORDER = 13, 2
"""SadTalker's Savitzky-Golay filter: a parabola through 13 frames."""
_BLOCK = 64


def cross_faded(
    predict: Callable[[int, int, Row | None], Block],
    frames: int,
    width: int,
    overlap: int,
    lead: Block | None = None,
) -> Iterator[Row]:
    """Join blocks that overlap, the old one going out as the new one comes in.

    Args:
        predict: Gives the rows of frames `first` to `last` (excluded; at most `width`), told what was made of the frame
            before `first` (None in the first block).
        frames: How many rows there will be.
        width: Frames of a block.
        overlap: Frames that it shares with the next; 0: blocks stand side by side.
        lead: Rows out of which the first block comes in, where given.
    """
    fading, before, first = lead, None, 0
    while first < frames:
        last = min(first + width, frames)
        block = predict(first, last, before)
        if fading is not None and len(fading):
            shared = min(len(fading), len(block))
            come = np.sin(np.pi / 2 * np.arange(1, len(fading) + 1) / (len(fading) + 1))[:shared, None] ** 2
            mixed = (1 - come) * fading[:shared] + come * block[:shared]
            block = np.concatenate([mixed.astype(block.dtype), block[shared:]])
        if last == frames:
            yield from block
            return
        first += width - overlap
        yield from block[: width - overlap]
        before, fading = block[width - overlap - 1], block[width - overlap :]


def smoothed(rows: Iterator[Row], frames: int) -> Iterator[Row]:
    """Smooth over time as SadTalker does; the whole sequence at once would give the same.

    Args:
        rows: The sequence.
        frames: How many rows it has. Under 13, the filter is the longest odd one that is shorter; under 3, none.
    """
    window = SMOOTHING_FRAMES if frames >= SMOOTHING_FRAMES else (frames - 1) // 2 * 2 + 1
    if window <= SMOOTHING_ORDER:
        yield from rows
        return
    reach = window // 2
    held: list[Row] = []
    start = done = 0  # frame of held[0]; frames given away
    for seen, row in enumerate(rows, 1):
        held.append(row)
        if len(held) == _BLOCK or seen == frames:
            end = frames if seen == frames else seen - reach
            yield from savgol_filter(np.stack(held), window, SMOOTHING_ORDER, axis=0)[done - start : end - start]
            held, start, done = held[-2 * reach :], seen - 2 * reach, end


def retimed(rows: Iterator[Row], source_fps: Rate, fps: Rate, frames: int) -> Iterator[Row]:
    """Change the frame rate by a cubic through the four nearest rows (Catmull-Rom).

    Args:
        rows: A sequence at `source_fps`.
        source_fps: Its rate, frames a second.
        fps: The wanted rate.
        frames: How many rows are wanted; behind the end the last row stays.
    """
    if source_fps == fps:
        yield from islice(rows, frames)
        return
    held: list[Row] = []
    start, ended = 0, False  # frame of held[0]
    for k in range(frames):
        place = k * source_fps / fps
        at = int(place)
        while not ended and start + len(held) <= at + 2:
            row = next(rows, None)
            ended = row is None
            held += [] if ended else [row]
        dropped = min(max(0, at - 1 - start), len(held) - 1)
        del held[:dropped]
        start += dropped
        a, b, c, d = (held[min(max(j - start, 0), len(held) - 1)] for j in range(at - 1, at + 3))
        t = np.float32(place - at)
        yield b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))


def in_blocks(rows: Iterator[Row], size: int = _BLOCK) -> Iterator[Float32[ndarray, "n M"]]:
    """Stack rows, `size` at a time, the last block being shorter."""
    while block := list(islice(rows, size)):
        yield np.stack(block).astype(np.float32)
