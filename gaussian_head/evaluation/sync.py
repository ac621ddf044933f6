"""Do lips and sound agree: AVOffset, AVConf, Sync-C, Sync-D (Chung and Zisserman 2016; specs/metrics.md section 5).

The steps of joonson/syncnet_python, in one pass: faces are found in every frame, followed (`face_track`), cut out as
soon as the smoothing has seen six frames more, and encoded by SyncNet in batches. So at most 32 pictures are held,
usually 7, and of each frame and face four numbers of the box and 1024 of SyncNet.

What differs from the original: no picture goes through AVI and JPEG, and cuts are not looked for (the original starts
new tracks at cuts, and drops shots under 100 frames).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int16
from torch import Tensor
from torch.nn import functional as F

from gaussian_head.errors import UserError
from gaussian_head.evaluation import face_track
from gaussian_head.evaluation.metric import ClipFacts, Curve, Entry, Figure, Metric, Pair, Rgb, Unavailable
from gaussian_head.media.audio import load_audio
from gaussian_head.media.mfcc import extract_mfcc
from gaussian_head.networks.s3fd import load_s3fd
from gaussian_head.networks.syncnet import FRAMES, STEPS, SyncNet, load_syncnet

FPS = 25
SPEECH_HZ = 16_000
SAMPLES_PER_FRAME = SPEECH_HZ // FPS
STEPS_PER_FRAME = 4
MAX_SHIFT = 15
"""Frames by which lips and sound are shifted against each other, either way."""
SMALLEST_PICTURE_PX = 128
"""S3FD sees nothing in less (it looks at a quarter of the size)."""
_BATCH = 8
_FRAMEWISE_MEDIAN = 9


class AudioVisualSync(Metric):
    """AVOffset, AVConf = Sync-C = LSE-C, Sync-D = LSE-D of one clip; of its last face track, as ViCo does."""

    entries = tuple(
        Entry(name, title, unit, better, frozenset({"audio", "weights"}),
              f"{what}; SyncNet v2 (Chung and Zisserman 2016) as in syncnet_python and ViCo, specs/metrics.md 5; S3FD "
              "face track, 25 fps by nearest frame, the clip taken as one shot, no AVI or JPEG in between", form)
        for name, title, unit, better, what, form in (
            ("av_offset", "AVOffset", "frames of 40 ms", "zero",
             "shift at which lips and sound agree best, positive where the sound comes early", "{:+.0f}"),
            ("av_conf", "AVConf", "", "higher", "median less minimum, over 31 shifts, of the mean distance", "{:.3f}"),
            ("sync_c", "Sync-C (LSE-C)", "", "higher", "the same number as AVConf, under Wav2Lip's name", "{:.3f}"),
            ("sync_d", "Sync-D (LSE-D)", "", "lower", "minimum, over 31 shifts, of the mean distance", "{:.3f}"),
        )
    )  # fmt: skip

    def __init__(
        self,
        clip: ClipFacts,
        *,
        detect: Callable[[Rgb], Float[np.ndarray, "N 4"]] | None = None,
        network: SyncNet | None = None,
    ) -> None:
        """Get ready.

        Args:
            clip: Whose `picture.sound` is judged.
            detect: From a picture to boxes (left, top, right, bottom) in px; default: S3FD with its public weights.
            network: SyncNet on `clip.device`; default: with its public weights.

        Raises:
            Unavailable: There is no sound, a file of weights is missing, or the pictures are too small.
        """
        super().__init__(clip)
        if clip.picture.sound is None:
            raise Unavailable("needs sound; the clip has none")
        if min(clip.width, clip.height) < SMALLEST_PICTURE_PX:
            raise Unavailable(f"needs pictures of at least {SMALLEST_PICTURE_PX} px, these are "
                              f"{clip.width} x {clip.height}")  # fmt: skip
        try:
            self._network = network or load_syncnet(clip.device)
            self._detect = detect or load_s3fd(clip.device).detect
            speech = load_audio(clip.picture.sound, SPEECH_HZ)
        except UserError as error:
            raise Unavailable(str(error)) from error
        self._speech = np.rint(speech * 32768).clip(-32768, 32767).astype(np.int16)
        self._tracker = face_track.Tracker()
        self._faces: list[_Face] = []
        self._pictures: dict[int, Rgb] = {}
        self._frames_given = 0
        self._frames = 0
        self.sync: Sync | None = None
        """After `finish`: also the curve over shifts, for plots."""

    def update(self, pair: Pair) -> None:
        """See one frame; it stands for the instants of 25 a second to which it is nearest (none, one or several)."""
        ratio = FPS / self.clip.fps
        until = math.ceil((self._frames_given + 0.5) * ratio)
        self._frames_given += 1
        if until == self._frames:
            return
        boxes = self._detect(pair.picture.rgb)
        for frame in range(self._frames, until):
            self._see(frame, pair.picture.rgb, boxes)
        self._frames = until

    def finish(self) -> list[Figure]:
        """Return the four figures.

        Raises:
            Unavailable: No face could be followed for long enough, or there is too little sound.
        """
        self._advance(over=True)
        held = [face for face in self._faces if face.track.counts()]
        if not held:
            raise Unavailable(self._why_no_track())
        face = held[-1]
        first, frames = face.track.first, len(face.track.boxes)
        speech = self._speech[first * SAMPLES_PER_FRAME : (first + frames) * SAMPLES_PER_FRAME]
        used = min(frames, len(speech) // SAMPLES_PER_FRAME)
        windows = used - FRAMES  # one fewer than there are, as in the original
        if windows < 1:
            raise Unavailable(f"needs sound for more than {FRAMES} frames of the face, there is some for {used}")
        lips = face.features[:windows]
        self.sync = measure_sync(lips, encode_sound(self._network, speech, windows, self.clip.device))
        return self._figures(self.sync, first, used, len(held))

    def curves(self) -> dict[str, Curve]:
        """Return the mean distance over the shift between lips and sound."""
        if self.sync is None:
            return {}
        x, y = tuple(map(float, self.sync.shifts)), tuple(self.sync.curve.tolist())
        return {"sync_d": Curve("shift of the sound, frames of 40 ms", x, y, "mean distance")}

    def _see(self, frame: int, rgb: Rgb, boxes: Float[np.ndarray, "N 4"]) -> None:
        self._pictures[frame] = rgb
        self._tracker.add(frame, boxes)
        self._faces += [_Face(track, self._network, self.clip.device)
                        for track in self._tracker.tracks[len(self._faces) :]]  # fmt: skip
        self._advance(frame)

    def _advance(self, frame: int = 0, *, over: bool = False) -> None:
        """Cut out and encode what can be by now; forget the pictures that nobody needs any more."""
        waiting = [face for face in self._faces if not face.over]
        for face in waiting:
            face.advance(self._pictures, over=over or face_track.is_over(face.track, frame))
        needed = min((face.next_frame for face in waiting if not face.over), default=math.inf)
        self._pictures = {i: rgb for i, rgb in self._pictures.items() if i >= needed}

    def _why_no_track(self) -> str:
        if not self._faces:
            return "no face found"
        most = max(face.track.detections for face in self._faces)
        if most <= face_track.MIN_DETECTIONS:
            return (f"needs a face in more than {face_track.MIN_DETECTIONS} frames at {FPS} fps, the longest track has "
                    f"{most} (of {self._frames} frames)")  # fmt: skip
        largest = max(face.track.size_px for face in self._faces if face.track.detections > face_track.MIN_DETECTIONS)
        return f"needs a face of more than {face_track.MIN_SIZE_PX:.0f} px, it has {largest:.0f} px"

    def _figures(self, sync: Sync, first: int, used: int, tracks: int) -> list[Figure]:
        remarks = []
        if abs(sync.offset) == MAX_SHIFT:
            remarks.append(f"no sync found: an offset of {sync.offset:+d} is the end of the search, and what unrelated "
                           "sound gives")  # fmt: skip
        if self._frames > used:
            remarks.append(f"{self._frames - used} of {self._frames} frames lie outside the face's track or its sound")
        if tracks > 1:
            remarks.append(f"{tracks} faces were followed, the last to appear is measured")
        if self.clip.fps != FPS:
            remarks.append(f"{self.clip.fps:g} fps were resampled to {FPS} by nearest frame")
        values = (sync.offset, sync.confidence, sync.confidence, sync.distance)
        traces = ((), *(self._trace(v, first) for v in (sync.confidences, sync.confidences, sync.distances)))
        return [
            Figure(entry.name, "full", float(value), used, self._frames - used, "; ".join(remarks), trace)
            for entry, value, trace in zip(self.entries, values, traces, strict=True)
        ]

    def _trace(self, values: Float[np.ndarray, "N"], first: int) -> tuple[float | None, ...]:
        """Spread the windows' values over the clip's own frames, each at its window's middle."""
        at = np.rint(np.arange(self._frames_given) * FPS / self.clip.fps).astype(int) - first - FRAMES // 2
        return tuple(float(values[i]) if 0 <= i < len(values) else None for i in at)


