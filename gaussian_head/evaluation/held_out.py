"""A trained head on the frames it has not seen, rendered and laid beside the true ones as metrics want them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from gaussian_head.data.subject import Frame, Subject
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.evaluation.measure_clip import mouth_mask
from gaussian_head.evaluation.metric import ClipFacts, Look, Mesh, Pair, Region, Rgb, Side
from gaussian_head.geometry.cameras import project
from gaussian_head.media.audio import load_audio, write_wav
from gaussian_head.model.head import Head
from gaussian_head.render.backdrop import Backdrop, own_scene
from gaussian_head.render.clip import RenderClock, render_clip

FindMesh = Callable[[Rgb], Mesh | None]


class HeldOut:
    """The val frames of a subject; regions come from its parsing and its tracked lips, not from the pictures."""

    def __init__(self, subject: Subject, shown: list[int], find_true_mesh: FindMesh) -> None:
        """Take the subject.

        Args:
            subject: Whose val frames.
            shown: Frames whose true pictures are kept, for the contact sheet.
            find_true_mesh: Finds the face in true pictures, which are looked at once, whatever the number of rows.
        """
        self.subject = subject
        self.truths = {k: true_picture(subject.frame(k)) for k in shown}
        self._find_true_mesh = find_true_mesh
        self._true_meshes: dict[int, Mesh | None] = {}

    def facts(self, motion: DrivingSequence, folder: Path) -> ClipFacts:
        """Return what is known of a row beforehand; the sound of the val frames is cut into `folder`."""
        subject = self.subject
        true_poses = subject.viewmats[subject.val].numpy()
        sound = self._cut_sound(folder / "val.wav", motion.fps)
        picture = Side(sound=sound, viewmats=motion.viewmats.cpu().numpy())
        truth = Side(sound=sound, viewmats=true_poses)
        return ClipFacts(motion.fps, subject.width, subject.height, has_truth=True, picture=picture, truth=truth)

    def pairs(
        self, head: Head, motion: DrivingSequence, clock: RenderClock, find_mesh: FindMesh, kept: dict[int, Rgb]
    ) -> Iterator[Pair]:
        """Render the frames in order; the pictures of the shown frames are put into `kept`, by frame number."""
        subject = self.subject
        backdrop = Backdrop(subject.layout, subject.width, subject.height, own_scene(subject.layout))
        pictures = render_clip(head, motion, backdrop, clock)
        for index, (k, picture) in enumerate(zip(subject.val, pictures, strict=True)):
            if k in self.truths:
                kept[k] = picture
            frame = subject.frame(k)
            truth = Look(true_picture(frame), lambda rgb, k=k: self._true_mesh(k, rgb))
            yield Pair(index, Look(picture, find_mesh), truth, self._regions(frame))

    def _true_mesh(self, k: int, rgb: Rgb) -> Mesh | None:
        if k not in self._true_meshes:
            self._true_meshes[k] = self._find_true_mesh(rgb)
        return self._true_meshes[k]

    def _regions(self, frame: Frame) -> dict[str, Region]:
        subject, k = self.subject, frame.index
        points, _ = project(subject.landmarks[k].numpy(), subject.viewmats[k].numpy(), subject.K.numpy())
        masks = {"head": frame.head[0].numpy() > 0.5, "mouth": mouth_mask(points, subject.width, subject.height)}
        return {name: Region(mask) for name, mask in masks.items() if mask.any()}

    def _cut_sound(self, path: Path, fps: float) -> Path | None:
        layout, val = self.subject.layout, self.subject.val
        if not layout.audio.is_file() or val != list(range(val[0], val[-1] + 1)):
            return None  # frames of another tool's folder may be scattered: their sound is no speech
        rate = 16_000
        speech = load_audio(layout.audio, rate)
        write_wav(path, speech[round(val[0] / fps * rate) : round((val[-1] + 1) / fps * rate)], rate)
        return path


def true_picture(frame: Frame) -> Rgb:
    """Return a frame's picture with its channels last."""
    return np.ascontiguousarray(frame.image.permute(1, 2, 0).numpy())
