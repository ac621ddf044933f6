"""A portrait ready for a face renderer, and videos whose motion is borrowed, cut alike."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.media.image import read_upright, resize
from gaussian_head.media.video import probe_video, read_frames_at
from gaussian_head.networks.coefficient_regressor import CoefficientRegressor
from gaussian_head.oneshot.source.coefficients import coefficients_of, coefficients_of_frames
from gaussian_head.oneshot.source.crop import Border, Box, Mode, choose_box, cut
from gaussian_head.oneshot.source.detect import FaceFinder, FoundFace, open_finder
from gaussian_head.oneshot.source.paste import PasteMethod, Paster

SMALLEST_FACE_PX, SMALL_FACE_PX = 32, 96
"""From the brows to the chin: smaller faces are refused; smaller ones become blurred, which is told."""
LARGEST_TILT_DEG = 30.0
SEARCH_S, LOOKS_PER_S = 60, 2
"""How far into a reference video a face is looked for, and how often."""
WHITE = (255, 255, 255)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceOptions:
    """How a portrait is cut, and how results are put back."""

    mode: Mode = "crop"
    """crop: the face alone; extcrop: with a margin; resize: the whole picture; full, extfull: cut like crop and
    extcrop, and pasted back into the whole picture."""
    side_px: int = 256
    """Width and height of the renderer's picture."""
    border: Border = "pad"
    """Of a face near the picture's border. pad: its last pixels are repeated outwards, and cut off again from the
    results; clamp: what there is of the crop is stretched to a square, as SadTalker does."""
    paste: PasteMethod = "box"
    """Of full and extfull. box: the crop fades out towards its border; face: only the face is replaced; seamless:
    OpenCV's cloning, slow, changes colours."""
    background: tuple[int, int, int] = WHITE
    """RGB shown through the transparent parts of a portrait; results in full modes are transparent there again."""


