"""What the person does over time: says an utterance, moves the head, blinks, looks about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from data_utils.synthetic.head import Expression
from data_utils.synthetic.phonemes import SHAPE_FIELDS, SILENCE, Segment, compose
from data_utils.synthetic.voice import speak

LIMITS_DEG = (15.0, 8.0, 6.0)
"""Largest yaw, pitch and roll of the head."""
_FINE = 8  # samples a frame at which articulation is laid out before smoothing


@dataclass(frozen=True)
class Performance:
    """A whole clip, T frames.

    Args:
        speech: Sound at `voice.VOICE_HZ`, in [-1, 1].
        expressions: [T] faces.
        head_poses: [T, 4, 4] head frame to room, metres; the room's frame is that of the head at rest.
        body_poses: [T, 4, 4] likewise for the shoulders.
    """

    speech: Float[ndarray, "S"]
    expressions: list[Expression]
    head_poses: Float[ndarray, "T 4 4"]
    body_poses: Float[ndarray, "T 4 4"]


def perform(seed: int, frames: int, fps: int) -> Performance:
    """Make up a performance; the same seed gives the same one."""
    speech_rng, face_rng, pose_rng = (np.random.default_rng([seed, k]) for k in (10, 11, 12))
    seconds = frames / fps
    segments = compose(speech_rng, seconds)
    mouth = articulate(segments, frames, fps)
    face = _upper_face(face_rng, segments, frames, fps)
    names = [*SHAPE_FIELDS, *face]
    columns = np.column_stack([mouth, *face.values()])
    expressions = [Expression(**dict(zip(names, map(float, row), strict=True))) for row in columns]
    return Performance(speak(segments, seconds, speech_rng), expressions, *_poses(pose_rng, segments, frames, fps))


def articulate(segments: list[Segment], frames: int, fps: int) -> Float[ndarray, "T 6"]:
    """Turn the utterance into mouth shapes (`SHAPE_FIELDS`): gliding targets, and lips that truly meet."""
    times = (np.arange(frames * _FINE) + 0.5) / (fps * _FINE)
    index = np.searchsorted([s.stop_s for s in segments], times, side="right").clip(0, len(segments) - 1)
    targets = np.array([[getattr(s.phoneme, name) for name in SHAPE_FIELDS] for s in segments])
    shapes = gaussian_filter1d(targets[index], 0.034 * fps * _FINE, axis=0, mode="nearest")
    open_lips = np.ones(len(times))
    for segment in segments:
        if segment.phoneme.closure:  # the gap goes to zero around the closure's middle
            middle, half = (segment.start_s + segment.stop_s) / 2, max((segment.stop_s - segment.start_s) / 2, 0.03)
            distance = np.abs(times - middle) / half
            open_lips = np.minimum(open_lips, 1 - np.exp(-((distance / 1.1) ** 6)))
    shapes[:, 0] *= open_lips
    return shapes.reshape(frames, _FINE, -1)[:, _FINE // 2].clip(0)


def _upper_face(rng: np.random.Generator, segments: list[Segment], frames: int, fps: int) -> dict[str, ndarray]:
    """Blink every 2 to 5 s, look about in jumps, move the brows with the phrases."""
    times = np.arange(frames) / fps
    blink = np.zeros(frames)
    at = float(rng.uniform(0.6, 1.4))
    while at < frames / fps:
        since = times - at
        shut = np.where(since < 0, np.exp(-((since / 0.055) ** 2)), np.exp(-((since / 0.095) ** 2)))
        blink = np.maximum(blink, np.minimum(1.12 * shut, 1))
        at += float(rng.uniform(2.0, 5.0))
    gaze = np.zeros((frames, 2))
    start = 0
    while start < frames:
        stop = start + int(rng.uniform(0.6, 2.2) * fps)
        gaze[start:stop] = rng.normal(0, (0.10, 0.05)).clip(-0.24, 0.24)
        start = stop
    brow = _wander(rng, frames, fps, 0.5) * 0.25
    previous = SILENCE
    for segment in segments:
        if previous is SILENCE and segment.phoneme is not SILENCE:
            brow += rng.uniform(0.2, 0.9) * np.exp(-(((times - segment.start_s - 0.15) / 0.28) ** 2))
        previous = segment.phoneme
    return {"blink_right": blink, "blink_left": blink, "brow": brow.clip(-1, 1),
            "gaze_yaw": gaze[:, 0], "gaze_pitch": gaze[:, 1]}  # fmt: skip


def _poses(
    rng: np.random.Generator, segments: list[Segment], frames: int, fps: int
) -> tuple[Float[ndarray, "T 4 4"], Float[ndarray, "T 4 4"]]:
    angles = np.stack([_wander(rng, frames, fps, slow) for slow in (1.1, 0.9, 1.2)], 1)
    times = np.arange(frames) / fps
    accents = np.interp(times, [(s.start_s + s.stop_s) / 2 for s in segments],
                        [s.accent * s.phoneme.voicing for s in segments])  # fmt: skip
    angles[:, 1] += 0.12 * gaussian_filter1d(accents - accents.mean(), 0.10 * fps)  # nods with the accents
    angles *= np.array(LIMITS_DEG) / np.maximum(1.0, np.abs(angles).max(0))
    drift = np.stack([_wander(rng, frames, fps, 1.5) for _ in range(3)], 1) * [0.008, 0.004, 0.008]
    head = _rigid(angles, drift, pivot=np.array([0.0, -0.075, -0.045]))
    sway = np.stack([_wander(rng, frames, fps, 2.0) for _ in range(3)], 1)
    breath = 0.0022 * np.sin(2 * np.pi * times / 3.7 + rng.uniform(0, 6))
    body_drift = 0.6 * drift + np.stack([np.zeros(frames), breath, np.zeros(frames)], 1)
    return head, _rigid(sway * [1.2, 0.8, 1.0], body_drift, pivot=np.array([0.0, -0.40, -0.05]))


def _rigid(angles_deg: ndarray, shift: ndarray, pivot: ndarray) -> Float[ndarray, "T 4 4"]:
    """Rotate about a pivot by (yaw, pitch, roll), then shift (metres)."""
    poses = np.tile(np.eye(4), (len(shift), 1, 1))
    poses[:, :3, :3] = Rotation.from_euler("YXZ", angles_deg, degrees=True).as_matrix()
    poses[:, :3, 3] = pivot - poses[:, :3, :3] @ pivot + shift
    return poses


def _wander(rng: np.random.Generator, frames: int, fps: int, slow_s: float) -> Float[ndarray, "T"]:
    """Return a smooth random track of largest size 1 with features of about `slow_s` seconds."""
    margin = int(4 * slow_s * fps)
    track = gaussian_filter1d(rng.standard_normal(frames + 2 * margin), 0.42 * slow_s * fps)[margin : margin + frames]
    track = track - track.mean() if frames > 4 * slow_s * fps else track
    return track / np.abs(track).max().clip(1e-9)
