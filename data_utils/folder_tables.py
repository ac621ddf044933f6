"""What can be wrong with a subject folder's cameras, landmarks, tables and sound; see `folder_findings`."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
from numpy import ndarray

from data_utils.complete import pictures_of_poses
from data_utils.folder_findings import LEAST_SHARE, SLACK_FRAMES, Findings, frames_of, open_array, said, spread
from gaussian_head.data.layout import AUDIO_FEATURE_FILES, SPEECH_HZ, VIDEO_FPS
from gaussian_head.data.transforms import SPLITS, HeadFrame, read_head_frame, read_transforms
from gaussian_head.errors import UserError
from gaussian_head.geometry.cameras import intrinsics, project, viewmat_from_c2w
from gaussian_head.geometry.landmarks import EXPRESSION_ACTION_UNITS, MESH_TO_68
from gaussian_head.media.audio import load_audio
from gaussian_head.media.openface import read_frames

USUAL_DISTANCE_M = (0.2, 6.0)
USUAL_WIDTH_M = (0.08, 0.25)
"""Between the ears' points of the mesh."""
FAR_SHARE = 0.04
"""Landmarks of `.lms` this far (picture widths) from the projected ones belong to other cameras."""
LEAST_BLINK = 0.5


def check_poses(found: Findings) -> None:
    """Transforms, and how they are to be read."""
    layout = found.layout
    try:
        frame = read_head_frame(layout)
    except UserError as error:
        found.error(layout.head_frame, "metres_per_unit and frames", said(error), found.made_by("tracking"))
        frame = HeadFrame()
    for split in SPLITS:
        path = layout.transforms(split)
        try:
            part = read_transforms(layout, split, "", frame)
        except FileNotFoundError:
            found.error(path, "a file", "none", found.made_anew("tracking"))
            continue
        except UserError as error:
            found.error(
                path,
                "focal_len, and frames of img_id and a 4 x 4 transform_matrix",
                said(error),
                found.made_anew("tracking"),
            )
            continue
        found.poses[split] = part
        if not part.frames:
            found.error(path, "frames", "none", "move some frames of the other split here")
        found.summary["fps"] = f"{VIDEO_FPS} (the file does not say)" if part.fps is None else f"{part.fps:g}"
        if part.fps not in (None, VIDEO_FPS):
            found.warning(path, f"{VIDEO_FPS} fps", f"{part.fps:g}", "convert the video, and process it anew")
    both = sorted(set(frames_of(found, "train")) & set(frames_of(found, "val")))
    if both:
        found.warning(
            layout.transforms("val"),
            "frames that are not trained on",
            f"{len(both)} of the train split, the first is {both[0]}",
            "take them out of one of the two, or held-out figures mean nothing",
        )
    focal = {round(part.focal_px, 3) for part in found.poses.values()}
    if len(focal) > 1:
        found.warning(
            layout.transforms("val"),
            f"focal_len {found.poses['train'].focal_px:g} as in train",
            f"{found.poses['val'].focal_px:g}",
            "that of train is used for both",
        )
    found.summary["splits"] = ", ".join(f"{split} {len(frames_of(found, split))}" for split in SPLITS)
    if found.numbers:
        c2w = np.concatenate([part.c2w for part in found.poses.values()])
        _check_distance(found, frame, float(np.median(np.linalg.norm(c2w[:, :3, 3], axis=1))))


def _check_distance(found: Findings, frame: HeadFrame, distance: float) -> None:
    part = next(iter(found.poses.values()))
    found.summary["camera"] = f"focal length {part.focal_px:.0f} px, {distance:.2f} m from the head"
    if not USUAL_DISTANCE_M[0] < distance < USUAL_DISTANCE_M[1]:
        unit = "in another unit than metres?" if frame.metres_per_unit == 1 else "head_frame.json has another unit"
        found.warning(
            found.layout.transforms("train"),
            "cameras 0.2 to 6 m from the head",
            f"{distance:.3g} m ({unit})",
            found.made_by("tracking"),
        )


