"""Where the torso's Gaussians start: back-projected from the torso's pictures, and up under the chin."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt

from gaussian_head.data.subject import Subject
from gaussian_head.geometry.cameras import project
from gaussian_head.geometry.landmarks import CHIN, FOREHEAD_TOP, face_height
from gaussian_head.media.image import fill_polygon, grow, read_rgba
from gaussian_head.model.gaussians import Gaussians
from gaussian_head.model.torso import Torso, TorsoModelConfig
from gaussian_head.render.backdrop import resize_premultiplied

VIEWS = 24
"""Frames, evenly spaced, that say where the torso is and what it looks like."""
JAW_CORNERS = (172, 397)
BEHIND_JAW_M = 0.015
"""The neck's front is this far behind the jaw's corners."""
NECK_ROUNDNESS_M, NECK_HALF_WIDTH_M = 0.1, 0.06
"""Radius in which the sheet curves back from the neck's middle, and how far to its sides it does."""
NECK_BELOW_CHIN, NECK_BLEND = 0.2, 0.07
"""Where the neck follows the head by half, below the chin, and over which height this fades, in face heights."""
HULL = ((0.15, 0.30), (-0.10, 0.30), (-0.40, 0.22))
"""Outline of the neck that the head hides: below the chin, and half width, in face heights."""
HIDDEN_SHARE = 0.9
"""Pixels that the head covers in this share of the frames are hidden."""
MARGIN = 0.04
"""The torso goes on beyond the picture's sides and lower edge by this share of its width: it may sway into it."""
FILL_BLUR = 0.01
"""Blur of the colours continued into what no frame shows, in picture widths."""


class TorsoMap(NamedTuple):
    """The torso as it usually is, on the subject's pixels."""

    color: Float[np.ndarray, "H W 3"]
    """RGB in [0, 1], continued to the whole picture."""
    alpha: Float[np.ndarray, "H W"]
    """Coverage, of the hidden neck too."""
    hidden_neck: Bool[np.ndarray, "H W"]
    """Where the neck goes on under the head; must be opaque."""


