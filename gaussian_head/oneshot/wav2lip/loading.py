"""Wav2Lip with its weights, ready to draw, for this package's command and for `gaussian_head.synthesize`."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float32
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.media.audio import load_audio
from gaussian_head.media.time_bases import SPEECH_HZ
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


def speech_for_lips(sound: Path | None) -> Float32[ndarray, "S"]:
    """Read what the lips shall say.

    Raises:
        FileNotFoundError: No such file.
        UserError: There is no sound, or it is unreadable.
    """
    if sound is None:
        raise UserError("lips are drawn to sound, and there is none; give a sound file with --audio.")
    return load_audio(sound, SPEECH_HZ)
