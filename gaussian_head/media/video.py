"""Video in and out, as streams of RGB frames in constant memory.

Time 0 is the video stream's start. Rotation and non-square pixels told by the container are applied on reading.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.media.audio import SoundReader
from gaussian_head.media.files import replacing

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

SOUND_HZ = 48_000
"""Sample rate of the sound muxed into our videos."""
BACKWARDS_BYTES = 128 << 20
"""Frames that are played backwards are decoded forwards, so many bytes of them at once."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says about itself; width and height in px as shown (rotated, square pixels)."""

    width: int
    height: int
    fps: float
    frames: int | None
    """Announced number of frames, where the container announces one."""
    duration_s: float | None
    """Announced length of the picture, where the container announces one."""
    has_audio: bool


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """Open a media file for reading.

    Raises:
        FileNotFoundError: No such file.
        UserError: The file is empty, truncated or no media file.
    """
    import av

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist (or is no file); give the path of a video or sound file.")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes); copy or record it again.")
    try:
        container = av.open(str(path))
    except av.error.FFmpegError as error:
        raise UserError(
            f"{path} is not a readable media file, or is truncated ({error.strerror}); "
            "copy it again, or re-encode it as mp4."
        ) from error
    with container:
        yield container


def probe_video(path: Path) -> VideoInfo:
    """Look at a video's header and first frame.

    Raises:
        FileNotFoundError: No such file.
        UserError: The file is empty, truncated, or no video.
    """
    with open_container(path) as container:
        stream = _video_stream(container, path)
        has_audio = bool(container.streams.audio)
        first = next(_decode(container, path), None)
        if first is None:
            raise UserError(
                f"{path} holds no picture that can be decoded (truncated?); copy it again, or re-encode it."
            )
        height, width = _to_rgb(first, stream.sample_aspect_ratio).shape[:2]
        duration = float(stream.duration * stream.time_base) if stream.duration else None
        return VideoInfo(width, height, float(_rate(stream)), stream.frames or None, duration, has_audio)


def read_frames(path: Path, start_s: float | int = 0) -> Iterator[tuple[float, UInt8[ndarray, "H W 3"]]]:
    """Decode every frame: (time in seconds, RGB 0..255), in order of time.

    Args:
        path: The video.
        start_s: Begin at the last key frame that is not after this time.

    Raises:
        FileNotFoundError: No such file.
        UserError: The file is no video, or its picture ends well before its announced end (truncated).
    """
    with open_container(path) as container:
        stream = _video_stream(container, path)
        start = stream.start_time
        last = -math.inf
        if start_s > 0:
            container.seek(int(start_s / stream.time_base) + (start or 0), stream=stream)
        for frame in _decode(container, path):
            if frame.pts is None:
                continue
            start = frame.pts if start is None else start
            time_s = float((frame.pts - start) * frame.time_base)
            if time_s > last:
                last = time_s
                yield time_s, _to_rgb(frame, stream.sample_aspect_ratio)
        _check_complete(path, stream, last)


def read_frames_at(path: Path, fps: float | int, first: int = 0) -> Iterator[UInt8[ndarray, "H W 3"]]:
    """Decode at another frame rate, by time: frame i is the source frame nearest to i / fps seconds.

    No drift: the number of frames is the picture's length times `fps`, whatever the source's rate, constant or not.

    Args:
        path: The video.
        fps: Frames per second wanted.
        first: Leave out the frames before this one.

    Raises:
        As `read_frames`.
    """
    period = 1 / probe_video(path).fps
    index = first
    held: tuple[float, ndarray] | None = None
    for time_s, rgb in read_frames(path, max(0, first / fps - period)):
        while held is not None and index / fps < (held[0] + time_s) / 2:
            yield held[1]
            index += 1
        held = (time_s, rgb)
    while held is not None and index / fps < held[0] + period - 1e-3 / fps:
        yield held[1]
        index += 1