class _Face:
    """One followed face: cut out of the pictures and encoded as soon as its track tells where."""

    def __init__(self, track: face_track.Track, network: SyncNet, device: torch.device) -> None:
        self.track = track
        self.over = False
        # In one block: small tensors left lying between passing pictures keep glibc from reusing the pictures' memory,
        # and the process grows by a picture a frame.
        self._numbers = array("f")
        self._network, self._device = network, device
        self._crops: list[Rgb] = []
        self._cut = 0

    @property
    def next_frame(self) -> int:
        """Return the first frame that is not cut out yet."""
        return self.track.first + self._cut

    @property
    def features(self) -> Float[Tensor, "N D"]:
        """Return SyncNet's features of all windows, once the track is over; only of a track that counts."""
        return torch.from_numpy(np.array(self._numbers)).reshape(self._cut - FRAMES + 1, -1)

    def advance(self, pictures: dict[int, Rgb], *, over: bool) -> None:
        """Cut out all frames whose smoothed place is known: all but the last six, or all when the track is over."""
        reach = face_track.SMOOTHING // 2
        known = len(self.track.boxes)
        ready = known if over else known - reach
        if ready > self._cut:
            start = max(0, self._cut - reach)
            places = face_track.steady(np.stack(self.track.boxes[start:known]))[self._cut - start : ready - start]
            for place in places:
                self._crops.append(face_track.crop_face(pictures[self.next_frame], *place))
                self._cut += 1
                if len(self._crops) == _BATCH + FRAMES - 1:
                    self._encode()
        if over:
            self._encode()
            self.over = True
            if not self.track.counts():
                self._numbers = array("f")

    @torch.inference_mode()
    def _encode(self) -> None:
        if len(self._crops) >= FRAMES:
            bgr = torch.from_numpy(np.stack(self._crops)[..., ::-1].copy()).to(self._device).float()
            windows = bgr.unfold(0, FRAMES, 1).permute(0, 3, 4, 1, 2)  # [N, 3, 5, 224, 224]
            self._numbers.frombytes(self._network.encode_lips(windows).cpu().numpy().tobytes())
            del self._crops[: 1 - FRAMES]


