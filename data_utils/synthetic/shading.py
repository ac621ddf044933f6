"""Light on the person: soft-edged lamps that bleed red into the shadow of skin, sky, gloss; encoding for the screen."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

LIGHTS = (  # direction in the room (x right, y up, z to the camera), colour, width of the soft edge
    ((-0.55, 0.50, 0.70), (1.50, 1.42, 1.32), 0.35),
    ((0.85, 0.15, 0.50), (0.34, 0.38, 0.46), 0.40),
    ((0.55, 0.65, -0.55), (0.50, 0.50, 0.52), 0.10),
)
SKY, GROUND = (0.36, 0.38, 0.42), (0.20, 0.16, 0.14)
SCATTER = (1.0, 0.45, 0.30)
"""How far red, green and blue light bleed into the shadow of skin, relative to a light's soft edge."""
MATTE_SCATTER = 0.5
WET_FROM, WET_TO = 0.70, 0.85
"""Specular strengths between which a surface turns from skin to wet (eyes, teeth)."""


def shade(
    texel: Float[ndarray, "P 4"], normal: Float[ndarray, "3 P"], view: Float[ndarray, "3 P"],
    occlusion: Float[ndarray, "P"], matte: Bool[ndarray, "P"],
) -> Float[ndarray, "P 3"]:  # fmt: skip
    """Light every pixel.

    Args:
        texel: Linear albedo and specular strength.
        normal: In the room, any length.
        view: Towards the eye, in the room, any length.
        occlusion: Share of the light that arrives.
        matte: Hair and cloth: no red bleeding, never wet.

    Returns:
        Linear RGB.
    """
    normal, view = normal / _length(normal), view / _length(view)
    upness = 0.5 + 0.5 * normal[1]
    light = [ground + (sky - ground) * upness for sky, ground in zip(SKY, GROUND, strict=True)]
    wet = np.where(matte, 0, ((texel[:, 3] - WET_FROM) / (WET_TO - WET_FROM)).clip(0, 1)).astype(np.float32)
    gloss = [np.zeros_like(upness) for _ in range(3)]
    for direction, color, edge in LIGHTS:
        unit = (np.array(direction) / np.linalg.norm(direction)).astype(np.float32)
        cosine = unit @ normal
        shine = _shine(normal, view, unit, wet) * (cosine > -0.1)
        for channel in range(3):
            soft = np.where(matte, np.float32(MATTE_SCATTER * edge), np.float32(SCATTER[channel] * edge))
            lit = ((cosine + soft) / (1 + soft)).clip(0)
            light[channel] += np.float32(color[channel]) * lit * np.sqrt(lit)
            gloss[channel] += np.float32(color[channel]) * shine
    grazing = 1 - (normal * view).sum(0).clip(0, 1)
    strength = 0.55 * texel[:, 3] * (1 + 2 * grazing**2 * grazing**2)
    color = [texel[:, channel] * light[channel] + strength * gloss[channel] for channel in range(3)]
    return np.stack(color, 1) * occlusion[:, None]


def _shine(normal: ndarray, view: ndarray, light: ndarray, wet: ndarray) -> ndarray:
    """Return Blinn's highlight: broad on skin, sharp where wet. Powers by squaring, they are a frame's largest cost."""
    half = view + light[:, None]
    facing = ((normal * half).sum(0) / _length(half)).clip(0)
    power16 = np.square(np.square(np.square(np.square(facing))))
    power32 = power16 * power16
    dry = 0.16 * power16 + 0.10 * power32
    return dry + wet * (1.2 * power32 * power32 * power32 - dry)


def _length(vectors: Float[ndarray, "3 P"]) -> Float[ndarray, "P"]:
    return np.sqrt((vectors * vectors).sum(0)).clip(1e-6)


def to_srgb(linear: Float[ndarray, "H W 3"]) -> UInt8[ndarray, "H W 3"]:
    """Compress the highlights and encode for the screen."""
    linear = linear * np.float32(0.96)
    toned = (linear * (1 + linear / 6) / (1 + np.float32(0.28) * linear)).clip(0, 1)
    steps = np.arange(4096, dtype=np.float32) / 4095
    curve = (255 * steps ** (1 / 2.2) + 0.5).astype(np.uint8)
    return curve[(toned * 4095 + 0.5).astype(np.int32)]
