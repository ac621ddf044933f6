"""Landmarks in the head frame of cameras that are given: what another tool's tracking lacks for our training.

The field's tracker fits a morphable model, and keeps only its poses (specs/gaussian_head.md b.1, c). Where in its head
frame MediaPipe's 478 points lie is found from where they are seen: one size, turn and place of the face, then the
expressions, with the poses held. Notation as in `face_track`; the file's own unit is called u.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from data_utils.bundle_adjustment import FACE_WIDTH_M, fit_expressions, initial_track, key_frames, procrustes_mean
from data_utils.expressions import relearn_expressions
from data_utils.face_track import FaceTrack, rigid_weights
from data_utils.head_frame import fill_missing
from data_utils.skin_points import Lens, stillness
from data_utils.stage import Progress, no_progress
from gaussian_head.errors import UserError

SURE_OF_METRE = 1.6
"""A face this many times wider or narrower than usual is still a face: its tool's metre is kept."""
FARTHEST = 0.05
"""Expected distance of the face's middle from the origin of its frame, as a share of that to the camera."""
DEPTH_NOISE = 0.02
"""Expected error of a single frame's distance to the camera, relative."""
STRETCH = 0.2
"""Expected relative error of the detector's depth."""
PRIOR_PX = 20.0
"""What an unusual place or depth of the face costs, px at 512 px: little beside what turning heads show."""
MOST_TURNED_DEG = 40.0
"""A face that looks farther than this away from its frame's z axis is in another tool's axes."""
WORST_SHARE = 0.03
"""Landmarks that lie farther than this from where the cameras see the face (picture widths) are another video's."""


@dataclass(frozen=True)
class GivenCameras:
    """Another tool's poses: a head-frame point X is seen at R X + t, OpenGL axes."""

    focal_px: float
    rotations: Float[ndarray, "T 3 3"]
    translations: Float[ndarray, "T 3"]
    """In the file's own unit u."""
    known: Bool[ndarray, "T"]
    """Frames that have a pose; the others' rows mean nothing."""

    @classmethod
    def from_c2w(cls, focal_px: float, frames: list[int], c2w: Float[ndarray, "N 4 4"], count: int) -> GivenCameras:
        """Take cameras of some frames of a clip of `count` frames; the others get that of a neighbour."""
        known = np.zeros(count, bool)
        known[frames] = True
        order = np.argsort(frames)
        numbers = np.asarray(frames)[order]
        nearest = order[np.searchsorted(numbers, np.arange(count)).clip(max=len(numbers) - 1)]
        rotations = np.swapaxes(c2w[nearest, :3, :3], 1, 2)
        translations = -np.einsum("tij,tj->ti", rotations, c2w[nearest, :3, 3])
        return cls(focal_px, rotations, translations, known)


class Placed(NamedTuple):
    """A face in the cameras' head frame."""

    track: FaceTrack
    """Metres; the poses are those given."""
    metres_per_unit: float
    """What u is."""
    valid: Bool[ndarray, "T"]
    """Frames that have both a face and a pose."""
    error_px: float
    """Median distance of the points that expressions hardly move from where they were seen, before expressions."""


def place_face(
    landmarks: Float[ndarray, "T 478 3"], cameras: GivenCameras, size: tuple[int, int], progress: Progress = no_progress
) -> Placed:
    """Find the landmarks of every frame in the cameras' head frame.

    Args:
        landmarks: MediaPipe's points: x, y in px and relative z in px; NaN where no face was found.
        cameras: The poses, which stay as they are.
        size: Picture width and height in px.
        progress: Wraps the iterations.

    Raises:
        UserError: No frame has both a face and a pose; or the cameras do not see the face where it is, or their world
            is not the head's.
    """
    valid = np.isfinite(landmarks).all(axis=(1, 2)) & cameras.known
    if not valid.any():
        raise UserError("no frame has both a face and a camera; are the pictures and the transforms of one video?")
    landmarks = np.where(valid[:, None, None], landmarks, np.nan)
    keys = key_frames(valid).numpy()
    start = _start(landmarks[keys], cameras, keys, size)
    shape, unit, error_px = _refine(start, landmarks[keys, :, :2], cameras, keys, size)
    if error_px > WORST_SHARE * size[0]:
        raise UserError(
            f"the cameras see the face {error_px:.0f} px from where it is in the pictures (half of the points, of "
            f"{len(keys)} frames); are the pictures and the transforms of one video, and counted alike?"
        )
    track = FaceTrack(
        cameras.focal_px,
        torch.from_numpy(shape).float(),
        torch.zeros(0, len(shape), 3),
        torch.zeros(len(landmarks), 0),
        torch.from_numpy(cameras.rotations).float(),
        torch.from_numpy(unit * cameras.translations).float(),
    )
    observed = torch.from_numpy(fill_missing(landmarks)[..., :2]).float()
    center = observed.new_tensor(size) / 2
    track = relearn_expressions(track, observed, center, observed.new_zeros(len(shape)), torch.from_numpy(keys))
    return Placed(fit_expressions(track, landmarks, size, stillness(track), progress), unit, valid, error_px)


