"""The procedural subject: a detector that knows nothing of us must see what its truth says."""

from __future__ import annotations

import numpy as np
import pytest

from data_utils.stage import no_progress
from data_utils.synthetic.head import Expression, HeadShape
from data_utils.synthetic.landmarks import landmark_vertices, mouth_shape
from data_utils.synthetic.performance import LIMITS_DEG, articulate, perform
from data_utils.synthetic.person import LABELS
from data_utils.synthetic.phonemes import compose
from data_utils.synthetic.raster import rasterize
from data_utils.synthetic.subject import load_truth, make_subject, mask_path
from data_utils.synthetic.voice import VOICE_HZ, speak
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.geometry.cameras import intrinsics, project, viewmat_from_c2w
from gaussian_head.geometry.landmarks import MESH_TO_68, mouth_aperture
from gaussian_head.media.audio import load_audio
from gaussian_head.media.image import read_rgb
from gaussian_head.media.video import probe_video, read_frames

SECONDS, SIZE = 2.2, 256


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    layout = SubjectLayout(tmp_path_factory.mktemp("synthetic") / "small one")
    seen = []

    def progress(iterable, total, label):
        for item in iterable:
            seen.append((total, label))
            yield item

    assert make_subject(layout, seconds=SECONDS, size=SIZE, seed=3, progress=progress)
    assert len(seen) == seen[0][0] == round(SECONDS * 25)
    return layout


@pytest.fixture(scope="module")
def truth(subject):
    return load_truth(subject)


@pytest.fixture(scope="module")
def frames(subject):
    return [rgb for _, rgb in read_frames(subject.video)]


@pytest.fixture(scope="module")
def detected(frames):
    """[T, 478, 2] px, NaN where MediaPipe finds no face."""
    mediapipe = pytest.importorskip("mediapipe")
    found = np.full((len(frames), 478, 2), np.nan)
    with mediapipe.solutions.face_mesh.FaceMesh(refine_landmarks=True) as mesh:
        for k, rgb in enumerate(frames):
            faces = mesh.process(rgb).multi_face_landmarks
            if faces:
                found[k] = [[point.x * SIZE, point.y * SIZE] for point in faces[0].landmark]
    return found


def true_pixels(truth):
    description, arrays = truth
    K = intrinsics(description["focal_px"], SIZE, SIZE)
    return project(arrays["landmarks68"], viewmat_from_c2w(arrays["c2w"]), K)[0]


def correlation(a, b):
    return np.corrcoef(a, b)[0, 1]


def test_video_has_25_fps_and_sound_of_its_length(subject, truth, frames):
    info = probe_video(subject.video)
    assert (info.width, info.height, info.fps, info.has_audio) == (SIZE, SIZE, 25, True)
    assert len(frames) == truth[0]["frames"] == round(SECONDS * 25)
    assert info.duration_s == pytest.approx(SECONDS, abs=0.05)
    heard, spoken = load_audio(subject.video), load_audio(subject.truth / "speech.wav")
    common = min(len(heard), len(spoken))
    assert common > (SECONDS - 0.1) * 16_000
    assert correlation(heard[:common], spoken[:common]) > 0.95  # in step, through the encoder


def test_face_is_found_in_every_frame(detected):
    assert np.isfinite(detected).all()


def test_true_landmarks_lie_where_the_detector_sees_them(truth, detected):
    error = np.linalg.norm(true_pixels(truth) - detected[:, MESH_TO_68], axis=-1)
    assert np.median(error) < 1.5  # px of 256
    assert error.mean(0).max() < 4
    lips_and_eyes = error[:, 36:]
    assert lips_and_eyes.mean() < 1.6


def test_detected_mouth_follows_the_truth(truth, detected):
    aperture, width = truth[1]["mouth"].T
    assert aperture.min() < 5e-4
    assert aperture.max() > 7e-3
    assert correlation(mouth_aperture(detected), aperture) > 0.9
    assert correlation(np.linalg.norm(detected[:, 78] - detected[:, 308], axis=-1), width) > 0.7


