"""A head in motion: frames one at a time, in constant memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cuda_ext import rasterize
from gaussian_head.driving.live import Delay, LiveDriver, Voice, stream_delay
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.driving.speech import SpeechDriver
from gaussian_head.model.head import Head
from gaussian_head.render.backdrop import Behind
from gaussian_head.render.rasterizers import Rasterizer
from gaussian_head.render.view import Eye, HeadRenderer


@dataclass
class RenderClock:
    """How long rendering the head took: deforming, rasterizing, compositing; no files, no encoding, no torso.

    A clip's first frame does not count: it pays for loading libraries.
    """

    frames: int = 0
    seconds: float = 0.0

    @property
    def fps(self) -> float:
        """Frames per second; 0 before the first."""
        return self.frames / self.seconds if self.seconds else 0.0


@torch.no_grad()
def render_clip(
    head: Head,
    motion: DrivingSequence | Iterable[DrivingSequence],
    backdrop: Behind,
    clock: RenderClock | None = None,
    rasterizer: Rasterizer = rasterize,
) -> Iterator[UInt8[np.ndarray, "H W C"]]:
    """Render a driving sequence, or one that comes in pieces, of which one at a time is held.

    Args:
        head: The trained head.
        motion: What moves it; its size is the pictures' size.
        backdrop: Gives what stands behind the head in each frame.
        clock: Adds up the time that rendering takes.
        rasterizer: Draws the Gaussians.

    Yields:
        One frame at a time, 0..255: RGB where the backdrop is opaque, else RGBA with straight alpha.
    """
    render = HeadRenderer(head, rasterizer)
    clock = clock or RenderClock()
    first = True
    for sequence in [motion] if isinstance(motion, DrivingSequence) else motion:
        for i in range(len(sequence)):
            behind = backdrop(sequence, i)
            started = time.perf_counter()
            condition = head.space.condition(*sequence.frame(i))
            view = render(condition, Eye(sequence.viewmats[i], sequence.K, sequence.width, sequence.height))
            picture = view.over(behind.color.to(view.face))
            if not behind.opaque:
                picture = straight(picture, view.alpha + (1 - view.alpha) * behind.alpha.to(view.alpha))
            picture = to_bytes(picture)
            if not first:
                clock.seconds += time.perf_counter() - started
                clock.frames += 1
            first = False
            yield picture


def straight(color: Float[Tensor, "3 H W"], alpha: Float[Tensor, "1 H W"]) -> Float[Tensor, "4 H W"]:
    """Turn a premultiplied picture into RGBA whose colours are not multiplied, as PNG wants it."""
    return torch.cat([color / alpha.clamp_min(1e-4), alpha])


def to_bytes(image: Float[Tensor, "C H W"]) -> UInt8[np.ndarray, "H W C"]:
    """Round a picture in [0, 1] to 8 bits."""
    return np.ascontiguousarray(image.clamp(0, 1).mul_(255).round_().byte().permute(1, 2, 0).cpu().numpy())


class GaussianTalkingHead:
    """A trained head as a `TalkingHead`: any speech in, pictures out."""

    def __init__(self, head: Head, driver: SpeechDriver, backdrop: Behind) -> None:
        """Take a head, what turns sound into its motion, and what stands behind it."""
        self.head = head
        self.driver = driver
        self.backdrop = backdrop
        self.fps = driver.motion.fps

    @property
    def delay(self) -> Delay:
        """How far `stream` is behind its sound, computing aside.

        Raises:
            UserError: The head cannot stream.
        """
        return stream_delay(self.driver.predictor)

    def speak(self, speech: Float[np.ndarray, "S"]) -> Iterator[UInt8[np.ndarray, "H W C"]]:
        """Say something; see `TalkingHead.speak`."""
        return render_clip(self.head, self.driver.perform(self.driver.hear(speech), speech), self.backdrop)

    def stream(self, chunks: Iterable[np.ndarray], voice: Voice | None = None) -> Iterator[UInt8[np.ndarray, "H W C"]]:
        """Say something that is still being said.

        How the sound is cut changes nothing: pictures are the same for any chunks. They are those of `speak` where
        `voice` was measured on the very sound; else levels that `speak` measures are estimated from what was heard so
        far.

        Args:
            chunks: Samples at 16 kHz in [-1, 1], rows of floating-point numbers of any length, empty ones too; none is
                asked for before a frame needs it.
            voice: Levels of the voice and the room, from an earlier recording (`Voice.measure`).

        Returns:
            Pictures, 25 a second, each as soon as it can be told, `delay` behind its sound; at the end of the chunks
            those that are still due: as many as it takes to cover the sound.

        Raises:
            UserError: The head hears features that need the whole sound; or, later, a chunk is no sound.
        """
        return render_clip(self.head, LiveDriver(self.driver, voice).perform(chunks), self.backdrop)