def check_landmarks(found: Findings) -> None:
    """The face mesh in the head frame, and what it says of the cameras."""
    layout, numbers = found.layout, found.numbers
    if not layout.landmarks_3d.is_file():
        found.error(layout.landmarks_3d, "478 landmarks of every frame", "no file", found.made_by("tracking"))
        found.summary["landmarks"] = "none yet"
        return
    points = open_array(found, layout.landmarks_3d, "float32 [frames, 478, 3]", "tracking")
    if points is None:
        return
    if points.ndim != 3 or points.shape[1:] != (478, 3) or len(points) <= max(numbers, default=-1):
        found.error(
            layout.landmarks_3d,
            f"[{max(numbers, default=-1) + 1} or more, 478, 3]",
            f"{list(points.shape)}",
            found.made_by("tracking"),
        )
        return
    found.landmarks = np.array(points)
    broken = [k for k in numbers if not np.isfinite(found.landmarks[k]).all()]
    if broken:
        found.error(
            layout.landmarks_3d,
            "finite numbers",
            f"others in {len(broken)} frames, the first is {broken[0]}",
            found.made_by("tracking"),
        )
        return
    width = float(
        np.median(np.linalg.norm(found.landmarks[numbers][:, 454] - found.landmarks[numbers][:, 234], axis=1))
    )
    if not USUAL_WIDTH_M[0] < width < USUAL_WIDTH_M[1]:
        found.warning(layout.landmarks_3d, "a face 0.08 to 0.25 m wide", f"{width:.3g} m", found.made_by("tracking"))
    _check_coverage(found)
    _check_hair(found)
    if not found.is_ours and not layout.head_frame.is_file():
        count = max((int(p.stem) for p in layout.frame(0).parent.glob("*.jpg") if p.stem.isdigit()), default=-1) + 1
        if len(found.poses) == len(SPLITS) and pictures_of_poses(layout, count) is not None:
            found.warning(
                layout.transforms("train"),
                "img_id to be the picture's number",
                "poses counted without the pictures that show no face",
                f"delete {layout.landmarks_3d.name}, then run: python -m data_utils.complete {layout.root}",
            )


def _check_coverage(found: Findings) -> None:
    """How many frames showed a face, and whether `.lms` and cameras agree on where it is."""
    layout, numbers, points = found.layout, found.numbers, found.landmarks
    told = "every frame taken for seen"
    if layout.landmarks_3d_valid.is_file():
        valid = open_array(found, layout.landmarks_3d_valid, "bool [frames]", "tracking", fatal=False)
        if valid is not None and len(valid) == len(points):
            share = float(np.mean(valid))
            told = f"{share:.1%} of {len(points)} frames seen, others interpolated"
            if share < LEAST_SHARE:
                found.warning(
                    layout.landmarks_3d_valid,
                    f"at least {LEAST_SHARE:.0%} of the frames to show a face",
                    f"{share:.0%}",
                    "cut the other parts out of the video, and process it anew",
                )
    views = {k: view for part in found.poses.values() for k, view in zip(part.frames, part.c2w, strict=True)}
    known = [k for k in numbers if layout.landmarks68(k).is_file()]
    if known and found.size:
        K = intrinsics(found.poses["train"].focal_px, *found.size) if "train" in found.poses else None
        chosen = [known[i] for i in spread(len(known))] if K is not None else []
        far = [_distance_px(layout.landmarks68(k), points[k], views[k], K) for k in chosen]
        far = [value for value in far if value is not None]
        if far:
            told += f"; {np.median(far):.1f} px from the .lms"
            if np.median(far) > FAR_SHARE * found.size[0]:
                found.warning(
                    layout.landmarks68(chosen[0]),
                    "landmarks where the cameras see the face",
                    f"{np.median(far):.0f} px beside it",
                    found.made_by("tracking"),
                )
    found.summary["landmarks"] = told


