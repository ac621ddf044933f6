"""The 257 numbers of Deep3DFaceRecon by name, and the four orders in which the one-shot pipelines keep them.

T frames. Sources: specs/one_shot.md 0 and 9, specs/vico.md 1.3, 6 and 7.1. Files are read by `gaussian_head.media`
(`mat`, `coefficient_files`), whose functions give and take the plain arrays of a layout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

COEFFICIENTS = 257
IDENTITY, EXPRESSION, TEXTURE = slice(0, 80), slice(80, 144), slice(144, 224)
ANGLES, LIGHT, TRANSLATION = slice(224, 227), slice(227, 254), slice(254, 257)
WIDTHS = {"identity": 80, "expression": 64, "texture": 80, "angles": 3, "light": 27, "translation": 3, "crop": 3}
"""Numbers of each part; all but the crop make up the 257, in this order."""
MOTION, MOTION_WITH_CROP = 70, 73
"""Numbers of a motion vector: expression 64, angles 3, translation 3, and the crop 3."""
VICO_SIDE_PX = 256
"""Width and height that ViCo's generated files name, whatever the picture's were."""


@dataclass(frozen=True)
class FaceCoefficients:
    """What a face looks like and does in each of T frames. Every part has a row a frame and the same float type."""

    identity: Float[ndarray, "T 80"]
    """In standard deviations of the face model, like expression and texture."""
    expression: Float[ndarray, "T 64"]
    texture: Float[ndarray, "T 80"]
    angles: Float[ndarray, "T 3"]
    """Pitch, yaw, roll, radians: R = Rz Ry Rx (`face_model.matrix_from_angles`)."""
    light: Float[ndarray, "T 27"]
    """Nine spherical harmonics of red, of green and of blue light."""
    translation: Float[ndarray, "T 3"]
    """Decimetres, from the point that lies 10 before the camera."""
    crop: Float[ndarray, "T 3"] | None = None
    """Where the face was found (`face_alignment`): the scale that the picture is resized by, and its place (x, y) in
    px, y up from the last row. None where nobody knows."""

    def __len__(self) -> int:
        """Return T."""
        return len(self.expression)

    def take(self, frames: slice | Int[ndarray, "N"]) -> FaceCoefficients:
        """Return some of the frames, in the order given; a frame may be asked for more than once."""
        return replace(self, **{name: part[frames] for name in WIDTHS if (part := getattr(self, name)) is not None})

    def vector(self) -> Float[ndarray, "T 257"]:
        """Return the 257 numbers, without the crop."""
        return np.concatenate([getattr(self, name) for name in WIDTHS if name != "crop"], 1)

    def motion(self, crop: bool) -> Float[ndarray, "T M"]:  # noqa: FBT001 -- agreed by all renderers
        """Return what moves a face: expression, angles, translation, and on demand the crop: 70 or 73 numbers.

        Raises:
            ValueError: The crop is wanted and not known.
        """
        parts = [self.expression, self.angles, self.translation]
        return np.concatenate([*parts, self._known_crop()] if crop else parts, 1)

    def moved(self, motion: Float[ndarray, "T M"]) -> FaceCoefficients:
        """Return this face, as it is in its first frame, moved by motion vectors.

        Args:
            motion: 73 numbers a frame, or 70: then the crop stays that of the first frame.

        Raises:
            ValueError: There is no first frame, or the motion has another width.
        """
        if not len(self):
            raise ValueError("moved: expected a face of one frame at least, got none.")
        if motion.shape[1] not in (MOTION, MOTION_WITH_CROP):
            raise ValueError(f"moved: motion must be [frames, 70 or 73], got {list(motion.shape)}.")
        expression, angles, translation, crop = np.split(motion, [64, 67, 70], 1)
        still = self.take(np.zeros(len(motion), np.int64))
        crop = crop if crop.shape[1] else still.crop
        return replace(still, expression=expression, angles=angles, translation=translation, crop=crop)

    @classmethod
    def from_vector(
        cls, vector: Float[ndarray, "T 257"], crop: Float[ndarray, "T 3"] | None = None
    ) -> FaceCoefficients:
        """Cut the 257 numbers up."""
        parts = (vector[:, part] for part in (IDENTITY, EXPRESSION, TEXTURE, ANGLES, LIGHT, TRANSLATION))
        return cls(*parts, crop)

    # Deep3DFaceRecon, ViCo and the 2023 challenge's entries: `coeff` and `transform_params` of a .mat file.

    @classmethod
    def from_deep3d(cls, coefficients: Float[ndarray, "T 257"], transforms: Float[ndarray, "T 5"]) -> FaceCoefficients:
        """Take transform parameters [width, height, scale, x, y] along; the picture's size is dropped."""
        return cls.from_vector(coefficients, transforms[:, 2:])

    def deep3d(
        self, width: int = VICO_SIDE_PX, height: int = VICO_SIDE_PX
    ) -> tuple[Float[ndarray, "T 257"], Float[ndarray, "T 5"]]:
        """Return coefficients and transform parameters.

        Args:
            width: Of the picture that the crop is told in, px; ViCo's generated files always say 256.
            height: Likewise.

        Raises:
            ValueError: The crop is not known.
        """
        crop = self._known_crop()
        sides = np.tile(np.array([width, height], crop.dtype), (len(self), 1))
        return self.vector(), np.concatenate([sides, crop], 1)

    # SadTalker: `coeff_3dmm` and `full_3dmm` of a .mat file.

    @classmethod
    def from_sadtalker(
        cls, motion: Float[ndarray, "T M"], first: Float[ndarray, "1 257"] | None = None
    ) -> FaceCoefficients:
        """Join motion vectors (70 or 73 numbers) and all coefficients of the first frame.

        Args:
            motion: A row a frame.
            first: Gives identity, texture and light of every frame. None, as in files that SadTalker generated: the
                mean face in plain grey light.
        """
        full = np.zeros((1, COEFFICIENTS), motion.dtype) if first is None else first
        return cls.from_vector(np.asarray(full, motion.dtype)).moved(motion)

    def sadtalker(self, crop: bool | None = None) -> tuple[Float[ndarray, "T M"], Float[ndarray, "1 257"]]:
        """Return motion vectors and all coefficients of the first frame.

        Args:
            crop: Whether the crop is among them; None: where it is known.
        """
        return self.motion(self.crop is not None if crop is None else crop), self.vector()[:1]

    # ViCo's features: `angle.exp.trans` and `id.gamma.tex` of a .bin file.

    @classmethod
    def from_vico(cls, moving: Float[ndarray, "T 73"], fixed: Float[ndarray, "T 187"]) -> FaceCoefficients:
        """Join what moves (angles, expression, translation, crop) and what stays (identity, light, texture)."""
        angles, expression, translation, crop = np.split(moving, [3, 67, 70], 1)
        identity, light, texture = np.split(fixed, [80, 107], 1)
        return cls(identity, expression, texture, angles, light, translation, crop)

    def vico(self) -> tuple[Float[ndarray, "T 73"], Float[ndarray, "T 187"]]:
        """Return what moves and what stays, the reverse of `from_vico`.

        Raises:
            ValueError: The crop is not known.
        """
        moving = [self.angles, self.expression, self.translation, self._known_crop()]
        return np.concatenate(moving, 1), np.concatenate([self.identity, self.light, self.texture], 1)

    # PIRender: the value `<video>-coeff_3dmm` of its LMDB.

    @classmethod
    def from_pirender(cls, rows: Float[ndarray, "T 260"]) -> FaceCoefficients:
        """Take rows of 257 coefficients and the crop."""
        return cls.from_vector(rows[:, :COEFFICIENTS], rows[:, COEFFICIENTS:])

    def pirender(self) -> Float[ndarray, "T 260"]:
        """Return rows of 257 coefficients and the crop.

        Raises:
            ValueError: The crop is not known.
        """
        return np.concatenate([self.vector(), self._known_crop()], 1)

    def _known_crop(self) -> Float[ndarray, "T 3"]:
        if self.crop is None:
            raise ValueError("the crop is not known: expected coefficients that were extracted from pictures.")
        return self.crop
