"""Stage `action_units`: an OpenFace-format `au.csv` measured on the mesh.

These are geometric proxies, not OpenFace's trained regressors: each action unit is the movement, in millimetres of a
face 90 mm wide between the outer eye corners, of the points it moves, relative to the subject's own median face, scaled
so that about the strongest human movement gives 5. Brows, eyelids, lip opening, lip corners and jaw follow the face
well; AU06, AU09, AU14, AU17 and AU23 leave little trace in a mesh and are rough. A user's own OpenFace file is better.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.signal import savgol_filter

from data_utils.stage import Progress, count_frames, no_progress
from gaussian_head.data.layout import VIDEO_FPS, SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import OPENFACE_ACTION_UNITS, OUTER_EYE_CORNERS, RIGID, mouth_aperture
from gaussian_head.media.files import write_bytes
from gaussian_head.media.openface import read_frames

STANDARD_WIDTH_MM = 90.0
"""Distance between the outer eye corners of the face in whose millimetres movements are measured."""
FULL_INTENSITY = 5.0
BLINK_INTENSITY = 2.5
"""AU45 of a closed eye: what the field clips at 2 to get a blink of 1."""
CLOSED_EYE = 0.25
"""Opening of a closed eye in the mesh, of the median opening."""
_SMOOTHING_FRAMES = 5

_X, _Y, _Z = 0, 1, 2
Points = Float[ndarray, "T 478 3"]


def extract_action_units(
    layout: SubjectLayout, progress: Progress = no_progress, seen: Mapping[int, Float[ndarray, "T"]] | None = None
) -> dict[str, Any]:
    """Write `au.csv`, one row a frame.

    Args:
        layout: The folder, with `lm3d.npy` (or, before tracking, `landmarks478.npy` alone).
        progress: Wraps the one step.
        seen: Units that were measured in another way; they stand in place of the mesh's.

    Returns:
        Facts: source of the landmarks, frames, blinks counted, and the 95th percentile of each unit.

    Raises:
        FileNotFoundError: There are no landmarks.
        UserError: The landmarks and the frames differ in number.
    """
    count = count_frames(layout)
    for _ in progress(range(1), 1, "action_units"):
        points, valid, source = _load_points(layout)
        if len(points) != count:
            raise UserError(
                f"{source} has {len(points)} rows, {layout.frame(0).parent} has {count} frames; process again."
            )
        units = write_action_units(layout, points, valid, seen)
    strong = {f"AU{unit:02d}": round(float(np.percentile(value, 95)), 2) for unit, value in units.items()}
    return {"source": source, "frames": count, "blinks": count_blinks(units[45]), "percentile_95": strong}


def write_action_units(
    layout: SubjectLayout,
    points: Points,
    valid: Bool[ndarray, "T"],
    seen: Mapping[int, Float[ndarray, "T"]] | None = None,
) -> dict[int, Float[ndarray, "T"]]:
    """Measure (see `measure_action_units`) and write `au.csv`; `success` is 0 where not valid.

    Units `seen` in another way stand in place of the mesh's.
    """
    units = measure_action_units(points) | dict(seen or {})  # keeps OpenFace's order
    write_bytes(layout.action_units, _as_csv(units, valid).encode())
    return units


def measure_action_units(points: Points) -> dict[int, Float[ndarray, "T"]]:
    """Measure the 17 units of OpenFace.

    Args:
        points: Pose-free landmarks, x right, y up, z out of the face, any unit.

    Returns:
        Per unit its intensity in 0..5, in the order of OpenFace's columns.
    """
    left, right = OUTER_EYE_CORNERS
    width = np.median(np.linalg.norm(points[:, left] - points[:, right], axis=-1))
    points = points * (STANDARD_WIDTH_MM / width)
    units = {unit: _relative(measure(points), full_mm) for unit, (full_mm, measure) in MEASURES.items()}
    units[25] = _opening(points)
    units[45] = _closing(points)
    return {unit: units[unit] for unit in OPENFACE_ACTION_UNITS}


def count_blinks(closing: Float[ndarray, "T"]) -> int:
    """Count the times AU45 rises through half of a closed eye's intensity."""
    closed = closing > BLINK_INTENSITY / 2
    return int(np.sum(closed[1:] & ~closed[:-1]))