def _distance_px(path: Path, points: ndarray, c2w: ndarray, K: ndarray) -> float | None:
    """Median distance of the projected brows, nose, eyes and lips from those of a `.lms`; None for a broken file."""
    try:
        given = np.loadtxt(path)
    except ValueError:
        return None
    if given.shape != (68, 2):
        return None
    seen, _ = project(points[MESH_TO_68].astype(np.float64), viewmat_from_c2w(c2w), K)
    return float(np.median(np.linalg.norm(seen - given, axis=1)[17:]))


def _check_hair(found: Findings) -> None:
    path = found.layout.hair_3d
    if not path.is_file():
        return
    hair = open_array(found, path, "float32 [frames, points, 3]", "hair")
    if hair is not None and (hair.ndim != 3 or hair.shape[2] != 3 or len(hair) != len(found.landmarks)):
        found.error(path, f"[{len(found.landmarks)}, points, 3]", f"{list(hair.shape)}", found.made_by("hair"))


def check_action_units(found: Findings) -> None:
    """OpenFace's CSV."""
    path = found.layout.action_units
    remedy = "run OpenFace on the pictures of ori_imgs, or " + found.made_by("action_units")
    if not path.is_file():
        found.error(path, "action units, a row a frame", "no file", remedy)
        return
    try:
        units = read_frames(path, EXPRESSION_ACTION_UNITS)
    except UserError as error:
        found.error(path, "OpenFace's columns, a row a frame", said(error), remedy)
        return
    values, rows = np.nan_to_num(units.intensities), len(units.intensities)
    if rows < found.frames:
        found.error(path, f"{found.frames} rows, one a frame", f"{rows}", remedy)
    elif rows > found.frames + SLACK_FRAMES:
        found.warning(path, f"{found.frames} rows, one a frame", f"{rows}", "the last ones are left out; " + remedy)
    if not np.isfinite(units.intensities).all():
        none = int(np.isnan(units.intensities).sum())
        found.warning(path, "numbers", f"{none} fields that are none", "they count as 0")
    failed = float(np.mean(units.failed))
    if failed > 1 - LEAST_SHARE:
        found.warning(path, "a face in most frames", f"none in {failed:.0%}", "they are interpolated; " + remedy)
    if values.max() > 5 or values.min() < 0:
        found.warning(path, "intensities 0..5", f"{values.min():g} to {values.max():g}", remedy)
    if values[:, -1].max() < LEAST_BLINK:
        found.warning(path, "blinks (AU45)", f"at most {values[:, -1].max():g}", "the head will not blink by itself")
    ranges = zip(EXPRESSION_ACTION_UNITS, values.min(0), values.max(0), strict=True)
    found.summary["action units"] = ", ".join(f"AU{unit:02d} {low:.1f}..{high:.1f}" for unit, low, high in ranges)


def check_features(found: Findings) -> None:
    """Audio features, of which training takes one kind."""
    layout = found.layout
    existing = {
        name: layout.audio_features(name) for name in AUDIO_FEATURE_FILES if layout.audio_features(name).is_file()
    }
    if not existing:
        found.error(
            layout.audio_features("mel"),
            "audio features of some kind",
            "none of " + ", ".join(AUDIO_FEATURE_FILES.values()),
            found.made_by("audio_features"),
        )
    usable, faults = {}, {}
    for name, path in existing.items():
        shape, fault = _look_at_features(path, found.frames)
        if fault:
            faults[name] = fault
            continue
        usable[name] = f"{name} {list(shape)}"
        if shape[0] < found.frames:
            found.warning(path, f"{found.frames} rows, one a frame", f"{shape[0]}", "the last one is repeated")
    # Training takes what was made here first (it has a description), or mel, whether it is damaged or not.
    first = {name for name, path in existing.items() if name == "mel" or path.with_suffix(".json").is_file()}
    for name, (expected, came) in faults.items():
        note = found.warning if name not in first and first & usable.keys() else found.error
        note(existing[name], expected, came, f"delete it, or extract {name} features of the whole sound again")
    found.summary["features"] = ", ".join(usable.values()) or "none"


