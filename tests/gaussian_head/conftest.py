"""A made-up person, drawn in flat colours at 64 px, whose mouth opens with the loudness of the sound."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from flat_face import mesh
from legacy_folder import LINEAGES, make_legacy_folder, patch_detector

from data_utils.complete import complete
from gaussian_head.config import to_json
from gaussian_head.data import layout as names
from gaussian_head.data.layout import SPEECH_HZ, VIDEO_FPS, SubjectLayout
from gaussian_head.data.subject import Subject
from gaussian_head.driving.regression import fit_speech_regression
from gaussian_head.geometry import landmarks as face
from gaussian_head.geometry.cameras import c2w_from_viewmat, intrinsics, project
from gaussian_head.media.audio import write_wav
from gaussian_head.media.image import write_jpeg, write_png
from gaussian_head.media.mel import log_mel, mel_windows
from gaussian_head.model.checkpoint import save_checkpoint
from gaussian_head.model.gaussians import Gaussians
from gaussian_head.model.head import Head, HeadConfig
from gaussian_head.model.initialize import paint

SIZE, FRAMES, VAL = 64, 88, 8
FOCAL_PX, DISTANCE_M = 130.0, 0.6
SKIN, HAIR, LIPS, MOUTH = (214, 170, 140), (70, 45, 30), (190, 80, 80), (60, 20, 20)
SHIRT, WALL = (40, 60, 120), (150, 160, 150)


def openings() -> np.ndarray:
    """Mouth opening of each frame, metres: syllables of uneven strength, three a second."""
    time = np.arange(FRAMES) / VIDEO_FPS
    return 0.012 * np.clip(np.sin(2 * np.pi * (2.9 * time - 0.4)) + 0.6 * np.sin(2 * np.pi * 0.83 * time + 1), 0, None)


def viewmats() -> np.ndarray:
    """A head that sways a little."""
    swing = 0.06 * np.sin(np.arange(FRAMES) / 9)
    views = np.tile(np.diag([1.0, -1, -1, 1]), (FRAMES, 1, 1))
    turn = np.tile(np.eye(4), (FRAMES, 1, 1))
    turn[:, 0, 0] = turn[:, 2, 2] = np.cos(swing)
    turn[:, 0, 2], turn[:, 2, 0] = np.sin(swing), -np.sin(swing)
    views = views @ turn
    views[:, 2, 3] = DISTANCE_M
    return views


def speech(opening_m: np.ndarray) -> np.ndarray:
    """A buzz as loud as the mouth is open, a spectrum a voice might have."""
    time = np.arange(FRAMES * SPEECH_HZ // VIDEO_FPS) / SPEECH_HZ
    loudness = np.interp(time, np.arange(FRAMES) / VIDEO_FPS, opening_m / opening_m.max())
    voice = sum(np.sin(2 * np.pi * 140 * n * time) / n for n in range(1, 12))
    return 0.2 * loudness * voice + 1e-4 * np.random.default_rng(1).normal(size=len(time))


def draw_frame(layout: SubjectLayout, k: int, landmarks: np.ndarray, viewmat: np.ndarray) -> None:
    """Write one frame's pictures and regions."""
    pixels, _ = project(landmarks, viewmat, intrinsics(FOCAL_PX, SIZE, SIZE))

    def polygon(points: np.ndarray) -> np.ndarray:
        return cv2.fillPoly(np.zeros((SIZE, SIZE), np.uint8), [np.rint(points).astype(np.int32)], 1).astype(bool)

    oval = pixels[face.FACE_OVAL]
    top = oval.mean(0) + (oval - oval.mean(0)) * 1.25 - (0, 3)
    hair, skin = polygon(top[top[:, 1] < oval[:, 1].mean()]), polygon(oval)
    inside, shirt = polygon(pixels[face.INNER_LIPS]), polygon(np.array([(8, 63), (22, 50), (42, 50), (56, 63)]))
    image, parsing = np.full((SIZE, SIZE, 3), WALL, np.uint8), np.full((SIZE, SIZE, 3), 255, np.uint8)
    for mask, color, label in (
        (shirt, SHIRT, names.PARSING_TORSO), (hair, HAIR, names.PARSING_HAIR), (skin, SKIN, names.PARSING_HEAD),
        (polygon(pixels[face.OUTER_LIPS]), LIPS, names.PARSING_HEAD), (inside, MOUTH, names.PARSING_MOUTH),
    ):  # fmt: skip
        image[mask], parsing[mask] = color, label
    for eye in (face.LEFT_EYE, face.RIGHT_EYE):
        image[polygon(pixels[eye])] = (30, 30, 30)
    torso = np.dstack([np.broadcast_to(np.uint8(SHIRT), (SIZE, SIZE, 3)), shirt.astype(np.uint8) * 255])
    for path in (layout.frame(k), layout.gt_image(k)):
        write_jpeg(path, image)
    write_png(layout.parsing(k), parsing)
    write_png(layout.torso_image(k), torso)
    write_png(layout.matte(k), ((hair | skin | shirt) * 255).astype(np.uint8))
    layout.teeth_mask(k).parent.mkdir(exist_ok=True)
    np.save(layout.teeth_mask(k), np.zeros((SIZE, SIZE), bool))


