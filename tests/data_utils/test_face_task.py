"""MediaPipe's face landmarker as the front end: what is kept of its result, units, poses, the choice, and its file."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from moving_face import HEIGHT, WIDTH, draw, make_moving_face, rotation_errors_deg
from safetensors.numpy import save_file
from scipy.spatial.transform import Rotation

from data_utils import process as process_module
from data_utils.action_units import BLINK_INTENSITY, count_blinks
from data_utils.blendshape_units import extract_blendshape_units, measure_blendshape_units
from data_utils.bundle_adjustment import PRIOR_FOCAL, adjust_bundle
from data_utils.face_task import FaceTask, read_face_task, turns_for_focal, write_face_task
from data_utils.landmarks import extract_landmarks, extract_task_landmarks
from data_utils.process import ProcessOptions, process
from data_utils.published import choose_landmarks
from data_utils.stage import Manifest
from data_utils.stages import INTAKE, build_stages
from data_utils.tracking import track_head_from_task
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.media.audio import write_wav
from gaussian_head.media.image import resize, write_jpeg
from gaussian_head.media.video import VideoWriter, read_frames_at
from gaussian_head.networks import face_landmarker, face_mesh
from gaussian_head.networks.face_follower import Face, FaceFollower
from gaussian_head.networks.face_landmarker import BLENDSHAPES, FIELD_OF_VIEW_DEG, faces_of
from gaussian_head.networks.weights import (
    TABLE,
    WeightsMissingError,
    check_task_bundle,
    find_weights,
    look_at,
    sha256_of,
)

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 30
PICTURE = np.zeros((80, 100, 3), np.uint8)


def result_of(points: np.ndarray, scores: np.ndarray, transform: np.ndarray, names: tuple = BLENDSHAPES) -> object:
    """Make what MediaPipe's FaceLandmarker returns for one face; points in px of PICTURE."""
    height, width = PICTURE.shape[:2]
    return SimpleNamespace(
        face_landmarks=[[SimpleNamespace(x=x / width, y=y / height, z=z / width) for x, y, z in points]],
        face_blendshapes=[[SimpleNamespace(category_name=n, score=s) for n, s in zip(names, scores, strict=True)]],
        facial_transformation_matrixes=[transform],
    )


