"""The parts of the person besides the skin: eyeballs, mouth, ears, hair, neck, clothing (cm, head frame)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from data_utils.synthetic.head import EYE_RADIUS, MOUTH_Y, SKULL, bump, ridge, smoothstep
from data_utils.synthetic.mesh import Part, grid_faces, grid_uv, loft, upsample
from data_utils.synthetic.noise import noise_image, octaves, sample
from data_utils.synthetic.textures import SKIN, hairline, mix


def _grid_part(name: str, grid: ndarray, texture: ndarray, texels: int, *, flip: bool = False) -> Part:
    rows, columns = grid.shape[:2]
    faces = grid_faces(rows, columns)
    return Part(name, grid.reshape(-1, 3), faces[:, ::-1] if flip else faces, grid_uv(rows, columns, texels), texture)


def _plain(rows: int, columns: int, texels: int, color: ndarray | tuple, specular: float) -> Float[ndarray, "h w 4"]:
    texture = np.empty(((rows - 1) * texels + 1, (columns - 1) * texels + 1, 4), np.float32)
    texture[..., :3], texture[..., 3] = color, specular
    return texture


def eyeball(rng: np.random.Generator) -> Part:
    """Make one eyeball about the origin, looking along +z: white, iris, pupil, a bulging cornea."""
    rows, texels = 33, 8
    polar = np.linspace(-1.5, 1.5, rows)
    pitch, yaw = np.meshgrid(polar, polar, indexing="ij")
    direction = np.stack([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)], -1)
    off_axis = np.arccos(direction[..., 2].clip(-1, 1))
    radius = EYE_RADIUS * (1 + 0.035 * smoothstep(0.56, 0.2, off_axis))
    texture = _plain(rows, rows, texels, (0.66, 0.62, 0.58), 1.0)
    yaw, pitch = upsample(yaw, texels), upsample(pitch, texels)
    r, angle = np.hypot(yaw, pitch), np.arctan2(pitch, yaw)
    veins = noise_image(rng, 256, 2.0)
    reddened = smoothstep(0.6, 1.2, r) * (0.35 + 0.2 * sample(veins, yaw, pitch, 60.0))
    mix(texture, (0.60, 0.30, 0.26), reddened.clip(0, 1))
    fibres = sample(noise_image(rng, 512, 1.2), angle, 0.3 * r, 30.0)
    iris = smoothstep(0.475, 0.43, r)
    mix(texture, (0.10, 0.17, 0.20), iris)
    texture[..., :3] *= (1 + iris * 0.35 * fibres.clip(-2, 2))[..., None]
    mix(texture, (0.20, 0.15, 0.06), iris * smoothstep(0.30, 0.18, r) * 0.6)
    mix(texture, (0.015, 0.018, 0.02), smoothstep(0.36, 0.45, r) * smoothstep(0.50, 0.45, r) * 0.85)
    mix(texture, (0.004, 0.004, 0.004), smoothstep(0.185, 0.165, r))
    return _grid_part("eye", direction * radius[..., None], texture, texels)


def teeth(upper: bool) -> Part:
    """Make a row of teeth with its gum, in place for a closed jaw."""
    rows, columns, texels = 13, 73, 6
    s = np.linspace(-1.15, 1.15, columns)
    down = np.linspace(0, 1, rows)  # from the gum to the edge
    arch_x, arch_z = 2.35 * np.sin(s * 1.1) / np.sin(1.1 * 1.15), 4.85 - 0.32 * (2.2 * s) ** 2
    gum, tip = (MOUTH_Y + 1.25, MOUTH_Y - 0.07) if upper else (MOUTH_Y - 1.35, MOUTH_Y - 0.02)
    edges = np.array([-6.2, -4.6, -3.3, -2.3, -1.6, -0.88, 0, 0.88, 1.6, 2.3, 3.3, 4.6, 6.2]) * (
        0.37 if upper else 0.30
    )
    nearest = np.abs(arch_x[:, None] - edges).min(1)
    width = 0.10 * smoothstep(0.0, 0.12, nearest)
    z = arch_z + width - (0.0 if upper else 0.28) + 0.05 * np.sin(np.pi * down)[:, None]
    notch = 0.09 * smoothstep(0.10, 0.0, nearest) + (0.03 * smoothstep(0.5, 1.5, np.abs(arch_x)) if upper else 0)
    y = gum + (tip - gum) * down[:, None] + np.where(down[:, None] > 0.8, notch if upper else -notch, 0)
    grid = np.stack([np.broadcast_to(arch_x * (1 if upper else 0.95), y.shape), y, np.broadcast_to(z, y.shape)], -1)
    texture = _plain(rows, columns, texels, (0.70, 0.64, 0.53), 0.8)
    across = upsample(np.broadcast_to(nearest, y.shape), texels)
    along = upsample(np.broadcast_to(down[:, None], y.shape), texels)
    mix(texture, (0.16, 0.08, 0.06), smoothstep(0.07, 0.0, across) * 0.75)
    scallop = 0.34 + 0.10 * smoothstep(0.22, 0.0, across)
    mix(texture, (0.46, 0.17, 0.16), smoothstep(scallop + 0.03, scallop - 0.03, along))
    return _grid_part("upper_teeth" if upper else "lower_teeth", grid, texture, texels, flip=upper)


def _ball(rows: int, columns: int, radii: tuple[float, float, float], centre: tuple[float, float, float]) -> ndarray:
    pitch, yaw = np.meshgrid(np.linspace(-1.57, 1.57, rows), np.linspace(-np.pi, np.pi, columns), indexing="ij")
    ball = np.stack([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)], -1)
    return ball * radii + centre


def tongue(rng: np.random.Generator) -> Part:
    """Make the tongue, in place for a closed jaw."""
    grid = _ball(25, 37, (1.6, 0.62, 2.3), (0.0, MOUTH_Y - 0.72, 2.0))
    texture = _plain(25, 37, 6, (0.42, 0.13, 0.12), 0.5)
    texture[..., :3] *= 1 + 0.12 * sample(noise_image(rng, 256, 1.2), *np.mgrid[:145, :217][::-1], 1.0)[..., None]
    return _grid_part("tongue", grid, texture, 6)


def cavity() -> Part:
    """Make the mouth's dark lining, a bowl seen from inside."""
    grid = _ball(21, 33, (2.75, 2.3, 3.7), (0.0, MOUTH_Y - 0.5, 3.6))
    grid[..., 2] = np.minimum(grid[..., 2], 4.2)
    return _grid_part("cavity", grid, _plain(21, 33, 2, (0.26, 0.055, 0.05), 0.1), 2, flip=True)


