"""Command: let a trained head speak.

python -m gaussian_head.synthesize -S data/<ID> -M output/<name> [--eval | --use_train] [--audio x.wav|x.npy]
    [--pose walk|still|TRACK] [--torso footage|model] [--seed N] [--blink-rate N] [--mouth-gain X] [--brow-gain X]
    [--gaze footage|camera]
    [--drive other.mp4|TRACKED|FOLDER|COEFFICIENTS] [--drive-pose transfer|own] [--drive-fps X] [--refine wav2lip]
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro

from gaussian_head.data.layout import SPEECH_HZ, VIDEO_FPS
from gaussian_head.data.subject import Subject
from gaussian_head.device import choose_device
from gaussian_head.driving.borrowed import load_driver, name_of, sound_of
from gaussian_head.driving.coefficients import is_coefficients, load_coefficient_driver
from gaussian_head.driving.pose_track import SUFFIXES, load_pose_track
from gaussian_head.driving.retarget import DrivePose, retarget
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.driving.speech import Manner, Pose, SpeechDriver
from gaussian_head.driving.upper_face import Gaze
from gaussian_head.driving.walk import torso_thumbnail
from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.evaluation.timing import record_timing
from gaussian_head.media.audio import fit_length, load_audio, write_wav
from gaussian_head.media.files import replacing_folder
from gaussian_head.media.image import read_rgb, write_png
from gaussian_head.media.video import VideoWriter
from gaussian_head.oneshot.wav2lip.lip_sync import LipSyncConfig
from gaussian_head.oneshot.wav2lip.loading import load_painter, speech_for_lips
from gaussian_head.progress import track
from gaussian_head.render.backdrop import Backdrop, Behind, own_scene
from gaussian_head.render.clip import RenderClock, render_clip
from gaussian_head.render.rasterizers import Rasterizer, RasterizerName, choose_rasterizer
from gaussian_head.render.torso import torso_backdrop
from gaussian_head.render.trained import has_torso, load_trained

logger = logging.getLogger(__name__)

OF_SPEECH = ("pose", "seed", "blink_rate", "mouth_gain", "brow_gain", "gaze")
"""Options that mean something only with --audio."""


@dataclass(frozen=True)
class SynthesizeOptions:
    """Render a trained head: as tracked in one split, speaking another sound, or moved by another person."""

    source: Annotated[Path, tyro.conf.arg(aliases=["-S"])]
    """Subject folder the head was trained on."""
    model: Annotated[Path, tyro.conf.arg(aliases=["-M"])]
    """Run folder of the training."""
    use_val: Annotated[bool, tyro.conf.arg(name="eval")] = False
    """Render the val split (what happens without any choice)."""
    use_train: bool = False
    """Render the train split."""
    audio: Path | None = None
    """Sound (any file with sound) or audio features (.npy) that the head shall speak; the clip gets its length. All but
    the mouth comes from the train split, or, with --eval, from the val split."""
    pose: str = "walk"
    """With --audio, how the head is held: walk (an endless walk through the footage), still, or a file of camera poses
    (.json, .safetensors; docs/evaluation.md)."""
    seed: int = 0
    """With --audio: decides the walk, the blinks and the brows."""
    blink_rate: float | None = None
    """With --audio: blinks a minute, 0..60; default: the subject's own."""
    mouth_gain: float = 1.0
    """With --audio: how far the mouth opens, 0..3; 1 is as predicted."""
    brow_gain: float = 1.0
    """With --audio: how far the brows move, 0..3; 1 is as in the footage."""
    gaze: Gaze = "footage"
    """With --audio: eyes look where they do in the footage, or into the camera."""
    drive: Path | None = None
    """Another person who moves the head: a video, a driving sequence (.safetensors), a subject folder, or face
    coefficients (.mat of SadTalker or Deep3DFaceRecon); the clip gets its length and its sound."""
    drive_fps: float | None = None
    """With --drive COEFFICIENTS, their frames a second; default: those of the video beside them, or else 25 (SadTalker;
    ViCo's have 30)."""
    drive_pose: DrivePose = "transfer"
    """With --drive: the head turns as the other person's, or walks through its own footage."""
    torso: Literal["footage", "model"] | None = None
    """Neck and shoulders: the footage's pictures, or drawn to go with the head's pose. Default: model where the poses
    are not the footage's (--pose TRACK, --drive) and the run has stage torso, else footage."""
    refine: Literal["wav2lip"] | None = None
    """Draw the mouth anew, to go with the sound: wav2lip (96 px a face; needs its weights, see scripts/prepare.sh)."""
    alpha: bool = False
    """Write RGBA pictures, head and torso without background, into a folder."""
    background: Path | None = None
    """Picture to put behind the torso."""
    size: int | None = None
    """Longer side of the frames in px; default: the size of the training, at which the head is sharpest."""
    rasterizer: RasterizerName = "ours"
    """What draws the Gaussians; another than ours must be installed and needs a CUDA device."""
    out: Path | None = None
    """Video (or, with --alpha, folder) to write; default: in the run folder."""
    device: str = "auto"
    """cpu, cuda or cuda:NUMBER; auto: a GPU where there is one."""
    debug: bool = False
    """Show the traceback of an error."""


