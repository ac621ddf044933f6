"""A Gaussian head moved by face coefficients: what audio2coeff predicts, or what was measured of anybody.

Two ways lead from 64 expression coefficients to a subject's landmarks. With a face model (`networks.bfm`), its 68 key
points move relative to their rest, and of the faces that the subject was seen to make the one is taken whose points
move alike. Without one, a linear regression learned from the subject's own footage and its coefficients does.

Notation: T frames of the drive, N of the footage, K components of the subject's faces (`SeenFaces`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation
from torch import Tensor

from gaussian_head.data.coefficient_files import SUFFIXES, load_coefficients
from gaussian_head.data.layout import VIDEO_FPS, SubjectLayout
from gaussian_head.driving.borrowed import at_video_rate, video_beside
from gaussian_head.driving.ridge import choose_penalty, solve
from gaussian_head.driving.seen_faces import SeenFaces
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.errors import UserError
from gaussian_head.geometry.cameras import GL_TO_CV
from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.geometry.face_model import DEEP3D_DISTANCE, DEEP3D_FOCAL_PX, FaceModel, matrix_from_angles
from gaussian_head.geometry.landmarks import JAW_68, LIPS_68, MESH_TO_68, mouth_aperture
from gaussian_head.media.video import probe_video
from gaussian_head.model.landmark_space import with_mouth
from gaussian_head.networks.bfm import load_face_model
from gaussian_head.networks.weights import WeightsMissingError

logger = logging.getLogger(__name__)

Expressions = Float[ndarray, "T 64"]
Mapping = Callable[[Float[ndarray, "T 64"]], Float[Tensor, "T K"]]
"""From expression coefficients to components of the subject's faces."""
DECIMETRES_PER_METRE = 10.0
CLOSED_QUANTILE = 0.05
"""Of the subject's mouth openings: closed lips, the face model's rest."""
POINT_ERROR_M = 0.001
"""How far off, in this measure, a key point of one face may be that moves as another's."""
LIPS_WEIGHT, JAW_WEIGHT = 2.0, 0.5
"""Lips are looked at; the model's outline and the mesh's are not the same points of the skin."""
LEAST_CORRELATION = 0.5
"""Coefficients that tell less of the mouth in frames that were held out are another clip's, or of no use."""
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 0.1)
"""Candidates of the regression. Coefficients of no great spread tell of the mouth, too: stronger ones lose them, and
the mouth of somebody else's coefficients then hardly opens."""
UNIT_PENALTY = 0.1


def is_coefficients(path: Path) -> bool:
    """Tell whether a driver is a file of coefficients."""
    return path.suffix in SUFFIXES


def load_coefficient_driver(
    path: Path, footage: DrivingSequence, layout: SubjectLayout, fps: float | int | None = None
) -> DrivingSequence:
    """Turn a file of coefficients into a subject's motion at 25 fps.

    Args:
        path: See `data.coefficient_files`.
        footage: The subject's training frames.
        layout: The subject's folder, in which its own coefficients are looked for.
        fps: Of the coefficients; None: that of the video beside them, or else 25.

    Returns:
        Landmarks and action units of the subject; poses of the coefficients (`poses_of`), which are the driver's.

    Raises:
        FileNotFoundError: No such file.
        UserError: It holds no coefficients; or there is neither a face model nor are there the subject's own ones.
    """
    face = load_coefficients(path)
    if fps is None:
        beside = video_beside(path)
        fps = VIDEO_FPS if beside is None else probe_video(beside).fps
    seen = SeenFaces(footage)
    codes = seen.limited(choose_mapping(face, footage, seen, layout)(face.expression.astype(np.float64)))
    motion = DrivingSequence(
        viewmats=poses_of(face),
        K=footage.K,
        landmarks=seen.decode(codes),
        action_units=_units_of(footage, seen, codes),
        hair=torch.zeros(len(face), 0, 3),
        frame_index=torch.zeros(len(face), dtype=torch.long),
        width=footage.width,
        height=footage.height,
        fps=fps,
    )
    return at_video_rate(motion)