def ear(side: int, rng: np.random.Generator) -> Part:
    """Make an ear; `side` +1 for the right of the picture (the subject's left)."""
    rows, columns, texels = 15, 49, 6
    r, angle = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 2 * np.pi, columns), indexing="ij")
    wide = 1.55 * (1 + 0.15 * np.sin(angle)) * (1 - 0.1 * np.cos(angle))
    back, up = r * wide * np.cos(angle), r * 3.1 * np.sin(angle) + 0.25 * r * np.cos(angle)
    rim = ridge(r - 0.85, 0.10) * smoothstep(-1.0, -0.2, np.sin(angle + 0.25))
    anti = ridge(r - 0.52, 0.10) * smoothstep(-0.5, 0.5, np.cos(angle + 0.2))
    concha = bump(back + 0.25, up + 0.2, 0.5, 0.75)
    relief = 0.40 * rim + 0.22 * anti - 0.75 * concha + 0.25 * smoothstep(1.0, 0.8, r) - 0.1
    out = relief + 0.52 * (back + 1.2)  # the rear edge stands off the head
    x = side * (7.05 + out)
    grid = np.stack([x, 0.9 + up, -1.9 - back * 0.82 - 0.12 * up], -1)
    texture = _plain(rows, columns, texels, SKIN * np.array([1.0, 0.86, 0.82], np.float32), 0.3)
    shade = upsample(1 - 0.75 * concha - 0.35 * ridge(r - 0.70, 0.07) + 0.1 * rim, texels)
    texture[..., :3] *= (shade * (1 + 0.05 * sample(octaves(rng, 256, 8.0), *np.indices(shade.shape)[::-1], 1.0)))[
        ..., None
    ]
    return _grid_part("ear", grid, texture, texels, flip=side > 0)


