"""Text files of 68 landmarks a frame, one number a line, as the challenge's programs have them (specs/vico.md 1.2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.media.files import write_bytes

NUMBERS = 136
"""Of a frame: x, y of 68 points in px, pixel centres at + 0.5; all -1 where no face was found."""


def write_keypoints(path: Path, landmarks: Sequence[Float[ndarray, "68 2"] | None]) -> None:
    """Write the landmarks of every frame, atomically.

    Args:
        path: The text.
        landmarks: None where no face was found.
    """
    rows = [np.full((68, 2), -1.0) if points is None else points for points in landmarks]
    lines = "".join(f"{number:.3f}\n" if number != -1 else "-1\n" for number in np.reshape(rows, -1))
    write_bytes(path, lines.encode())


def read_keypoints(path: Path) -> list[Float[ndarray, "68 2"] | None]:
    """Read the landmarks of every frame; None where no face was found.

    Raises:
        FileNotFoundError: No such file.
        UserError: It holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing.")
    try:
        numbers = np.array(path.read_text().split(), np.float64)
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} must hold numbers alone ({error}); delete it and make it again.") from error
    if not len(numbers) or len(numbers) % NUMBERS or not np.isfinite(numbers).all():
        raise UserError(f"{path} must hold {NUMBERS} finite numbers for each frame, got {len(numbers)}; make it again.")
    return [None if (frame == -1).all() else frame for frame in numbers.reshape(-1, 68, 2)]