def map_torso(subject: Subject) -> TorsoMap:
    """Average the torso's pictures over the training frames, and continue the neck under the head.

    Without any torso in the pictures the coverage is 0 everywhere.
    """
    height, width = subject.height, subject.width
    frames = [subject.train[i] for i in np.linspace(0, len(subject.train) - 1, VIEWS).round().astype(int)]
    total, seen, covered = np.zeros((height, width, 4), np.float32), np.zeros((height, width)), 0.0
    for k in frames:
        total += resize_premultiplied(read_rgba(subject.layout.torso_image(k)), width, height)
        frame = subject.frame(k)
        head, matte = frame.head[0].cpu().numpy(), frame.matte[0].cpu().numpy()
        near = grow(np.uint8(head > 0.1), max(1, width // 128)) > 0
        seen += (matte > 127) & ~near
        covered = covered + (head > 0.5)
    chin, up, size = _face_axes(subject)
    below = (np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1) + 0.5 - chin) @ -up > 0
    hull = _hull(chin, up, size, width, height) & (covered >= HIDDEN_SHARE * len(frames)) & bool(total.any())
    alpha = total[..., 3] / len(frames)
    # What a picture of the torso continues above the chin, where no frame shows it, is cut to the neck's hull.
    alpha = np.where((seen > 0) | (below & (alpha > 0.5)), alpha, 0.0)
    color = _continued(total, np.maximum(FILL_BLUR * width, 0.5))
    return TorsoMap(color, np.where(hull, 1.0, alpha).astype(np.float32), hull)


def create_torso(subject: Subject, shown: TorsoMap, config: TorsoModelConfig, seed: int) -> Torso:
    """Make a torso that looks like the mean of the torso's pictures in the most usual pose.

    Args:
        subject: The person.
        shown: Its torso, which must cover something.
        config: Its `gaussians` is about how many; the torso has its own exact number.
        seed: Of the networks' weights.
    """
    torch.manual_seed(seed)
    usual = usual_frame(subject)
    points, colors, alpha = sample_torso(subject, shown, usual, config.gaussians)
    gaussians = Gaussians.from_points(
        torch.from_numpy(points).float(), torch.from_numpy(colors).float(), sh_degree=0, opacity=0.9
    )
    with torch.no_grad():
        gaussians.opacity_logits.copy_(torch.from_numpy(alpha).float().clamp(0.1, 0.9).logit())
    own = TorsoModelConfig(len(points), config.hidden, config.resolutions, config.bound_m)
    torso = Torso(own, gaussians)
    face = subject.landmarks[usual].numpy()
    size = float(face_height(face))
    viewmats = subject.viewmats[subject.train]
    middle = float(face[CHIN, 1]) - NECK_BELOW_CHIN * size
    torso.fit_poses(viewmats, subject.viewmats[usual], (middle, NECK_BLEND * size))
    return torso


def usual_frame(subject: Subject) -> int:
    """Return the training frame whose pose is nearest to the mean."""
    poses = subject.viewmats[subject.train].flatten(1)
    return subject.train[int((poses - poses.mean(0)).square().sum(1).argmin())]


def sample_torso(
    subject: Subject, shown: TorsoMap, usual: int, count: int
) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"], Float[np.ndarray, " N"]]:
    """Lay a grid of about `count` points over the map and cast it onto a sheet at the neck's depth.

    Returns:
        Points (metres, torso frame), colours in [0, 1], coverage.
    """
    margin = round(MARGIN * subject.width)
    sides = ((0, margin), (margin, margin))
    alpha = np.pad(shown.alpha, sides, mode="edge")
    color = np.pad(shown.color, (*sides, (0, 0)), mode="edge")
    stride = max(np.sqrt((alpha > 0.3).sum() / count), 1.0)
    if stride > 1.5:
        color, alpha = (cv2.blur(picture, (round(stride),) * 2) for picture in (color, alpha))
    rows, columns = np.mgrid[0 : alpha.shape[0] : stride, 0 : alpha.shape[1] : stride] + stride / 2
    columns += stride / 2 * (np.arange(len(columns)) % 2)[:, None]  # every other row between the points of the last
    rows, columns = rows.ravel(), columns.ravel()
    inside = (rows < alpha.shape[0]) & (columns < alpha.shape[1])
    rows, columns = rows[inside], columns[inside]
    at = rows.astype(int), columns.astype(int)
    kept = alpha[at] > 0.3
    pixels = np.stack([columns[kept] - margin, rows[kept]], 1)
    return _cast(subject, usual, pixels), color[at][kept], alpha[at][kept]


def _cast(subject: Subject, usual: int, pixels: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 3"]:
    """Follow the rays of pixels to the sheet: at the neck's depth, bent back to its sides."""
    c2w = np.linalg.inv(subject.viewmats[usual].double().numpy())
    homogeneous = np.concatenate([pixels, np.ones((len(pixels), 1))], 1)
    ray = homogeneous @ np.linalg.inv(subject.K.double().numpy()).T @ c2w[:3, :3].T
    face = subject.landmarks[usual].double().numpy()
    front = face[list(JAW_CORNERS), 2].mean() - BEHIND_JAW_M
    depth = np.full(len(pixels), front)
    for _ in range(3):  # the depth changes the place across only a little
        points = c2w[:3, 3] + ray * ((depth - c2w[2, 3]) / ray[:, 2])[:, None]
        aside = np.abs(points[:, 0] - face[CHIN, 0]).clip(0, NECK_HALF_WIDTH_M)
        depth = front - aside**2 / (2 * NECK_ROUNDNESS_M)
    return points


def _face_axes(subject: Subject) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"], float]:
    """Return the chin (px), the direction from it to the forehead, and the face's height (px), in the usual frame."""
    k = usual_frame(subject)
    ends = subject.landmarks[k].numpy()[[CHIN, FOREHEAD_TOP]]
    chin, forehead = project(ends, subject.viewmats[k].numpy(), subject.K.numpy())[0]
    size = float(np.linalg.norm(forehead - chin))
    return chin, (forehead - chin) / size, size


def _hull(
    chin: Float[np.ndarray, "2"], up: Float[np.ndarray, "2"], size: float, width: int, height: int
) -> Bool[np.ndarray, "H W"]:
    right = np.array([-up[1], up[0]])
    sides = [[chin - size * (below * up + side * half * right) for below, half in HULL] for side in (-1, 1)]
    return fill_polygon(np.array(sides[0] + sides[1][::-1]), width, height)


def _continued(total: Float[np.ndarray, "H W 4"], blur_px: float) -> Float[np.ndarray, "H W 3"]:
    """Return mean colours; where no picture shows any, those of the nearest that does, blurred."""
    known = total[..., 3] > 0.3 * VIEWS
    if not known.any():
        known = total[..., 3] >= total[..., 3].max()  # shown by a few frames, or by none
    color = total[..., :3] / np.maximum(total[..., 3:], 1e-4)
    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    filled = color[tuple(nearest)]
    return np.where(known[..., None], color, cv2.GaussianBlur(filled, (0, 0), float(blur_px))).clip(0, 1)