def hair(rng: np.random.Generator) -> Part:
    """Make short combed hair: a shell over the skull that dives under the skin where there is none."""
    y, azimuth = np.linspace(-6.5, 12.69, 150), np.linspace(-np.pi, np.pi, 301)
    texels = 5
    base = loft(SKULL, y, azimuth, 2.3)
    clumps = noise_image(rng, 512, 3.0, 30.0)
    tuft = sample(clumps, azimuth + 0.05 * base[..., 1] + 0.25 * np.sin(azimuth), base[..., 1] * 0.12, 30.0)
    wisp = sample(clumps, 3.1 * azimuth + 0.4 * base[..., 1], base[..., 1] * 0.3, 34.0)
    inside = base[..., 1] - hairline(base[..., 0], base[..., 2]) - 0.20 * tuft - 0.14 * wisp
    thick = -0.5 + 0.95 * smoothstep(-0.7, 0.5, inside) + 0.85 * smoothstep(0.3, 4.5, inside)
    quiff = bump(base[..., 0] + 0.6, base[..., 1] - 9.6, 3.6, 1.9) * smoothstep(-1.0, 3.0, base[..., 2])
    part_line = ridge(base[..., 0] - 3.0 - 0.12 * (base[..., 1] - 8), 0.28) * smoothstep(6.5, 8.5, base[..., 1])
    part_line = part_line * smoothstep(-3.0, 1.0, base[..., 2])
    thick += (
        (0.13 * tuft + 0.95 * quiff - 0.55 * part_line)
        * smoothstep(0.0, 1.2, inside)
        * smoothstep(12.65, 11.5, base[..., 1])
    )
    outward = base - [0, 3.0, -2.6]
    outward /= np.linalg.norm(outward, axis=-1, keepdims=True)
    grid = base + outward * thick[..., None]
    texture = _hair_texture(base, azimuth, tuft, inside, part_line, texels, rng)
    part = _grid_part("hair", grid, texture, texels)
    grown = (thick.reshape(-1) > -0.45)[part.faces].any(1)
    return Part(part.name, part.vertices, part.faces[grown], part.uv, part.texture)


def _hair_texture(
    base: ndarray, azimuth: ndarray, tuft: ndarray, inside: ndarray, part_line: ndarray, texels: int,
    rng: np.random.Generator,
) -> Float[ndarray, "h w 4"]:  # fmt: skip
    """Paint strands that run down from the crown, swept aside over the forehead, darker at roots and parting."""
    texture = _plain(*base.shape[:2], texels, (0.062, 0.036, 0.022), 0.5)
    around, height, x = (
        upsample(np.broadcast_to(v, inside.shape), texels) for v in (azimuth, base[..., 1], base[..., 0])
    )
    front = upsample(smoothstep(-2.0, 2.0, base[..., 2]), texels)
    swept = around * 13 + front * (0.55 * (height - 8) + 0.05 * x * (height - 8))
    strands, locks = noise_image(rng, 1024, 0.7, 40.0), noise_image(rng, 512, 3.0, 40.0)
    fibre = sample(strands, swept, height, 24.0)
    lock = sample(locks, swept, height, 20.0)
    shade = 1 + 0.34 * fibre + 0.30 * lock + 0.15 * upsample(tuft, texels)
    shade *= (1 - 0.35 * smoothstep(1.2, 0.0, upsample(inside, texels))) * (1 - 0.5 * upsample(part_line, texels))
    texture[..., :3] *= shade.clip(0.12)[..., None]
    texture[..., 3] = (0.42 + 0.30 * fibre + 0.2 * lock).clip(0, 1.4)
    return texture