def pose(turn: Rotation, place: tuple[float, float, float]) -> np.ndarray:
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = turn.as_matrix(), place
    return transform


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the only one where weights are looked for."""
    for name in list(os.environ):
        if name.startswith("GAUSSIAN_HEAD_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("GAUSSIAN_HEAD_CHECKPOINTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def save_task(path: Path, leave_out: str = "") -> Path:
    """Write a bundle with the right names in it."""
    names = ("face_detector", "face_landmarks_detector", "face_blendshapes")
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            if name != leave_out:
                archive.writestr(f"{name}.tflite", bytes(range(256)) * 4)
    return path


# What MediaPipe says


def test_a_result_becomes_faces() -> None:
    rng = np.random.default_rng(0)
    points, scores = rng.uniform(0, 80, (478, 3)), rng.uniform(0, 1, 52)
    transform = pose(Rotation.from_euler("y", 20, degrees=True), (1, 2, -30))
    (face,) = faces_of(result_of(points, scores, transform), PICTURE)
    np.testing.assert_allclose(face.points, points)
    np.testing.assert_array_equal(face.blendshapes, scores)
    np.testing.assert_array_equal(face.transform, transform)
    nobody = SimpleNamespace(face_landmarks=[], face_blendshapes=[], facial_transformation_matrixes=[])
    assert faces_of(nobody, PICTURE) == []
    with pytest.raises(UserError, match=r"tells 52 blendshapes .* see scripts/prepare\.sh"):
        faces_of(result_of(points, scores, transform, BLENDSHAPES[::-1]), PICTURE)


class PosedHead(FaceFollower):
    """Sees a known head the way a network would see it in each turned or scaled picture."""

    head = pose(Rotation.from_euler("yxz", (15, 5, 10), degrees=True), (3.0, -2.0, -40.0))
    canonical = np.random.default_rng(0).uniform(-5, 5, (478, 3))

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def _find(self, rgb: np.ndarray, *, static: bool) -> list[Face]:
        angle_deg, scale = self._views[self.looks % len(self._views)]
        self.looks += 1
        height, width = rgb.shape[:2]
        focal = height / 2 / np.tan(np.radians(FIELD_OF_VIEW_DEG / 2))
        centre = (width / 2, height / 2)
        # Weak perspective, as the network's points are: every point at the depth of the head.
        camera = self.canonical @ self.head[:3, :3].T + self.head[:3, 3]
        pixels = (camera * (1, -1, -1))[:, :2] * focal / -self.head[2, 3] + centre
        turn = cv2.getRotationMatrix2D(centre, angle_deg, scale)
        points = np.column_stack([pixels @ turn[:, :2].T + turn[:, 2], -camera[:, 2] * scale])
        seen = pose(Rotation.from_euler("z", angle_deg, degrees=True), (0, 0, 0)) @ self.head
        seen[2, 3] /= scale
        return [Face(points, np.full(52, 0.1 * self.looks), seen)]


def test_looks_are_mapped_back_before_they_are_averaged() -> None:
    follower = PosedHead()
    face = follower.follow(np.zeros((200, 240, 3), np.uint8))
    assert follower.looks == 4
    np.testing.assert_allclose(face.transform, follower.head, atol=1e-6)
    alone = PosedHead()
    alone._views = ((0.0, 1.0),)
    np.testing.assert_allclose(face.points, alone.follow(np.zeros((200, 240, 3), np.uint8)).points, atol=1e-6)
    np.testing.assert_allclose(face.blendshapes, np.mean([0.1, 0.2, 0.3, 0.4]))


# On disk


def task_of(frames: int = FRAMES, **scores: np.ndarray) -> FaceTask:
    blendshapes = np.zeros((frames, 52))
    for name, values in scores.items():
        blendshapes[:, BLENDSHAPES.index(name)] = values
    return FaceTask(blendshapes, np.tile(pose(Rotation.identity(), (0, 0, -30)), (frames, 1, 1)))


def as_faces(task: FaceTask, landmarks: np.ndarray | None = None) -> list[Face | None]:
    points = np.zeros((len(task.blendshapes), 478, 3)) if landmarks is None else landmarks
    told = zip(points, task.blendshapes, task.transforms, strict=True)
    return [None if np.isnan(t).any() else Face(p, b, t) for p, b, t in told]


def test_what_was_said_is_kept(tmp_path: Path) -> None:
    layout = SubjectLayout(tmp_path)
    with pytest.raises(FileNotFoundError, match="--landmarks task --only landmarks"):
        read_face_task(layout)
    task = task_of(eyeBlinkLeft=np.linspace(0, 1, FRAMES))
    task.transforms[7] = np.nan
    write_face_task(layout, as_faces(task))
    kept = read_face_task(layout)
    assert np.flatnonzero(~kept.valid).tolist() == [7]
    assert np.isnan(kept.blendshapes[7]).all()
    np.testing.assert_allclose(kept.score("eyeBlinkLeft"), np.linspace(0, 1, FRAMES), atol=1e-6)  # 7 is interpolated
    layout.face_task.write_bytes(layout.face_task.read_bytes()[:200])
    with pytest.raises(UserError, match=r"face_task\.safetensors is damaged"):
        read_face_task(layout)
    save_file({"blendshapes": np.zeros((3, 52)), "transforms": np.zeros((3, 4, 4))}, layout.face_task)
    with pytest.raises(UserError, match=r"face_task\.safetensors is no face task of format 1"):
        read_face_task(layout)


# Action units


def test_blendshapes_become_units_above_the_subjects_median() -> None:
    rest = np.full(FRAMES, 0.2)
    blink, brow = rest.copy(), rest.copy()
    blink[[5, 6, 20]], brow[10:14] = 0.9, 0.6
    units = measure_blendshape_units(
        task_of(eyeBlinkLeft=blink, eyeBlinkRight=blink, browInnerUp=brow, jawOpen=rest, eyeSquintLeft=blink)
    )
    assert sorted(units) == [1, 2, 4, 26, 45]
    assert units[45][[5, 6, 20]].tolist() == [BLINK_INTENSITY] * 3
    assert count_blinks(units[45]) == 2
    assert units[1][10:14] == pytest.approx(2.0)
    assert max(units[unit].max() for unit in (2, 4, 26)) == 0
    assert np.delete(units[1], slice(10, 14)).max() == 0
    one_eye = measure_blendshape_units(task_of(eyeBlinkLeft=blink, eyeBlinkRight=rest))[45]
    assert one_eye[5] == pytest.approx(5 * 0.35)


def test_the_csv_has_units_of_both_sources(tmp_path: Path) -> None:
    layout = SubjectLayout(tmp_path)
    blink = np.zeros(FRAMES)
    blink[9] = 0.4
    landmarks = make_moving_face(FRAMES).landmarks(0.0)
    for k in range(FRAMES):
        write_jpeg(layout.frame(k), PICTURE)
    np.save(layout.mesh_landmarks, landmarks)
    write_face_task(layout, as_faces(task_of(eyeBlinkLeft=blink, eyeBlinkRight=blink)))
    facts = extract_blendshape_units(layout)
    assert facts["from_blendshapes"] == ["AU01", "AU02", "AU04", "AU26", "AU45"]
    assert facts["blinks"] == 1
    table = np.genfromtxt(layout.action_units, delimiter=",", names=True, autostrip=True)
    assert table.dtype.names[5] == "AU01_r"
    assert table["AU45_r"][9] == pytest.approx(2.0)
    assert np.delete(table["AU45_r"], 9).max() == 0
    assert table["AU26_r"].max() == 0  # the jaw of the mesh moves, the blendshape does not
    assert table["AU25_r"].max() > 0.5  # lips are the mesh's


# Poses


def test_turns_are_those_of_another_lens() -> None:
    """The same pictures through a longer lens: what is seen on a ray keeps its turn against that ray."""
    rng = np.random.default_rng(1)
    seen = Rotation.from_euler("yxz", rng.uniform(-20, 20, (6, 3)), degrees=True)
    height, focal = 500, 900.0
    told = height / 2 / np.tan(np.radians(FIELD_OF_VIEW_DEG / 2))
    pixels = rng.uniform(-200, 200, (6, 2))

    def turned_to(focal_px: float) -> tuple[Rotation, np.ndarray]:
        rays = np.column_stack([pixels, np.full(6, -focal_px)])
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        axis = np.cross((0, 0, -1), rays)
        angle = np.arccos(-rays[:, 2:])
        return Rotation.from_rotvec(axis / np.linalg.norm(axis, axis=1, keepdims=True) * angle), rays

    near, rays = turned_to(told)
    transforms = np.stack([pose(r, t) for r, t in zip(near * seen, rays * 30, strict=True)])
    task = FaceTask(np.zeros((6, 52)), transforms)
    expected = (turned_to(focal)[0] * seen).as_matrix()
    np.testing.assert_allclose(turns_for_focal(task, height, focal), expected, atol=1e-9)
    np.testing.assert_allclose(turns_for_focal(task, height, told), transforms[:, :3, :3], atol=1e-9)
    transforms[[0, 3]] = np.nan
    found = turns_for_focal(FaceTask(np.zeros((6, 52)), transforms), height, focal)
    np.testing.assert_allclose(found, expected[[1, 1, 2, 2, 4, 5]], atol=1e-9)


def test_tracking_starts_from_given_turns() -> None:
    face = make_moving_face(20)
    landmarks = face.landmarks(0.0)
    true = face.track.rotations.numpy()
    other_frame = Rotation.from_euler("xy", (7, 3), degrees=True).as_matrix()
    start = adjust_bundle(landmarks, (WIDTH, HEIGHT), turns=true @ other_frame)[1]
    assert rotation_errors_deg(start.rotations.numpy(), true).max() < 0.05
    alone = adjust_bundle(landmarks, (WIDTH, HEIGHT))[1]
    apart = Rotation.from_matrix(np.swapaxes(alone.rotations.numpy(), 1, 2) @ start.rotations.numpy())
    assert np.degrees(apart.mean().magnitude()) < 0.5  # told in the head frame of the landmarks, not in the other


def test_a_folder_is_tracked_from_the_tasks_poses(tmp_path: Path) -> None:
    layout, face = SubjectLayout(tmp_path), make_moving_face(FRAMES)
    for k in range(FRAMES):
        write_jpeg(layout.frame(k), draw(face.track, k))
    landmarks = face.landmarks(0.3)
    landmarks[4] = np.nan
    np.save(layout.mesh_landmarks, landmarks)
    with pytest.raises(FileNotFoundError, match="--landmarks task"):
        track_head_from_task(layout)
    places = face.track.translations.double().numpy() * 100
    told = HEIGHT / 2 / np.tan(np.radians(FIELD_OF_VIEW_DEG / 2))
    places[:, 2] *= told / (PRIOR_FOCAL * WIDTH)
    turns = Rotation.from_matrix(face.track.rotations.double().numpy())
    task = FaceTask(np.zeros((FRAMES, 52)), np.stack([pose(r, t) for r, t in zip(turns, places, strict=True)]))
    task.transforms[4] = np.nan
    write_face_task(layout, as_faces(task))
    facts = track_head_from_task(layout)
    assert facts["tracker"] == "task"
    assert facts["invalid_frames"] == [4]
    frames = json.loads(layout.transforms("train").read_text())["frames"]
    found = np.stack([np.array(frame["transform_matrix"])[:3, :3].T for frame in frames])
    true = face.track.rotations.numpy()[[frame["img_id"] for frame in frames]]
    assert rotation_errors_deg(found, true).mean() < 1


# The choice, the stages and the manifest


def test_auto_is_the_task_where_its_file_is(weights: Path) -> None:
    assert ProcessOptions(Path("x")).landmarks == "auto"
    assert choose_landmarks("auto") == choose_landmarks("mesh") == "mesh"
    with pytest.raises(WeightsMissingError) as missing:
        choose_landmarks("task")
    told = str(missing.value)
    assert "\n" not in told
    for part in (
        "needs face_landmarker.task",
        "$GAUSSIAN_HEAD_FACE_LANDMARKER",
        str(weights),
        "fetch it: bash scripts/prepare.sh face_landmarker",
    ):
        assert part in told
    save_task(weights / "face_landmarker.task")
    assert choose_landmarks("task") == "task"
    assert choose_landmarks("auto") == "task"
    assert choose_landmarks("mesh") == "mesh"


def test_a_missing_file_is_told_before_anything_is_written(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissingError, match=r"face_landmarker\.task"):
        process(ProcessOptions(tmp_path / "x.mp4", out=tmp_path / "x", landmarks="task"))
    assert not (tmp_path / "x").exists()


def test_stages_know_who_found_the_face(tmp_path: Path) -> None:
    layout = SubjectLayout(tmp_path)
    given = {"size": 64, "crop": "auto", "extractor": "mel"}
    mesh, task = build_stages(layout, **given), build_stages(layout, **given, landmarks="task")
    for name in ("landmarks", "tracking", "action_units"):
        assert mesh[name].options == {}
        assert layout.face_task not in (*mesh[name].inputs, *mesh[name].outputs)
    assert task["landmarks"].options == {"landmarks": "task"}
    assert set(task["landmarks"].outputs) == {*mesh["landmarks"].outputs, layout.face_task}
    assert task["tracking"].options == {"tracker": "task"}
    assert set(task["tracking"].inputs) == {*mesh["tracking"].inputs, layout.face_task}
    assert task["tracking"].outputs == mesh["tracking"].outputs
    for name in set(mesh) - {"landmarks", "tracking"}:
        assert (mesh[name].options, mesh[name].inputs) == (task[name].options, task[name].inputs)
    own = build_stages(layout, **given, landmarks="task", action_units="blendshapes")["action_units"]
    assert (own.options, own.outputs) == ({"action_units": "blendshapes"}, mesh["action_units"].outputs)
    assert set(own.inputs) == {*mesh["action_units"].inputs, layout.face_task}
    others = build_stages(layout, **given, landmarks="task", tracker="bfm", action_units="openface")
    assert others["tracking"].options == {"tracker": "bfm"}
    assert others["action_units"].options == {"action_units": "openface"}
    assert layout.face_task not in (*others["tracking"].inputs, *others["action_units"].inputs)


class StubLandmarker(FaceFollower):
    """Sees the same face everywhere; blinks in the picture's red channel."""

    def __enter__(self) -> StubLandmarker:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _find(self, rgb: np.ndarray, *, static: bool) -> list[Face]:
        points = np.random.default_rng(0).uniform(20, 60, (478, 3))
        return [Face(points, np.full(52, rgb[..., 0].mean() / 255), pose(Rotation.identity(), (0, 0, -30)))]