def check_action_units(layout: SubjectLayout, path: Path | None = None) -> dict[str, Any]:
    """Check a CSV of any version of OpenFace: it must tell of every frame, and have the intensity columns.

    Args:
        layout: The folder, with frames and landmarks.
        path: The CSV; default: the folder's own `au.csv`, which is the user's.

    Returns:
        What to say of it: `faces`, `failed` (frames interpolated), and `correlation`, per unit with the geometric
        measure over the frames that did not fail (None where one of the two does not move; {} without landmarks).

    Raises:
        UserError: It does not fit; the message says what to do.
    """
    path = path or layout.action_units
    try:
        own = read_frames(path, OPENFACE_ACTION_UNITS)
    except UserError as error:
        raise UserError(f"not measured here: {error} Or delete the file to have action units measured.") from error
    count = count_frames(layout)
    if len(own.intensities) != count:
        raise UserError(
            f"{path} was not measured here and has {len(own.intensities)} rows for {count} frames at {VIDEO_FPS} fps; "
            "run OpenFace on the frames of ori_imgs, or delete the file to have it measured."
        )
    told: dict[str, Any] = {"faces": own.faces, "failed": int(own.failed.sum()), "correlation": {}}
    if layout.landmarks_3d.is_file() or layout.mesh_landmarks.is_file():
        points, valid, _ = _load_points(layout)
        both = ~own.failed & valid
        for (unit, value), given in zip(measure_action_units(points).items(), own.intensities.T, strict=True):
            told["correlation"][f"AU{unit:02d}"] = _correlation(value[both], given[both])
    return told


def _correlation(a: Float[ndarray, "T"], b: Float[ndarray, "T"]) -> float | None:
    b = np.nan_to_num(b)
    if len(a) < 3 or np.ptp(a) < 1e-6 or np.ptp(b) < 1e-6:
        return None
    return round(float(np.corrcoef(a, b)[0, 1]), 2)


def _height(of: tuple[int, ...], above: tuple[int, ...]) -> Callable[[Points], ndarray]:
    return lambda points: points[:, of, _Y].mean(1) - points[:, above, _Y].mean(1)


def _forward(of: tuple[int, ...], before: tuple[int, ...]) -> Callable[[Points], ndarray]:
    return lambda points: points[:, of, _Z].mean(1) - points[:, before, _Z].mean(1)


def _distance(a: tuple[int, ...], b: tuple[int, ...]) -> Callable[[Points], ndarray]:
    return lambda points: np.linalg.norm(points[:, a] - points[:, b], axis=-1).mean(1)


def _less(measure: Callable[[Points], ndarray]) -> Callable[[Points], ndarray]:
    return lambda points: -measure(points)


def _sum(*measures: Callable[[Points], ndarray]) -> Callable[[Points], ndarray]:
    return lambda points: np.sum([measure(points) for measure in measures], axis=0)


_INNER_BROWS, _OUTER_BROWS, _ALL_BROWS = (107, 336, 66, 296), (70, 300, 63, 293), (107, 336, 105, 334, 63, 293)
_INNER_CORNERS = (133, 362)
_UPPER_LIDS, _LOWER_LIDS, _EYE_CORNERS = (159, 386), (145, 374), (33, 133, 263, 362)
_CHEEKS, _NOSE_WINGS, _NOSE_BASE, _BRIDGE = (50, 280), (49, 279), (2,), (6,)
_CORNERS, _LIP_MIDDLE, _UPPER_EDGE, _LOWER_EDGE = (61, 291), (13, 14), (37, 0, 267), (84, 17, 314)
_CHIN_BOSS, _CHIN = (199,), (152,)

MEASURES: dict[int, tuple[float, Callable[[Points], ndarray]]] = {
    1: (8.0, _height(_INNER_BROWS, _INNER_CORNERS)),
    2: (8.0, _height(_OUTER_BROWS, OUTER_EYE_CORNERS)),
    4: (8.0, _sum(_less(_height(_ALL_BROWS, _EYE_CORNERS)), _less(_distance((55,), (285,))))),
    5: (4.0, _height(_UPPER_LIDS, _EYE_CORNERS)),
    6: (6.0, _height(_CHEEKS, _LOWER_LIDS)),
    7: (4.0, _height(_LOWER_LIDS, _EYE_CORNERS)),
    9: (6.0, _height(_NOSE_WINGS, _BRIDGE)),
    10: (6.0, _height(_UPPER_EDGE, _NOSE_BASE)),
    12: (18.0, _sum(_distance((61,), (291,)), _height(_CORNERS, _NOSE_BASE))),
    14: (6.0, _less(_forward(_CORNERS, _LIP_MIDDLE))),
    15: (6.0, _less(_height(_CORNERS, _LIP_MIDDLE))),
    17: (6.0, _less(_distance(_LOWER_EDGE, _CHIN_BOSS * 3))),
    20: (14.0, _distance((61,), (291,))),
    23: (6.0, _sum(_less(_distance((0,), (13,))), _less(_distance((17,), (14,))))),
    26: (20.0, _distance(_NOSE_BASE, _CHIN)),
}
"""Per unit, the movement in mm that counts as 5, and what moves."""
_LIPS_APART_MM = 25.0
_LIPS_CLOSED_AT_MOST_MM = 3.0


