"""What every face renderer is, whatever is inside: a portrait and motion in, pictures out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from jaxtyping import Float32, UInt8
from numpy import ndarray


@runtime_checkable
class FaceRenderer(Protocol):
    """Moves a portrait by coefficients."""

    side_px: int
    """Width and height of the square picture it takes and gives."""
    needs_crop: bool
    """Whether a motion vector has 73 numbers, the last three the crop's, instead of 70."""

    def animate(
        self, source: UInt8[ndarray, "S S 3"], first: Float32[ndarray, "M"], motion: Float32[ndarray, "T M"]
    ) -> Iterator[UInt8[ndarray, "S S 3"]]:
        """Move a portrait.

        Args:
            source: The portrait, RGB, 0..255, `side_px` wide and high.
            first: What the portrait shows: expression 64, angles 3 (rad), translation 3, and the crop's 3 where
                `needs_crop`.
            motion: The same for every frame.

        Yields:
            One frame for each row of `motion`, in order: RGB, 0..255.
        """
        ...
