"""Wav2Lip with its weights, ready to draw."""

from __future__ import annotations

from pathlib import Path

import torch

from gaussian_head.networks.wav2lip import load_wav2lip
from gaussian_head.oneshot.wav2lip.detectors import DetectorName, choose_detector
from gaussian_head.oneshot.wav2lip.lip_sync import LipPainter, LipSyncConfig


def load_painter(
    config: LipSyncConfig, weights: Path | None, detector: DetectorName, device: torch.device
) -> LipPainter:
    """Load the generator and a face detector.

    Args:
        config: How faces are found and put back.
        weights: The generator's; default: the public ones.
        detector: Which finds the faces; none is loaded for a fixed box.
        device: Where they run.

    Raises:
        UserError: Weights are missing (WeightsMissingError) or damaged, or mediapipe is needed and not installed.
    """
    network = load_wav2lip(weights).to(device)
    if config.box is not None:
        return LipPainter(network, lambda pictures: [], config)
    return LipPainter(network, choose_detector(detector, device, config.detector_px), config)
