"""What lies beside a clip: coefficients, action units, a transcript, and sound.

Files carry the clip's name: beside `talk.mp4` (or the folder of frames `talk/`) lie `talk.coeffs.npy` or `talk.mat`,
`talk.au.csv` and `talk.txt`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64

from gaussian_head.errors import UserError
from gaussian_head.evaluation.action_unit_error import read_action_units
from gaussian_head.evaluation.clip import Clip
from gaussian_head.evaluation.metric import Side
from gaussian_head.media.mat import read_mat

COEFFICIENTS = 257
"""Values a frame of Deep3DFaceRecon (specs/metrics.md section 4.2)."""
COEFFICIENT_FILES = (".coeffs.npy", ".coeffs.mat", ".mat")
MAT_KEYS = ("coeff", "coeff_3dmm")
SUFFIXES = (*COEFFICIENT_FILES, ".au.csv", ".txt", ".wav")
"""Everything that may lie beside a clip and changes its figures."""


def read_side(clip: Clip, sound: Path | None = None) -> Side:
    """Read what is known of a clip beside its pictures; what is not there is None.

    Args:
        clip: The clip.
        sound: Its sound, where that is kept somewhere else; by default the clip's own.

    Raises:
        FileNotFoundError: `sound` is no file.
        UserError: A companion is damaged, has another shape or another number of frames, or coefficients are not
            finite. Action units that are no numbers become NaN: their metric leaves such frames out and counts them.
    """
    if sound is not None and not sound.is_file():
        raise FileNotFoundError(f"{sound} is missing; it was named as the sound of {clip.path}.")
    return Side(
        sound=sound or clip.sound,
        coefficients=_read_coefficients(clip),
        action_units=_read_action_units(clip),
        transcript=_read_transcript(companion(clip, ".txt")),
    )


def companion(clip: Clip, suffix: str) -> Path:
    """Return where the file of that kind lies, whether or not it is there."""
    return clip.stem.with_name(clip.stem.name + suffix)


def take_frames(side: Side, index: Int64[np.ndarray, "T"] | slice) -> Side:
    """Return the same facts for some of the frames."""
    arrays = {name: getattr(side, name) for name in ("coefficients", "action_units", "viewmats")}
    return dataclasses.replace(side, **{name: a[index] for name, a in arrays.items() if a is not None})


def _read_coefficients(clip: Clip) -> Float[np.ndarray, "T 257"] | None:
    found = [path for suffix in COEFFICIENT_FILES if (path := companion(clip, suffix)).is_file()]
    if not found:
        return None
    if len(found) > 1:
        raise UserError(f"{clip.path} has coefficients in {found[0].name} and {found[1].name}; leave one of them.")
    path = found[0]
    values = _load_npy(path) if path.suffix == ".npy" else _load_mat(path)
    if values.ndim != 2 or values.shape[1] != COEFFICIENTS or values.dtype.kind not in "fiu":
        raise UserError(
            f"{path} must hold one row of {COEFFICIENTS} numbers a frame (Deep3DFaceRecon), "
            f"got {'x'.join(map(str, values.shape))} of {values.dtype}."
        )
    _check_length(values, path, clip)
    broken = ~np.isfinite(values).all(1)
    if broken.any():
        raise UserError(
            f"{path}, frame {int(np.flatnonzero(broken)[0])} (of {broken.sum()} such): a value is not finite; "
            "extract it again."
        )
    return values.astype(np.float64)


def _load_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path} is no readable .npy file of plain numbers; write it again with numpy.save.") from error


def _load_mat(path: Path) -> np.ndarray:
    document = read_mat(path)
    keys = [key for key in MAT_KEYS if key in document]
    if not keys:
        held = ", ".join(document) or "nothing"
        raise UserError(f"{path} must hold {' or '.join(MAT_KEYS)}; it holds {held}.")
    return document[keys[0]]


def _read_action_units(clip: Clip) -> Float[np.ndarray, "T 17"] | None:
    path = companion(clip, ".au.csv")
    if not path.is_file():
        return None
    values = read_action_units(path)
    _check_length(values, path, clip)
    return values


def _check_length(values: Float[np.ndarray, "T D"], path: Path, clip: Clip) -> None:
    if len(values) != clip.frames:
        raise UserError(
            f"{path} has {len(values)} rows but {clip.path} has {clip.frames} frames; give one row a frame."
        )


def _read_transcript(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig").strip() if path.is_file() else None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text; save the transcript as UTF-8.") from error
