"""Albedo textures of the skin, painted as functions of the place on the skull (cm). Linear RGB in [0, 1]."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from data_utils.synthetic.head import (
    EYE_HALF_WIDTH,
    EYE_X,
    EYE_Y,
    MOUTH_HALF_WIDTH,
    MOUTH_Y,
    HeadShape,
    bump,
    ridge,
    smoothstep,
)
from data_utils.synthetic.mesh import upsample
from data_utils.synthetic.noise import noise_image, octaves, sample

SKIN = np.array([0.58, 0.345, 0.245], np.float32)
SKIN_TEXELS = 7
"""Texture px a cell of the skin's grid."""


def mix(texture: ndarray, color: tuple[float, float, float], weight: ndarray) -> None:
    """Blend a colour into a texture in place; `weight` [h, w] in [0, 1]."""
    rows, columns = np.flatnonzero(weight.max(1) > 1e-3), np.flatnonzero(weight.max(0) > 1e-3)
    if len(rows) == 0:
        return
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    share = weight[box].astype(np.float32)
    for channel, value in enumerate(color):
        plane = texture[..., channel][box]
        plane += (np.float32(value) - plane) * share


def skin_texture(head: HeadShape, rng: np.random.Generator) -> Float[ndarray, "h w 4"]:
    """Paint the head's skin: tone, blush, pores, freckles, lips, brows, lids, nostrils, baked soft occlusion."""

    def texels(values: ndarray) -> ndarray:
        return upsample(values.reshape(head.rows, head.columns), SKIN_TEXELS)

    x, y, z = (texels(head.base[:, i]) for i in range(3))
    front = smoothstep(-1.0, 1.5, z)
    coarse, fine = octaves(rng, 512, 24.0, 4), noise_image(rng, 1024, 0.8)
    texture = np.empty((*x.shape, 4), np.float32)
    mottle = 0.06 * sample(coarse, x, y, 24.0) + 0.04 * sample(coarse, y, x, 7.0) + 0.04 * sample(fine, x, y, 60.0)
    texture[..., :3] = SKIN * (1 + mottle[..., None] * np.array([0.8, 1.15, 1.3], np.float32))
    texture[..., 3] = 0.30 + 0.05 * sample(fine, y, x, 50.0)
    _tones(texture, x, y, front, rng)
    _lips(texture, head, texels, x, y, front, sample(coarse, x * 6, y, 40.0))
    _eyes(texture, head, texels, x, y, front)
    _brows(texture, x, y, front, rng)
    _occlusion(texture, x, y, z, front)
    _roots(texture, x, y, z, rng)
    return texture.clip(0.004, 1)


def hairline(x: ndarray, z: ndarray) -> ndarray:
    """Return the height (cm) above which hair grows: by depth, for nape, behind the ear, sideburn, temple, forehead."""
    depth = [-9.0, -5.4, -4.4, -3.4, -1.2, -0.3, 0.5, 1.3, 2.4, 3.6, 5.0]
    height = [-6.0, -4.4, -2.0, 4.0, 4.2, 1.2, 0.4, 4.6, 7.0, 7.9, 8.1]
    return np.interp(z, depth, height) + smoothstep(2.0, 4.5, z) * (0.35 * np.sin(0.7 * x + 0.9) - 0.2)


def _roots(texture: ndarray, x: ndarray, y: ndarray, z: ndarray, rng: np.random.Generator) -> None:
    """Let single hairs and their shadow soften the hairline."""
    hairs = sample(noise_image(rng, 1024, 0.8, 6.0), x + 0.25 * y, y, 45.0)
    above = y - hairline(x, z)
    mix(texture, (0.10, 0.055, 0.038), smoothstep(-1.1, 0.1, above + 0.32 * hairs - 0.15) * 0.85)


def _tones(texture: ndarray, x: ndarray, y: ndarray, front: ndarray, rng: np.random.Generator) -> None:
    ax = np.abs(x)
    blush = bump(ax - 4.0, y + 0.8, 1.5, 1.3) * 0.5 + bump(x, y + 1.0, 1.1, 0.7) * 0.45 + bump(x, y + 8, 1.4, 0.8) * 0.2
    mix(texture, (0.60, 0.24, 0.18), front * blush.clip(0, 1) * 0.55)
    mix(texture, (0.62, 0.42, 0.30), front * bump(x, y - 6.5, 4.0, 1.6) * 0.4)
    stubble = bump(x, y + 7.4, 3.8, 1.6) + bump(x, y + 3.0, 1.8, 0.5)
    mix(texture, (0.40, 0.26, 0.20), front * stubble.clip(0, 1) * 0.16)
    spots = noise_image(rng, 1024, 2.2)
    freckles = smoothstep(2.1, 2.9, sample(spots, x, y, 55.0)) * (bump(ax - 3.0, y + 0.4, 2.4, 1.5) + 0.25)
    mix(texture, (0.33, 0.16, 0.10), front * freckles.clip(0, 1) * 0.75)
    for mole_x, mole_y, radius in ((3.3, -4.9, 0.09), (-5.0, 1.0, 0.08), (-2.0, 6.0, 0.08), (1.2, -7.4, 0.07)):
        distance = np.hypot(x - mole_x, y - mole_y)
        mix(texture, (0.16, 0.08, 0.06), front * smoothstep(radius * 1.5, radius * 0.6, distance) * 0.85)


