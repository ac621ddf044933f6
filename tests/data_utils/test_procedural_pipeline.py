"""The whole front end on the procedural subject, judged by its truth: poses, masks, and the mouth that speech moves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from moving_face import rotation_errors_deg

from data_utils.process import ProcessOptions, process
from data_utils.synthetic.person import LABELS
from data_utils.synthetic.subject import load_truth, make_subject, mask_path
from gaussian_head.data import layout as names
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.data.subject import Subject
from gaussian_head.driving.features import load_features
from gaussian_head.driving.regression import correlation, fit_speech_regression
from gaussian_head.geometry.landmarks import mouth_aperture
from gaussian_head.geometry.rotations import matrix_from_euler
from gaussian_head.media.image import read_rgb

pytestmark = pytest.mark.slow
SECONDS, SIZE = 6.0, 256  # in shorter clips depth and turns are told apart by luck


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    """A processed procedural subject."""
    pytest.importorskip("mediapipe")
    layout = SubjectLayout(tmp_path_factory.mktemp("procedural") / "demo")
    make_subject(layout, seconds=SECONDS, size=SIZE, seed=1)
    return process(ProcessOptions(layout.video, size=SIZE))


@pytest.fixture(scope="module")
def truth(layout):
    return load_truth(layout)[1]


@pytest.fixture(scope="module")
def rotations(layout, truth):
    """Head in camera: true and tracked."""
    tracked = matrix_from_euler(torch.load(layout.track_params, weights_only=True)["euler"]).numpy()
    return np.swapaxes(truth["c2w"][:, :3, :3], 1, 2), tracked


def test_head_is_followed(layout, rotations):
    facts = json.loads(layout.manifest.read_text())["stages"]["tracking"]["facts"]
    assert not facts["invalid_frames"]
    yaw = [np.arctan2(r[:, 0, 2], r[:, 2, 2]) for r in rotations]
    assert np.corrcoef(*yaw)[0, 1] > 0.97
    assert facts["reprojection_error_px"] < 0.5
    assert facts["jitter_after"]["rotation_deg"] < 0.5 * facts["jitter_before"]["rotation_deg"]


def test_rotations_are_true_to_a_degree(rotations):
    true, tracked = rotations
    errors = rotation_errors_deg(tracked, true)
    assert errors.mean() < 1
    assert np.sqrt(np.square(errors).mean()) < 1


def test_head_masks_cover_the_true_head(layout, truth):
    colors = [names.PARSING_HEAD, names.PARSING_HAIR, names.PARSING_MOUTH]
    parts = [LABELS.index(name) for name in ("head", "hair", "mouth", "teeth")]
    overlaps = []
    for k in range(0, len(truth["c2w"]), 10):
        found = (read_rgb(layout.parsing(k))[:, :, None] == np.array(colors, np.uint8)).all(-1).any(-1)
        true = np.isin(read_rgb(mask_path(layout.truth, k))[..., 0], parts)
        overlaps.append((found & true).sum() / (found | true).sum())
    assert np.mean(overlaps) > 0.9
    assert min(overlaps) > 0.85


def test_sound_moves_the_true_mouth_on_frames_held_out(layout, truth):
    subject = Subject(layout.root, SIZE)
    regression = fit_speech_regression(subject)
    assert regression.facts.train_aperture_correlation > 0.5  # each held out in turn
    predicted = mouth_aperture(regression.predict(load_features(subject, "mel")).numpy())[subject.val]
    assert correlation(predicted, truth["mouth"][subject.val, 0]) > 0.5