def make_clip(path: Path) -> Path:
    sound = path.with_suffix(".wav")
    write_wav(sound, np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32), 16_000)
    with VideoWriter(path, 25, 64, 64, audio=sound) as writer:
        for k in range(50):
            writer.write(np.full((64, 64, 3), (200, 90, k), np.uint8))
    return path


def test_the_manifest_tells_option_file_and_hash(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(face_landmarker, "FaceLandmarker", StubLandmarker)
    monkeypatch.setattr(face_mesh, "FaceMeshDetector", StubLandmarker)
    monkeypatch.setattr(process_module, "STAGE_NAMES", INTAKE)
    path = save_task(weights / "face_landmarker.task")
    clip = make_clip(tmp_path / "x.mp4")
    given = {"out": tmp_path / "x", "crop": "none", "size": 64, "report": False}

    def run(landmarks: str) -> tuple[SubjectLayout, dict, list[str]]:
        layout = process(ProcessOptions(clip, landmarks=landmarks, **given))
        said = [line.partition(" in ")[0] for line in capsys.readouterr().out.splitlines()]
        return layout, Manifest(layout).stages["landmarks"], said

    layout, record, _ = run("task")
    assert record["options"] == {"landmarks": "task"}
    assert (record["facts"]["weights"], record["facts"]["weights_sha256"]) == (path.name, sha256_of(path))
    assert record["outputs"]["face_task.safetensors"] == sha256_of(layout.face_task)
    assert read_face_task(layout).blendshapes.mean() == pytest.approx(200 / 255, abs=0.02)
    kept = layout.face_task.read_bytes()
    assert "landmarks: up to date" in run("task")[2]

    _, record, said = run("mesh")  # made aside, then put in the place of the task's
    assert "landmarks: done" in said
    assert record["options"] == {}
    assert not layout.face_task.exists()
    assert "landmarks: up to date" in run("mesh")[2]

    _, record, said = run("auto")
    assert "landmarks: done" in said
    assert layout.face_task.read_bytes() == kept
    assert "landmarks: up to date" in run("task")[2]


def test_landmarks_are_the_same_files_from_both(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_landmarker, "FaceLandmarker", StubLandmarker)
    monkeypatch.setattr(face_mesh, "FaceMeshDetector", StubLandmarker)
    save_task(weights / "face_landmarker.task")
    written = []
    for name, extract in (("a", extract_landmarks), ("b", extract_task_landmarks)):
        layout = SubjectLayout(tmp_path / name)
        for k in range(5):
            write_jpeg(layout.frame(k), np.full((64, 64, 3), 99, np.uint8))
        facts = extract(layout)
        assert facts["invalid_frames"] == []
        written.append((np.load(layout.mesh_landmarks), layout.landmarks68(3).read_text()))
    np.testing.assert_array_equal(written[0][0], written[1][0])
    assert written[0][1] == written[1][1]


# The file


def test_damaged_and_foreign_files_are_refused(weights: Path) -> None:
    path = save_task(weights / "face_landmarker.task")
    check_task_bundle(path)
    whole = path.read_bytes()
    for damaged, told in (
        (whole[: len(whole) // 2], "damaged"),
        (whole[:300] + bytes([whole[300] ^ 1]) + whole[301:], r"face_detector\.tflite has another checksum"),
        (b"<html>404 Not Found</html>", "damaged"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"face_landmarker.task .*{told}.*get it again from https://"):
            check_task_bundle(path)
    save_task(path, leave_out="face_blendshapes")
    with pytest.raises(UserError, match=r"another MediaPipe task: it has no face_blendshapes\.tflite"):
        check_task_bundle(path)


def test_status_tells_present_and_corrupt(weights: Path) -> None:
    def state() -> tuple[str, str]:
        found = look_at(TABLE["face_landmarker"])
        return found.state, found.remark

    assert state() == ("missing", "")
    path = save_task(weights / "face_landmarker.task")
    assert state() == ("present", "not the published file (another sha256)")
    path.write_bytes(path.read_bytes()[:-50])
    assert state()[0] == "corrupt"


# The model itself


@pytest.fixture(scope="module")
def model() -> Path:
    """Path of the published file: as the library finds it, or in shared/weights beside the repository."""
    beside = ROOT.parent / "shared" / "weights" / "face_landmarker.task"
    try:
        return find_weights("face_landmarker", beside if beside.is_file() else None)
    except WeightsMissingError:
        pytest.skip(f"no face_landmarker.task at {beside} or where weights are looked for; see scripts/prepare.sh")


def test_the_model_sees_a_real_face(model: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mediapipe")
    monkeypatch.setenv("GAUSSIAN_HEAD_FACE_LANDMARKER", str(model))
    frames = read_frames_at(clips / "talk_c_5s.mp4", 25)
    layouts = [SubjectLayout(tmp_path / name) for name in ("mesh", "task")]
    for k in range(6):
        rgb = resize(next(frames), 256, 256)
        for layout in layouts:
            write_jpeg(layout.frame(k), np.full_like(rgb, 90) if k == 3 else rgb)
    extract_landmarks(layouts[0])
    facts = extract_task_landmarks(layouts[1])
    assert facts["invalid_frames"] == [3]
    assert facts["weights_sha256"] == sha256_of(model)
    mesh, task = (np.load(layout.mesh_landmarks) for layout in layouts)
    kept = read_face_task(layouts[1])
    assert np.flatnonzero(~kept.valid).tolist() == [3]
    face = np.ptp(mesh[0, :, 1])
    apart = np.linalg.norm(mesh - task, axis=-1)[[0, 1, 2, 4, 5], :468]
    assert apart.mean() < 0.06 * face  # another network of the same mesh
    scores = kept.blendshapes[kept.valid]
    assert (scores >= 0).all()
    assert (scores <= 1).all()
    turns = turns_for_focal(kept, 256, PRIOR_FOCAL * 256)
    assert (turns[:, 2, 2] > 0.8).all()  # it looks at the camera
    assert (turns[:, 1, 1] > 0.8).all()  # upright
