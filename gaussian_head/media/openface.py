"""OpenFace's CSV of action units, of any version: a row for each face in each frame, intensities 0..5 in `AUxx_r`.

Versions differ in blanks before the names, in whether there is a `face_id`, and in what they do with several faces.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from gaussian_head.errors import UserError

LEAST_CONFIDENCE = 0.5
"""Of a frame that counts, in files that do not say `success`."""
_LONGEST = 100
"""Frame numbers may run this many times farther than the file has rows: beyond, they are no frame numbers."""


@dataclass(frozen=True)
class FaceUnits:
    """One face's action units, a row for each frame of the clip."""

    intensities: Float[np.ndarray, "T A"]
    """0..5; interpolated over time where the frame failed. NaN only where a frame that counts holds no number."""
    failed: Bool[np.ndarray, "T"]
    """Frames that the file lacks or in which OpenFace found no face."""
    faces: int
    """How many faces the file holds; the one that is seen most, and most surely, was taken."""


def read_frames(path: Path, units: tuple[int, ...]) -> FaceUnits:
    """Read one face's intensities by frame.

    Frames count from 1, or from 0 where there is a frame 0; without a column `frame` each row is one. Of several faces
    (`face_id`) that with the largest sum of confidences is taken.

    Args:
        path: The CSV.
        units: Action units wanted.

    Raises:
        FileNotFoundError: No such file.
        UserError: As `read_intensities`; or no frame succeeded, or the frames' numbers make no sense.
    """
    values, others = read_intensities(path, units, ("frame", "face_id", "confidence", "success"))
    confidence = np.nan_to_num(others["confidence"], nan=1.0)
    said = np.isfinite(others["success"])
    valid = np.where(said, others["success"] > 0, confidence >= LEAST_CONFIDENCE)
    ids = np.nan_to_num(others["face_id"])
    faces = np.unique(ids)
    face = max(faces, key=lambda one: float(np.sum((confidence * valid)[ids == one])))
    index = _frame_index(others["frame"], path)
    count = int(index.max()) + 1
    rows, best = np.full((count, len(units)), np.nan), np.full(count, -1.0)
    for row in np.flatnonzero((ids == face) & valid):
        if confidence[row] > best[index[row]]:
            rows[index[row]], best[index[row]] = values[row], confidence[row]
    failed = best < 0
    if failed.all():
        raise UserError(f"{path}: OpenFace found a face in none of {count} frames; run it on a video of a face.")
    frames = np.arange(count)
    for column in rows.T:
        column[failed] = np.interp(frames[failed], frames[~failed], column[~failed])
    return FaceUnits(rows, failed, len(faces))


def _frame_index(numbers: Float[np.ndarray, "R"], path: Path) -> Int[np.ndarray, "R"]:
    if not np.isfinite(numbers).any():
        return np.arange(len(numbers))
    if not np.isfinite(numbers).all() or (numbers < 0).any() or (numbers != np.round(numbers)).any():
        raise UserError(f"{path}: the column frame must hold whole numbers from 0 or 1 on; run OpenFace again.")
    index = numbers.astype(np.int64) - (0 if numbers.min() == 0 else 1)
    if index.max() >= _LONGEST * len(numbers):
        raise UserError(f"{path} has {len(numbers)} rows and a frame {int(numbers.max())}; run OpenFace again.")
    return index


def read_intensities(
    path: Path, units: tuple[int, ...], others: tuple[str, ...] = ()
) -> tuple[Float[np.ndarray, "T A"], dict[str, Float[np.ndarray, "T"]]]:
    """Read the intensity columns of any file in OpenFace's format.

    Header names may carry OpenFace's leading spaces. Values that are no finite numbers are NaN.

    Args:
        path: The CSV.
        units: Action units wanted.
        others: Further columns wanted where there are such; NaN where not.

    Returns:
        The intensities, and the further columns by name.

    Raises:
        FileNotFoundError: No such file.
        UserError: The file has no rows or is no text, or columns of action units are missing; names them.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist (or is no file); give OpenFace's FeatureExtraction output.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [{(key or "").strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV text ({error}); use OpenFace's FeatureExtraction output.") from error
    if not rows:
        raise UserError(f"{path} has 0 rows; use OpenFace's FeatureExtraction output.")
    columns = [f"AU{unit:02d}_r" for unit in units]
    missing = [name for name in columns if name not in rows[0]]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}; use OpenFace's FeatureExtraction output.")
    intensities = np.array([[_number(row[name]) for name in columns] for row in rows])
    return intensities, {name: np.array([_number(row.get(name)) for row in rows]) for name in others}


def _number(text: object) -> float:
    try:
        value = float(text) if isinstance(text, str) else np.nan
    except ValueError:
        return np.nan
    return value if np.isfinite(value) else np.nan