def neck(rng: np.random.Generator) -> Part:
    """Make the neck, from inside the head to under the collar."""
    table = np.array(
        [
            [-17.0, -4.5, 7.2, 6.0, 6],
            [-13.5, -4.4, 5.7, 5.4, 6],
            [-10, -4.2, 5.2, 5.0, 5.6],
            [-7, -4.2, 4.9, 3.8, 5],
            [-3, -4, 4.5, 2.2, 4.5],
        ]
    )
    y, azimuth = np.linspace(-17, -3.2, 50), np.linspace(-np.pi, np.pi, 91)
    grid = loft(table, y, azimuth, 2.1)
    x, height = grid[..., 0], grid[..., 1]
    front = smoothstep(-3.0, 0.0, grid[..., 2])
    grid[..., 2] += front * (0.45 * bump(x, height + 10.6, 0.8, 0.9) - 0.4 * bump(x, height + 14.6, 1.0, 0.8))
    grid[..., 2] += front * 0.35 * ridge(np.abs(x) - 2.2 - 0.2 * (height + 13), 0.5)
    texture = _plain(50, 91, 5, SKIN * np.array([0.96, 0.94, 0.92], np.float32), 0.2)
    tone = octaves(rng, 256, 12.0)
    texture[..., :3] *= 1 + 0.06 * sample(tone, *np.indices(texture.shape[:2])[::-1], 0.8)[..., None]
    shadow = upsample(smoothstep(-13.5, -8.5, height) * (0.55 + 0.25 * front), 5)
    texture[..., :3] *= (1 - 0.75 * shadow)[..., None] ** np.array([0.85, 1, 1.08], np.float32)
    return _grid_part("neck", grid, texture, 5)


def torso(rng: np.random.Generator) -> Part:
    """Make the shoulders in a knitted pullover with a round collar."""
    table = np.array([
        [-46, -5, 22.5, 13, 12], [-30, -5, 22.5, 12.5, 12], [-24, -5, 22.0, 11.5, 11], [-20, -5, 20.2, 9.8, 9],
        [-17.8, -5, 17.0, 8.2, 8], [-16.2, -4.8, 12.8, 7.2, 7.5], [-15.0, -4.6, 9.6, 6.5, 7],
        [-13.9, -4.4, 7.3, 5.9, 6.6], [-13.2, -4.3, 6.5, 5.7, 6.3], [-12.6, -4.3, 6.2, 5.6, 6.2],
    ])  # fmt: skip
    y, azimuth = np.r_[np.linspace(-46, -20, 60), np.linspace(-19.7, -13.3, 50)], np.linspace(-np.pi, np.pi, 161)
    grid = loft(table, y, azimuth, 2.5)
    x, height = grid[..., 0], grid[..., 1]
    folds = octaves(rng, 256, 16.0, 3)
    dip = smoothstep(-4.0, 2.0, grid[..., 2]) * smoothstep(-16.5, -13.3, height) * 1.7 * np.exp(-((x / 5.0) ** 2))
    collar = ridge(height + 13.6, 0.4)
    grid[..., 1] -= dip
    grid[..., 2] += 0.30 * sample(folds, x, height * 0.6, 6.0) * smoothstep(-14.0, -18.0, height) + 0.22 * collar
    texture = _plain(len(y), len(azimuth), 5, (0.040, 0.085, 0.150), 0.05)
    i, j = np.indices(texture.shape[:2]).astype(np.float32)
    knit = np.sin(j * 1.1) * np.sin(i * 0.9 + np.sin(j * 0.55) * 1.2)
    tone = (
        1
        + 0.16 * knit
        + 0.16 * sample(octaves(rng, 512, 30.0), j, i, 1.0)
        + 0.10 * sample(noise_image(rng, 512, 0.8), j, i, 1.0)
    )
    ribs = upsample(smoothstep(-14.25, -14.15, height), 5)
    tone *= 1 - ribs * (0.25 - 0.2 * np.sin(j * 1.6))
    texture[..., :3] *= tone.clip(0.2)[..., None]
    return _grid_part("torso", grid, texture, 5)
