"""What every generator of talking heads is, whatever is inside: speech in, pictures out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from numpy import ndarray


@runtime_checkable
class TalkingHead(Protocol):
    """A person who can say anything."""

    fps: float | int
    """Frames per second of what `speak` yields."""

    def speak(self, speech: Float[ndarray, "S"]) -> Iterator[UInt8[ndarray, "H W C"]]:
        """Say something.

        Args:
            speech: Mono samples in [-1, 1] at 16 kHz.

        Yields:
            One frame at a time, for as long as the speech lasts: RGB, or RGBA with straight alpha, 0..255.
        """
        ...