def choose_mapping(face: FaceCoefficients, footage: DrivingSequence, seen: SeenFaces, layout: SubjectLayout) -> Mapping:
    """Return the face model's way, or else the subject's own regression.

    Raises:
        UserError: There is neither, or what there is is damaged.
    """
    try:
        model = load_face_model()
    except WeightsMissingError as missing:
        own = layout.coefficients
        if not own.is_file():
            raise UserError(
                f"coefficients move this head by a face model or by the subject's own coefficients, and there is "
                f"neither: write {own} by: python -m data_utils.coefficients {layout.root} -- or: {missing}"
            ) from missing
        return map_by_footage(load_coefficients(own), own, footage, seen)
    return map_by_model(model, face, footage, seen)


def map_by_model(model: FaceModel, face: FaceCoefficients, footage: DrivingSequence, seen: SeenFaces) -> Mapping:
    """Let the subject's key points move as the model's do, away from a face at rest with closed lips.

    The most probable face of those that the footage shows (principal components, normally distributed), given where
    the 68 points shall be and POINT_ERROR_M.

    Args:
        model: Of any number of columns: coefficients it has no column for are not used.
        face: Its identity, in the first frame, is the rest that movements are relative to.
        footage: The subject's training frames.
        seen: The faces they show.
    """
    points = model.landmarks_only()
    identities, expressions = points.identity_basis.shape[2], points.expression_basis.shape[2]
    identity = torch.from_numpy(face.identity[:1, :identities]).float()
    neutral = points.shape(identity, torch.zeros(1, 1))[0].numpy()
    aperture = mouth_aperture(footage.landmarks.numpy())
    rest = with_mouth(footage.landmarks, float(np.quantile(aperture, CLOSED_QUANTILE)))
    turn, scale = _similarity(neutral, rest[MESH_TO_68].double().numpy())
    weights = np.ones(len(MESH_TO_68))
    weights[LIPS_68], weights[JAW_68] = LIPS_WEIGHT, JAW_WEIGHT
    weights = np.repeat(weights / POINT_ERROR_M, 3)
    # |W (A c - d)|^2 + |c / spread|^2, with rows of A the movements of the key points
    A = seen.directions[:, MESH_TO_68].flatten(1).double().numpy().T * weights[:, None]
    prior = np.diag(seen.spread.double().numpy() ** -2)
    solution = np.linalg.solve(A.T @ A + prior, A.T * weights)  # [K, 204]
    start = seen.encode(rest[None])

    def mapped(expression: Expressions) -> Float[Tensor, "T K"]:
        used = torch.from_numpy(expression[:, :expressions]).float()
        moved = (points.shape(identity, used) - points.shape(identity, used[:1] * 0)).double().numpy()
        wanted = scale * moved @ turn.T
        return start + torch.from_numpy(wanted.reshape(len(wanted), -1) @ solution.T).float()

    return mapped


