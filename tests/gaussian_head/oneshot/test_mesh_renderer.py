"""The mesh renderer moves what it says, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from procedural_portrait import procedural_portrait

from gaussian_head.geometry.landmarks import INNER_LIPS, LEFT_IRIS, RIGHT_IRIS, mouth_aperture
from gaussian_head.oneshot.mesh.acting import Actor
from gaussian_head.oneshot.mesh.head import MeshHead, part_around
from gaussian_head.oneshot.mesh.renderer import FacePose, PortraitMesh
from gaussian_head.oneshot.mesh.rig import CHIN_POINTS, NOSE_BASE, Rig

TURNED = FacePose(angles=(0.04, -0.06, 0.03), shift=(0.01, -0.01, 0.0), breath=0.006)


@pytest.fixture(scope="module")
def mesh() -> PortraitMesh:
    portrait = procedural_portrait()
    return PortraitMesh(portrait.rgb, portrait.landmarks, portrait.person)


def test_lips_open_as_far_as_asked(mesh: PortraitMesh) -> None:
    height = mesh.rig.frame.height_px
    for aperture, jaw in ((0.0, 0.0), (0.02, 0.01), (0.06, 0.05), (0.05, 0.08)):
        found = mouth_aperture(mesh.landmarks(FacePose(aperture=aperture, jaw=jaw)))
        # The three pairs that are measured lie beside the middle, where lips part less.
        assert found / height == pytest.approx(aperture, abs=0.12 * aperture + 0.003)


def test_the_jaw_takes_the_chin_but_not_the_nose(mesh: PortraitMesh) -> None:
    rest, moved = mesh.points(FacePose()), mesh.points(FacePose(aperture=0.06, jaw=0.06))
    way = (moved - rest) / mesh.rig.frame.height_px
    assert (way[CHIN_POINTS, 1] > 0.02).all()
    assert np.abs(way[NOSE_BASE]).max() < 1e-9
    outermost = slice(-36, None)
    assert np.abs(way[outermost]).max() < 1e-9


def test_parted_lips_close() -> None:
    portrait = procedural_portrait()
    parted = portrait.landmarks.copy()
    parted[INNER_LIPS[1:10], 1] += 6 * np.sin(np.linspace(0, np.pi, 11))[1:-1]  # the lower lip hangs
    rig = Rig.of(parted)
    assert rig.rest_gap > 0.04
    closed = rig.points[:, :2] + rig.fields["close"]
    assert mouth_aperture(closed[:478]) < 0.003 * rig.frame.height_px


def test_a_portrait_at_rest_stays_itself(mesh: PortraitMesh) -> None:
    frame = mesh.render(FacePose())
    changed = np.abs(frame.astype(int) - mesh.rgb).max(2)
    assert changed.max() <= 8  # its lips were parted by a tenth of a pixel
    assert (changed > 0).mean() < 0.01


def test_what_stands_still_stays_bit_for_bit(mesh: PortraitMesh) -> None:
    still = ~mesh.moving_part
    assert 0.05 < still.mean() < 0.9
    for pose in (TURNED, FacePose(aperture=0.07, jaw=0.05, blink=1.0, brows=0.01)):
        np.testing.assert_array_equal(mesh.render(pose)[still], mesh.rgb[still])


def test_the_picture_moves_with_its_points(mesh: PortraitMesh) -> None:
    """Each iris is darker than what is around it: its middle is found where the points say."""
    frame = mesh.render(TURNED).mean(2)
    points = mesh.landmarks(TURNED)
    assert np.abs(points - mesh.landmarks(FacePose())).max() > 2.0
    for iris in (RIGHT_IRIS, LEFT_IRIS):
        where = points[iris].mean(0)
        x, y = np.meshgrid(*(np.arange(round(c) - 7, round(c) + 8) for c in where))
        dark = np.clip(mesh.rgb.mean() - frame[y, x], 0, None) ** 2
        found = np.array([(dark * (axis + 0.5)).sum() for axis in (x, y)]) / dark.sum()
        before = mesh.landmarks(FacePose())[iris].mean(0)
        assert np.linalg.norm(found - where) < 0.6 * np.linalg.norm(found - before) + 0.8


def test_an_open_mouth_shows_cavity_and_teeth(mesh: PortraitMesh) -> None:
    pose = FacePose(aperture=0.08, jaw=0.06)
    frame, points = mesh.render(pose), mesh.landmarks(pose)
    lips = mesh.render(FacePose())
    upper, lower = points[13], points[14]
    column = round(float(upper[0]) + 0.06 * mesh.rig.frame.height_px)
    rows = slice(round(float(upper[1])), round(float(lower[1])))
    inside = frame[rows, column].astype(float)
    skin = lips[round(float(points[4, 1])), round(float(points[4, 0]))].mean()
    assert inside.mean(1).min() < 0.35 * skin
    assert inside.mean(1).max() > 0.5 * skin
    lip = frame[round(float(lower[1])) + 2, column].astype(float)
    saturation = [1 - colour.min() / colour.max() for colour in (inside[inside.mean(1).argmax()], lip)]
    assert saturation[0] < 0.92 * saturation[1]  # teeth are pale


def test_shut_eyes_show_no_iris(mesh: PortraitMesh) -> None:
    shut = mesh.render(FacePose(blink=1.0))
    for iris in (RIGHT_IRIS, LEFT_IRIS):
        x, y = np.floor(mesh.rig.points[iris[0], :2]).astype(int)
        before, now = mesh.rgb[y - 1 : y + 2, x - 1 : x + 2].mean(), shut[y - 1 : y + 2, x - 1 : x + 2].mean()
        assert now > before + 25  # lid instead of pupil


def test_half_shut_eyes_lie_between(mesh: PortraitMesh) -> None:
    still = mesh.render(FacePose())
    change = [float(np.abs(mesh.render(FacePose(blink=b)).astype(int) - still).sum()) for b in (0.0, 0.4, 1.0)]
    assert change[0] == 0 < change[1] < change[2]


def test_motion_dies_away_smoothly(mesh: PortraitMesh) -> None:
    """The head's field, far beyond what an idle head does, folds nothing and reaches no border."""
    back = mesh.motion.full(mesh.motion.backward(mesh._forward(TURNED)))  # noqa: SLF001
    assert np.abs(back).max() > 3
    for axis in (0, 1):
        assert np.abs(np.diff(back, axis=axis)).max() < 0.6
    assert np.abs(back[[0, -1]]).max() < 1e-3
    assert np.abs(back[:, [0, -1]]).max() < 1e-3


