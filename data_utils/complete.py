"""Command: add what our training needs to a subject folder that another tool made, beside its own files.

python -m data_utils.complete data/<ID>

Nothing that is there is changed; a file that was added is made again once it is deleted. See docs/formats.md, section
"Folders of other tools".
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from jaxtyping import Bool, Float
from numpy import ndarray

from data_utils.given_cameras import GivenCameras, Placed, place_face
from data_utils.process import show_progress
from data_utils.stage import Progress, no_progress
from gaussian_head.data.layout import AUDIO_FEATURE_FILES, PARSING_HAIR, SubjectLayout
from gaussian_head.data.transforms import SPLITS, HeadFrame, Poses, Split, read_transforms, write_head_frame
from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.media.files import replacing
from gaussian_head.media.image import read_rgb, write_jpeg, write_png

ANEW = "make it with the tool that made the folder, or process the video anew: python -m data_utils.process VIDEO"
HAIR_FRAMES = 8
"""Parsing pictures that are looked at to tell whether hair has a colour of its own."""


@dataclass(frozen=True)
class CompleteOptions:
    """Add what training needs to a folder made by TalkingGaussian, ER-NeRF, RAD-NeRF, AD-NeRF or their relatives."""

    data: Annotated[Path, tyro.conf.Positional]
    """The folder data/<ID>. Its own files are not touched."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True)
