"""Which network finds the faces for Wav2Lip: the one it was trained with, or else MediaPipe's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray

from gaussian_head.networks.face_mesh import detect_face_boxes, import_mediapipe
from gaussian_head.networks.s3fd_face_alignment import load_face_alignment_s3fd
from gaussian_head.networks.weights import WeightsMissingError
from gaussian_head.oneshot.wav2lip.boxes import Detect

logger = logging.getLogger(__name__)

DetectorName = Literal["auto", "s3fd", "mediapipe"]
MEDIAPIPE_SIDE = 0.07
"""Share of their width by which MediaPipe's boxes are cut at either side: S3FD's are narrower and as high (measured
against the face mesh's outline)."""


def choose_detector(name: DetectorName, device: torch.device, longest_px: int) -> Detect:
    """Return what finds faces.

    Args:
        name: auto: S3FD where its weights are, else MediaPipe.
        device: Where S3FD runs.
        longest_px: Larger frames are shrunk to this for the search; 0: they are not.

    Raises:
        UserError: S3FD's weights are missing (WeightsMissingError) or damaged, or mediapipe is not installed.
    """
    if name in ("auto", "s3fd"):
        try:
            network = load_face_alignment_s3fd().to(device)
            return _shrinking(lambda pictures: network.find(np.stack(pictures)), longest_px)
        except WeightsMissingError:
            if name == "s3fd":
                raise
    import_mediapipe()
    logger.info("faces are found by MediaPipe.")
    return _shrinking(_find_by_mediapipe, longest_px)


def _find_by_mediapipe(pictures: list[UInt8[ndarray, "H W 3"]]) -> list[Float[ndarray, "N 4"]]:
    found = []
    for boxes in detect_face_boxes(pictures):
        cut = MEDIAPIPE_SIDE * (boxes[:, 2] - boxes[:, 0])
        found.append(np.stack([boxes[:, 0] + cut, boxes[:, 1], boxes[:, 2] - cut, boxes[:, 3]], 1))
    return found


def _shrinking(find: Callable[[list[ndarray]], list[ndarray]], longest_px: int) -> Detect:
    def detect(pictures: list[UInt8[ndarray, "H W 3"]]) -> list[Float[ndarray, "N 4"]]:
        height, width = pictures[0].shape[:2]
        scale = min(1.0, longest_px / max(height, width)) if longest_px else 1.0
        if scale < 1:
            size = max(1, round(scale * width)), max(1, round(scale * height))
            pictures = [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures]
        return [boxes / scale for boxes in find(pictures)]

    return detect
