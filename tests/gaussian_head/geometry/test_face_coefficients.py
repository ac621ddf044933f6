"""The coefficient record: its parts, the four layouts, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from gaussian_head.geometry.coefficients import WIDTHS, FaceCoefficients

RNG = np.random.default_rng(0)
VECTOR = RNG.standard_normal((5, 257)).astype(np.float32)
CROP = RNG.standard_normal((5, 3)).astype(np.float32)
FACE = FaceCoefficients.from_vector(VECTOR, CROP)


def same(a: FaceCoefficients, b: FaceCoefficients) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in WIDTHS)


def test_columns_of_the_regressor() -> None:
    marked = FaceCoefficients.from_vector(np.arange(257.0)[None])
    starts = {name: part[0, 0] for name in WIDTHS if (part := getattr(marked, name)) is not None}
    assert starts == dict(identity=0, expression=80, texture=144, angles=224, light=227, translation=254)  # noqa: C408
    assert marked.crop is None
    assert np.array_equal(marked.vector()[0], np.arange(257.0))


def test_layouts_return_what_they_took() -> None:
    assert same(FaceCoefficients.from_deep3d(*FACE.deep3d(640, 480)), FACE)
    assert FACE.deep3d(640, 480)[1][:, :2].tolist() == [[640, 480]] * 5
    assert same(FaceCoefficients.from_vico(*FACE.vico()), FACE)
    assert same(FaceCoefficients.from_pirender(FACE.pirender()), FACE)
    still = FACE.take(np.zeros(5, np.int64))
    moving = still.moved(FACE.motion(crop=True))
    assert same(FaceCoefficients.from_sadtalker(*moving.sadtalker()), moving)


def test_layouts_put_columns_where_each_program_looks() -> None:
    moving, fixed = FACE.vico()
    assert np.array_equal(moving, np.hstack([FACE.angles, FACE.expression, FACE.translation, CROP]))
    assert np.array_equal(fixed, np.hstack([FACE.identity, FACE.light, FACE.texture]))
    motion = np.hstack([FACE.expression, FACE.angles, FACE.translation])
    assert np.array_equal(FACE.motion(crop=False), motion)
    assert np.array_equal(FACE.motion(crop=True), np.hstack([motion, CROP]))
    assert np.array_equal(FACE.pirender(), np.hstack([VECTOR, CROP]))


def test_a_motion_moves_the_first_frame_alone() -> None:
    motion = np.float32(RNG.standard_normal((7, 70)))
    moved = FACE.moved(motion)
    assert np.array_equal(moved.motion(crop=False), motion)
    for part in ("identity", "texture", "light", "crop"):
        assert np.array_equal(getattr(moved, part), np.tile(getattr(FACE, part)[:1], (7, 1)))
    generated = FaceCoefficients.from_sadtalker(motion)
    assert generated.crop is None
    assert not generated.identity.any()
    assert [part.shape for part in generated.sadtalker()] == [(7, 70), (1, 257)]


@pytest.mark.parametrize(("make", "message"), [
    (lambda: FACE.moved(CROP), r"must be \[frames, 70 or 73\]"),
    (lambda: FACE.take(slice(0)).moved(FACE.motion(crop=True)), "one frame at least"),
    (lambda: FaceCoefficients.from_vector(VECTOR).motion(crop=True), "the crop is not known"),
    (lambda: FaceCoefficients.from_vector(VECTOR).pirender(), "the crop is not known"),
])  # fmt: skip
def test_what_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