def write_tables(layout: SubjectLayout, opening_m: np.ndarray, landmarks: np.ndarray, views: np.ndarray) -> None:
    """Write everything but the pictures."""
    np.save(layout.landmarks_3d, landmarks.astype(np.float32))
    np.save(layout.landmarks_3d_valid, np.ones(FRAMES, bool))
    for split, frames in (("train", range(FRAMES - VAL)), ("val", range(FRAMES - VAL, FRAMES))):
        poses = [{"img_id": k, "aud_id": k, "transform_matrix": c2w_from_viewmat(views[k]).tolist()} for k in frames]
        document = {"focal_len": FOCAL_PX, "cx": SIZE / 2, "cy": SIZE / 2, "fps": VIDEO_FPS, "frames": poses}
        layout.transforms(split).write_text(json.dumps(document))
    with layout.action_units.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["frame", *(f" AU{unit:02d}_r" for unit in face.OPENFACE_ACTION_UNITS)])
        for k in range(FRAMES):
            blink = [2.0 if unit == 45 and k % 40 < 3 else 0.2 for unit in face.OPENFACE_ACTION_UNITS]
            writer.writerow([k + 1, *blink])
    write_wav(layout.speech, speech(opening_m), SPEECH_HZ)
    np.save(layout.audio_features("mel"), mel_windows(log_mel(speech(opening_m)), FRAMES))
    stages = {"frames": {"seconds": 1.5}, "tracking": {"seconds": 2.5}}
    layout.manifest.write_text(json.dumps({"format": 1, "subject": layout.subject, "stages": stages}))


@pytest.fixture(scope="session")
def tiny_subject(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole subject folder of 88 frames (80 train, 8 val); read only: copy it to change it."""
    root = tmp_path_factory.mktemp("subjects") / "tiny"
    layout = SubjectLayout(root)
    opening_m, views = openings(), viewmats()
    landmarks = np.stack([mesh(opening) for opening in opening_m])
    for k in range(FRAMES):
        draw_frame(layout, k, landmarks[k], views[k])
    write_jpeg(layout.background, np.full((SIZE, SIZE, 3), WALL, np.uint8))
    write_tables(layout, opening_m, landmarks, views)
    return root


@pytest.fixture(scope="session")
def tiny_head(tiny_subject: Path) -> Head:
    """An untrained head: a round Gaussian on each point of the subject's mean mesh, coloured from a frame."""
    subject = Subject(tiny_subject, SIZE)
    mean = subject.landmarks.mean(0)
    rim = mean * torch.tensor([1.2, 1.2, 0.5]) - torch.tensor([0, 0, 0.02])
    photos = [(subject.viewmats[0].numpy(), subject.K.numpy(), subject.frame(0).image.permute(1, 2, 0).numpy() / 255)]

    def gaussians(points: torch.Tensor) -> Gaussians:
        colors = torch.from_numpy(paint(points.numpy().astype(np.float64), photos)).float()
        return Gaussians.from_points(points, colors, sh_degree=1, opacity=0.9)

    inside = torch.tensor([0.0, -0.04, 0.0]) + torch.rand(40, 3) * torch.tensor([0.02, 0.01, 0.02])
    head = Head(HeadConfig(), gaussians(torch.cat([mean, rim])), gaussians(inside))
    head.fit_landmarks(*(part[subject.train] for part in (subject.landmarks, subject.hair, subject.viewmats)))
    return head


@pytest.fixture
def tiny_run(tiny_subject: Path, tiny_head: Head, tmp_path: Path) -> Path:
    """A run folder with that head as its finished one, the regression, and the stages' times."""
    run = tmp_path / "run"
    document = {
        "stage": "fuse",
        "preset": "quick",
        "subject": "tiny",
        "config": {"size": SIZE, "head": to_json(tiny_head.config)},
    }
    save_checkpoint(run / "fuse", tiny_head, 1, document, {})
    fit_speech_regression(Subject(tiny_subject, SIZE)).save(run / "driving")
    (run / "timing.json").write_text(json.dumps({"mouth": 1.0, "face": 2.0, "fuse": 3.0, "peak_rss_mb": 1e6}))
    return run


@pytest.fixture(scope="session")
def legacy_folders(tiny_subject: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The made-up subject as other tools would have left it, completed, by lineage; read only."""
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        patch_detector(patch, tiny_subject)
        for lineage in LINEAGES:
            root = tmp_path_factory.mktemp(lineage) / "tiny"
            folders[lineage] = root
            complete(make_legacy_folder(tiny_subject, root, lineage))
    return folders
