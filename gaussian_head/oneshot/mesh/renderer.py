"""Moves a portrait: its face by a rig, its head by a smooth field, inner mouth and lids composed in.

Each pixel of a frame is looked up in the portrait once: the head's field leads back to the portrait's pose, there the
moved mesh leads back to the resting one. Where neither moves, the frame is the portrait, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8
from numpy import ndarray
from scipy.spatial.transform import Rotation

from cuda_ext.mesh import rasterize_mesh
from gaussian_head.geometry.landmarks import INNER_LIPS, LEFT_EYE, MESH_POINTS, RIGHT_EYE
from gaussian_head.oneshot.mesh.head_motion import HeadMotion
from gaussian_head.oneshot.mesh.inner_mouth import OVERSAMPLING, InnerMouth
from gaussian_head.oneshot.mesh.rig import (
    BELOW_BROWS,
    LID_FOLDS,
    LOWER_LIDS,
    LOWER_LIP,
    UPPER_CHEEKS,
    UPPER_LIDS,
    UPPER_LIP,
    Rig,
)

UPPER_SHARE = 0.28
"""Of what the lips part beyond the jaw's way, the upper lip does so much."""
CLOSES = 0.10
"""Lips parted up to this (face heights) close in silence; a wider smile keeps what is more."""
PARTED, SEAM = 0.012, 0.0035
"""Lips are parted beyond the first; closed, they keep the second (face heights)."""
UNMOVED_PX = 0.02
"""What moves less is looked up where it was."""
LID_MARGIN = 0.16
"""The lid's edge is taken this share of the eye's opening lower: lashes and their shadow go with the lid."""


@dataclass(frozen=True)
class FacePose:
    """What a face does in one frame; zeros are the portrait with its lips closed."""

    aperture: float = 0.0
    """Gap between the lips, face heights."""
    jaw: float = 0.0
    """Lowering of the jaw, face heights."""
    width: float = 0.0
    """Mouth wider than at rest by this share."""
    protrusion: float = 0.0
    tuck: float = 0.0
    tongue: float = 0.0
    blink: float = 0.0
    """0 eyes as in the portrait, 1 shut."""
    brows: float = 0.0
    """Raised, face heights."""
    angles: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of the head about the face's x, y, z axes, radians, on top of the portrait's pose."""
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of the head along them, face heights."""
    breath: float = 0.0
    """Rise of the chest, face heights."""


