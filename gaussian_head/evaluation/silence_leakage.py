"""Does the mouth rest when nothing is said? Ours; no paper's definition."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import binary_erosion, binary_opening

from gaussian_head.errors import UserError
from gaussian_head.evaluation.metric import ClipFacts, Entry, Figure, Metric, Pair, Unavailable
from gaussian_head.geometry.landmarks import face_height, mouth_aperture
from gaussian_head.media.audio import load_audio

RATE_HZ = 16_000
SILENCE_DB = -40.0
"""Level of silence, relative to LOUD_PERCENTILE of the clip's frames."""
LOUD_PERCENTILE = 95
MIN_SILENCE = 5
"""Least length of a silence, frames."""
SETTLING, OPENING = 5, 3
"""Frames at the beginning of a silence in which a mouth still closes, and at its end in which it opens already."""


class SilenceLeakage(Metric):
    """The mouth's opening, in shares of the face's height, over the frames without sound.

    Its standard deviation, and its variance relative to that over the frames with sound: the share of the motion
    that silence keeps. Lower is better, but a mouth that never moves has no deviation: read it beside the mouth's
    correlation. The sound is the picture's, else the truth's. Frames without a face are left out and counted; frames
    behind the end of the sound are neither.
    """

    entries: ClassVar = (
        Entry(
            "silence_leakage", "silence leakage", "", "lower", frozenset({"audio", "landmarks"}),
            "ours: standard deviation of the inner lips' distance over the face's height (forehead to chin) in frames "
            f"{-SILENCE_DB:.0f} dB below the clip's {LOUD_PERCENTILE}th percentile of level, {MIN_SILENCE} or more "
            "running", "{:.4f}",
        ),
        Entry(
            "silence_motion", "motion in silence", "", "lower", frozenset({"audio", "landmarks"}),
            "ours: variance of the same opening within these silences, without their first "
            f"{SETTLING} frames (the mouth closes) and their last {OPENING} (it opens), over that in all frames "
            "that are not silent", "{:.1%}",
        ),
    )  # fmt: skip

    def __init__(self, clip: ClipFacts) -> None:
        """Find the silences.

        Raises:
            Unavailable: There is no sound, or nothing but silence.
            FileNotFoundError: The file named for the sound is missing.
        """
        super().__init__(clip)
        sound = clip.picture.sound or clip.truth.sound
        if sound is None:
            raise Unavailable("needs sound")
        try:
            speech = load_audio(sound, RATE_HZ)
        except UserError as error:
            raise Unavailable(f"needs sound: {error}") from error
        levels = frame_levels(speech, RATE_HZ, clip.fps)
        if not levels.any():
            raise Unavailable(f"{sound} is silent throughout: there is no level to compare silence with")
        self._silent = find_silence(levels)
        self._openings: list[float] = []
        """Of the frames that the sound covers; NaN without a face."""

    def update(self, pair: Pair) -> None:
        """Note the opening."""
        if pair.index < len(self._silent):
            mesh = pair.picture.mesh
            self._openings.append(float("nan") if mesh is None else float(face_relative_opening(mesh)))

    def finish(self) -> list[Figure]:
        """Return the standard deviation in silence, and the share of the motion."""
        openings, silent = np.array(self._openings), self._silent[: len(self._openings)]
        seen = np.isfinite(openings)
        quiet, spoken = openings[silent & seen], openings[~silent & seen]
        settled = openings[settled_frames(silent) & seen]
        without, without_any = int((silent & ~seen).sum()), int((~seen).sum())
        deviation = float(quiet.std()) if len(quiet) >= MIN_SILENCE else None
        told = "no face found" if without else ""
        if deviation is None:
            told = told or f"the sound is nowhere silent for {MIN_SILENCE} frames"
        share, reason = None, "no face found" if without_any else ""
        if len(settled) < MIN_SILENCE:
            reason = reason or f"no {MIN_SILENCE} frames in the midst of silences"
        elif len(spoken) < MIN_SILENCE or not spoken.std() > 0:
            reason = reason or "the mouth is still while the sound speaks"
        else:
            share = float(settled.var() / spoken.var())
        return [
            Figure("silence_leakage", "full", deviation, len(quiet), without, told),
            Figure("silence_motion", "full", share, int(seen.sum()), without_any, reason),
        ]


def frame_levels(speech: Float[np.ndarray, "S"], rate: int, fps: float | int) -> Float[np.ndarray, "T"]:
    """Return the root mean square of the samples of each frame that the sound covers whole."""
    bounds = np.round(np.arange(int(len(speech) * fps / rate) + 1) * rate / fps).astype(int)
    energy = np.concatenate([[0.0], np.cumsum(np.square(speech, dtype=np.float64))])
    return np.sqrt(np.maximum(np.diff(energy[bounds]), 0) / np.diff(bounds))


def find_silence(levels: Float[np.ndarray, "T"]) -> Bool[np.ndarray, "T"]:
    """Mark the frames of silences: SILENCE_DB below the loud frames, MIN_SILENCE or more running."""
    if not len(levels):
        return np.zeros(0, bool)
    silent = levels <= np.percentile(levels, LOUD_PERCENTILE) * 10 ** (SILENCE_DB / 20)
    return binary_opening(silent, np.ones(MIN_SILENCE))


def settled_frames(silent: Bool[np.ndarray, "T"]) -> Bool[np.ndarray, "T"]:
    """Mark the midst of silences: what lies SETTLING frames behind their beginning and OPENING before their end."""
    # the origin moves the window that must be silent: from SETTLING frames before to OPENING behind
    window = np.ones(SETTLING + OPENING + 1)
    return binary_erosion(silent, window, origin=(SETTLING - OPENING) // 2, border_value=1)


def face_relative_opening(mesh: Float[np.ndarray, "*T 478 3"]) -> Float[np.ndarray, "*T"] | np.floating:
    """Return the distance of the inner lips, seen in the picture, in heights of the face."""
    return mouth_aperture(mesh[..., :2]) / face_height(mesh[..., :2])