def synthesize(options: SynthesizeOptions) -> None:
    """Render and write; see `SynthesizeOptions`."""
    started = time.monotonic()
    check(options)
    rasterizer = choose_rasterizer(options.rasterizer)
    device = choose_device(options.device)
    painter = load_painter(LipSyncConfig(), None, "auto", device) if options.refine else None
    trained = load_trained(options.model)
    subject = Subject(options.source, options.size or trained.size)
    motion, length, name = choose_motion(options, subject, trained.head.config.audio_features)
    backdrop = choose_backdrop(options, subject, device, rasterizer)
    clock = RenderClock()
    head = trained.head.to(device)
    frames = track(render_clip(head, motion, backdrop, clock, rasterizer), length, f"rendering {name}")
    if options.alpha:
        out = options.out or options.model / f"{name}_rgba"
        write_pictures(frames, out)
        told = "RGBA pictures (straight alpha) of head and torso, numbered from 0, without sound"
    else:
        out = options.out or options.model / f"{name}.mp4"
        with tempfile.TemporaryDirectory(prefix="gaussian_head_") as scratch:
            sound = choose_sound(options, subject, Path(scratch))
            if painter is not None:
                frames = painter.refine(frames, length, VIDEO_FPS, speech_for_lips(sound))
            write_video(frames, out, subject, sound)
        told = "H.264 with sound" if sound else "H.264 without sound"
    seconds = time.monotonic() - started
    if options.audio is None and options.drive is None:
        record_timing(options.model, "synthesize", seconds)  # the report's figure: its clip is as long as the split
    print(f"{length} frames of {subject.width} x {subject.height} px: {told}")
    print(f"render loop: {clock.fps:.1f} frames/s; with loading, reading and encoding: {length / seconds:.1f}")
    print(out)


def check(options: SynthesizeOptions) -> None:
    """Refuse options that contradict each other.

    Raises:
        UserError: They do.
    """
    if options.use_val and options.use_train:
        raise UserError("--eval and --use_train name two splits; give one.")
    if options.alpha and (options.background is not None or options.refine is not None):
        flag = "--refine draws into whole pictures" if options.background is None else "--background puts one in"
        raise UserError(f"--alpha leaves the background out and {flag}; give one.")
    if options.size is not None and not 16 <= options.size <= 8192:
        raise UserError(f"--size must be 16..8192 px, got {options.size}.")
    for flag, value, largest in (
        ("--blink-rate", options.blink_rate, 60), ("--mouth-gain", options.mouth_gain, 3),
        ("--brow-gain", options.brow_gain, 3),
    ):  # fmt: skip
        if value is not None and not 0 <= value <= largest:
            raise UserError(f"{flag} must be 0..{largest}, got {value}.")
    if options.seed < 0:
        raise UserError(f"--seed must be 0 or more, got {options.seed}.")
    if options.audio is None:
        given = [f.name for f in fields(options) if f.name in OF_SPEECH and getattr(options, f.name) != f.default]
        if given:
            flags = ", ".join("--" + name.replace("_", "-") for name in given)
            raise UserError(f"{flags}: only a head that speaks other sound is moved so; give --audio, or leave it out.")
    check_drive(options)
    if not options.alpha and options.out is not None and options.out.suffix != ".mp4":
        raise UserError(f"--out must end in .mp4, got {options.out}; or give --alpha for a folder of pictures.")


def check_drive(options: SynthesizeOptions) -> None:
    """Refuse options that contradict --drive.

    Raises:
        UserError: They do.
    """
    if options.drive is not None and (options.audio is not None or options.use_val or options.use_train):
        raise UserError("--drive gives motion and sound of its own; leave out --audio, --eval and --use_train.")
    if options.drive is None and options.drive_pose != "transfer":
        raise UserError("--drive-pose says how another person moves the head; give --drive, or leave it out.")
    if options.drive_fps is not None:
        if options.drive is None or not is_coefficients(options.drive):
            raise UserError("--drive-fps is the rate of coefficients; give a .mat file by --drive, or leave it out.")
        if not 1 <= options.drive_fps <= 1000:
            raise UserError(f"--drive-fps must be 1..1000, got {options.drive_fps}.")


