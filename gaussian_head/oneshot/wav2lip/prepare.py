"""Command: turn videos into what Wav2Lip is trained on: face crops at 25 frames a second, and the sound.

python -m gaussian_head.oneshot.wav2lip.prepare VIDEOS OUT
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gaussian_head.device import choose_device
from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.media.audio import load_audio, write_wav
from gaussian_head.media.files import replacing_folder, write_bytes
from gaussian_head.media.image import write_jpeg
from gaussian_head.media.time_bases import SPEECH_HZ
from gaussian_head.media.video import probe_video, read_frames_at
from gaussian_head.oneshot.wav2lip.boxes import Detect, bridge_gaps, find_faces
from gaussian_head.oneshot.wav2lip.clips import CLIP_FPS, SHORTEST_CLIP, SOUND, numbered
from gaussian_head.oneshot.wav2lip.detectors import DetectorName, choose_detector
from gaussian_head.progress import track

logger = logging.getLogger(__name__)

VIDEOS = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts")
NOTE = "clip.json"
"""Says of a clip's folder what it was made from; there last, so that a folder with it is whole."""
LONGEST_GAP = 5
"""Frames; a face missed for longer leaves a hole in the numbers, which no training window crosses."""


@dataclass(frozen=True)
class PrepareOptions:
    """Cut the faces out of videos, for the trainings of Wav2Lip.

    Leaves OUT/<video>/0.jpg, 1.jpg ... and audio.wav, the layout of Wav2Lip's own preprocess.py, whose folders load as
    well. The same command again goes on where it stopped.
    """

    videos: Annotated[Path, tyro.conf.Positional]
    """A folder of videos (searched to the bottom), or one video."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder of clips to write."""
    detector: DetectorName = "auto"
    """Finds the faces: s3fd (Wav2Lip's own, needs its weights) or mediapipe; auto: s3fd where its weights are."""
    detector_px: int = 640
    """Longer side to which frames are shrunk for the search; 0: they are not."""
    batch_size: int = 8
    """Frames that are searched at once."""
    device: str = "auto"
    """cpu, cuda or cuda:NUMBER; auto: a GPU where there is one."""
    debug: bool = False
    """Show the traceback of an error."""


def prepare(options: PrepareOptions) -> None:
    """Cut and write; see `PrepareOptions`.

    Raises:
        UserError: There are no videos, or not one of them gave a clip.
    """
    videos = find_videos(options.videos)
    root = options.videos if options.videos.is_dir() else options.videos.parent
    detect = choose_detector(options.detector, choose_device(options.device), options.detector_px)
    useless = {}
    for video in track(videos, len(videos), "cutting faces out"):
        try:
            cut_clip(video, options.out / video.relative_to(root).with_suffix(""), detect, options.batch_size)
        except UserError as error:
            useless[video] = str(error)
    for reason in useless.values():
        logger.warning("left out: %s", reason)
    if len(useless) == len(videos):
        raise UserError(f"not one of the {len(videos)} videos in {options.videos} gave a clip (reasons above).")
    print(f"{len(videos) - len(useless)} clips, {len(useless)} videos left out")
    print(options.out)


def find_videos(path: Path) -> list[Path]:
    """Return the videos in a folder, in order, or the one given.

    Raises:
        FileNotFoundError: No such file or folder.
        UserError: The folder holds none, or two that would make one clip.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{path} does not exist; give a folder of videos.")
    videos = sorted(file for file in path.rglob("*") if file.suffix.lower() in VIDEOS and file.is_file())
    if not videos:
        raise UserError(f"{path} holds no videos ({' '.join(VIDEOS)}).")
    for before, after in zip(videos, videos[1:], strict=False):
        if before.with_suffix("") == after.with_suffix(""):
            raise UserError(f"{before} and {after} would make one clip; rename one.")
    return videos


def cut_clip(video: Path, out: Path, detect: Detect, batch: int = 8) -> None:
    """Make one clip, unless it is there already.

    Args:
        video: With sound.
        out: Folder that appears whole.
        detect: Finds faces.
        batch: Frames shown to it at once.

    Raises:
        UserError: The video is damaged or silent, shows no face in enough frames, or something else is at `out`.
    """
    source = {"video": video.name, "bytes": video.stat().st_size, "fps": CLIP_FPS}
    if (out / NOTE).is_file() and json.loads((out / NOTE).read_text()).get("source") == source:
        return
    if not probe_video(video).has_audio:
        raise UserError(f"{video} has no sound.")
    frames = read_frames_at(video, CLIP_FPS)
    with replacing_folder(out, ("*.jpg", SOUND, NOTE)) as folder:
        seen = write_faces(folder, bridge_gaps(find_faces(frames, detect, batch), LONGEST_GAP))
        if seen < SHORTEST_CLIP:
            raise UserError(f"{video}: a face is seen in {seen} frames, {SHORTEST_CLIP} are needed.")
        write_wav(folder / SOUND, load_audio(video, SPEECH_HZ), SPEECH_HZ)
        note = {"source": source, "faces": seen}
        write_bytes(folder / NOTE, json.dumps(note, indent=1).encode(), durable=True)


def write_faces(folder: Path, located: Iterable[tuple]) -> int:
    """Write the faces of frames that have one, named by the frame's number; return how many."""
    seen = 0
    for k, (frame, box) in enumerate(located):
        if box is not None:
            left, top, right, bottom = box
            write_jpeg(folder / numbered(k), frame[top:bottom, left:right], quality=95)
            seen += 1
    return seen


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(PrepareOptions)
    configure_logging()
    run_command(lambda: prepare(options), debug=options.debug)


if __name__ == "__main__":
    main()
