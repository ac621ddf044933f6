"""Index tables of the face: MediaPipe's 478-point mesh, the classic 68 points, and action units.

"Left" and "right" are the subject's own; the subject's right eye is on the left of the picture.
Loops are closed polygons in order.
"""

from __future__ import annotations

import numpy as np

MESH_POINTS = 478
"""Points of the mesh with irises; 0-467 are skin, 468-477 the irises."""

MESH_TO_68 = np.array([
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,  # jaw 0-16
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301,                                      # brows 17-26
    168, 197, 5, 4, 75, 97, 2, 326, 305,                                                # nose 27-35
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,                          # eyes 36-47
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,                                # outer lips 48-59
    78, 82, 13, 312, 308, 317, 14, 87,                                                  # inner lips 60-67
])  # fmt: skip
"""The mesh point that stands for each of the 68 points (material points: none slides along a contour)."""

JAW_68 = slice(0, 17)
NOSE_BASE_68 = slice(31, 36)
OUTER_LIPS_68 = slice(48, 60)
INNER_LIPS_68 = slice(60, 68)
LIPS_68 = slice(48, 68)
SPEECH_68 = np.r_[4:13, 48:68]
"""Lips and jaw: the 29 points that speech moves (specs/gaussian_head.md i.4)."""

FACE_OVAL = np.array([
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150,
    136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
])  # fmt: skip
JAW_LINE = np.array([
    454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234,
])  # fmt: skip
"""The lower part of the oval from the subject's left ear over the chin to the right ear."""
OUTER_LIPS = np.array([61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185])
INNER_LIPS = np.array([78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191])
RIGHT_EYE = np.array([33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246])
LEFT_EYE = np.array([263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466])
RIGHT_BROW = np.array([70, 63, 105, 66, 107, 55, 65, 52, 53, 46])
LEFT_BROW = np.array([300, 293, 334, 296, 336, 285, 295, 282, 283, 276])
RIGHT_IRIS = np.arange(468, 473)
LEFT_IRIS = np.arange(473, 478)
RIGID = np.array([
    10, 109, 338, 67, 297, 103, 332, 54, 284, 151, 9, 8, 168, 6, 197, 195, 5, 4, 127, 356, 162, 389, 21, 251, 234, 454,
    122, 351, 193, 417, 33, 263, 133, 362, 116, 345, 123, 352,
])  # fmt: skip
"""Forehead, temples, nose bridge and eye corners: points that expressions hardly move."""

UPPER_INNER_LIP = np.array([82, 13, 312])
LOWER_INNER_LIP = np.array([87, 14, 317])
MOUTH_CORNERS = np.array([78, 308])
OUTER_EYE_CORNERS = (33, 263)
FOREHEAD_TOP, CHIN = 10, 152

OPENFACE_ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
"""Action units with an intensity column `AUxx_r` (0..5) in OpenFace's CSV, in its order."""
EXPRESSION_ACTION_UNITS = (1, 4, 5, 6, 7, 45)
"""Those that condition the motion fields (specs/gaussian_head.md a.2)."""


def mouth_aperture(landmarks: np.ndarray) -> np.ndarray | np.floating:
    """Measure the opening between the inner lips.

    Args:
        landmarks: [..., 478, D], any unit.

    Returns:
        [...] mean distance of the three central inner-lip pairs, in the input's unit.
    """
    gap = landmarks[..., UPPER_INNER_LIP, :] - landmarks[..., LOWER_INNER_LIP, :]
    return np.linalg.norm(gap, axis=-1).mean(-1)


def face_height(landmarks: np.ndarray) -> np.ndarray | np.floating:
    """Measure from the top of the forehead to the chin.

    Args:
        landmarks: [..., 478, D], any unit.

    Returns:
        [...] distance in the input's unit.
    """
    return np.linalg.norm(landmarks[..., FOREHEAD_TOP, :] - landmarks[..., CHIN, :], axis=-1)