def test_backward_undoes_forward(mesh: PortraitMesh) -> None:
    forward = mesh._forward(TURNED)  # noqa: SLF001
    there, back = mesh.motion.full(forward), mesh.motion.full(mesh.motion.backward(forward))
    y, x = np.array([60, 90, 120, 150]), np.array([110, 90, 130, 112])
    moved = np.stack([x, y], 1) + there[y, x]
    rounded = np.rint(moved).astype(int)
    np.testing.assert_allclose(back[rounded[:, 1], rounded[:, 0]], -there[y, x], atol=0.12)


def test_a_part_of_a_large_picture_is_animated_in_place() -> None:
    portrait = procedural_portrait()
    pad = ((40, 160), (300, 20))
    rgb = np.pad(portrait.rgb, (*pad, (0, 0)), mode="edge")
    landmarks = portrait.landmarks + [300, 40, 0]
    large = type(portrait)(rgb, landmarks, np.pad(portrait.person, pad, mode="edge"))
    head = MeshHead(large, Actor())
    pose = FacePose(aperture=0.07, jaw=0.06)
    (frame,) = head.show([pose])
    assert frame.shape == rgb.shape == (424, 544, 3)
    assert head.size == (544, 424)
    left, top, right, bottom = part_around(landmarks, 544, 424)
    outside = np.ones(rgb.shape[:2], bool)
    outside[top:bottom, left:right] = False
    assert outside.any()
    np.testing.assert_array_equal(frame[outside], rgb[outside])
    changed = np.argwhere(np.abs(frame.astype(int) - rgb).max(2) > 40)[:, ::-1]
    mouth = landmarks[[13, 14], :2].mean(0)
    assert np.linalg.norm(changed.mean(0) - mouth) < 0.25 * head.mesh.rig.frame.height_px
    assert np.abs(head.landmarks(pose) - landmarks[:, :2]).max() < 0.1 * head.mesh.rig.frame.height_px


def test_a_face_at_the_border_is_animated() -> None:
    portrait = procedural_portrait()
    cut = slice(70, None)
    face = type(portrait)(
        np.ascontiguousarray(portrait.rgb[:, cut]), portrait.landmarks - [70, 0, 0],
        np.ascontiguousarray(portrait.person[:, cut]),
    )  # fmt: skip
    frames = list(MeshHead(face, Actor()).show([TURNED, FacePose(aperture=0.06, jaw=0.05, blink=0.7)]))
    assert [frame.shape for frame in frames] == [(224, 154, 3)] * 2
