"""Any file of coefficients that one clip may come with, as one record."""

from __future__ import annotations

from pathlib import Path

from gaussian_head.errors import UserError
from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.media.coefficient_files import read_vico
from gaussian_head.media.mat import read_deep3d, read_mat, read_sadtalker

SUFFIXES = (".mat", ".bin")


def load_coefficients(path: Path) -> FaceCoefficients:
    """Read a clip's coefficients.

    Args:
        path: `.mat` as Deep3DFaceRecon and the ViCo challenge write it (`coeff`, `transform_params`) or as SadTalker
            does (`coeff_3dmm` of 70 or 73 numbers, perhaps `full_3dmm`); `.bin` as ViCo's features are kept.

    Raises:
        FileNotFoundError: No such file.
        UserError: It is none of these, damaged, or holds no frame.
    """
    if path.suffix == ".bin":
        face = FaceCoefficients.from_vico(*read_vico(path))
    elif path.suffix == ".mat":
        is_sadtalker = "coeff_3dmm" in read_mat(path)
        if is_sadtalker:
            face = FaceCoefficients.from_sadtalker(*read_sadtalker(path))
        else:
            face = FaceCoefficients.from_deep3d(*read_deep3d(path))
    else:
        raise UserError(f"coefficients are read from {' and '.join(SUFFIXES)} files, got {path}.")
    if not len(face):
        raise UserError(f"{path} holds no frame; extract it again: python -m data_utils.coefficients VIDEO")
    return face