class Clip:
    """What the folder holds of its video."""

    layout: SubjectLayout
    picture: Callable[[int], Path]
    """Path of a frame's picture: in ori_imgs, or where there are none, in gt_imgs or com_imgs."""
    count: int
    """Frames: one more than the largest number of a picture."""

    @classmethod
    def find(cls, layout: SubjectLayout) -> Clip:
        """Look for pictures.

        Raises:
            FileNotFoundError: There are none.
        """
        for picture in (layout.frame, layout.gt_image, layout.composed_image):
            numbers = [int(path.stem) for path in picture(0).parent.glob("*.jpg") if path.stem.isdigit()]
            if numbers:
                return cls(layout, picture, max(numbers) + 1)
        raise FileNotFoundError(f"{layout.frame(0)} is missing, and so are all other pictures; {ANEW}")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px."""
        existing = next(path for path in map(self.picture, range(self.count)) if path.is_file())
        height, width = read_rgb(existing).shape[:2]
        return width, height


def complete(layout: SubjectLayout, progress: Progress = no_progress) -> list[str]:
    """Add the files that are missing.

    Returns:
        A line for each thing that was added.

    Raises:
        FileNotFoundError: What only the other tool can make is missing.
        UserError: It is damaged, or its parts do not belong together.
    """
    if not layout.root.is_dir():
        raise FileNotFoundError(
            f"{layout.root} is no subject folder; make one with: python -m data_utils.process VIDEO"
        )
    clip = Clip.find(layout)
    frame = HeadFrame(frames=pictures_of_poses(layout, clip.count))
    poses = {split: read_transforms(layout, split, ANEW, frame) for split in SPLITS}
    numbers = _check_numbers(clip, poses)
    added = []
    if not layout.landmarks_3d.is_file():
        added += _add_landmarks(clip, poses, frame, progress)
    valid = _load_valid(layout)
    added += _add_pictures(clip, numbers, progress)
    if not layout.action_units.is_file():
        from data_utils.action_units import write_action_units

        write_action_units(layout, np.load(layout.landmarks_3d), valid)
        added.append(f"{layout.action_units.name}: measured on the face mesh (OpenFace's own file is better)")
    added += _add_sound(clip)
    added += _add_hair(clip, progress)
    return added


def pictures_of_poses(layout: SubjectLayout, count: int) -> tuple[int, ...] | None:
    """Return which picture each pose is of, where the tool counted poses without the pictures that show no face.

    Its tracker skips pictures that have no `.lms`, and its transforms number what is left 0, 1, 2 ..., so that poses
    and pictures drift apart (specs/gaussian_head.md k.1); AD-NeRF's own numbering is right.

    Args:
        layout: The folder.
        count: Number of its pictures.

    Returns:
        The picture's number for each img_id; None where img_id is that number.

    Raises:
        FileNotFoundError, UserError: As `read_transforms`.
    """
    ids = [k for split in SPLITS for k in read_transforms(layout, split, ANEW, HeadFrame()).frames]
    seen = tuple(k for k in range(count) if layout.landmarks68(k).is_file())
    counted_alike = len(seen) == len(ids) < count and sorted(ids) == list(range(len(ids)))
    return seen if counted_alike and seen != tuple(range(len(ids))) else None


def _check_numbers(clip: Clip, poses: dict[Split, Poses]) -> list[int]:
    """Return the numbers of the frames of both splits, each of which has its picture and its parsing."""
    layout = clip.layout
    if not layout.background.is_file():
        raise FileNotFoundError(f"{layout.background} is missing; {ANEW}")
    for split, part in poses.items():
        for k in part.frames:
            for path in (clip.picture(k), layout.parsing(k)):
                if not path.is_file():
                    raise FileNotFoundError(
                        f"{path} is missing, but {layout.transforms(split).name} names frame {k}; {ANEW}"
                    )
    return sorted(k for part in poses.values() for k in part.frames)


def _add_landmarks(clip: Clip, poses: dict[Split, Poses], frame: HeadFrame, progress: Progress) -> list[str]:
    layout, added = clip.layout, []
    if not layout.mesh_landmarks.is_file():
        from data_utils.landmarks import find_meshes

        landmarks = find_meshes([clip.picture(k) for k in range(clip.count)], progress)
        _save(layout.mesh_landmarks, landmarks)
        without = int(np.isnan(landmarks[:, 0, 0]).sum())
        added.append(f"{layout.mesh_landmarks.name}: MediaPipe's mesh of {clip.count} frames, {without} without a face")
    landmarks = np.load(layout.mesh_landmarks, allow_pickle=False)
    if landmarks.shape != (clip.count, 478, 3):
        raise UserError(
            f"{layout.mesh_landmarks} must be [{clip.count}, 478, 3], got {list(landmarks.shape)}; "
            f"delete it, then run: python -m data_utils.complete {layout.root}"
        )
    numbers, c2w = [], []
    for part in poses.values():
        numbers += part.frames
        c2w += list(part.c2w)
    cameras = GivenCameras.from_c2w(poses["train"].focal_px, numbers, np.array(c2w), clip.count)
    placed = place_face(landmarks, cameras, clip.size, progress)
    read_as = HeadFrame(placed.metres_per_unit, frame.frames)
    write_head_frame(layout.head_frame, read_as, _facts(placed))
    _save(layout.landmarks_3d_valid, placed.valid)
    _save(layout.landmarks_3d, placed.track.points().float().numpy())
    unit = f", a unit of the transforms is {placed.metres_per_unit:g} m" if placed.metres_per_unit != 1 else ""
    shifted = f", poses are of the {len(frame.frames)} pictures that have landmarks" if frame.frames else ""
    added.append(
        f"{layout.landmarks_3d.name}: landmarks in the head frame of the given cameras, which see the face "
        f"{placed.error_px:.1f} px from where it is{unit}{shifted}"
    )
    return added


def _facts(placed: Placed) -> dict[str, object]:
    return {"face_error_px": round(placed.error_px, 3), "frames_interpolated": np.flatnonzero(~placed.valid).tolist()}


def _load_valid(layout: SubjectLayout) -> Bool[ndarray, "T"]:
    if layout.landmarks_3d_valid.is_file():
        return np.load(layout.landmarks_3d_valid, allow_pickle=False)
    return np.ones(len(np.load(layout.landmarks_3d, mmap_mode="r", allow_pickle=False)), bool)


def _add_pictures(clip: Clip, numbers: list[int], progress: Progress) -> list[str]:
    """Add training targets and torsos where they are missing, as AD-NeRF has none (its com_imgs are the targets)."""
    from data_utils.head_frame import FaceAxes, fill_missing
    from data_utils.labels import head_mask
    from data_utils.matting import read_coverage
    from data_utils.torso import body_without_head, learn_plate, over_background

    layout, added = clip.layout, []
    targets = [k for k in numbers if not layout.gt_image(k).is_file()]
    torsos = [k for k in numbers if not layout.torso_image(k).is_file()]
    if not targets and not torsos:
        return added
    background = np.float32(read_rgb(layout.background))
    for k in progress(targets, len(targets), "targets"):
        if layout.composed_image(k).is_file():
            with replacing(layout.gt_image(k)) as temporary:
                shutil.copyfile(layout.composed_image(k), temporary)
            continue
        matte = np.float32(read_coverage(layout, k)) / 255
        target = over_background(np.float32(read_rgb(clip.picture(k))), matte, background)
        write_jpeg(layout.gt_image(k), np.uint8(np.round(target)))
    if targets:
        added.append(f"{layout.gt_image(0).parent.name}: {len(targets)} frames over the static background")
    if torsos:
        landmarks = fill_missing(np.load(layout.mesh_landmarks, allow_pickle=False))
        plate, known = learn_plate(layout, numbers)
        for k in progress(torsos, len(torsos), "torso"):
            matte = np.float32(read_coverage(layout, k)) / 255
            head = head_mask(read_rgb(layout.parsing(k)))
            axes = FaceAxes.from_landmarks(landmarks[k])
            target = np.float32(read_rgb(layout.gt_image(k)))
            write_png(layout.torso_image(k), body_without_head(target, matte, head, plate, known, axes))
        added.append(f"{layout.torso_image(0).parent.name}: {len(torsos)} bodies without the head")
    return added


def _add_sound(clip: Clip) -> list[str]:
    """Add the sound, and mel features where the folder has no features at all."""
    layout, added = clip.layout, []
    if not layout.speech.is_file() and layout.video.is_file():
        from data_utils.audio import extract_audio

        extract_audio(layout.video, layout)
        added.append(f"{layout.speech.name}: the sound of {layout.video.name}")
    if layout.speech.is_file() and not any(layout.audio_features(name).is_file() for name in AUDIO_FEATURE_FILES):
        from data_utils.audio_features import write_audio_features

        write_audio_features(layout.speech, layout.audio_features("mel"), frames=clip.count)
        added.append(f"{layout.audio_features('mel').name}: mel features, as the folder has no others")
    return added


def _add_hair(clip: Clip, progress: Progress) -> list[str]:
    """Add points that the hair follows, where the parsing tells hair from face, and no frame is missing."""
    layout = clip.layout
    whole = all(layout.frame(k).is_file() and layout.parsing(k).is_file() for k in range(clip.count))
    if layout.hair_3d.is_file() or not whole or not _marks_hair(layout, clip.count):
        return []
    import torch

    from data_utils.hair_tracking import track_hair
    from gaussian_head.geometry.rotations import euler_from_matrix

    poses = [read_transforms(layout, split, ANEW) for split in SPLITS]  # in metres now, by `head_frame.json`
    numbers = [k for part in poses for k in part.frames]
    c2w: Float[ndarray, "N 4 4"] = np.concatenate([part.c2w for part in poses])
    cameras = GivenCameras.from_c2w(poses[0].focal_px, numbers, c2w, clip.count)
    track = {
        "euler": euler_from_matrix(torch.from_numpy(cameras.rotations)),
        "trans": 10 * torch.from_numpy(cameras.translations),
        "focal": torch.tensor([cameras.focal_px]),
    }
    facts = track_hair(layout, progress, track)
    return [f"{layout.hair_3d.name}: {facts['points']} points that the hair follows"]


def _marks_hair(layout: SubjectLayout, count: int) -> bool:
    """Tell whether hair has a colour of its own: RAD-NeRF's lineage paints it as head (specs/gaussian_head.md a.4)."""
    chosen = np.unique(np.linspace(0, count - 1, HAIR_FRAMES).round().astype(int)).tolist()
    return any((read_rgb(layout.parsing(k)) == np.uint8(PARSING_HAIR)).all(-1).any() for k in chosen)


def _save(path: Path, array: ndarray) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(CompleteOptions)
    configure_logging()

    def body() -> None:
        layout = SubjectLayout(options.data)
        for line in complete(layout, show_progress) or ["nothing is missing"]:
            print(f"{layout.root}: {line}")

    run_command(body, debug=options.debug)


if __name__ == "__main__":
    main()
