"""Command: let a trained head speak a sound while it goes on, and measure how fast it is.

python -m gaussian_head.stream -S data/<ID> -M output/<name> --audio x.wav [--size 256] [--chunk-ms 40] [--out x.mp4]
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from jaxtyping import Float, UInt8

from gaussian_head.data.layout import SPEECH_HZ, VIDEO_FPS
from gaussian_head.data.subject import Subject
from gaussian_head.device import choose_device
from gaussian_head.driving.live import Delay, Voice
from gaussian_head.driving.speech import Manner, SpeechDriver, load_speech
from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.evaluation.report import describe_machine
from gaussian_head.media.audio import read_audio
from gaussian_head.media.files import write_bytes
from gaussian_head.media.video import VideoWriter
from gaussian_head.progress import track
from gaussian_head.render.backdrop import Backdrop, own_scene
from gaussian_head.render.clip import GaussianTalkingHead
from gaussian_head.render.trained import load_trained

NAME = "stream.json"
FORMAT = 1


@dataclass(frozen=True)
class StreamOptions:
    """Play a sound to a trained head in chunks, as a microphone would, but as fast as it can be taken; measure."""

    source: Annotated[Path, tyro.conf.arg(aliases=["-S"])]
    """Subject folder the head was trained on."""
    model: Annotated[Path, tyro.conf.arg(aliases=["-M"])]
    """Run folder of the training; stream.json is written there."""
    audio: Path
    """Sound (any file with sound) that the head shall speak."""
    voice: Path | None = None
    """An earlier recording of the same voice by the same microphone, with a pause: its levels of voice and room are
    taken. Without: they are estimated from what was heard so far."""
    chunk_ms: float = 40.0
    """Length of a chunk of sound, 0.0625..10000; changes no picture."""
    size: int | None = None
    """Longer side of the frames in px; default: the size of the training."""
    seed: int = 0
    """Decides the walk, the blinks and the brows."""
    out: Path | None = None
    """Video (.mp4) to write; writing it does not count. Default: none."""
    device: str = "auto"
    """cpu, cuda or cuda:NUMBER; auto: a GPU where there is one."""
    debug: bool = False
    """Show the traceback of an error."""


class Microphone:
    """A file's sound in chunks, with the time that getting them takes."""

    def __init__(self, path: Path, samples: int) -> None:
        """Take a sound file, and the length of a chunk at 16 kHz."""
        self._path = path
        self._samples = samples
        self.heard = 0
        """Samples given so far."""
        self.seconds = 0.0
        """Spent in reading and decoding so far."""
        self.processor_s = 0.0
        """Likewise, of all cores."""

    def __iter__(self) -> Iterator[Float[np.ndarray, "S"]]:
        """Give the chunks; only the last one may be shorter."""
        started, busy = time.perf_counter(), time.process_time()
        held = np.zeros(0, np.float32)
        for block in read_audio(self._path, SPEECH_HZ):
            held = np.concatenate([held, block])
            while len(held) > self._samples:
                self.heard += self._samples
                self.seconds += time.perf_counter() - started
                self.processor_s += time.process_time() - busy
                yield held[: self._samples]
                started, busy = time.perf_counter(), time.process_time()
                held = held[self._samples :]
        self.heard += len(held)
        self.seconds += time.perf_counter() - started
        self.processor_s += time.process_time() - busy
        yield held


class Stopwatch:
    """How long each frame takes, and how late it would be if the sound came as from a microphone."""

    def __init__(self, microphone: Microphone) -> None:
        """Begin before the first frame."""
        self._microphone = microphone
        self.processor_s = 0.0
        """Of all cores together, whatever else they do: what other programs on the machine cannot lengthen."""
        self.computing: list[float] = []
        """Seconds of computing between one frame and the next; the first has the sound before it to itself."""
        self.latency: list[float] = []
        """Seconds from the moment a frame shows, in the sound, to that at which it is there: it waits for the chunk
        that it needs, for the frames before it and for its own computing."""

    def measure(self, frames: Iterator[UInt8[np.ndarray, "H W C"]]) -> Iterator[UInt8[np.ndarray, "H W C"]]:
        """Pass frames on; what is done with them does not count."""
        now = 0.0
        while True:
            read, started = self._microphone.seconds, time.perf_counter()
            read_busy, busy = self._microphone.processor_s, time.process_time()
            frame = next(frames, None)
            if frame is None:
                return
            self.processor_s += time.process_time() - busy - (self._microphone.processor_s - read_busy)
            spent = time.perf_counter() - started - (self._microphone.seconds - read)
            now = max(now, self._microphone.heard / SPEECH_HZ) + spent
            self.latency.append(now - len(self.computing) / VIDEO_FPS)
            self.computing.append(spent)
            yield frame

    def figures(self) -> dict[str, Any]:
        """Return real-time factors (by the clock, by the time of all cores) and how long frames take and are late."""
        sound_s = self._microphone.heard / SPEECH_HZ
        return {
            "frames": len(self.computing),
            "sound_s": round(sound_s, 3),
            "real_time_factor": round(sum(self.computing) / sound_s, 4),
            "processor_factor": round(self.processor_s / sound_s, 4),
            "first_frame_ms": round(1000 * self.computing[0], 2),
            "computing_ms": _spread_ms(self.computing[1:] or self.computing),
            "latency_ms": _spread_ms(self.latency),
        }