class _Start(NamedTuple):
    """A first guess: the face X0 (metres, FACE_WIDTH_M wide) stands in the head frame as scale * turn X0 + place."""

    face: Float[ndarray, "L 3"]
    scale: float
    turn: Float[ndarray, "3 3"]
    place: Float[ndarray, "3"]


def _start(landmarks: ndarray, cameras: GivenCameras, keys: ndarray, size: tuple[int, int]) -> _Start:
    """Compare the poses that the landmarks alone suggest with those given: linear least squares."""
    points = torch.from_numpy(landmarks * (1, -1, -1)).float()  # picture axes -> camera axes
    face = procrustes_mean(points, rigid_weights(points.dtype))
    own = initial_track(points, size, face, cameras.focal_px)
    R, t = cameras.rotations[keys], cameras.translations[keys]
    turn = Rotation.from_matrix(np.swapaxes(R, 1, 2) @ own.rotations.double().numpy()).mean().as_matrix()
    # scale * own.t = R place + t, with the place held near the origin, which a still head does not tell.
    distance = float(np.median(np.linalg.norm(t, axis=1)))
    rows = np.concatenate([own.translations.double().numpy()[..., None], -R], 2).reshape(-1, 4)
    near = np.eye(4)[1:] / (FARTHEST * distance)
    system = np.concatenate([rows / (DEPTH_NOISE * distance), near])
    wanted = np.concatenate([t.ravel() / (DEPTH_NOISE * distance), np.zeros(3)])
    scale, *place = np.linalg.lstsq(system, wanted, rcond=None)[0]
    if not scale > 0:
        raise UserError("the cameras look away from the face (OpenGL axes, camera to world, are expected); "
                        "process the video anew: python -m data_utils.process VIDEO")  # fmt: skip
    return _Start(face.double().numpy(), float(scale), turn, np.array(place))


def _refine(
    start: _Start, observed: Float[ndarray, "K L 2"], cameras: GivenCameras, keys: ndarray, size: tuple[int, int]
) -> tuple[Float[ndarray, "L 3"], float, float]:
    """Fit size, turn, place and depth of the face to what is seen; return it in metres, u in metres, and the error."""
    R, t = cameras.rotations[keys], cameras.translations[keys]
    distance, pixel = float(np.median(np.linalg.norm(t, axis=1))), size[0] / 512
    weights = np.sqrt(rigid_weights(torch.float64).numpy())
    lens = Lens(cameras.focal_px, size)

    def stand(unknown: Float[ndarray, "8"]) -> Float[ndarray, "L 3"]:
        log_scale, turn, place, stretch = unknown[0], unknown[1:4], unknown[4:7], unknown[7]
        turned = (start.face * (1, 1, np.exp(stretch))) @ (Rotation.from_rotvec(turn).as_matrix() @ start.turn).T
        return start.scale * np.exp(log_scale) * turned + start.place + distance * place

    def seen(shape: Float[ndarray, "L 3"]) -> Float[ndarray, "K L 2"]:
        camera = shape @ np.swapaxes(R, 1, 2) + t[:, None]
        return lens.project(camera.reshape(-1, 3))[0].reshape(observed.shape)

    def residuals(unknown: Float[ndarray, "8"]) -> Float[ndarray, "N"]:
        error = (seen(stand(unknown)) - observed) * weights[:, None] / pixel
        unusual = PRIOR_PX * np.append((start.place / distance + unknown[4:7]) / FARTHEST, unknown[7] / STRETCH)
        return np.append(error.ravel(), unusual)

    fitted = least_squares(residuals, np.zeros(8), loss="soft_l1", x_scale=0.01, max_nfev=60).x
    shape = stand(fitted)
    turn = Rotation.from_rotvec(fitted[1:4]) * Rotation.from_matrix(start.turn)
    turned_deg = float(np.degrees(turn.magnitude()))
    if turned_deg > MOST_TURNED_DEG:
        raise UserError(
            f"the transforms' world must have x right, y up, z out of the face, but the face is turned by "
            f"{turned_deg:.0f} degrees in it; process the video anew: python -m data_utils.process VIDEO"
        )
    steady = weights > weights.min()
    error_px = float(np.median(np.linalg.norm(seen(shape) - observed, axis=-1)[:, steady]))
    unit = metre_of(float(np.linalg.norm(shape[454] - shape[234])))
    return unit * shape, unit, error_px


def metre_of(face_width: float) -> float:
    """Return the metres of a unit in which a face is so wide: a power of ten if that makes a face of usual width."""
    relative = face_width / FACE_WIDTH_M
    power = 10.0 ** -round(np.log10(relative))
    return power if 1 / SURE_OF_METRE < relative * power < SURE_OF_METRE else 1 / relative
