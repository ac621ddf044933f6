"""The one-page picture of a subject folder: what was found in the video, so that bad input is seen at once."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from data_utils import drawing
from data_utils.action_units import check_action_units
from data_utils.drawing import Picture
from data_utils.stage import Manifest, count_frames
from gaussian_head.data.layout import (
    PARSING_BACKGROUND,
    PARSING_HAIR,
    PARSING_HEAD,
    PARSING_MOUTH,
    PARSING_NECK,
    PARSING_TORSO,
    VIDEO_FPS,
    SubjectLayout,
)
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import MESH_TO_68, mouth_aperture
from gaussian_head.media.audio import load_audio
from gaussian_head.media.image import read_rgb, read_rgba, write_png

SAMPLES = 6
SAME_MEASURE = 0.999
"""Correlation above which action units are those of the mesh, rounded to the CSV's decimals."""
_TILE_PX = 256
_PLOT = (3 * _TILE_PX + drawing.GAP, 150)
_TINTS = {
    PARSING_HEAD: (70, 110, 255), PARSING_HAIR: (150, 60, 200), PARSING_MOUTH: (255, 60, 60),
    PARSING_NECK: (60, 200, 80), PARSING_TORSO: (255, 170, 40), PARSING_BACKGROUND: (255, 255, 255),
}  # fmt: skip
_TEETH_TINT = (0, 255, 255)


def write_report(layout: SubjectLayout, manifest: Manifest) -> None:
    """Write `report.png` from whatever the folder holds so far.

    Raises:
        FileNotFoundError: There are no frames.
    """
    count = count_frames(layout)
    landmarks = _load(layout.mesh_landmarks)
    if landmarks is not None and len(landmarks) != count:
        landmarks = None
    invalid = [] if landmarks is None else np.flatnonzero(np.isnan(landmarks[:, 0, 0])).tolist()
    frames = _choose_frames(count, invalid)
    width = SAMPLES * (_TILE_PX + drawing.GAP)
    rows = [drawing.text_line(line, width, scale=scale) for line, scale in _headlines(layout, manifest, count, invalid)]
    rows.append(drawing.row([_landmark_tile(layout, k, landmarks) for k in frames]))
    rows += _picture_rows(layout, frames)
    plots = _plots(layout, landmarks, count, invalid)
    rows += [drawing.row(plots[k : k + 2]) for k in range(0, len(plots), 2)]
    write_png(layout.report, drawing.page(rows))


