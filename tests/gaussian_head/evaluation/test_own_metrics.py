"""What our own metrics of motion must be; a drawn mesh instead of a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_mesh import SIZE, face, figures, look, rises, run, talk, texture
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from gaussian_head.evaluation.metric import Figure, Side
from gaussian_head.evaluation.mouth_aperture import MouthAperture
from gaussian_head.evaluation.neck_seam import NeckSeam, jaw_band
from gaussian_head.evaluation.pose_jitter import PoseJitter
from gaussian_head.evaluation.silence_leakage import SilenceLeakage, find_silence, frame_levels, settled_frames
from gaussian_head.media.audio import write_wav

# The mouth's opening


def openings(clip: list[np.ndarray], truth: list[np.ndarray]) -> tuple[float | None, float | None]:
    found = figures(MouthAperture, [look(mesh) for mesh in clip], [look(mesh) for mesh in truth])
    return found["aperture_correlation"].value, found["aperture_lag_frames"].value


def test_the_opening_of_the_same_mouth() -> None:
    talking = talk()
    assert openings(talking, talking) == pytest.approx((1, 0))
    assert openings([2 * mesh + 7 for mesh in talking], talking) == pytest.approx((1, 0))
    r, lag = openings([face(opening=6 - np.ptp(m[[13, 14], 1]) / 2) for m in talking], talking)
    assert r == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize("late", [-10, -4, 3, 7])
def test_a_shift_in_time_is_found(late: int) -> None:
    talking = talk()
    frames = np.arange(10, 50)
    clip, truth = [talking[t - late] for t in frames], [talking[t] for t in frames]
    r, lag = openings(clip, truth)
    assert lag == late
    assert r < 0.99
    assert openings(truth, clip)[1] == -late


def test_noise_lowers_the_correlation() -> None:
    talking = talk()
    noise = np.abs(np.random.default_rng(0).normal(size=len(talking)))
    base = [float(m[14, 1] - m[13, 1]) for m in talking]
    values = [openings([face(b + s * n) for b, n in zip(base, noise, strict=True)], talking)[0] for s in (4, 2, 1, 0)]
    assert rises(values)


def test_a_still_mouth_and_a_short_clip_have_no_correlation() -> None:
    talking = talk()
    still = figures(MouthAperture, [look(face(2.0))] * 60, [look(mesh) for mesh in talking])
    short = figures(MouthAperture, [look(mesh) for mesh in talking[:6]], [look(mesh) for mesh in talking[:6]])
    for found, reason in ((still, "a mouth is still"), (short, "too short: needs 10 frames")):
        assert [(figure.value, figure.reason) for figure in found.values()] == [(None, reason)] * 2


def test_openings_without_a_face_are_left_out() -> None:
    talking = talk()
    pictures = [look(None if i % 10 == 0 else mesh) for i, mesh in enumerate(talking)]
    found = figures(MouthAperture, pictures, [look(mesh) for mesh in talking])["aperture_correlation"]
    assert found.value == pytest.approx(1)
    assert (found.counted, found.excluded, found.reason) == (54, 6, "no face found")


# Silence


@pytest.fixture
def half_silent(tmp_path: Path) -> Path:
    """One second of tone, one of nearly nothing."""
    t = np.arange(32_000) / 16_000
    write_wav(tmp_path / "sound.wav", np.sin(2 * np.pi * 300 * t) * np.where(t < 1, 0.5, 0.001), 16_000)
    return tmp_path / "sound.wav"


def leakage(sound: Path, moving: float, faces: int = 50, name: str = "silence_leakage") -> Figure:
    """Of a mouth that moves much in speech and by `moving` px in silence."""
    swing = np.where(np.arange(50) < 25, 9, moving) * (np.arange(50) % 2)
    pictures = [look(face(opening)) for opening in swing]
    pictures[faces:] = [look(None)] * (50 - faces)
    return figures(SilenceLeakage, pictures, picture=Side(sound=sound))[name]


def test_only_what_the_mouth_does_in_silence_leaks(half_silent: Path) -> None:
    values = [leakage(half_silent, moving).value for moving in (0, 1, 2, 4)]
    assert values[0] == 0
    assert rises(values)
    assert values[1] == pytest.approx(0.5 / 90, rel=0.01)  # the face is 90 px high
    found = leakage(half_silent, 1, faces=40)
    assert (found.counted, found.excluded, found.reason) == (15, 10, "no face found")
    assert leakage(half_silent, 1, faces=28).value is None


def test_motion_in_silence_is_told_as_a_share_of_that_in_speech(half_silent: Path) -> None:
    def share(moving: float, faces: int = 50) -> Figure:
        return leakage(half_silent, moving, faces, "silence_motion")

    assert share(0).value == 0
    assert share(3).value == pytest.approx((3 / 9) ** 2, rel=0.01)
    assert share(9).value == pytest.approx(1, rel=0.01)
    found = share(3, faces=40)
    assert (found.counted, found.excluded, found.reason) == (40, 10, "no face found")
    still = figures(SilenceLeakage, [look(face(3))] * 50, picture=Side(sound=half_silent))["silence_motion"]
    assert (still.value, still.reason) == (None, "the mouth is still while the sound speaks")


def test_closing_and_opening_are_no_motion_in_silence(half_silent: Path) -> None:
    silent = np.zeros(40, bool)
    silent[10:30] = True
    assert np.flatnonzero(settled_frames(silent)).tolist() == list(range(15, 27))
    assert settled_frames(~silent)[[0, 6, 35, 39]].all()  # what is silent before the clip and behind it is not known
    assert not settled_frames(~silent)[[7, 9, 10, 29, 30, 34]].any()
    closing = np.r_[[9, 0] * 12, 9, 8, 6, 4, 2, np.zeros(21)]  # sound ends at frame 25
    found = figures(SilenceLeakage, [look(face(gap)) for gap in closing], picture=Side(sound=half_silent))
    assert found["silence_motion"].value == 0
    assert found["silence_leakage"].value > 0


def test_silence_is_relative_and_long() -> None:
    levels = np.ones(60)
    levels[10:20], levels[30:34], levels[55:] = 0.009, 0, 0.001
    silent = find_silence(levels)
    assert np.flatnonzero(silent).tolist() == [*range(10, 20), *range(55, 60)]
    assert np.array_equal(find_silence(levels / 50), silent)
    levels[10:20] = 0.011
    assert not find_silence(levels)[:55].any()
    assert find_silence(np.zeros(0)).size == 0
    tone = np.tile([0.5, -0.5], 800)
    assert frame_levels(tone, 16_000, 25) == pytest.approx([0.5, 0.5])
    assert len(frame_levels(tone, 16_000, 30_000 / 1001)) == 2


def test_no_sound_and_silence_throughout_are_told(tmp_path: Path) -> None:
    assert run(SilenceLeakage, [look(face())]).unavailable["silence_leakage"] == "needs sound"
    write_wav(tmp_path / "nothing.wav", np.zeros(16_000, np.float32), 16_000)
    told = run(SilenceLeakage, [look(face())], picture=Side(sound=tmp_path / "nothing.wav")).unavailable
    assert "silent throughout" in told["silence_leakage"]
    write_wav(tmp_path / "tone.wav", np.tile([0.5, -0.5], 8000), 16_000)
    found = figures(SilenceLeakage, [look(face())] * 25, truth=Side(sound=tmp_path / "tone.wav"))["silence_leakage"]
    assert (found.value, found.reason) == (None, "the sound is nowhere silent for 5 frames")


# The head's pose


def trembling(level: float) -> np.ndarray:
    """Angles in degrees of a head that turns evenly about one axis, and trembles."""
    rng = np.random.default_rng(0)
    return np.arange(40)[:, None] * (0, 0.8, 0) + level * rng.normal(size=(40, 3))


def test_even_turning_is_no_jitter_and_trembling_is() -> None:
    values = []
    for level in (0, 0.1, 0.2, 0.4):
        found = figures(PoseJitter, [look(face(turn_deg=tuple(angles))) for angles in trembling(level)])
        values.append(found["pose_jitter"].value)
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert rises(values)
    assert values[3] == pytest.approx(4 * values[1], rel=0.02)


def test_cameras_and_meshes_agree() -> None:
    angles = trembling(0.3)
    viewmats = np.tile(np.eye(4), (len(angles), 1, 1))
    viewmats[:, :3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    pictures = [look(face(turn_deg=tuple(row))) for row in angles]
    seen = figures(PoseJitter, pictures)["pose_jitter"]
    given = figures(PoseJitter, [look(None)] * 40, picture=Side(viewmats=viewmats))["pose_jitter"]
    assert given.value == pytest.approx(seen.value, rel=1e-6)
    assert (given.counted, given.excluded) == (38, 0)
    bigger = [look(1.7 * face(turn_deg=tuple(row)) + 5) for row in angles]
    assert figures(PoseJitter, bigger)["pose_jitter"].value == pytest.approx(seen.value, rel=1e-6)


def test_gaps_and_short_clips_have_no_jitter() -> None:
    pictures = [look(face(turn_deg=tuple(angles))) for angles in trembling(0.2)]
    pictures[20] = look(None)
    found = figures(PoseJitter, pictures)["pose_jitter"]
    assert (found.counted, found.excluded, found.reason) == (35, 1, "no face found")
    found = figures(PoseJitter, pictures[:2])["pose_jitter"]
    assert (found.value, found.reason) == (None, "needs three frames running")
    viewmats = np.tile(np.eye(4), (30, 1, 1))
    viewmats[4] = np.nan
    found = figures(PoseJitter, pictures, picture=Side(viewmats=viewmats))["pose_jitter"]
    assert (found.value, found.excluded, found.reason) == (0, 11, "no camera")


# The seam


def seams(picture: np.ndarray, truth: np.ndarray) -> float:
    return figures(NeckSeam, [look(None, picture)], [look(face(), truth)])["neck_seam"].value


def test_a_seam_adds_edges_and_a_blur_takes_them() -> None:
    pattern = texture()
    assert seams(pattern, pattern) == 0
    line = jaw_band(face(), SIZE, SIZE) & (np.indices((SIZE, SIZE)).sum(0) % 4 < 2)
    drawn = [np.where(line[..., None], pattern + level, pattern).astype(np.uint8) for level in (2, 8, 20)]
    values = [seams(picture, pattern) for picture in drawn]
    assert values[0] > 0
    assert rises(values)
    assert seams(pattern, drawn[2]) == pytest.approx(-values[2])
    blurred = [gaussian_filter(pattern, (sigma, sigma, 0)) for sigma in (3.0, 1.5, 0.7)]
    assert rises([*(seams(picture, pattern) for picture in blurred), 0])


def test_only_the_jaw_line_counts_for_the_seam() -> None:
    pattern = texture()
    band = jaw_band(face(), SIZE, SIZE)
    assert 0.03 < band.mean() < 0.2
    elsewhere = pattern.copy()
    elsewhere[:50] = 255 - elsewhere[:50]
    assert not band[:52].any()
    assert seams(elsewhere, pattern) == 0


def test_flat_and_hidden_jaw_lines() -> None:
    pattern = texture()
    flat = np.full_like(pattern, 90)
    assert seams(flat, flat) == 0
    assert 0 < seams(pattern, flat) < 60
    outside = [look(face() + (1000, 0, 0), pattern)]
    found = figures(NeckSeam, [look(None, pattern)], outside)["neck_seam"]
    assert (found.value, found.excluded, found.reason) == (None, 1, "no jaw line found in the true picture")