def _lips(
    texture: ndarray, head: HeadShape, texels: object, x: ndarray, y: ndarray, front: ndarray, streaks: ndarray
) -> None:
    across = (1 - (x / (MOUTH_HALF_WIDTH * 1.03)) ** 2).clip(0)
    bow = 0.72 + 0.16 * ridge(np.abs(x) - 0.55, 0.4) - 0.12 * ridge(x, 0.22)
    upper, lower = bow * across**0.7, 0.92 * across**0.6
    height = y - MOUTH_Y
    edge = np.where(height >= 0, height - upper, -height - lower)
    lips = front * smoothstep(0.10, -0.10, edge) * (across > 0)
    mix(texture, (0.43, 0.125, 0.115), lips * 0.85)
    texture[..., :3] *= (1 + lips * 0.07 * streaks)[..., None]
    texture[..., 3] += 0.35 * lips
    crease = front * bump(x, height, MOUTH_HALF_WIDTH * 0.62, 0.05)
    mix(texture, (0.16, 0.04, 0.04), crease * 0.65)
    inner = texels(head.slit_mouth)
    mix(texture, (0.30, 0.07, 0.07), smoothstep(0.1, 0.6, inner))


def _eyes(texture: ndarray, head: HeadShape, texels: object, x: ndarray, y: ndarray, front: ndarray) -> None:
    across = (np.abs(x) - EYE_X) / EYE_HALF_WIDTH
    eye, height = (1 - across**2).clip(0), y - EYE_Y
    inner = texels(head.slit_eye)
    mix(texture, (0.55, 0.22, 0.18), front * bump(across, height, 0.9, 0.5) * 0.22)
    lid = front * (eye > 0) * smoothstep(0.85, 0.55, height) * smoothstep(-0.02, 0.05, height)
    mix(texture, (0.42, 0.21, 0.15), lid * 0.35)
    crease = front * bump(across, height - 0.62 * (0.35 + 0.65 * eye), 0.75, 0.06)
    mix(texture, (0.20, 0.09, 0.06), crease * 0.6)
    upper_lash = (eye > 0) * smoothstep(0.15 + 0.05 * across, 0.05, height) * (height >= 0) * (inner < 0.5)
    lower_lash = (eye > 0) * smoothstep(-0.13, -0.03, height) * (height <= 0) * (inner < 0.3)
    mix(texture, (0.035, 0.022, 0.02), front * upper_lash * np.minimum(eye * 4, 1) * 0.95)
    mix(texture, (0.14, 0.07, 0.06), front * lower_lash * np.minimum(eye * 3, 1) * 0.6)
    mix(texture, (0.60, 0.26, 0.22), smoothstep(0.5, 0.9, inner) * (height <= 0))
    mix(texture, (0.55, 0.20, 0.17), front * bump(across + 1.02, height, 0.12, 0.12) * 0.8)


def _brows(texture: ndarray, x: ndarray, y: ndarray, front: ndarray, rng: np.random.Generator) -> None:
    ax = np.abs(x)
    along = (ax - 1.05) / 4.1  # 0 at the nose .. 1 at the temple
    line = 4.25 + 0.75 * np.sin(np.pi * (0.12 + 0.66 * along.clip(0, 1))) - 0.25 * along
    half = 0.44 * (1 - 0.62 * along.clip(0, 1))
    hairs = noise_image(rng, 1024, 0.9, 5.0)
    slant = sample(hairs, ax * 1.0 - 0.55 * (y - line), y + 0.4 * ax, 60.0)
    inside = smoothstep(0.0, 0.16, along + 0.03 * slant) * smoothstep(1.0, 0.8, along)
    body = smoothstep(1.25, 0.35, np.abs(y - line) / half) * inside
    mix(texture, (0.055, 0.032, 0.022), front * (body * (1.0 + 0.22 * slant)).clip(0, 0.97))


def _occlusion(texture: ndarray, x: ndarray, y: ndarray, z: ndarray, front: ndarray) -> None:
    """Darken where the sky is hidden: sockets, nostrils, sides of the nose, under lip, chin and jaw."""
    ax = np.abs(x)
    nostril = bump(ax - 0.62, y + 2.22, 0.27, 0.15)
    mix(texture, (0.05, 0.018, 0.014), front * (1.5 * nostril - 0.2).clip(0, 1))
    dark = 0.34 * bump(ax - 1.75, y - 2.9, 0.6, 0.7) + 0.18 * bump(ax - 3.1, y - 3.3, 1.3, 0.45)
    dark += 0.30 * bump(ax - 1.95, y + 1.5, 0.22, 0.7) + 0.25 * bump(x, y + 2.55, 1.2, 0.25)
    dark += 0.22 * bump(x, y + 5.75, 1.3, 0.3) + 0.18 * bump(ax - 2.65, y + 4.3, 0.25, 0.3)
    dark += 0.12 * bump(ax - 2.5, y + 2.6, 0.35, 0.9)
    texture[..., :3] *= (1 - front * dark.clip(0, 0.8))[..., None] ** np.array([0.8, 1.05, 1.15], np.float32)
    under = smoothstep(-6.5, -9.2, y) * smoothstep(3.2, 0.5, z)
    texture[..., :3] *= (1 - 0.55 * under)[..., None]
