"""Command: turn a raw video into a subject folder, skipping what is up to date.

python -m data_utils.process VIDEO [--out DIR] [--size 512] [--crop auto|none] [--landmarks auto|mesh|task]
    [--tracker auto|canonical|bfm] [--only STAGE ...] [--force]
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from data_utils.audio import extract_audio
from data_utils.audio_features import Choice, choose_extractor
from data_utils.frames import Crop, check_video, extract_frames, replace_frames
from data_utils.published import (
    ActionUnitChoice,
    LandmarksChoice,
    ParserChoice,
    TeethChoice,
    choose,
    choose_action_units,
    choose_landmarks,
)
from data_utils.stage import Manifest, Stage, digest
from data_utils.stages import INTAKE, STAGE_NAMES, StageName, build_stages
from data_utils.tracker_choice import Tracker, choose_tracker
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.media.files import replacing

T = TypeVar("T")


@dataclass(frozen=True)
class ProcessOptions:
    """Turn a video of one talking person into a subject folder (formats: docs/formats.md)."""

    video: Annotated[Path, tyro.conf.Positional]
    """The raw video, for example data/<ID>/<ID>.mp4; from elsewhere it is copied there first."""
    out: Path | None = None
    """Subject folder; default: the video's own folder if named like the video, else data/<name of the video>."""
    size: int = 512
    """Longer side of the frames, px."""
    crop: Crop = "auto"
    """auto: cut a square around the head out of a picture that is not square; none: keep all of it."""
    audio_features: Choice = "auto"
    """Audio features: mel is built in, the others need weights on disk; auto: WavLM where its weights are, else mel."""
    audio_layers: str = "last"
    """Of a speech encoder: last, one of its layers (9), several with shares (6:1,9:3), or mix, the mean of all."""
    landmarks: LandmarksChoice = "auto"
    """Who finds the face: mesh, built in, or task, MediaPipe's face landmarker; auto: task where its file is."""
    tracker: Tracker = "auto"
    """canonical: built in; bfm: the Basel Face Model 2009 (data_utils.convert_bfm); auto: bfm where its file is."""
    parser: ParserChoice = "auto"
    """Who says what a pixel belongs to: builtin, or bisenet, which needs weights; auto: bisenet where they are."""
    teeth: TeethChoice = "auto"
    """Who finds the teeth: builtin, or easyportrait, which needs weights (easyportrait-mmseg: the same weights in
    mmsegmentation's network, where that is installed); auto: easyportrait where they are."""
    action_units: ActionUnitChoice = "auto"
    """Who measures action units: builtin, on the mesh; openface, its program; or blendshapes, five units as the task's
    network sees them; auto: openface where it is on the PATH, else builtin."""
    only: tuple[StageName, ...] = ()
    """Run these stages alone."""
    force: bool = False
    """Run even what is up to date (a user's own au.csv is still kept)."""
    report: bool = True
    """Draw report.png, one page that shows what was found."""
    debug: bool = False
    """Show the traceback of an error."""


def process(options: ProcessOptions) -> SubjectLayout:
    """Run the stages that are not up to date.

    Returns:
        The subject folder.

    Raises:
        FileNotFoundError: No such video, or with `only`, an earlier stage's result is missing.
        UserError: Bad input; results of earlier runs are untouched.
    """
    if not 64 <= options.size <= 2048 or options.size % 2:
        raise UserError(f"--size must be an even number from 64 to 2048, got {options.size}.")
    extractor = choose_extractor(options.audio_features, options.audio_layers)
    parser, teeth = choose(options.parser, "bisenet"), choose(options.teeth, "easyportrait")
    landmarks, tracker = choose_landmarks(options.landmarks), choose_tracker(options.tracker)
    layout = _place_video(options)
    manifest = Manifest(layout)
    stages = build_stages(
        layout, size=options.size, crop=options.crop, extractor=extractor, layers=options.audio_layers,
        landmarks=landmarks, tracker=tracker, parser=parser, teeth=teeth,
        action_units=choose_action_units(options.action_units, landmarks),
    )  # fmt: skip
    chosen = [stages[name] for name in options.only or STAGE_NAMES]
    if not options.only and manifest.facts("landmarks") and not _all_up_to_date(manifest, stages, INTAKE):
        _take_in_apart(layout, manifest, stages, options, landmarks)
    for stage in chosen:
        _run_stage(stage, manifest, layout, force=options.force)
    if options.report:
        from data_utils.report import write_report

        write_report(layout, manifest)
        print(f"report: {layout.report}")
    return layout


