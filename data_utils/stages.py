"""The stages in order, with what each reads and writes. Raise a stage's version when its results change."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal, get_args

from data_utils.audio import extract_audio
from data_utils.frames import Crop, extract_frames
from data_utils.stage import Progress, Stage, per_frame
from gaussian_head.data.layout import SubjectLayout

StageName = Literal[
    "audio", "frames", "landmarks", "tracking", "parsing", "background", "torso", "hair", "teeth",
    "action_units", "audio_features",
]  # fmt: skip
STAGE_NAMES: tuple[StageName, ...] = get_args(StageName)
INTAKE: tuple[StageName, ...] = ("audio", "frames", "landmarks")
"""The stages that may refuse a video."""
LANDMARKS = {"mesh": ("landmarks", "extract_landmarks"), "task": ("landmarks", "extract_task_landmarks")}
PARSERS = {"builtin": ("parsing", "segment_frames"), "bisenet": ("parsing_bisenet", "parse_frames")}
TEETH = {
    "builtin": ("teeth", "extract_teeth"), "easyportrait": ("teeth_easyportrait", "label_teeth"),
    "easyportrait-mmseg": ("teeth_easyportrait", "label_teeth_by_mmseg"),
}  # fmt: skip
TRACKERS = {
    "canonical": ("tracking", "track_head"), "task": ("tracking", "track_head_from_task"),
    "bfm": ("model_tracking", "track_head_by_model"),
}  # fmt: skip
ACTION_UNITS = {
    "builtin": ("action_units", "extract_action_units"), "openface": ("openface_program", "run_openface"),
    "blendshapes": ("blendshape_units", "extract_blendshape_units"),
}  # fmt: skip
"""Module and function of each alternative."""


def build_stages(
    layout: SubjectLayout,
    *,
    size: int,
    crop: Crop,
    extractor: str,
    layers: str = "last",
    landmarks: str = "mesh",
    tracker: str = "canonical",
    parser: str = "builtin",
    teeth: str = "builtin",
    action_units: str = "builtin",
) -> dict[StageName, Stage]:
    """Describe every stage of one subject folder, in order.

    Args:
        layout: The folder, its video in place.
        size: Longer side of the frames, px.
        crop: See `frames.extract_frames`.
        extractor: Name of the audio features.
        layers: Of a speech encoder: which of its layers.
        landmarks: Who finds the face: mesh, the built-in one, or task, which then starts the built-in tracker.
        tracker: canonical, the built-in one, or bfm.
        parser: Who says what a pixel belongs to: builtin or bisenet.
        teeth: Who finds the teeth: builtin, easyportrait, or easyportrait-mmseg (as mmsegmentation builds it).
        action_units: Who measures action units: builtin, openface, or blendshapes, which only task has.
    """

    def run(module: str, function: str) -> Callable[[Progress], dict[str, Any]]:
        return lambda progress: _import(module, function)(layout, progress=progress)

    frames, mesh = per_frame(layout.frame), layout.mesh_landmarks
    task = (layout.face_task,) if landmarks == "task" else ()
    if task and tracker == "canonical":
        tracker = "task"
    parsing, mattes = per_frame(layout.parsing), per_frame(layout.matte)
    features = layout.audio_features(extractor)
    head = (layout.landmarks_3d, layout.landmarks_3d_valid)
    tracks = (layout.track_params, layout.transforms("train"), layout.transforms("val"))
    pictures = (per_frame(layout.gt_image), per_frame(layout.torso_image))
    stages = (
        Stage("audio", 1, (layout.video,), (layout.speech,), lambda _: extract_audio(layout.video, layout)),
        Stage(
            "frames", 1, (layout.video,), (frames,),
            lambda progress: extract_frames(layout.video, layout, size, crop, progress), {"size": size, "crop": crop},
        ),
        Stage(
            "landmarks", 1, (frames,), (per_frame(layout.landmarks68), mesh, *task), run(*LANDMARKS[landmarks]),
            _chosen("landmarks", landmarks),
        ),
        Stage(
            "tracking", 5, (frames, mesh, *{"task": task}.get(tracker, ())), (*tracks, *head),
            run(*TRACKERS[tracker]), _chosen("tracker", tracker),
        ),
        Stage("parsing", 1, (frames, mesh), (parsing, mattes), run(*PARSERS[parser]), _chosen("parser", parser)),
        Stage("background", 1, (frames, mattes), (layout.background,), run("background", "extract_background")),
        Stage(
            "torso", 1, (frames, parsing, mattes, mesh, layout.background), pictures, run("torso", "extract_torso")
        ),
        Stage(
            "hair", 2, (frames, parsing, mattes, layout.track_params, layout.landmarks_3d), (layout.hair_3d,),
            run("hair_tracking", "track_hair"),
        ),
        Stage(
            "teeth", 1, (frames, mesh), (per_frame(layout.teeth_mask),), run(*TEETH[teeth]),
            _chosen("teeth", teeth),
        ),
        Stage(
            "action_units", 1, (mesh, *head, *{"openface": (frames,), "blendshapes": task}.get(action_units, ())),
            (layout.action_units,), run(*ACTION_UNITS[action_units]), _chosen("action_units", action_units),
        ),
        Stage(
            "audio_features", 1, (layout.speech,), (features, features.with_suffix(".json")),
            lambda progress: _import("audio_features", "extract_audio_features")(
                layout, extractor, layers, progress=progress
            ),
            {"extractor": extractor} if extractor == "mel" else {"extractor": extractor, "layers": layers},
        ),
    )  # fmt: skip
    return dict(zip(STAGE_NAMES, stages, strict=True))


def _chosen(part: str, name: str) -> dict[str, str]:
    """Return the option that a published network is; built-in parts have none, as before there were others."""
    return {} if name in ("builtin", "mesh", "canonical") else {part: name}


def _import(module: str, function: str) -> Callable[..., dict[str, Any]]:
    """Import a stage when it runs: a stage that is up to date loads none of its libraries."""
    return getattr(import_module(f"data_utils.{module}"), function)