def _look_at_features(path: Path, frames: int) -> tuple[tuple[int, ...], tuple[str, str] | None]:
    """Return an array's shape, and what was expected and came where it cannot be used."""
    try:
        features = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        return (), ("[frames, window, width]", f"a damaged file ({str(error).splitlines()[0]})")
    if features.ndim != 3 or len(features) < max(frames - SLACK_FRAMES, 1):
        return features.shape, (f"[{frames} or more, window, width]", f"{list(features.shape)}")
    return features.shape, None if np.isfinite(features).all() else ("finite numbers", "others")


def check_sound(found: Findings) -> None:
    """The sound, which clips carry and mel features are altered with."""
    layout = found.layout
    if not layout.speech.is_file():
        found.warning(
            layout.speech,
            "the sound, 16 kHz",
            "no file",
            "clips will have none; "
            f"put the video's sound there, or the video as {layout.video.name} and run: "
            f"python -m data_utils.complete {layout.root}",
        )
        return
    try:
        seconds = len(load_audio(layout.speech, SPEECH_HZ)) / SPEECH_HZ
    except UserError as error:
        found.error(layout.speech, "a sound", said(error), found.made_anew("audio"))
        return
    found.summary["sound"] = f"{seconds:.2f} s for {found.frames / VIDEO_FPS:.2f} s of pictures"
    if abs(seconds * VIDEO_FPS - found.frames) > SLACK_FRAMES:
        found.warning(
            layout.speech,
            f"{found.frames / VIDEO_FPS:.2f} s, as {found.frames} frames last at {VIDEO_FPS} fps",
            f"{seconds:.2f} s",
            "cut it to the pictures, or were they not taken at 25 fps?",
        )


def check_track(found: Findings) -> None:
    """`track_params.pt`, which only preprocessing reads."""
    import torch

    path = found.layout.track_params
    if not path.is_file():
        return
    try:
        track = torch.load(path, map_location="cpu", weights_only=True)
        lengths = {name: len(track[name]) for name in ("euler", "trans")}
        trans = track["trans"].double().numpy()
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, AttributeError, ValueError) as error:
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        found.warning(
            path,
            "tensors euler, trans, focal",
            f"no such file of tensors ({reason})",
            "training does not read it, but get the file from a source you trust",
        )
        return
    if len(set(lengths.values())) > 1 or trans.ndim != 2 or trans.shape[1] != 3:
        found.warning(path, "euler and trans [frames, 3]", f"{lengths}", found.made_anew("tracking"))
        return
    try:
        raw = [read_transforms(found.layout, split, "", HeadFrame()).c2w for split in SPLITS]
    except (UserError, FileNotFoundError):
        return  # told already
    far = float(np.median(np.linalg.norm(trans, axis=1)))
    near = float(np.median(np.linalg.norm(np.concatenate(raw)[:, :3, 3], axis=1))) if any(map(len, raw)) else 0.0
    if near > 0 and not 9 < far / near < 11:
        found.warning(
            path,
            "trans in tenths of the transforms' unit",
            f"{far:.3g} beside {near:.3g}",
            "the transforms are what training reads",
        )


def note_missing(found: Findings) -> None:
    """List what is optional and not there."""
    layout = found.layout
    optional = (
        layout.frame(0).parent,
        layout.teeth_mask(0).parent,
        layout.matte(0).parent,
        layout.hair_3d,
        layout.mesh_landmarks,
        layout.landmarks_3d_valid,
        layout.speech,
        layout.track_params,
        layout.manifest,
    )
    found.summary["optional, missing"] = ", ".join(path.name for path in optional if not path.exists()) or "none"