class PortraitMesh:
    """A portrait that can be posed."""

    def __init__(
        self, rgb: UInt8[ndarray, "H W 3"], landmarks: Float[ndarray, "478 3"], person: Float[ndarray, "H W"]
    ) -> None:
        """Take a portrait.

        Args:
            rgb: 0..255.
            landmarks: MediaPipe's points, px with pixel centres at + 0.5, z alike.
            person: Coverage by the person, 0..1.
        """
        self.rgb = rgb
        self.rig = Rig.of(landmarks)
        self.motion = HeadMotion(landmarks, self.rig.frame, person, rgb.shape[:2])
        self.mouth = InnerMouth(rgb, self.rig)
        height, width = rgb.shape[:2]
        x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        self._identity = np.stack([x, y], -1)
        self._faces, self._depth = _with_holes_behind(self.rig.faces, len(self.rig.points))
        self._rest = self.rig.points[:, :2]
        self._box = _box(self._rest, 2, width, height)
        self._close = min(1.0, CLOSES / max(self.rig.rest_gap, 1e-6))
        # Between lips that were parted in the portrait no line was painted: a thin gap stands for it.
        self._least_gap = SEAM if self.rig.rest_gap > PARTED else 0.0
        self._eyes = [_Eye(rgb, self._rest, side) for side in (0, 1)]

    def points(self, pose: FacePose) -> Float[ndarray, "V 2"]:
        """Return the mesh in the portrait's head pose, px."""
        fields = self.rig.fields
        moved = self._rest + self._close * fields["close"] + pose.jaw * fields["jaw"]
        part = max(pose.aperture, self._least_gap) - pose.jaw
        moved += part * UPPER_SHARE * fields["upper_lip"] + part * (1 - UPPER_SHARE) * fields["lower_lip"]
        moved += pose.width * fields["width"] + pose.protrusion * fields["protrusion"] + pose.tuck * fields["tuck"]
        moved += pose.blink * (fields["blink_right"] + fields["blink_left"]) + pose.brows * fields["brows"]
        return moved

    def landmarks(self, pose: FacePose) -> Float[ndarray, "478 2"]:
        """Return the face's points as a frame shows them, px."""
        points = self.points(pose)[:MESH_POINTS]
        forward = self._forward(pose)
        return points + _sample(self.motion.full(forward), points)

    @property
    def moving_part(self) -> Bool[ndarray, "H W"]:
        """Return where frames may differ from the portrait."""
        reach = np.float32(self.motion.head + self.motion.chest > 0)
        moving = self.motion.full(np.dstack([reach, reach]))[..., 0] > 0
        left, top, right, bottom = self._box
        moving[top:bottom, left:right] = True
        return moving

    def render(self, pose: FacePose) -> UInt8[ndarray, "H W 3"]:
        """Draw a frame."""
        back = self.motion.full(self.motion.backward(self._forward(pose)))
        before = self._identity + back  # where each pixel was before the head moved
        points = self.points(pose)
        lookup = before.copy()
        box = self._moved_box(points)
        if box is not None:
            left, top, right, bottom = box
            way = np.abs(back[top:bottom, left:right]).max() + 1
            part = _part(left - way, top - way, right + way, bottom + way, *self.rgb.shape[:2])
            bend = self._bend(points, box)
            lookup[part] += cv2.remap(bend, _map(before[part] - np.float32([left, top])), None, cv2.INTER_LINEAR)
        frame = cv2.remap(self.rgb, _map(lookup), None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        for eye in self._eyes:
            self._open_eye(frame, eye, pose.blink, points, before)
        self._compose_mouth(frame, pose, points, before)
        return frame

    def _forward(self, pose: FacePose) -> Float32[ndarray, "h w 2"]:
        turn = Rotation.from_rotvec(np.array(pose.angles)).as_matrix()
        return self.motion.forward(turn, np.array(pose.shift), pose.breath)

    def _moved_box(self, points: Float[ndarray, "V 2"]) -> tuple[int, int, int, int] | None:
        """Return what the triangles cover that moved, before or after; None where none did."""
        moved = np.abs(points - self._rest).max(1) > UNMOVED_PX
        faces = self.rig.faces[moved[self.rig.faces].any(1)]
        if not len(faces):
            return None
        touched = np.unique(faces)
        height, width = self.rgb.shape[:2]
        return _box(np.concatenate([points[touched], self._rest[touched]]), 2, width, height)

    def _bend(self, points: Float[ndarray, "V 2"], box: tuple[int, int, int, int]) -> Float32[ndarray, "h w 2"]:
        """Return, for each pixel of a box, the way from the moved mesh back to the resting one."""
        left, top, right, bottom = box
        placed = np.concatenate([points, points]) - [left, top]
        placed = np.column_stack([placed, self._depth]).astype(np.float32)
        with torch.no_grad():
            shown = rasterize_mesh(torch.from_numpy(placed)[None], self._faces, right - left, bottom - top)
            way = torch.from_numpy(np.float32(self._rest - points)[self.rig.faces].reshape(-1, 6))
            way = torch.cat([way, torch.zeros(1, 6)])  # the last row is where no triangle is
            corners = way[shown.face_index[0].long().flatten()]
            shares = shown.barycentrics[0].reshape(-1, 3)
            back = shares[:, :1] * corners[:, :2]
            for k in (1, 2):
                back.addcmul_(shares[:, k : k + 1], corners[:, 2 * k : 2 * k + 2])
        return back.reshape(bottom - top, right - left, 2).numpy()

    def _open_eye(
        self, frame: UInt8[ndarray, "H W 3"], eye: _Eye, blink: float, points: ndarray, before: ndarray
    ) -> None:
        """Put the eyeball, which no lid moves, back into what is open between the lids."""
        if blink <= 0:
            return
        left, top, right, bottom = eye.box
        part = (slice(top, bottom), slice(left, right))
        lid = eye.lid(points, blink)
        painted = cv2.remap(lid, _map(before[part] - [left, top]), None, cv2.INTER_LINEAR)
        frame[part] = _mixed(frame[part], painted[..., :3], painted[..., 3:])
        ball = cv2.remap(self.rgb, _map(before[part]), None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        open_part = eye.opening(points)
        open_part *= min(1.0, 6 * (1 - blink))  # an outline of no area still has a drawn border
        cover = cv2.remap(open_part, _map(before[part] - [left, top]), None, cv2.INTER_LINEAR)[..., None]
        shade = 1 - 0.25 * blink  # the falling lid's shadow
        frame[part] = _mixed(frame[part], ball * shade, cover)

    def _compose_mouth(self, frame: UInt8[ndarray, "H W 3"], pose: FacePose, points: ndarray, before: ndarray) -> None:
        drawn = self.mouth.draw(points, pose.jaw * self.rig.frame.height_px / self.mouth.half_px, pose.tongue)
        if not drawn[..., 3].any():
            return
        height, width = self.rgb.shape[:2]
        way = np.abs(_sample(before - self._identity, self._rest[INNER])).max() + 2
        box = self.mouth.box
        part = _part(box[0] - way, box[1] - way, box[2] + way, box[3] + way, height, width)
        place = (before[part] - np.float32(box[:2]) + 0.5) * OVERSAMPLING - 0.5
        seen = cv2.remap(drawn, _map(place), None, cv2.INTER_LINEAR)
        frame[part] = _mixed(frame[part], seen[..., :3], seen[..., 3:])


INNER = np.concatenate([UPPER_LIP[3], LOWER_LIP[3]])


class _Eye:
    """What is open of an eye, and the lid that covers it."""

    def __init__(self, rgb: UInt8[ndarray, "H W 3"], rest: Float[ndarray, "V 2"], side: int) -> None:
        height, width = rgb.shape[:2]
        self.loop = (RIGHT_EYE, LEFT_EYE)[side]
        self.upper, self.lower, self.fold = UPPER_LIDS[side], LOWER_LIDS[side], LID_FOLDS[side]
        self.below_brow = BELOW_BROWS[side]
        size = float(np.ptp(rest[self.loop, 0]))
        self.stroke_px = max(0.04 * size, 0.8)
        self.box = _box(rest[self.loop], round(0.6 * size), width, height)
        # The lid's skin is folded away while the eye is open; it has the colour of what lies around.
        above = (rest[self.fold] + 1.6 * rest[self.below_brow]) / 2.6
        smooth = cv2.GaussianBlur(rgb, (0, 0), 0.05 * size).astype(np.float32)
        above, cheek = (_sample(smooth, places) for places in (above, rest[UPPER_CHEEKS[side]]))
        self.skin = 0.5 * (np.percentile(above, 65, axis=0) + np.median(cheek, axis=0))
        left, top, right, bottom = self.box
        inside = rgb[top:bottom, left:right].reshape(-1, 3).astype(np.float32)
        self.lash = 0.75 * np.percentile(inside, 4, axis=0) + 0.25 * 0.5 * self.skin

    def opening(self, points: Float[ndarray, "V 2"]) -> Float32[ndarray, "h w"]:
        """Return the coverage of the opening, its upper edge below the lashes."""
        inner = points.copy()
        inner[self.upper] += LID_MARGIN * (points[self.lower] - points[self.upper])
        return self._filled(inner[self.loop], 0.7)

    def lid(self, points: Float[ndarray, "V 2"], blink: float) -> Float32[ndarray, "h w 4"]:
        """Return the unfolded lid's skin and lashes, RGB in 0..255 and coverage in 0..1."""
        edge = np.concatenate([points[self.loop[:1]], points[self.upper], points[self.loop[8:9]]])
        fold = edge.copy()
        fold[1:-1] = 0.6 * points[self.fold] + 0.4 * points[self.below_brow]
        shown = float(np.clip((blink - 0.2) / 0.6, 0, 1))
        skin = 0.9 * shown * self._filled(np.concatenate([fold, edge[::-1]]), 2.2 * self.stroke_px)
        line = np.zeros(skin.shape, np.uint8)
        left, top = self.box[:2]
        drawn = np.round((edge - [left, top] - 0.5) * 16).astype(np.int32)
        cv2.polylines(line, [drawn], False, 255, max(1, round(self.stroke_px)), cv2.LINE_AA, 4)
        lashes = 0.7 * shown * cv2.GaussianBlur(line, (0, 0), max(0.45 * self.stroke_px, 0.6)).astype(np.float32) / 255
        cover = 1 - (1 - skin) * (1 - lashes)
        y = (np.arange(skin.shape[0])[:, None] + top - edge[:, 1].mean()) / max(float(np.ptp(edge[:, 0])), 1)
        shaded = self.skin * np.clip(0.99 + 0.25 * y, 0.85, 1.05)[..., None]
        colour = shaded + (lashes / np.maximum(cover, 1e-6))[..., None] * (self.lash - shaded)
        return np.dstack([colour, cover]).astype(np.float32)

    def _filled(self, outline: Float[ndarray, "N 2"], soft_px: float) -> Float32[ndarray, "h w"]:
        left, top, right, bottom = self.box
        mask = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(mask, [np.round((outline - [left, top] - 0.5) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        return cv2.GaussianBlur(mask, (0, 0), soft_px).astype(np.float32) / 255


def _with_holes_behind(faces: Int[ndarray, "F 3"], count: int) -> tuple[Int[torch.Tensor, "F 3"], Float[ndarray, " W"]]:
    """Give what fills mouth and eyes copies of its points, farther away: folded, it never hides a lip or a lid.

    Returns:
        The triangles over twice as many points, and all points' depths.
    """
    hole = np.any([np.isin(faces, loop).all(1) for loop in (INNER_LIPS, RIGHT_EYE, LEFT_EYE)], axis=0)
    behind = np.where(hole[:, None], faces + count, faces)
    return torch.from_numpy(behind.astype(np.int32)), np.repeat([1.0, 2.0], count)


def _mixed(below: UInt8[ndarray, "h w 3"], above: ndarray, cover: ndarray) -> UInt8[ndarray, "h w 3"]:
    return np.uint8(np.clip(np.rint(below + cover * (above - below)), 0, 255))


def _box(points: Float[ndarray, "N 2"], margin: int, width: int, height: int) -> tuple[int, int, int, int]:
    low, high = np.floor(points.min(0)).astype(int) - margin, np.ceil(points.max(0)).astype(int) + margin
    left, top = low.clip(0, [width - 1, height - 1])
    right, bottom = high.clip([left + 1, top + 1], [width, height])
    return int(left), int(top), int(right), int(bottom)


def _part(left: float, top: float, right: float, bottom: float, height: int, width: int) -> tuple[slice, slice]:
    """Return the whole pixels of a rectangle that lie in a picture."""
    rows, columns = (max(0, int(top)), min(height, int(bottom) + 1)), (max(0, int(left)), min(width, int(right) + 1))
    return slice(*rows), slice(*columns)


def _map(places: Float[ndarray, "h w 2"]) -> Float32[ndarray, "h w 2"]:
    return np.ascontiguousarray(places, np.float32)


def _sample(field: Float32[ndarray, "H W C"], points: Float[ndarray, "N 2"]) -> Float[ndarray, "N C"]:
    x, y = np.float32(points - 0.5).T
    return cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]