def map_by_footage(own: FaceCoefficients, path: Path, footage: DrivingSequence, seen: SeenFaces) -> Mapping:
    """Learn the subject's faces from the coefficients of the same frames (ridge regression).

    The penalty is chosen by the correlation of the mouth's opening in held-out blocks of the footage, which is told.

    Args:
        own: Of every frame of the subject folder.
        path: Their file, for messages.
        footage: The subject's training frames.
        seen: The faces they show.

    Raises:
        UserError: There are coefficients of another number of frames, or they tell nothing of the mouth.
    """
    frames = footage.frame_index.numpy()
    if len(own) <= frames.max():
        raise UserError(
            f"{path} holds coefficients of {len(own)} frames, the footage has {frames.max() + 1} or more; write it "
            "from the subject folder: python -m data_utils.coefficients SUBJECT"
        )
    expression = own.expression[frames].astype(np.float64)
    mean = expression.mean(0)
    size = max(float(np.sqrt(np.square(expression - mean).mean())), 1e-9)

    def inputs(rows: Expressions) -> Float[ndarray, "T 65"]:
        return np.column_stack([(rows - mean) / size, np.ones(len(rows))])

    codes = seen.encode(footage.landmarks).double().numpy()
    opening = mouth_aperture(footage.landmarks.numpy())

    def correlation(predicted: Float[ndarray, "N K"]) -> float:
        found = mouth_aperture(seen.decode(torch.from_numpy(predicted).float()).numpy())
        return float(np.corrcoef(found, opening)[0, 1]) if found.std() > 0 and opening.std() > 0 else 0.0

    x, even = inputs(expression), np.full(len(frames), 1 / len(frames))
    penalty, held_out = choose_penalty(x, codes, even, len(frames), correlation, PENALTIES)
    if (found := correlation(held_out)) < LEAST_CORRELATION:
        raise UserError(
            f"{path} does not tell how far this subject's mouth is open (correlation {found:.2f} over frames held out, "
            f"needs {LEAST_CORRELATION}); write it from the subject folder: python -m data_utils.coefficients SUBJECT"
        )
    logger.info("coefficients move the mouth as in the footage: correlation %.3f over frames held out.", found)
    weights = solve(x, codes, even, penalty)
    return lambda rows: torch.from_numpy(inputs(rows) @ weights).float()


def poses_of(face: FaceCoefficients) -> Float[Tensor, "T 4 4"]:
    """Return where the head of each frame is: world (head frame, metres) to camera, OpenCV axes.

    With the crop, the place is that in the whole picture, seen by the one camera whose focal length is the usual one
    of the crops' (specs/one_shot.md 0 and 1.3); without, that in the aligned picture.
    """
    place = face.translation.astype(np.float64) - (0, 0, DEEP3D_DISTANCE)
    if face.crop is not None:
        scale, corner = face.crop[:, :1].astype(np.float64), face.crop[:, 1:].astype(np.float64)
        usual = np.median(scale)
        depth = place[:, 2:] * scale / usual  # a face that was enlarged more is farther away
        seen_px = corner - np.median(corner, 0) + DEEP3D_FOCAL_PX / scale * place[:, :2] / -place[:, 2:]
        place = np.concatenate([seen_px * -depth * usual / DEEP3D_FOCAL_PX, depth], 1)
    viewmats = np.tile(np.eye(4), (len(face), 1, 1))
    viewmats[:, :3, :3] = matrix_from_angles(torch.from_numpy(face.angles.astype(np.float64))).numpy()
    viewmats[:, :3, 3] = place / DECIMETRES_PER_METRE
    return torch.from_numpy(GL_TO_CV @ viewmats).float()


def _units_of(footage: DrivingSequence, seen: SeenFaces, codes: Float[Tensor, "T K"]) -> Float[Tensor, "T 6"]:
    """Return the action units that go with a face in the footage (ridge regression), within what it shows."""

    def inputs(rows: Float[Tensor, "N K"]) -> Float[ndarray, "N 65"]:
        return np.column_stack([(rows / seen.spread).double().numpy(), np.ones(len(rows))])

    own = footage.action_units
    even = np.full(len(own), 1 / len(own))
    weights = solve(inputs(seen.encode(footage.landmarks)), own.double().numpy(), even, UNIT_PENALTY)
    found = torch.from_numpy(inputs(codes) @ weights).to(own)
    return torch.minimum(torch.maximum(found, own.amin(0)), own.amax(0))


def _similarity(points: Float[ndarray, "N 3"], wanted: Float[ndarray, "N 3"]) -> tuple[Float[ndarray, "3 3"], float]:
    """Return the turn and the scale that bring points nearest to others, after a shift."""
    points, wanted = points - points.mean(0), wanted - wanted.mean(0)
    turn = Rotation.align_vectors(wanted, points)[0].as_matrix()
    return turn, float((wanted * (points @ turn.T)).sum() / np.square(points).sum())
