"""What is seen between open lips: cavity, both rows of teeth, the tongue, in the portrait's own light.

Drawn afresh for each frame in the mouth's own coordinates: s along the mouth, -1 and 1 at its corners, t across it,
down, both in half widths of the closed mouth; about 25 mm, which the sizes of teeth below go by. Upper teeth stay with
the skull, lower teeth and tongue go with the jaw. Where the portrait shows teeth, its own pixels take the upper ones'
place.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from gaussian_head.geometry.landmarks import INNER_LIPS, OUTER_LIPS
from gaussian_head.oneshot.mesh.rig import LOWER_LIP, UPPER_LIP, Rig

OVERSAMPLING = 2
"""The mouth is drawn with so many pixels to one of the picture: its edges come out smooth."""
TOOTH_EDGES = np.array([0.0, 0.33, 0.585, 0.80, 0.97, 1.12])
"""Borders between teeth from the middle outwards, the outer ones foreshortened by the arch."""
UPPER_EDGE, UPPER_RISE = 0.13, 0.16
"""Where the upper incisors end below the closed lips' line, and how much higher the arch ends at the corners."""
LOWER_EDGE = 0.02
"""The lower incisors reach so far above the line that lay on the lower lip's border."""
TEETH_SHADE, LOWER_SHADE = 0.92, 0.62
"""Brightness of teeth relative to the brightest skin: both rows lie in the shade of lips and cheeks."""
OWN_GAP = 0.035
"""Lips parted farther than this (face heights) may show the portrait's own teeth."""


@dataclass(frozen=True)
class MouthLight:
    """Colours of the inner mouth, RGB in 0..255."""

    teeth: Float[ndarray, "3"]
    flesh: Float[ndarray, "3"]

    @classmethod
    def of(cls, rgb: UInt8[ndarray, "H W 3"], rig: Rig) -> MouthLight:
        """Take them from the portrait: from its skin's brightness and tint, and from its lips."""
        height, width = rgb.shape[:2]
        cheeks = rig.points[[50, 280, 101, 330, 205, 425, 36, 266, 117, 346], :2]
        pixels = _around(rgb, cheeks, max(1, round(0.02 * rig.frame.height_px)), width, height)
        bright = np.percentile(pixels, 75, axis=0)
        skin = bright / max(float(bright.mean()), 1.0)
        tint = np.clip(skin / np.array([1.16, 0.96, 0.88]), 0.8, 1.2) ** 0.3  # what is left is the light's own colour
        teeth = np.array([1.06, 1.0, 0.92]) * tint * float(bright.mean()) * TEETH_SHADE
        lips = rig.points[[*LOWER_LIP[1, 3:8], *UPPER_LIP[1, 3:8]], :2]
        colour = np.median(_around(rgb, lips, 1, width, height), axis=0)
        flesh = 0.4 * colour + 0.6 * np.array([1.42, 0.72, 0.72]) * float(colour.mean())
        return cls(np.clip(teeth, 20, 235), np.clip(flesh, 15, 200))