def _place_video(options: ProcessOptions) -> SubjectLayout:
    """Find the subject folder and put the video there, once it has passed the checks that need no picture decoded."""
    video = options.video
    own_folder = SubjectLayout(video.parent)
    is_in_place = own_folder.subject == video.stem and video.suffix == own_folder.video.suffix
    default = own_folder.root if is_in_place else Path("data") / video.stem
    layout = SubjectLayout(options.out or default)
    check_video(video)
    _refuse_folder_of_another_tool(layout)
    if layout.video.exists() and layout.video.samefile(video):
        return layout
    if layout.video.exists():
        if digest(layout.video) != digest(video):
            raise UserError(
                f"{layout.video} already holds another video than {video}; "
                "give another folder with --out, or remove that folder first."
            )
        return layout
    with replacing(layout.video) as temporary:
        shutil.copyfile(video, temporary)
    return layout


def _refuse_folder_of_another_tool(layout: SubjectLayout) -> None:
    """Leave alone what cannot be made again here: poses and parsing that another tool took hours for."""
    theirs = layout.transforms("train").is_file() and not layout.mesh_landmarks.is_file()
    if not layout.manifest.is_file() and (theirs or layout.head_frame.is_file()):
        raise UserError(
            f"{layout.root} was made by another tool, and processing would replace its files; train it as it is "
            f"(scripts/train.sh {layout.root}), or process into another folder with --out."
        )


def _all_up_to_date(manifest: Manifest, stages: dict[StageName, Stage], names: Iterable[StageName]) -> bool:
    return all(manifest.is_up_to_date(stages[name]) for name in names)


def _run_stage(stage: Stage, manifest: Manifest, layout: SubjectLayout, *, force: bool) -> None:
    if stage.name == "action_units" and not manifest.was_written_by(stage):
        from data_utils.action_units import check_action_units

        told = check_action_units(layout)
        print(
            f"{stage.name}: kept your own {layout.action_units}; faces {told['faces']}, frames failed {told['failed']}"
        )
        agreement = ", ".join(f"{unit} {value}" for unit, value in told["correlation"].items() if value is not None)
        print(f"{stage.name}: correlation with the built-in measure: {agreement or 'nothing moves'}")
        return
    if not force and manifest.is_up_to_date(stage):
        print(f"{stage.name}: up to date")
        return
    started = time.monotonic()
    with manifest.running(stage):
        facts = stage.run(show_progress)
    _finish(manifest, stage, facts, time.monotonic() - started)


def _finish(manifest: Manifest, stage: Stage, facts: dict[str, Any], seconds: float) -> None:
    manifest.finish(stage, facts, seconds)
    print(f"{stage.name}: done in {seconds:.1f} s")


def _take_in_apart(
    layout: SubjectLayout, manifest: Manifest, stages: dict[StageName, Stage], options: ProcessOptions, landmarks: str
) -> None:
    """Run the stages that may refuse a video beside the earlier results, and replace those only when all pass."""
    apart = SubjectLayout(layout.root / ".incoming")
    aside = build_stages(apart, size=0, crop="none", extractor="mel", landmarks=landmarks)
    shutil.rmtree(apart.root, ignore_errors=True)
    work = {
        "audio": lambda: extract_audio(layout.video, apart),
        "frames": lambda: extract_frames(layout.video, apart, options.size, options.crop, show_progress),
        "landmarks": lambda: aside["landmarks"].run(show_progress),
    }
    results: dict[StageName, tuple[dict[str, Any], float]] = {}
    try:
        for name in INTAKE:
            started = time.monotonic()
            results[name] = (work[name](), time.monotonic() - started)
        for name in INTAKE:
            manifest.start(stages[name])
        replace_frames(apart.frame(0).parent, layout)
        apart.speech.replace(layout.speech)
        apart.mesh_landmarks.replace(layout.mesh_landmarks)
        layout.face_task.unlink(missing_ok=True)
        if apart.face_task.is_file():
            apart.face_task.replace(layout.face_task)
    finally:
        shutil.rmtree(apart.root, ignore_errors=True)
    for name in INTAKE:
        _finish(manifest, stages[name], *results[name])


def show_progress(iterable: Iterable[T], total: int | None, label: str) -> Iterator[T]:
    """Wrap a loop in a progress bar with the time left (nothing where the output is no terminal)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield from bar.track(iterable, total=total, description=label)


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(ProcessOptions)
    configure_logging()
    run_command(lambda: print(process(options).root), debug=options.debug)


if __name__ == "__main__":
    main()
