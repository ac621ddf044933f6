"""Writes the procedural subject: its video with sound, and the truth beside it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from data_utils.stage import Progress, no_progress
from data_utils.synthetic.head import Expression
from data_utils.synthetic.landmarks import landmark_vertices, mouth_shape
from data_utils.synthetic.performance import Performance, perform
from data_utils.synthetic.person import LABELS
from data_utils.synthetic.renderer import Rendered, Renderer
from data_utils.synthetic.voice import VOICE_HZ
from gaussian_head.data.layout import VIDEO_FPS, SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.geometry.cameras import Camera, intrinsics, viewmat_from_c2w
from gaussian_head.media.audio import write_wav
from gaussian_head.media.files import write_bytes
from gaussian_head.media.image import write_png
from gaussian_head.media.video import VideoWriter

VERSION = 2
"""Raised when the same seed gives another person or performance."""
FOCAL_OF_SIZE = 1150 / 512
"""Focal length over picture side."""
EYE_HEIGHT_M, DISTANCE_M = -0.035, 0.95
"""Where the camera stands in the room, whose frame is the head's at rest."""
WORKERS = 2
DESCRIPTION = "truth.json"


def make_subject(
    layout: SubjectLayout, *, seconds: float = 12.0, size: int = 512, seed: int = 0, progress: Progress = no_progress
) -> bool:
    """Write `<ID>.mp4` and `truth/` into a subject folder.

    Args:
        layout: The subject folder.
        seconds: Length of the clip.
        size: Side of the square picture, px, even.
        seed: Which utterance, movement and small print of the skin.
        progress: Wraps the loop over frames.

    Returns:
        False where the same subject is there already and nothing was done.

    Raises:
        UserError: `size` or `seconds` out of range.
    """
    if not 64 <= size <= 2048 or size % 2:
        raise UserError(f"--size must be an even number from 64 to 2048, got {size}.")
    if not 0.4 <= seconds <= 3600:
        raise UserError(f"--seconds must be from 0.4 to 3600, got {seconds}.")
    frames = round(seconds * VIDEO_FPS)
    description = _describe(size, seed, frames)
    if _is_there(layout, description):
        return False
    partial = layout.truth.with_name(f".truth.{os.getpid()}.partial")
    try:
        _write(layout, partial, description, progress)
        shutil.rmtree(layout.truth, ignore_errors=True)
        partial.rename(layout.truth)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def load_truth(layout: SubjectLayout) -> tuple[dict[str, Any], dict[str, ndarray]]:
    """Read `truth/`: the description, and its arrays by name (masks stay on disk, see `mask_path`)."""
    path = layout.truth / DESCRIPTION
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; run: python -m data_utils.synthetic {layout.root}")
    description = json.loads(path.read_text())
    return description, {name: np.load(layout.truth / f"{name}.npy") for name in description["arrays"]}


def mask_path(truth: Path, k: int) -> Path:
    """Return the PNG of frame k's labels."""
    return truth / "masks" / f"{k}.png"


def _is_there(layout: SubjectLayout, description: dict[str, Any]) -> bool:
    path = layout.truth / DESCRIPTION
    return layout.video.is_file() and path.is_file() and json.loads(path.read_text()) == description


def _describe(size: int, seed: int, frames: int) -> dict[str, Any]:
    """Return what `truth.json` says."""
    return {
        "schema": 1, "version": VERSION, "seed": seed, "frames": frames, "fps": VIDEO_FPS,
        "width": size, "height": size, "focal_px": FOCAL_OF_SIZE * size, "cx": size / 2, "cy": size / 2,
        "frame": "head-fixed; metres; x to the right of the picture, y up, z out of the face; pixel centres at + 0.5",
        "arrays": {
            "c2w": "[T, 4, 4] camera to world, OpenGL axes",
            "landmarks68": "[T, 68, 3] the classic points, with expression",
            "mouth": "[T, 2] gap between the lips, width of the mouth",
            "expression": "[T, E] what drove the face, columns as in `expression_columns` (lengths in cm)",
        },
        "expression_columns": [field.name for field in dataclasses.fields(Expression)],
        "masks": "masks/<k>.png, 8-bit, the value of a pixel is its place in `labels`",
        "labels": list(LABELS),
        "speech": f"speech.wav, {VOICE_HZ} Hz, the sound before it was encoded into the video",
    }  # fmt: skip


def _write(layout: SubjectLayout, truth: Path, description: dict[str, Any], progress: Progress) -> None:
    size, frames, seed = description["width"], description["frames"], description["seed"]
    performance = perform(seed, frames, VIDEO_FPS)
    speech = truth / "speech.wav"
    write_wav(speech, performance.speech, VOICE_HZ)
    renderer = Renderer(seed, size)
    cameras = _cameras(performance)
    points = landmark_vertices(renderer.person.head)
    landmarks = []
    with VideoWriter(layout.video, float(VIDEO_FPS), size, size, audio=speech, crf=12) as video:
        rendered = _render_all(renderer, performance, cameras)
        for k, picture in enumerate(progress(rendered, total=frames, label="synthetic subject")):
            video.write(picture.rgb)
            write_png(mask_path(truth, k), picture.labels)
            landmarks.append(picture.skin[points])
    landmarks = np.stack(landmarks)
    expression = np.array([dataclasses.astuple(face) for face in performance.expressions])
    arrays = {"c2w": cameras, "landmarks68": landmarks, "mouth": mouth_shape(landmarks), "expression": expression}
    for name in description["arrays"]:
        np.save(truth / f"{name}.npy", arrays[name])
    write_bytes(truth / DESCRIPTION, json.dumps(description, indent=1).encode())


def _cameras(performance: Performance) -> Float[ndarray, "T 4 4"]:
    """Return camera to head frame: the camera stands still in the room, the head's motion is turned round."""
    in_room = np.eye(4)
    in_room[:3, 3] = 0, EYE_HEIGHT_M, DISTANCE_M
    return np.linalg.inv(performance.head_poses) @ in_room


def _render_all(renderer: Renderer, performance: Performance, cameras: ndarray) -> Iterator[Rendered]:
    """Render in order, a few frames ahead on `WORKERS` threads (numpy leaves the interpreter's lock while it works)."""
    size = renderer.size
    K = intrinsics(FOCAL_OF_SIZE * size, size, size)

    def render(k: int) -> Rendered:
        head = performance.head_poses[k]
        body_from_head = np.linalg.inv(head) @ performance.body_poses[k]
        body_from_head[:3, 3] *= 100  # the person is modelled in centimetres
        camera = Camera(viewmat_from_c2w(cameras[k]), K, size, size)
        return renderer.render(performance.expressions[k], camera, head[:3, :3], body_from_head)

    frames = len(cameras)
    with ThreadPoolExecutor(WORKERS) as pool:
        ahead = [pool.submit(render, k) for k in range(min(WORKERS, frames))]
        for k in range(frames):
            result = ahead.pop(0).result()
            if k + WORKERS < frames:
                ahead.append(pool.submit(render, k + WORKERS))
            yield result