class InnerMouth:
    """Draws the inner mouth of one portrait."""

    def __init__(self, rgb: UInt8[ndarray, "H W 3"], rig: Rig) -> None:
        """Look at the portrait, RGB in 0..255, whose rig is `rig` (px of it)."""
        self.light = MouthLight.of(rgb, rig)
        closed = rig.points[:, :2] + rig.fields["close"]
        left, right = closed[78], closed[308]
        self._line = (closed[UPPER_LIP[3]] + closed[LOWER_LIP[3]]) / 2
        self.middle = (left + right) / 2
        half = (right - left) / 2
        self.half_px = max(float(np.linalg.norm(half)), 2.0)
        self.along = half / self.half_px
        self.across = np.array([-self.along[1], self.along[0]])
        lips = rig.points[OUTER_LIPS, :2]
        reach = 0.35 * rig.frame.height_px
        low, high = lips.min(0) - 0.06 * rig.frame.height_px, lips.max(0) + [0.06 * rig.frame.height_px, 0.5 * reach]
        low, high = np.floor(low).astype(int), np.ceil(high).astype(int)
        self.box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        """Left, top, right, bottom, px, end-exclusive; may reach beyond the picture."""
        width, height = (high - low) * OVERSAMPLING
        x = (np.arange(width) + 0.5) / OVERSAMPLING + low[0] - self.middle[0]
        y = (np.arange(height) + 0.5) / OVERSAMPLING + low[1] - self.middle[1]
        self._s = np.float32((x * self.along[0] + y[:, None] * self.along[1]) / self.half_px)
        self._t = np.float32((x * self.across[0] + y[:, None] * self.across[1]) / self.half_px)
        # The closed lips' line is no straight one: all sizes are told from it.
        line_s, line_t = self._coordinates(self._line)
        order = np.argsort(line_s)
        bend = np.interp(self._s.ravel(), line_s[order], line_t[order]).reshape(self._s.shape)
        self._t -= np.float32(bend)
        self._upper = self._teeth(UPPER_EDGE - UPPER_RISE * self._s**2, np.abs(self._s))
        self._own = self._own_teeth(rgb, rig)

    def _coordinates(self, points: Float[ndarray, "N 2"]) -> tuple[Float[ndarray, " N"], Float[ndarray, " N"]]:
        off = (points - self.middle) / self.half_px
        return off @ self.along, off @ self.across

    def _teeth(self, edge: Float[ndarray, "h w"], s: Float[ndarray, "h w"]) -> tuple[ndarray, ndarray]:
        """Return coverage and shade of a row of teeth whose biting edge lies at `edge`, gums upward."""
        soft = 0.9 / (self.half_px * OVERSAMPLING) + 0.012
        tooth = np.searchsorted(TOOTH_EDGES, s).clip(1, len(TOOTH_EDGES) - 1)
        width = TOOTH_EDGES[tooth] - TOOTH_EDGES[tooth - 1]
        place = (s - TOOTH_EDGES[tooth - 1]) / width * 2 - 1  # -1 and 1 at the tooth's sides
        rounded = edge - 0.035 * place**4 - np.where(tooth == 2, 0.025, 0.0)
        cover = np.clip((rounded - self._t) / (2 * soft) + 0.5, 0, 1)
        gaps = 1 - 0.20 * np.exp(-(((1 - np.abs(place)) * width / (0.035 + soft)) ** 2))
        round_arch = np.clip(1.04 - 0.50 * s**2, 0.2, 1)
        return np.float32(cover), np.float32(gaps * round_arch * (1 - 0.10 * place**2))

    def _own_teeth(self, rgb: UInt8[ndarray, "H W 3"], rig: Rig) -> tuple[ndarray, ndarray] | None:
        """Return the pixels between the portrait's own lips and how far they count; None where it shows no teeth."""
        if rig.rest_gap < OWN_GAP:
            return None
        shown = self._warp(rgb)
        inside = np.zeros(self._s.shape, np.uint8)
        corner = np.array(self.box[:2])
        polygon = (rig.points[INNER_LIPS, :2] - corner) * OVERSAMPLING
        cv2.fillPoly(inside, [np.round(polygon).astype(np.int32)], 255)
        soft = cv2.GaussianBlur(inside, (0, 0), 0.025 * self.half_px * OVERSAMPLING).astype(np.float32) / 255
        soft = np.clip(2 * soft - 1, 0, 1)
        brightness = shown.mean(2)
        pale = (shown.max(2) - shown.min(2)) < 0.45 * shown.max(2)
        teeth = pale & (brightness > 0.45 * self.light.teeth.mean() / TEETH_SHADE) & (inside > 0)
        return (shown, soft) if teeth.sum() > 0.2 * (inside > 0).sum() else None

    def _warp(self, rgb: UInt8[ndarray, "H W 3"]) -> Float[ndarray, "h w 3"]:
        """Cut the box out of the portrait, enlarged as the mouth is drawn."""
        scale = 1 / OVERSAMPLING
        height, width = self._s.shape
        matrix = np.array([[scale, 0, self.box[0] + 0.5 * scale - 0.5], [0, scale, self.box[1] + 0.5 * scale - 0.5]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        shown = cv2.warpAffine(rgb, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return shown.astype(np.float32)

    def draw(self, points: Float[ndarray, "V 2"], jaw: float, tongue: float) -> Float[ndarray, "h w 4"]:
        """Draw what lies between the lips.

        Args:
            points: The mesh, moved, px.
            jaw: Way of the jaw at the lower lip, half widths of the mouth.
            tongue: Its tip, 0 low .. 1 at the teeth.

        Returns:
            `box` at OVERSAMPLING px a px: RGB in 0..255 and coverage in 0..1.
        """
        cover = self._between(points)
        height, width = cover.shape
        rows = np.flatnonzero(cover.max(1))
        out = np.zeros((height, width, 4), np.float32)
        if not len(rows):
            return out
        part = slice(rows[0], rows[-1] + 1)
        s, t = self._s[part], self._t[part]
        lip_t = self._lip_heights(points, s)
        out[part, :, :3] = self._painted(s, t, part, lip_t, jaw, tongue)
        out[..., 3] = cover
        return out

    def _between(self, points: Float[ndarray, "V 2"]) -> Float[ndarray, "h w"]:
        """Return the coverage of the gap between the lips, its outline a smooth curve through the inner lips."""
        corner = np.array(self.box[:2])
        upper, lower = (_smooth_curve(points[ring] - corner) for ring in (UPPER_LIP[3], LOWER_LIP[3]))
        gap = (lower - upper) @ self.across
        if gap.max() * OVERSAMPLING < 0.5:
            return np.zeros(self._s.shape, np.float32)
        lower = upper + np.maximum(gap, 0)[:, None] * self.across + ((lower - upper) @ self.along)[:, None] * self.along
        outline = np.concatenate([upper, lower[::-1]]) * OVERSAMPLING - 0.5
        mask = np.zeros(self._s.shape, np.uint8)
        cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        return cv2.GaussianBlur(mask, (0, 0), 0.55 * OVERSAMPLING).astype(np.float32) / 255

    def _lip_heights(self, points: Float[ndarray, "V 2"], s: ndarray) -> tuple[ndarray, ndarray]:
        """Return the t of both lips' borders over each column (taken on the box's middle row)."""
        along = s[len(s) // 2]
        line = np.interp(along, *_sorted(*self._coordinates(self._line)))
        return tuple(
            np.float32(np.interp(along, *_sorted(*self._coordinates(points[ring]))) - line)
            for ring in (UPPER_LIP[3], LOWER_LIP[3])
        )

    def _painted(
        self, s: ndarray, t: ndarray, part: slice, lip_t: tuple[ndarray, ndarray], jaw: float, tongue: float
    ) -> Float[ndarray, "h w 3"]:
        upper_t, lower_t = lip_t
        deep = np.clip((t - upper_t) / np.maximum(lower_t - upper_t, 0.05), 0, 1)
        corners = np.clip(1 - np.abs(s) ** 2.5, 0.0, 1)
        flesh = self.light.flesh
        picture = flesh * (0.16 + 0.26 * deep**2 * corners)[..., None]
        # The tongue lies behind the lower teeth; raised, its tip fills more of the opening.
        top = jaw * 0.9 - (0.06 + 0.10 * jaw + 0.32 * tongue * jaw) + 0.22 * s**2
        body = np.clip((t - top) / 0.10, 0, 1) * np.clip((0.86 - np.abs(s)) / 0.25, 0, 1)
        lit = 0.56 + 0.30 * np.clip((t - top) / 0.35, 0, 1) - 0.10 * np.exp(-((s / 0.07) ** 2))
        picture += body[..., None] * (flesh * lit[..., None] - picture)
        lower_edge = jaw - LOWER_EDGE + 0.20 * s**2
        reach = 2 * lower_edge - t  # the same teeth, upside down
        cover, shade = self._row(np.abs(s) * 1.18, reach, lower_edge)
        shade = shade * LOWER_SHADE / TEETH_SHADE * np.clip(0.75 + (t - lower_edge) / 0.3, 0.6, 1.1)
        picture += (cover * 0.75)[..., None] * (self._shaded_teeth(shade) - picture)
        cover, shade = (plane[part] for plane in self._upper)
        under_lip = np.clip(0.50 + (t - upper_t) / 0.16, 0.5, 1.0)
        open_wide = np.clip(0.78 + 0.6 * (lower_t - upper_t), 0.78, 1)
        picture += cover[..., None] * (self._shaded_teeth(shade * under_lip * open_wide) - picture)
        if self._own is not None:
            shown, share = (plane[part] for plane in self._own)
            picture += share[..., None] * (shown - picture)
        # Both lips throw a shadow inward.
        edge = np.minimum(t - upper_t, 1.6 * (lower_t - t))
        return picture * np.clip(0.62 + edge / 0.12, 0.62, 1)[..., None]

    def _shaded_teeth(self, shade: Float[ndarray, "h w"]) -> Float[ndarray, "h w 3"]:
        """Darken teeth: light that comes through a mouth is red."""
        return self.light.teeth * np.maximum(shade, 0)[..., None] ** np.array([0.85, 1.1, 1.15])

    def _row(self, s: ndarray, t: ndarray, edge: ndarray) -> tuple[ndarray, ndarray]:
        soft = 0.9 / (self.half_px * OVERSAMPLING) + 0.012
        tooth = np.searchsorted(TOOTH_EDGES * 0.72, s).clip(1, len(TOOTH_EDGES) - 1)
        sides = TOOTH_EDGES * 0.72
        width = sides[tooth] - sides[tooth - 1]
        place = (s - sides[tooth - 1]) / width * 2 - 1
        cover = np.clip((edge - 0.02 * place**4 - t) / (2 * soft) + 0.5, 0, 1) * (s < 1.0)
        gaps = 1 - 0.22 * np.exp(-(((1 - np.abs(place)) * width / (0.03 + soft)) ** 2))
        return cover, gaps * np.clip(1.0 - 0.7 * s**2, 0.1, 1)


def _smooth_curve(points: Float[ndarray, "11 2"], steps: int = 4) -> Float[ndarray, "N 2"]:
    """Pass a Catmull-Rom curve through points."""
    ends = np.concatenate([[2 * points[0] - points[1]], points, [2 * points[-1] - points[-2]]])
    a, b, c, d = ends[:-3], ends[1:-2], ends[2:-1], ends[3:]
    f = (np.arange(steps) / steps)[:, None, None]
    curve = 0.5 * (2 * b + (c - a) * f + (2 * a - 5 * b + 4 * c - d) * f**2 + (3 * b - a - 3 * c + d) * f**3)
    return np.concatenate([curve.transpose(1, 0, 2).reshape(-1, 2), points[-1:]])


def _sorted(s: ndarray, t: ndarray) -> tuple[ndarray, ndarray]:
    order = np.argsort(s)
    return s[order], t[order]


def _around(
    rgb: UInt8[ndarray, "H W 3"], points: Float[ndarray, "N 2"], radius: int, width: int, height: int
) -> Float[ndarray, "P 3"]:
    """Collect the pixels around points, as far as they lie in the picture."""
    offsets = np.arange(-radius, radius + 1)
    x = (points[:, 0].astype(int)[:, None, None] + offsets).clip(0, width - 1)
    y = (points[:, 1].astype(int)[:, None, None] + offsets[:, None]).clip(0, height - 1)
    return rgb[np.broadcast_arrays(y, x)[0], np.broadcast_arrays(y, x)[1]].reshape(-1, 3).astype(np.float64)