def read_frames_backwards(path: Path, fps: float | int, last: int) -> Iterator[UInt8[ndarray, "H W 3"]]:
    """Give the frames of `read_frames_at` from `last` down to 0; holds BACKWARDS_BYTES of them at a time.

    Raises:
        As `read_frames`.
    """
    info = probe_video(path)
    block = max(1, BACKWARDS_BYTES // (3 * info.width * info.height))
    while last >= 0:
        first = max(0, last + 1 - block)
        yield from reversed(list(islice(read_frames_at(path, fps, first), last + 1 - first)))
        last = first - 1


def read_frames_by_default(path: Path) -> Iterator[UInt8[ndarray, "H W 3"]]:
    """Decode every frame with swscale's default conversion, in order, none dropped: for evaluation only.

    The programs that define the field's metrics decode so (OpenCV, the ffmpeg program, PyAV without flags;
    specs/metrics.md section 1); the exact conversion of `read_frames` would give them other pictures. Colours that say
    no matrix and range are BT.601, limited.

    Raises:
        As `read_frames`.
    """
    with open_container(path) as container:
        stream = _video_stream(container, path)
        for frame in _decode(container, path):
            yield _to_rgb(frame, stream.sample_aspect_ratio, exact=False)


def frame_times(path: Path) -> Float64[ndarray, "T"]:
    """Return the time of every frame in seconds, ascending: as many as `read_frames_by_default` will give.

    From the packets where they are as many as the container announces, else by decoding.

    Raises:
        As `read_frames`.
    """
    with open_container(path) as container:
        stream = _video_stream(container, path)
        period = 1 / _rate(stream)
        found = [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
        announced, base = stream.frames, stream.time_base
        if len(found) != announced or None in found:
            container.seek(0)
            found = [frame.pts for frame in _decode(container, path)]
        if not found:
            raise UserError(
                f"{path} holds no picture that can be decoded (truncated?); copy it again, or re-encode it."
            )
        if None in found:  # a raw stream: frames follow each other at its rate
            return np.arange(len(found)) * float(period)
        start = min(found) if stream.start_time is None else stream.start_time
        times = np.sort([float((pts - start) * base) for pts in found])
        _check_complete(path, stream, times[-1])
    return times


def read_frames_numbered(
    path: Path, times: Float64[ndarray, "T"], wanted: Collection[int]
) -> dict[int, UInt8[ndarray, "H W 3"]]:
    """Decode some frames only, from the key frame before the first of them to the last.

    Args:
        path: The video.
        times: Of all its frames (`frame_times`).
        wanted: Numbers of frames, 0 the first.

    Returns:
        RGB, 0..255, by number.

    Raises:
        UserError: The video is damaged, or its frames carry no times.
    """
    found: dict[int, ndarray] = {}
    if not wanted:
        return found
    with open_container(path) as container:
        stream = _video_stream(container, path)
        start = stream.start_time or 0
        container.seek(start + int(times[min(wanted)] / stream.time_base), stream=stream)  # to the key frame before
        for frame in _decode(container, path):
            if frame.pts is None:
                break
            number = int(np.abs(times - float((frame.pts - start) * stream.time_base)).argmin())
            if number in wanted:
                found[number] = _to_rgb(frame, stream.sample_aspect_ratio)
            if number >= max(wanted):
                break
    if missing := sorted(set(wanted) - set(found)):
        raise UserError(f"{path}: frame {missing[0]} of {len(times)} cannot be found by its time; re-encode it as mp4.")
    return found


def decoder_version() -> str:
    """Name the decoder, for reports."""
    import av

    codec = ".".join(str(number) for number in av.library_versions["libavcodec"])
    return f"PyAV {av.__version__}, libavcodec {codec}"


class VideoWriter:
    """Stream RGB frames into an H.264 mp4 (yuv420p, BT.709), with sound; the file appears, whole, when it is closed.

    Use as a context manager; leaving it by an exception leaves an earlier file of that name untouched.
    """

    def __init__(
        self, path: Path, fps: float | int, width: int, height: int, audio: Path | None = None, *,
        audio_start_s: float | int = 0.0, crf: int = 16,
    ) -> None:  # fmt: skip
        """Prepare to write.

        Args:
            path: The mp4.
            fps: Frames per second.
            width: Of the frames given, px; an odd size gains one repeated column.
            height: Likewise.
            audio: Any file with sound, muxed as AAC; trimmed or padded with silence to the picture's length.
            audio_start_s: Second of `audio` that belongs to the first frame.
            crf: H.264 quality, smaller is better.
        """
        self.path, self.size = Path(path), (height, width)
        self._fps, self._crf = Fraction(fps).limit_denominator(1001 * 240), crf
        self._speech = None if audio is None else SoundReader(audio, SOUND_HZ)
        if self._speech is not None:
            self._speech.take(round(audio_start_s * SOUND_HZ))
        self._frames = 0

    def __enter__(self) -> VideoWriter:
        import av

        self._replacing = replacing(self.path)
        self._container = av.open(str(self._replacing.__enter__()), "w", options={"movflags": "faststart"})
        self._video = self._container.add_stream("libx264", rate=self._fps)
        self._video.height, self._video.width = (side + side % 2 for side in self.size)
        self._video.pix_fmt = "yuv420p"
        self._video.options = {"crf": str(self._crf), "preset": "veryfast"}
        for name in ("colorspace", "color_primaries", "color_trc", "color_range"):
            setattr(self._video.codec_context, name, 1)  # 1: BT.709 in each of the first three, limited range
        self._sound = None if self._speech is None else _SoundTrack(self._container, self._speech)
        return self

    def write(self, rgb: UInt8[ndarray, "H W 3"]) -> None:
        """Append one frame, RGB in 0..255, of the size given at the start."""
        import av

        if rgb.shape != (*self.size, 3) or rgb.dtype != np.uint8:
            raise ValueError(f"{self.path}: frames must be {(*self.size, 3)} uint8, got {rgb.shape} {rgb.dtype}.")
        odd = [(0, side % 2) for side in self.size]
        if any(after for _, after in odd):
            rgb = np.pad(rgb, [*odd, (0, 0)], mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        frame = frame.reformat(
            format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", interpolation=_exact_conversion()
        )
        frame.pts, frame.time_base = self._frames, 1 / self._fps
        self._container.mux(self._video.encode(frame))
        self._frames += 1
        if self._sound is not None:
            self._sound.write(until_s=self._frames / self._fps)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        if self._speech is not None:
            self._speech.close()
        try:
            if kind is None:
                self._container.mux(self._video.encode(None))
                if self._sound is not None:
                    self._sound.finish()
            self._container.close()
        except BaseException as failure:
            if not self._replacing.__exit__(type(failure), failure, failure.__traceback__):
                raise
        return self._replacing.__exit__(kind, error, trace)


class _SoundTrack:
    """The sound of a video that is being written, as AAC."""

    def __init__(self, container, speech: SoundReader) -> None:  # noqa: ANN001
        self._container, self._speech, self._samples = container, speech, 0
        self._stream = container.add_stream("aac", rate=SOUND_HZ, layout="mono")
        self._stream.bit_rate = 160_000

    def write(self, until_s: Fraction) -> None:
        """Append what is heard up to that second of the picture."""
        import av

        until = int(until_s * SOUND_HZ)
        if until <= self._samples:
            return
        chunk = self._speech.take(until - self._samples)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(chunk[None]), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, self._samples, Fraction(1, SOUND_HZ)
        self._container.mux(self._stream.encode(frame))
        self._samples = until

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self._container.mux(self._stream.encode(None))


def add_sound(video: Path, audio: Path, out: Path) -> None:
    """Write a video with another sound, its pictures copied as they are coded.

    Args:
        video: Frames at a constant rate; its own sound is left out.
        audio: Any file with sound, muxed as AAC; trimmed or padded with silence to the picture's length.
        out: The mp4, written atomically.

    Raises:
        FileNotFoundError: A file is missing.
        UserError: The video is damaged, or the other file has no sound.
    """
    import av

    times = frame_times(video)  # a truncated one is refused
    with open_container(video) as source, closing(SoundReader(audio, SOUND_HZ)) as speech, replacing(out) as temporary:
        stream = _video_stream(source, video)
        with av.open(str(temporary), "w", options={"movflags": "faststart"}) as sink:
            copied = sink.add_stream_from_template(stream)
            sound = _SoundTrack(sink, speech)
            packets = (packet for packet in source.demux(stream) if packet.size)
            for frames, packet in enumerate(packets, 1):
                packet.stream = copied
                sink.mux(packet)
                sound.write(until_s=min(frames, len(times)) / _rate(stream))
            sound.finish()


def _video_stream(container, path: Path):  # noqa: ANN001, ANN202 -- PyAV is optional at import time
    if not container.streams.video:
        raise UserError(f"{path} is not a video: it has no picture; give a video file.")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    return stream


def _rate(stream) -> Fraction:  # noqa: ANN001
    return stream.average_rate or stream.guessed_rate or Fraction(25)


def _decode(container, path: Path) -> Iterator[VideoFrame]:  # noqa: ANN001
    import av

    try:
        yield from container.decode(video=0)
    except av.error.FFmpegError as error:
        raise UserError(
            f"{path}: its picture cannot be decoded to the end ({error.strerror}), it is damaged or truncated; "
            "copy it again, or re-encode it."
        ) from error


def _to_rgb(frame: VideoFrame, pixel_aspect: Fraction | None, *, exact: bool = True) -> UInt8[ndarray, "H W 3"]:
    """Convert to RGB as shown: square pixels, upright."""
    width = round(frame.width * float(pixel_aspect or 1))
    rgb = frame.to_ndarray(format="rgb24", width=width, interpolation=_exact_conversion() if exact else None)
    return np.ascontiguousarray(np.rot90(rgb, k=round(frame.rotation / 90) % 4))


def _exact_conversion() -> int:
    """Swscale's flags; its fast default darkens every picture by more than one level."""
    from av.video.reformatter import Interpolation

    exact = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
    return Interpolation.BICUBIC | exact


def _check_complete(path: Path, stream, last_time_s: float) -> None:  # noqa: ANN001
    if not stream.duration:
        return
    announced, end = float(stream.duration * stream.time_base), last_time_s + float(1 / _rate(stream))
    if end < 0.95 * announced - 0.2:
        raise UserError(
            f"{path} is truncated: it announces {announced:.1f} s of picture and holds {max(end, 0):.1f} s; "
            "copy it again, or re-encode what is there."
        )


def resampled_frame_count(path: Path, fps: float | int) -> int:
    """Count the frames `read_frames_at` will give, from the packets' times, without decoding.

    Raises:
        FileNotFoundError: No such file.
        UserError: The file is no video, or is truncated.
    """
    with open_container(path) as container:
        stream = _video_stream(container, path)
        times = [packet.pts for packet in container.demux(stream) if packet.pts is not None]
        if not times:
            raise UserError(f"{path} holds no picture (truncated?); copy it again, or re-encode it.")
        start = stream.start_time if stream.start_time is not None else min(times)
        last = float((max(times) - start) * stream.time_base)
        _check_complete(path, stream, last)
        return math.ceil((last + float(1 / _rate(stream)) - 1e-3 / fps) * fps)


def sample_frames(path: Path, count: int) -> list[UInt8[ndarray, "H W 3"]]:
    """Decode a video once and keep `count` frames spread evenly over it (fewer where it has fewer)."""
    info = probe_video(path)
    length = info.duration_s or (info.frames or count) / info.fps
    pictures = []
    with open_container(path) as container:
        stream = _video_stream(container, path)
        for frame in _decode(container, path):
            target = (len(pictures) + 0.5) / count * length - 1e-6
            start = stream.start_time or 0
            if len(pictures) < count and frame.pts is not None and (frame.pts - start) * stream.time_base >= target:
                pictures.append(_to_rgb(frame, stream.sample_aspect_ratio))
    return pictures