def _choose_frames(count: int, invalid: list[int]) -> list[int]:
    """Spread over the clip; the last one shows an invalid frame where there is one."""
    frames = np.linspace(0, count - 1, SAMPLES).round().astype(int).tolist()
    return frames if not invalid else [*frames[:-1], invalid[len(invalid) // 2]]


def _headlines(layout: SubjectLayout, manifest: Manifest, count: int, invalid: list[int]) -> list[tuple[str, float]]:
    """Lines of text with their scale: the clip, what was found, how well the head is tracked."""
    frames, landmarks, tracking = (manifest.facts(name) for name in ("frames", "landmarks", "tracking"))
    source, size = frames.get("source", {}), frames.get("size", ["?", "?"])
    title = f"{layout.subject}: {count} frames, {count / VIDEO_FPS:.1f} s at {VIDEO_FPS} fps, {size[0]} x {size[1]} px"
    found = [
        f"source {source.get('width', '?')} x {source.get('height', '?')} px, {source.get('fps', '?')} fps",
        f"frames without a face: {len(invalid)}",
        f"two faces: {'yes' if landmarks.get('two_faces') else 'no'}",
        f"landmark trembling {landmarks.get('trembling_px', '?')} px",
        f"blinks {manifest.facts('action_units').get('blinks', '?')}",
    ]
    lines = [(title, 0.8), ("   ".join(found), 0.5)]
    if tracking:
        before, after = tracking["jitter_before"], tracking["jitter_after"]
        quality = [
            f"focal length {tracking['focal_px']:.0f} px",
            f"reprojection error {tracking['reprojection_error_px']:.2f} px",
            f"pose jitter (second difference) {before['rotation_deg']:.3f} -> {after['rotation_deg']:.3f} deg,",
            f"{before['translation_mm']:.2f} -> {after['translation_mm']:.2f} mm",
        ]
        lines.append(("   ".join(quality), 0.5))
    agreement = _agreement_of_units(layout)
    return [*lines, (f"au.csv's correlation with the built-in measure: {agreement}", 0.5)] if agreement else lines


def _agreement_of_units(layout: SubjectLayout) -> str:
    """Say how well action units that were not measured on the mesh agree with those that are; "" where all were."""
    if not layout.action_units.is_file():
        return ""
    try:
        told = check_action_units(layout)["correlation"]
    except UserError as error:
        return str(error)
    if all(value is None or value > SAME_MEASURE for value in told.values()):
        return ""
    return ", ".join(f"{unit} {'-' if value is None else format(value, '.2f')}" for unit, value in told.items())


def _landmark_tile(layout: SubjectLayout, k: int, landmarks: Float[ndarray, "T 478 3"] | None) -> Picture:
    picture = np.ascontiguousarray(read_rgb(layout.frame(k)))
    found = landmarks is not None and np.isfinite(landmarks[k, 0, 0])
    if found:
        radius = max(1, picture.shape[0] // 256)
        for x, y in landmarks[k, :, :2]:
            cv2.circle(picture, (int(x), int(y)), radius, (120, 220, 255), -1, cv2.LINE_AA)
        for x, y in landmarks[k, MESH_TO_68, :2]:
            cv2.circle(picture, (int(x), int(y)), 2 * radius, (255, 80, 0), -1, cv2.LINE_AA)
    alarm = landmarks is not None and not found
    return drawing.tile(picture, f"{k}: no face" if alarm else str(k), (_TILE_PX, _TILE_PX), alarm=alarm)


def _picture_rows(layout: SubjectLayout, frames: list[int]) -> list[Picture]:
    size = (_TILE_PX, _TILE_PX)
    rows = []
    if all(layout.parsing(k).is_file() for k in frames):
        rows.append(drawing.row([drawing.tile(_parsing_overlay(layout, k), f"{k}: regions", size) for k in frames]))
    some = frames[1:3] if len(frames) > 2 else frames
    tiles = []
    for k in some:
        if layout.gt_image(k).is_file():
            tiles.append(drawing.tile(read_rgb(layout.gt_image(k)), f"{k}: target", size))
        if layout.torso_image(k).is_file():
            tiles.append(drawing.tile(_over_checks(read_rgba(layout.torso_image(k))), f"{k}: torso", size))
    if layout.background.is_file():
        tiles.append(drawing.tile(read_rgb(layout.background), "background", size))
    mouth = _mouth_tile(layout, frames)
    if mouth is not None:
        tiles.append(mouth)
    return rows + ([drawing.row(tiles)] if tiles else [])


def _parsing_overlay(layout: SubjectLayout, k: int) -> Picture:
    labels, picture = read_rgb(layout.parsing(k)), np.float32(read_rgb(layout.frame(k)))
    tint = np.float32(labels)
    for label, colour in _TINTS.items():
        tint[(labels == label).all(-1)] = colour
    blended = 0.55 * picture + 0.45 * tint
    if layout.teeth_mask(k).is_file():
        blended[np.load(layout.teeth_mask(k))] = _TEETH_TINT
    return np.uint8(blended)


def _mouth_tile(layout: SubjectLayout, frames: list[int]) -> Picture | None:
    """The widest open mouth of the clip, close up, teeth tinted."""
    landmarks = _load(layout.mesh_landmarks)
    if landmarks is None or not layout.teeth_mask(frames[0]).is_file():
        return None
    k = int(np.nanargmax(mouth_aperture(landmarks[..., :2])))
    picture = np.float32(read_rgb(layout.frame(k)))
    teeth = np.load(layout.teeth_mask(k))
    picture[teeth] = 0.5 * picture[teeth] + 0.5 * np.float32(_TEETH_TINT)
    lips = landmarks[k, MESH_TO_68[48:68], :2]
    middle, half = lips.mean(0), np.ptp(lips, axis=0).max() * 0.7
    left, top = np.maximum(middle - half, 0).astype(int)
    right, bottom = (middle + half).astype(int) + 1
    return drawing.tile(np.uint8(picture[top:bottom, left:right]), f"{k}: teeth", (_TILE_PX, _TILE_PX))


def _over_checks(rgba: ndarray) -> Picture:
    rows, columns = np.indices(rgba.shape[:2]) // 16
    checks = np.where((rows + columns) % 2, 235, 200)[..., None]
    alpha = rgba[..., 3:] / 255
    return np.uint8(rgba[..., :3] * alpha + checks * (1 - alpha))


def _plots(
    layout: SubjectLayout, landmarks: Float[ndarray, "T 478 3"] | None, count: int, invalid: list[int]
) -> list[Picture]:
    curves: list[tuple[str, dict[str, ndarray]]] = []
    if layout.track_params.is_file():
        track = torch.load(layout.track_params, weights_only=True)
        turn, shift = np.rad2deg(track["euler"].numpy()), track["trans"].numpy() * 100
        shift = shift - shift.mean(0)
        curves.append(("head rotation, deg", dict(zip(("pitch", "yaw", "roll"), turn.T, strict=True))))
        curves.append(("head position about its mean, mm", dict(zip("xyz", shift.T, strict=True))))
    if landmarks is not None:
        curves.append(("mouth opening, px", {"inner lips": mouth_aperture(landmarks[..., :2])}))
    if layout.speech.is_file():
        speech = load_audio(layout.speech)[: count * 640]
        level = np.sqrt((np.pad(speech, (0, count * 640 - len(speech))).reshape(count, 640) ** 2).mean(1))
        curves.append(("sound level", {"rms": level}))
    if layout.action_units.is_file():
        units = _action_unit_curves(layout.action_units, ("AU01_r", "AU12_r", "AU45_r"))
        curves.append(("action units, 0..5", units))
    divider = count * 10 // 11
    return [
        drawing.plot(lines, title, _PLOT, marked=invalid, divider=divider)
        for title, lines in curves
        if all(len(line) == count for line in lines.values())
    ]


def _action_unit_curves(path: Path, names: tuple[str, ...]) -> dict[str, ndarray]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, skipinitialspace=True))
    return {name: np.array([float(record[name]) for record in rows]) for name in names}


def _load(path: Path) -> ndarray | None:
    return np.load(path) if path.is_file() else None