@dataclass(frozen=True)
class Source:
    """A portrait."""

    picture: UInt8[ndarray, "H W 3"]
    """The whole picture, upright, RGB; straight colours where it has an alpha channel."""
    alpha: UInt8[ndarray, "H W"] | None
    """Its alpha channel, where some of it is transparent."""
    crop: UInt8[ndarray, "S S 3"]
    """What the renderer sees."""
    box: Box
    """What the crop shows, in px of the whole picture; may reach beyond it."""
    face: FoundFace
    """In px of the whole picture, pixel centres at + 0.5."""
    options: SourceOptions
    coefficients: FaceCoefficients | None = None
    """Of the crop, one frame; None where there is no regressor."""
    remarks: tuple[str, ...] = ()
    """What a user should know of this portrait; logged as well."""

    @property
    def landmarks(self) -> Float[ndarray, "68 2"]:
        """Return the 68 points in px of the crop, pixel centres at + 0.5."""
        return self.box.to_crop(self.face.landmarks, self.options.side_px)

    @property
    def mesh(self) -> Float[ndarray, "478 3"] | None:
        """Return MediaPipe's points in px of the crop, where MediaPipe found the face; z in px of its width."""
        if self.face.mesh is None:
            return None
        flat = self.box.to_crop(self.face.mesh[:, :2], self.options.side_px)
        return np.column_stack([flat, self.face.mesh[:, 2] * self.options.side_px / self.box.width])

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height of what `finish` gives, px."""
        if self.options.mode in ("full", "extfull"):
            return self.picture.shape[1], self.picture.shape[0]
        rows, columns, height = self._seen
        return columns.stop - columns.start, height if height is not None else rows.stop - rows.start

    def finish(self, frames: Iterable[UInt8[ndarray, "S S 3"]]) -> Iterator[UInt8[ndarray, "h w C"]]:
        """Make the renderer's squares the final pictures, one by one.

        Yields:
            full and extfull: the whole picture with the frame pasted in, RGB, or RGBA where the portrait has alpha;
            else the frame in the portrait's proportions, without what was padded.
        """
        if self.options.mode in ("full", "extfull"):
            yield from self.paster.stream(frames)
            return
        rows, columns, height = self._seen
        for frame in frames:
            seen = np.ascontiguousarray(frame[rows, columns])
            yield seen if height is None else resize(seen, frame.shape[1], height)

    @cached_property
    def paster(self) -> Paster:
        """Return what puts frames into the picture."""
        chosen = self.options
        face = self.face.landmarks
        return Paster(self.picture, self.box, face, chosen.paste, self.alpha, chosen.background)

    @cached_property
    def _seen(self) -> tuple[slice, slice, int | None]:
        """Return rows and columns of the crop that lie in the picture, and the height that undoes a squeezing."""
        box, side = self.box, self.options.side_px
        if box.width != box.height:
            return slice(0, side), slice(0, side), max(1, round(side * box.height / box.width))
        inside = box.within(self.picture.shape[1], self.picture.shape[0])
        scale = side / box.width
        (left, right), (top, bottom) = (
            (int(np.ceil((low - start) * scale - 1e-6)), int(np.floor((high - start) * scale + 1e-6)))
            for low, high, start in ((inside.left, inside.right, box.left), (inside.top, inside.bottom, box.top))
        )
        return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1)), None


def open_source(
    path: Path,
    options: SourceOptions = SourceOptions(),  # noqa: B008 -- frozen
    finder: FaceFinder | None = None,
    regressor: CoefficientRegressor | None = None,
) -> Source:
    """Read a portrait, find its face, and cut what the renderer sees.

    Args:
        path: A picture: grey or coloured, 8 or 16 bits, with or without alpha, turned by EXIF or not.
        options: How.
        finder: Default: the best one that there is.
        regressor: Gives the coefficients; without it they are None.

    Raises:
        FileNotFoundError: No such file.
        UserError: It is a video or no picture, shows no face, or only a tiny one; or no finder can be used.
    """
    path = Path(path)
    picture, alpha = _read(path)
    seen = picture if alpha is None else over(picture, alpha, options.background)
    face = (finder or open_finder()).find(seen)
    source = _cut(seen, face, options, str(path))
    landmarks = source.landmarks
    coefficients = None if regressor is None else coefficients_of(regressor, source.crop, landmarks)
    return replace(source, picture=picture, alpha=alpha, coefficients=coefficients)


def _cut(seen: UInt8[ndarray, "H W 3"], face: FoundFace | None, options: SourceOptions, name: str) -> Source:
    height, width = seen.shape[:2]
    if face is None:
        raise UserError(f"no face found in {name}; give a picture of a face that looks at the camera, lit and large.")
    if face.size_px < SMALLEST_FACE_PX:
        raise UserError(
            f"the face in {name} is {face.size_px:.0f} px from the brows to the chin; {SMALLEST_FACE_PX} px are "
            f"needed, {SMALL_FACE_PX} or more are better: give a larger picture."
        )
    box = choose_box(face.landmarks, width, height, options.mode, options.border)
    remarks = tuple(f"{name}: {remark}" for remark in _remarks(face, box, width, height, options))
    for remark in remarks:
        logger.warning("%s", remark)
    return Source(seen, None, cut(seen, box, options.side_px), box, face, options, remarks=remarks)


def _remarks(face: FoundFace, box: Box, width: int, height: int, options: SourceOptions) -> Iterator[str]:
    if face.faces > 1:
        yield f"shows {face.faces} faces; the largest is taken."
    if face.size_px < SMALL_FACE_PX:
        yield f"the face is small ({face.size_px:.0f} px from the brows to the chin): enlarged, it will be blurred."
    if abs(face.tilt_deg) > LARGEST_TILT_DEG:
        yield f"the head is tilted by {abs(face.tilt_deg):.0f} degrees; renderers expect it upright: turn the picture."
    if options.mode == "resize":
        if width != height and options.border == "clamp":
            yield f"the picture of {width} x {height} px is squeezed to a square."
    elif box != box.within(width, height):
        yield "the crop reaches beyond the picture; the picture's edge is repeated there (border clamp: stretched)."
    elif box.width != box.height:
        yield f"the face is at the picture's border; its {box.width} x {box.height} px are stretched to a square."


def over(
    picture: UInt8[ndarray, "H W 3"], alpha: UInt8[ndarray, "H W"], background: tuple[int, int, int]
) -> UInt8[ndarray, "H W 3"]:
    """Lay a picture with straight alpha over a colour."""
    share = np.float32(alpha)[..., None] / 255
    return np.uint8(np.rint(np.float32(background) * (1 - share) + np.float32(picture) * share))


def _read(path: Path) -> tuple[UInt8[ndarray, "H W 3"], UInt8[ndarray, "H W"] | None]:
    """Read colours and alpha.

    Raises:
        FileNotFoundError: No such file.
        UserError: It is no picture.
    """
    try:
        picture = read_upright(path)
    except UserError as error:
        if _is_video(path):
            raise UserError(
                f"{path} is a video; a picture is wanted: give one of its frames as PNG or JPEG."
            ) from error
        raise
    if picture.shape[2] == 3:
        return picture, None
    return np.ascontiguousarray(picture[:, :, :3]), np.ascontiguousarray(picture[:, :, 3])


def _is_video(path: Path) -> bool:
    try:
        return probe_video(path).frames != 1
    except UserError:
        return False


@dataclass(frozen=True)
class ReferenceVideo:
    """A video whose motion is borrowed, cut as the first of its frames that shows a face."""

    path: Path
    fps: float | int
    """Frames per second of what `crops` gives, whatever the video's own rate."""
    box: Box
    """In px of its frames."""
    side_px: int

    def crops(self) -> Iterator[UInt8[ndarray, "S S 3"]]:
        """Read anew and cut, one frame at a time."""
        for frame in read_frames_at(self.path, self.fps):
            yield cut(frame, self.box, self.side_px)

    def coefficients(self, regressor: CoefficientRegressor) -> FaceCoefficients:
        """Regress every frame's; see `coefficients_of_frames`."""
        return coefficients_of_frames(regressor, self.crops)


def open_reference(
    path: Path,
    options: SourceOptions = SourceOptions(),  # noqa: B008 -- frozen
    fps: float | int = 25,
    finder: FaceFinder | None = None,
) -> ReferenceVideo:
    """Find the face of a video and cut all its frames alike.

    Args:
        path: The video.
        options: How it is cut; `paste` and `background` do not matter.
        fps: At which rate it is read.
        finder: Default: the best one that there is.

    Raises:
        FileNotFoundError: No such file.
        UserError: It is no video, or shows no face, or a tiny one.
    """
    path, finder = Path(path), finder or open_finder()
    every = max(1, round(fps / LOOKS_PER_S))
    for k, frame in enumerate(islice(read_frames_at(path, fps), 0, round(fps * SEARCH_S), every)):
        face = finder.find(frame)
        if face is not None:
            if k:
                logger.warning("%s: a face is first seen after %.1f s.", path, k * every / fps)
            return ReferenceVideo(path, fps, _cut(frame, face, options, str(path)).box, options.side_px)
    raise UserError(f"no face found in the first {SEARCH_S} s of {path}; give a video of a face, lit and large.")