def stream(options: StreamOptions) -> None:
    """Play, measure and write; see `StreamOptions`."""
    check(options)
    started = time.perf_counter()
    samples = sum(map(len, read_audio(options.audio, SPEECH_HZ)))
    microphone = Microphone(options.audio, round(options.chunk_ms * SPEECH_HZ / 1000))
    trained = load_trained(options.model)
    subject = Subject(options.source, options.size or trained.size)
    device = choose_device(options.device)
    head = GaussianTalkingHead(
        trained.head.to(device),
        SpeechDriver.load(
            options.model, subject, subject.train, Manner(options.seed), trained.head.config.audio_features
        ),
        Backdrop(subject.layout, subject.width, subject.height, own_scene(subject.layout)),
    )
    delay = head.delay
    voice = None if options.voice is None else Voice.measure(load_speech(options.voice))
    stopwatch = Stopwatch(microphone)
    frames = stopwatch.measure(head.stream(microphone, voice))
    prepared_s = time.perf_counter() - started
    frames = track(frames, math.ceil(samples * VIDEO_FPS / SPEECH_HZ), f"streaming {options.audio.stem}")
    out = options.out
    video = VideoWriter(out, VIDEO_FPS, subject.width, subject.height, audio=options.audio) if out else nullcontext()
    with video as writer:
        for frame in frames:
            if writer is not None:
                writer.write(frame)
    document = {
        "format": FORMAT,
        "subject": trained.subject,
        "preset": trained.preset,
        "audio": options.audio.name,
        "width": subject.width,
        "height": subject.height,
        "chunk_ms": options.chunk_ms,
        "levels": "estimated" if voice is None else "measured",
        "declared_delay_ms": {"look_ahead": 1000 * delay.look_ahead_s, "mel_window": 1000 * delay.window_s},
        "prepared_s": round(prepared_s, 2),
        **stopwatch.figures(),
        "device": str(device),
        "machine": describe_machine() | {"threads": str(torch.get_num_threads()), "load": f"{os.getloadavg()[0]:.2f}"},
    }
    path = options.model / NAME
    write_bytes(path, (json.dumps(document, indent=1) + "\n").encode())
    tell(document, delay)
    print(out or path)


def check(options: StreamOptions) -> None:
    """Refuse options out of range.

    Raises:
        UserError: They are.
    """
    if not 1000 / SPEECH_HZ <= options.chunk_ms <= 10_000:
        raise UserError(f"--chunk-ms must be {1000 / SPEECH_HZ}..10000, got {options.chunk_ms}.")
    if options.size is not None and not 16 <= options.size <= 8192:
        raise UserError(f"--size must be 16..8192 px, got {options.size}.")
    if options.seed < 0:
        raise UserError(f"--seed must be 0 or more, got {options.seed}.")
    if options.out is not None and options.out.suffix != ".mp4":
        raise UserError(f"--out must end in .mp4, got {options.out}.")


def tell(document: dict[str, Any], delay: Delay) -> None:
    """Print what was measured."""
    told, machine = document, document["machine"]
    print(
        f"{told['frames']} frames of {told['width']} x {told['height']} px from {told['sound_s']:.2f} s of sound, "
        f"chunks of {told['chunk_ms']:g} ms"
    )
    print(
        f"real-time factor: {told['real_time_factor']:.3f} on {told['device']}, {machine['threads']} threads, "
        f"load {machine['load']}; by processor time, all cores: {told['processor_factor']:.3f}"
    )
    print(
        f"computing per frame: median {told['computing_ms']['median']:.1f} ms, "
        f"99th percentile {told['computing_ms']['p99']:.1f} ms; first frame {told['first_frame_ms']:.0f} ms, "
        f"preparing {told['prepared_s']:.1f} s"
    )
    print(
        f"declared delay: {1000 * delay.total_s:.0f} ms ({1000 * delay.look_ahead_s:.0f} look-ahead, "
        f"{1000 * delay.window_s:.0f} mel window)"
    )
    print(
        f"latency from sound to picture, with chunks and computing: median {told['latency_ms']['median']:.0f} ms, "
        f"99th percentile {told['latency_ms']['p99']:.0f} ms"
    )


def _spread_ms(seconds: list[float]) -> dict[str, float]:
    return {
        "median": round(1000 * float(np.median(seconds)), 2),
        "p99": round(1000 * float(np.quantile(seconds, 0.99)), 2),
    }


def main() -> None:
    """Parse the command line and run."""
    configure_logging()
    options = tyro.cli(StreamOptions)
    run_command(lambda: stream(options), debug=options.debug)


if __name__ == "__main__":
    main()
