"""Stage `teeth` with EasyPortrait's network: `teeth_mask/<k>.npy` (specs/gaussian_head.md b.10)."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from data_utils.head_frame import polygon_mask
from data_utils.published import weights_facts
from data_utils.stage import Progress, no_progress
from data_utils.teeth import write_teeth
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.geometry.landmarks import OUTER_LIPS
from gaussian_head.media.image import read_rgb
from gaussian_head.networks.easyportrait_fpn import FaceLabeller, load_face_labeller


def label_teeth(layout: SubjectLayout, progress: Progress = no_progress) -> dict[str, Any]:
    """Write `teeth_mask/<k>.npy` of every frame; nothing is marked outside the lips or where no face was found.

    Args:
        layout: Subject folder with frames and mesh landmarks.
        progress: Wraps the loop over frames.

    Returns:
        Facts for the manifest: the network, its weights, the share of frames that show teeth.

    Raises:
        UserError: The weights are missing, damaged, or another network's.
    """
    return _label(layout, load_face_labeller(), "easyportrait", progress)


def label_teeth_by_mmseg(layout: SubjectLayout, progress: Progress = no_progress) -> dict[str, Any]:
    """Write the same with the network that mmsegmentation builds.

    Raises:
        UserError: As above, or mmsegmentation or its mmcv is not installed.
    """
    from gaussian_head.networks.easyportrait_mmseg import MmsegFpn

    return _label(layout, load_face_labeller(build=MmsegFpn), "easyportrait-mmseg", progress)


def _label(layout: SubjectLayout, labeller: FaceLabeller, name: str, progress: Progress) -> dict[str, Any]:
    landmarks = np.load(layout.mesh_landmarks)
    shown = 0
    for k in progress(range(len(landmarks)), len(landmarks), "teeth"):
        teeth = mark_teeth(read_rgb(layout.frame(k)), landmarks[k], labeller)
        shown += bool(teeth.any())
        write_teeth(layout, k, teeth)
    facts = {"frames": len(landmarks), "frames_with_teeth": shown, "side_px": labeller.side}
    return {"teeth": name, **facts, **weights_facts("easyportrait")}


def mark_teeth(
    frame: UInt8[ndarray, "H W 3"], landmarks: Float[ndarray, "478 D"], labeller: FaceLabeller
) -> Bool[ndarray, "H W"]:
    """Mark the teeth of one frame.

    Args:
        frame: RGB, 0..255.
        landmarks: Mesh in the frame's px; NaN where no face was found.
        labeller: The network.

    Returns:
        True on teeth, always inside the outline of the lips: what shines elsewhere is no tooth of this face.
    """
    if not np.isfinite(landmarks).all():
        return np.zeros(frame.shape[:2], bool)
    lips = polygon_mask(landmarks[OUTER_LIPS, :2], *frame.shape[:2])
    return lips & (labeller.label(frame) == labeller.classes.index("teeth"))