def _relative(value_mm: Float[ndarray, "T"], full_mm: float) -> Float[ndarray, "T"]:
    """Movement above the subject's median, 0..5."""
    return np.clip((_smooth(value_mm) - np.median(value_mm)) * (FULL_INTENSITY / full_mm), 0, FULL_INTENSITY)


def _opening(points: Points) -> Float[ndarray, "T"]:
    """AU25: gap between the inner lips above that of closed lips."""
    gap = mouth_aperture(points)
    closed = min(float(np.percentile(gap, 5)), _LIPS_CLOSED_AT_MOST_MM)
    return np.clip((gap - closed) * (FULL_INTENSITY / _LIPS_APART_MM), 0, FULL_INTENSITY)


def _closing(points: Points) -> Float[ndarray, "T"]:
    """AU45: how far the eyes' opening is on the way from its median to that of a closed eye."""
    opening = _distance(_UPPER_LIDS, _LOWER_LIDS)(points) / _distance((33, 263), (133, 362))(points)
    usual = max(float(np.median(opening)), 1e-6)
    return np.clip((1 - opening / usual) / (1 - CLOSED_EYE), 0, 1) * BLINK_INTENSITY


def _smooth(value: Float[ndarray, "T"]) -> Float[ndarray, "T"]:
    return savgol_filter(value, _SMOOTHING_FRAMES, 2) if len(value) >= _SMOOTHING_FRAMES else value


def _load_points(layout: SubjectLayout) -> tuple[Points, Bool[ndarray, "T"], str]:
    if layout.landmarks_3d.is_file():
        return np.load(layout.landmarks_3d), np.load(layout.landmarks_3d_valid), layout.landmarks_3d.name
    if not layout.mesh_landmarks.is_file():
        raise FileNotFoundError(
            f"{layout.mesh_landmarks} is missing; run: python -m data_utils.process {layout.video} --only landmarks"
        )
    landmarks = np.load(layout.mesh_landmarks)
    valid = np.isfinite(landmarks[:, 0, 0])
    return remove_pose(landmarks, valid), valid, layout.mesh_landmarks.name


def remove_pose(landmarks: Points, valid: Bool[ndarray, "T"]) -> Points:
    """Align every frame to the clip's mean shape by the points that expressions hardly move.

    Args:
        landmarks: x right, y down, z away from the camera, px; NaN rows where not valid.
        valid: Frames with a face.

    Returns:
        x right, y up, z toward the camera, px of the mean; rows that were not valid are interpolated over time.
    """
    points = landmarks[valid].astype(float) * (1, -1, -1)
    points -= points[:, RIGID].mean(1, keepdims=True)
    mean = points[len(points) // 2]
    for _ in range(3):
        aligned = np.stack([_align(shape, mean) for shape in points])
        mean = aligned.mean(0)
    frames = np.arange(len(landmarks))
    columns = aligned.reshape(len(aligned), -1).T
    filled = np.stack([np.interp(frames, frames[valid], column) for column in columns], 1)
    return filled.reshape(landmarks.shape)


def _align(shape: Float[ndarray, "478 3"], target: Float[ndarray, "478 3"]) -> Float[ndarray, "478 3"]:
    """Rotate and scale a centred shape onto another by its rigid points (Umeyama 1991)."""
    u, scales, v = np.linalg.svd(shape[RIGID].T @ target[RIGID])
    signs = np.array([1, 1, np.sign(np.linalg.det(u @ v))])
    return shape @ ((u * signs) @ v) * ((scales * signs).sum() / (shape[RIGID] ** 2).sum())


def _columns(kind: str) -> list[str]:
    return [f"AU{unit:02d}_{kind}" for unit in OPENFACE_ACTION_UNITS]


def _as_csv(units: dict[int, Float[ndarray, "T"]], valid: Bool[ndarray, "T"]) -> str:
    """Format as OpenFace 2 does, blanks behind the commas included (some of the field's readers count on them)."""
    text = io.StringIO()
    header = ["frame", "face_id", "timestamp", "confidence", "success", *_columns("r"), *_columns("c")]
    text.write(", ".join(header) + "\n")
    for k, row in enumerate(np.stack(list(units.values()), 1)):
        fields = [str(k + 1), "0", f"{k / VIDEO_FPS:.3f}", f"{float(valid[k]):.2f}", str(int(valid[k]))]
        fields += [f"{value:.2f}" for value in row] + [f"{float(value >= 1):.2f}" for value in row]
        text.write(", ".join(fields) + "\n")
    return text.getvalue()