def choose_motion(
    options: SynthesizeOptions, subject: Subject, head_hears: str | None
) -> tuple[Iterable[DrivingSequence], int, str]:
    """Return what moves the head, in pieces, the number of its frames, and a name for it.

    Args:
        options: What is wanted.
        subject: The person.
        head_hears: Extractor of the audio features that the head itself takes; None: it takes none.
    """
    if options.drive is not None:
        if head_hears is not None:
            raise UserError(
                f"--drive moves the mouth by landmarks, but this head listens to {head_hears} features; train one with "
                "--condition landmarks, or give the other person's sound by --audio."
            )
        footage = DrivingSequence.from_subject(subject, subject.train)
        own_face = is_coefficients(options.drive)
        if own_face:
            driver = load_coefficient_driver(options.drive, footage, subject.layout, options.drive_fps)
        else:
            driver = load_driver(options.drive, options.model / "drivers")
        torso = partial(torso_thumbnail, subject.layout)
        motion = retarget(driver, footage, options.drive_pose, torso, own_face=own_face)
        return motion, len(driver), f"driven_by_{name_of(options.drive)}"
    if options.audio is None:
        split = "train" if options.use_train else "val"
        frames = getattr(subject, split)
        return [DrivingSequence.from_subject(subject, frames, head_hears)], len(frames), split
    manner = Manner(
        options.seed, choose_pose(options.pose), options.blink_rate, options.mouth_gain, options.brow_gain, options.gaze
    )
    frames = subject.val if options.use_val else subject.train
    driver = SpeechDriver.load(options.model, subject, frames, manner, head_hears)
    heard = driver.read(options.audio)
    return driver.perform(*heard), len(heard.features), options.audio.stem


def choose_pose(pose: str) -> Pose:
    """Return how the head is held.

    Raises:
        FileNotFoundError: No such file.
        UserError: It is neither a way of holding it nor a track of poses.
    """
    if pose in ("walk", "still"):
        return pose
    if Path(pose).suffix not in SUFFIXES:
        raise UserError(f"--pose must be walk, still, or a file ({' or '.join(SUFFIXES)}), got {pose}.")
    return load_pose_track(Path(pose))


def choose_backdrop(
    options: SynthesizeOptions, subject: Subject, device: torch.device, rasterizer: Rasterizer
) -> Behind:
    """Return what stands behind the head.

    Raises:
        UserError: The run has no torso of its own, and --torso asks for it.
    """
    scene = None
    if not options.alpha:
        scene = read_rgb(options.background) if options.background else own_scene(subject.layout)
    transferred = options.drive is not None and options.drive_pose == "transfer"
    new_poses = transferred or options.pose not in ("walk", "still")
    source = options.torso or ("model" if new_poses and has_torso(options.model) else "footage")
    if source == "footage":
        return Backdrop(subject.layout, subject.width, subject.height, scene)
    return torso_backdrop(options.model, subject, device, scene, rasterizer)


def choose_sound(options: SynthesizeOptions, subject: Subject, scratch: Path) -> Path | None:
    """Return the sound of the clip: the one given, or the rendered frames' own, cut out into `scratch`."""
    if options.drive is not None:
        return sound_of(options.drive)
    if options.audio is not None:
        sound = options.audio.with_suffix(".wav") if options.audio.suffix == ".npy" else options.audio
        return sound if sound.is_file() else None
    if not subject.layout.speech.is_file():
        logger.warning("%s is missing: the clip has no sound.", subject.layout.speech)
        return None
    shown = subject.train if options.use_train else subject.val
    samples = SPEECH_HZ // VIDEO_FPS
    speech = fit_length(load_audio(subject.layout.speech, SPEECH_HZ), subject.frames * samples)
    write_wav(scratch / "speech.wav", speech.reshape(-1, samples)[shown].ravel(), SPEECH_HZ)
    return scratch / "speech.wav"


def write_video(frames: Iterator[np.ndarray], out: Path, subject: Subject, sound: Path | None) -> None:
    """Encode frames as they come, with sound."""
    with VideoWriter(out, VIDEO_FPS, subject.width, subject.height, audio=sound) as writer:
        for frame in frames:
            writer.write(frame)


def write_pictures(frames: Iterator[np.ndarray], out: Path) -> None:
    """Write frames as 0.png, 1.png ... into a folder that appears, whole, at the end, in place of an earlier one.

    Raises:
        UserError: Something else is there.
    """
    with replacing_folder(out, ("*.png",)) as folder:
        for k, frame in enumerate(frames):
            write_png(folder / f"{k}.png", frame)


def main() -> None:
    """Parse the command line and run."""
    configure_logging()
    options = tyro.cli(SynthesizeOptions)
    run_command(lambda: synthesize(options), debug=options.debug)


if __name__ == "__main__":
    main()