def test_detected_lids_follow_the_blinks(truth, detected):
    description, arrays = truth
    blink = arrays["expression"][:, description["expression_columns"].index("blink_left")]
    opening = np.linalg.norm(detected[:, [159, 386]] - detected[:, [145, 374]], axis=-1).mean(1)
    assert blink.max() > 0.8
    assert correlation(opening, blink) < -0.75


def test_masks_agree_with_landmarks(subject, truth):
    pixels = true_pixels(truth)
    aperture = truth[1]["mouth"][:, 0]
    k = int(aperture.argmax())
    labels = read_rgb(mask_path(subject.truth, k))[..., 0]
    assert set(np.unique(labels)) == set(range(len(LABELS)))  # an open mouth shows every part

    def label_at(point):
        x, y = point
        return LABELS[labels[int(y), int(x)]]

    assert label_at(pixels[k, 30]) == label_at(pixels[k, 8] - [0, 6]) == "head"
    inside_lips = pixels[k, 60:68].mean(0)
    assert label_at(inside_lips) in ("mouth", "teeth")
    assert label_at(pixels[k, 27] - [0, 60]) == "hair"
    shut = int(aperture.argmin())
    labels = read_rgb(mask_path(subject.truth, shut))[..., 0]
    assert np.isin(labels, [LABELS.index("mouth"), LABELS.index("teeth")]).sum() < 8


def test_person_has_no_holes(subject, truth):
    from scipy.ndimage import binary_fill_holes

    for k in range(truth[0]["frames"]):
        covered = read_rgb(mask_path(subject.truth, k))[..., 0] > 0
        assert (binary_fill_holes(covered) == covered).all()


def test_background_stands_still(subject, truth, frames):
    empty = np.ones((SIZE, SIZE), bool)
    for k in range(len(frames)):
        empty &= read_rgb(mask_path(subject.truth, k))[..., 0] == 0
    empty = empty & np.roll(empty, 3, 1) & np.roll(empty, -3, 1)
    assert empty.mean() > 0.2
    assert np.std(np.stack(frames).astype(np.float32)[:, empty], axis=0).mean() < 1.5


def test_second_run_does_nothing(subject, truth):
    before = subject.video.stat().st_mtime_ns
    assert not make_subject(subject, seconds=SECONDS, size=SIZE, seed=3)
    assert subject.video.stat().st_mtime_ns == before


def test_failure_leaves_no_half_made_files(tmp_path):
    layout = SubjectLayout(tmp_path / "broken")

    def breaks(iterable, total, label):
        for k, item in enumerate(iterable):
            if k == 2:
                raise RuntimeError("stop")
            yield item

    with pytest.raises(RuntimeError, match="stop"):
        make_subject(layout, seconds=0.4, size=64, progress=breaks)
    assert list(layout.root.iterdir()) == []


def test_same_seed_same_subject(tmp_path):
    made = []
    for name in ("one", "two"):
        layout = SubjectLayout(tmp_path / name)
        make_subject(layout, seconds=0.4, size=64, seed=5, progress=no_progress)
        made.append((load_truth(layout)[1], [rgb for _, rgb in read_frames(layout.video)]))
    (arrays, pictures), (again, pictures_again) = made
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, again[name])
    np.testing.assert_array_equal(pictures, pictures_again)


@pytest.mark.parametrize(("seconds", "size"), [(0.1, 128), (2.0, 127), (2.0, 32), (float("nan"), 128)])
def test_bad_options_are_named(tmp_path, seconds, size):
    with pytest.raises(UserError, match="--seconds|--size"):
        make_subject(SubjectLayout(tmp_path), seconds=seconds, size=size)


def test_missing_truth_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="data_utils.synthetic"):
        load_truth(SubjectLayout(tmp_path))


