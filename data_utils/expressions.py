"""The expression space of one clip: principal components of how its landmarks move in the head frame.

Notation as in `face_track`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_utils.face_track import FaceTrack, align_shapes, rigid_weights

EXPRESSION_COMPONENTS = 40


def expression_basis(points: Float[Tensor, "T L 3"], track: FaceTrack, size: tuple[int, int]) -> Float[Tensor, "K L 3"]:
    """Learn orthonormal components (metres per unit) from what remains after each frame is aligned to the shape.

    Args:
        points: Landmarks with the detector's depth, camera axes, px.
        track: Its shape and focal length.
        size: Picture width and height in px.
    """
    residual = _unexplained(points, track, size)
    return _principal_components(residual * residual.new_tensor([1.0, 1.0, 0.5]))  # a single picture's depth is a guess


def project_on_basis(points: Float[Tensor, "T L 3"], track: FaceTrack, size: tuple[int, int]) -> Float[Tensor, "T K"]:
    """Return the coefficients of the track's basis that fit the points (arguments: `expression_basis`)."""
    return torch.einsum("tld,kld->tk", _unexplained(points, track, size), track.basis)


def relearn_expressions(
    track: FaceTrack,
    observed: Float[Tensor, "T L 2"],
    center: Float[Tensor, "2"],
    still: Float[Tensor, "L"],
    frames: Int[Tensor, " F"],
) -> FaceTrack:
    """Learn shape and expressions anew for poses that have changed, from what these poses make of the landmarks.

    Args:
        track: With the poses to keep; the depth of its points is kept too.
        observed: Landmarks, px.
        center: Principal point, px.
        still: 0 where landmarks may move .. 1 where they belong to the skull.
        frames: Those to learn from.
    """
    depth = (track.points() @ track.rotations.transpose(1, 2) + track.translations[:, None])[..., 2:]
    flip = observed.new_tensor([-1.0, 1.0])
    camera = torch.cat([(observed - center) * flip * depth / track.focal_px, depth], -1)
    points = (camera - track.translations[:, None]) @ track.rotations
    shape = points[frames].mean(0)
    residual = (points - shape) * (1 - still)[:, None]
    basis = _principal_components(residual[frames])
    return replace(track, shape=shape, basis=basis, coefficients=torch.einsum("tld,kld->tk", residual, basis))


def _unexplained(points: Float[Tensor, "T L 3"], track: FaceTrack, size: tuple[int, int]) -> Float[Tensor, "T L 3"]:
    """Return what remains, in the head frame, of points without perspective after aligning them to the shape."""
    points = _straightened(points, track, size)
    scale, rotation, offset = align_shapes(points, track.shape, rigid_weights(points.dtype))
    return ((points - offset[:, None]) @ rotation) / scale[:, None, None] - track.shape


def _straightened(points: Float[Tensor, "T L 3"], track: FaceTrack, size: tuple[int, int]) -> Float[Tensor, "T L 3"]:
    """Take perspective out of points (picture axes, px): else expressions would learn it, and stand in for poses."""
    scale, _, offset = align_shapes(points, track.shape, rigid_weights(points.dtype))
    depth_px = track.focal_px - (points[..., 2] - offset[:, 2:])  # px at the depth of the head's origin
    center = points.new_tensor([size[0] / 2, -size[1] / 2])
    xy = (points[..., :2] - center) * (depth_px / track.focal_px)[..., None]
    return torch.cat([xy, points[..., 2:]], -1)


def _principal_components(residual: Float[Tensor, "T L 3"]) -> Float[Tensor, "K L 3"]:
    flat = residual.flatten(1)
    components = min(EXPRESSION_COMPONENTS, len(flat) - 1)
    _, _, vh = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    return vh[:components].reshape(components, *residual.shape[1:])