@dataclass(frozen=True)
class Sync:
    """How lips and sound agree."""

    offset: int
    """Shift of the smallest mean distance, frames; positive where the sound comes before the lips."""
    confidence: float
    """Median less minimum of `curve`."""
    distance: float
    """Minimum of `curve`."""
    curve: Float[np.ndarray, "J"]
    """Mean distance at offsets -J // 2 .. J // 2, in this order (of `shifts`)."""
    distances: Float[np.ndarray, "N"]
    """Distance at `offset`, window by window."""
    confidences: Float[np.ndarray, "N"]
    """Median of `curve` less `distances`, the median over nine windows."""

    @property
    def shifts(self) -> range:
        """Return the offsets of `curve`, frames of 40 ms."""
        return range(-(len(self.curve) // 2), len(self.curve) // 2 + 1)


def measure_sync(lips: Float[Tensor, "N D"], sound: Float[Tensor, "M D"], *, max_shift: int = MAX_SHIFT) -> Sync:
    """Compare the features of lips and sound at all shifts (specs/metrics.md section 5, step 6).

    Beyond the clip's ends the sound's features are zeros. That favours the largest shifts: unrelated features give an
    offset of +-max_shift nearly always.

    Args:
        lips: Of window i, which begins with frame i.
        sound: Of the same windows.
        max_shift: Frames, either way.

    Raises:
        ValueError: Different or no windows, or features that are not finite.
    """
    if lips.shape != sound.shape or len(lips) == 0:
        raise ValueError(f"measure_sync expects features of the same windows, got {lips.shape} and {sound.shape}.")
    if not (lips.isfinite().all() and sound.isfinite().all()):
        raise ValueError("measure_sync expects finite features; the network's weights or its input are damaged.")
    padded = F.pad(sound, (0, 0, max_shift, max_shift))
    by_shift = torch.empty(2 * max_shift + 1, len(lips))
    for row in range(len(by_shift)):
        start = 2 * max_shift - row  # ascending offsets: the sound's later features belong to negative ones
        by_shift[row] = F.pairwise_distance(lips, padded[start : start + len(lips)], eps=1e-6)
    curve = by_shift.mean(1)
    # Of equal minima the original takes the largest offset.
    best = len(curve) - 1 - int(curve.flip(0).argmin())
    median, distances = curve.median(), by_shift[best]
    return Sync(
        best - max_shift, float(median - curve[best]), float(curve[best]), curve.numpy(), distances.numpy(),
        face_track.medians((median - distances).numpy(), _FRAMEWISE_MEDIAN),
    )  # fmt: skip


@torch.inference_mode()
def encode_sound(
    network: SyncNet, speech: Int16[np.ndarray, "S"], windows: int, device: torch.device
) -> Float[Tensor, "N D"]:
    """Encode the sound of `windows` looks, each 0.2 s from its first frame on; 16-bit samples at 16 kHz."""
    mfcc = torch.from_numpy(extract_mfcc(speech).T.astype(np.float32))
    looks = mfcc.unfold(1, STEPS, STEPS_PER_FRAME)[:, :windows].transpose(0, 1)[:, None]  # [N, 1, 13, 20]
    return torch.cat([network.encode_sound(batch.to(device)).cpu() for batch in looks.split(_BATCH)])