def test_head_moves_within_limits_and_smoothly():
    from scipy.spatial.transform import Rotation

    acts = perform(seed=1, frames=250, fps=25)
    angles = Rotation.from_matrix(acts.head_poses[:, :3, :3]).as_euler("YXZ", degrees=True)
    assert (np.abs(angles).max(0) <= np.array(LIMITS_DEG) + 1e-6).all()
    assert (np.ptp(angles, axis=0) > [8, 4, 3]).all()
    assert np.abs(np.diff(angles, axis=0)).max() < 3
    assert np.linalg.norm(np.diff(acts.head_poses[:, :3, 3], axis=0), axis=1).max() < 5e-3


def test_sound_and_mouth_come_from_the_same_phonemes():
    rng = np.random.default_rng(0)
    segments = compose(rng, 6.0)
    assert segments[0].start_s == 0
    assert segments[-1].stop_s == pytest.approx(6.0)
    assert all(a.stop_s == b.start_s for a, b in zip(segments, segments[1:], strict=False))
    speech = speak(segments, 6.0, rng)
    assert len(speech) == 6 * VOICE_HZ
    assert np.abs(speech).max() <= 1
    aperture = articulate(segments, 150, 25)[:, 0]
    loudness = np.sqrt((speech.reshape(150, -1) ** 2).mean(1))
    assert correlation(loudness, aperture) > 0.6
    times = (np.arange(150) + 0.5) / 25
    for segment in segments:
        middle = (segment.start_s + segment.stop_s) / 2
        if segment.phoneme.closure and segment.stop_s - segment.start_s > 0.07:
            assert aperture[np.abs(times - middle).argmin()] < 0.12


def test_vowels_have_their_formants():
    from scipy.signal import welch

    from data_utils.synthetic.phonemes import VOWELS, Segment

    for name in ("a", "i", "u"):
        vowel = VOWELS[name]
        speech = speak([Segment(vowel, 0.0, 1.0, 1.0)], 1.0, np.random.default_rng(0))
        hz, power = welch(speech, VOICE_HZ, nperseg=1024)
        smooth = np.convolve(np.log(power), np.ones(7) / 7, "same")  # over the harmonics
        low = np.where((hz > 180) & (hz < 1000), smooth, -np.inf)
        assert hz[low.argmax()] == pytest.approx(vowel.formants_hz[0], abs=130)


def test_aperture_is_what_was_asked_for():
    head = HeadShape()
    points = landmark_vertices(head)
    assert len(set(points)) == 68
    for asked in (0.0, 0.4, 1.2):
        skin = head.vertices(Expression(aperture=asked, jaw=0.8 * asked))
        gap, width = mouth_shape(skin[points])
        assert gap == pytest.approx(asked, abs=0.12)
        assert 4 < width < 5
    left, right = head.rest[points][[36, 45]]
    np.testing.assert_allclose(left * [-1, 1, 1], right, atol=1e-6)


def test_rasterizer_agrees_with_a_pixel_by_pixel_loop():
    rng = np.random.default_rng(0)
    xy, depth = rng.uniform(-4, 36, (60, 2)), rng.uniform(1, 2, 60)
    faces = np.arange(60).reshape(20, 3)
    pixel, face, weights = rasterize(xy, depth, faces, 32, 24)
    expected = {}
    for number, (a, b, c) in enumerate(faces):
        matrix = np.stack([np.append(xy[i], 1) for i in (a, b, c)], 1)
        if np.linalg.det(matrix) >= 0:  # turned away (y is down)
            continue
        for p in range(32 * 24):
            inside = np.linalg.solve(matrix, [p % 32 + 0.5, p // 32 + 0.5, 1])
            z = inside @ depth[[a, b, c]]
            if inside.min() > 0 and z < expected.get(p, (np.inf,))[0]:
                expected[p] = (z, number)
    assert np.mean([expected.get(p, (0, -1))[1] == f for p, f in zip(pixel, face, strict=True)]) > 0.995
    assert abs(len(expected) - len(pixel)) <= 2
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)


def test_rasterizer_leaves_an_empty_picture_empty():
    pixel, face, weights = rasterize(np.full((3, 2), -9.0), np.ones(3), np.array([[0, 1, 2]]), 8, 8)
    assert len(pixel) == len(face) == len(weights) == 0
