"""Face model coefficients of crops: of a portrait's (the first frame) and of every frame of a reference video.

Deep3DFaceRecon's regressor and alignment (specs/one_shot.md 1.3, 1.4), on the crop that the renderer sees.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.geometry.face_alignment import align_picture, cut_aligned, fill_gaps
from gaussian_head.geometry.landmarks import MESH_TO_68
from gaussian_head.networks.coefficient_regressor import CoefficientRegressor, load_coefficient_regressor, regress
from gaussian_head.networks.face_mesh import FaceMeshDetector
from gaussian_head.networks.weights import WeightsMissingError

Crop = UInt8[ndarray, "S S 3"]

logger = logging.getLogger(__name__)


def find_regressor() -> CoefficientRegressor | None:
    """Load the regressor; None where its weights (`deep3d`) are not present.

    Raises:
        UserError: They are damaged, or another network's.
    """
    try:
        return load_coefficient_regressor()
    except WeightsMissingError:
        return None


def coefficients_of(network: CoefficientRegressor, crop: Crop, landmarks: Float[ndarray, "68 2"]) -> FaceCoefficients:
    """Regress one picture's coefficients.

    Args:
        network: Ready to use.
        crop: RGB, 0..255.
        landmarks: In px of the crop, pixel centres at + 0.5.

    Returns:
        Of one frame, with its crop.
    """
    transform = align_picture(landmarks, crop)
    return FaceCoefficients.from_deep3d(regress(network, [cut_aligned(crop, transform)]), transform[None])


def coefficients_of_frames(
    network: CoefficientRegressor, crops: Callable[[], Iterable[Crop]], batch: int = 16
) -> FaceCoefficients:
    """Regress every frame's coefficients; where no face is found, the frame is cut as the nearest one with a face.

    Args:
        network: Ready to use.
        crops: Starts anew at each call: they are gone through twice and never held all at once.
        batch: Frames shown to the network at a time.

    Returns:
        A row for each frame, with its crop.

    Raises:
        UserError: No frame shows a face, or mediapipe is not installed.
    """
    transforms = []
    with FaceMeshDetector() as detector:
        for crop in crops():
            mesh = detector.detect(crop)
            transforms.append(None if mesh is None else align_picture(mesh[MESH_TO_68, :2], crop))
    missing = sum(transform is None for transform in transforms)
    if missing == len(transforms):
        raise UserError(f"no face found in any of the {len(transforms)} frames; give a video of a face, lit and large.")
    if missing:
        logger.warning("%d of %d frames show no face; they are cut as their neighbours.", missing, len(transforms))
    filled = fill_gaps(transforms)
    faces = (cut_aligned(crop, transform) for crop, transform in zip(crops(), filled, strict=True))
    return FaceCoefficients.from_deep3d(regress(network, faces, batch), np.asarray(filled))
