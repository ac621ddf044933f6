"""Recorded cases: `pytest tests/parity --cases DIR`, by default the copies kept in `tests/parity/cases`.

A case is a folder with a manifest.json and either many .npz files (the form of `rasterizer`) or one case.npz; or, for
`metrics`, a folder with a reference_values.json that lists many cases.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
JUDGES = {
    "rasterizer": "test_rasterizer_cases.py",
    "metrics": "test_metric_*_cases.py",
    "arcface_iresnet50": "test_metric_feature_cases.py",
    "arcface_iresnet100": "test_metric_feature_cases.py",
    "inception_pool3": "test_metric_feature_cases.py",
    "syncnet_mfcc": "test_metric_sync_cases.py",
    "syncnet_s": "test_metric_sync_cases.py",
    "syncnet_offset": "test_metric_sync_cases.py",
    "syncnet_s3fd": "test_metric_sync_cases.py",
    "bisenet_face_parsing": "test_face_network_cases.py",
    "deep3d_recon_resnet50": "test_face_network_cases.py",
    "easyportrait_fpn_r50_fp": "test_face_network_cases.py",
    "easyportrait_fpn_r50_ps": "test_face_network_cases.py",
    "easyportrait_fpn_r50_9cls": "test_face_network_cases.py",
    "deep3d_align": "test_coefficient_cases.py",
    "vico_mat_roundtrip": "test_coefficient_cases.py",
    "pirender_semantic_window": "test_semantic_window_cases.py",
    "mel_wav2lip": "test_window_cases.py",
    "mel_wav2lip_reflectpad": "test_window_cases.py",
    "sadtalker_mel_windows": "test_window_cases.py",
    "sadtalker_get_data": "test_window_cases.py",
    "vico2023_mel_windows": "test_window_cases.py",
    "vico2023_dataset": "test_window_cases.py",
    "sadtalker_audio2exp": "test_audio2coeff_cases.py",
    "sadtalker_audio2pose": "test_audio2coeff_cases.py",
    "sadtalker_audio2pose_short": "test_audio2coeff_cases.py",
    "vico2023_transformer3dmm": "test_audio2coeff_cases.py",
    "vico2023_lstm_pose": "test_audio2coeff_cases.py",
    "deep3d_bfm_math": "test_face_model_cases.py",
    "wav2lip_generator": "test_wav2lip_cases.py",
    "wav2lip_generator_5d": "test_wav2lip_cases.py",
    "wav2lip_syncnet_color": "test_wav2lip_cases.py",
    "wav2lip_disc_qual": "test_wav2lip_cases.py",
    "wav2lip_s3fd": "test_wav2lip_cases.py",
    "wav2lip_boxes": "test_wav2lip_cases.py",
    "wav2lip_datagen_paste": "test_wav2lip_cases.py",
    "retinaface_resnet50": "test_face_finding_cases.py",
    "fan_awing_98": "test_face_finding_cases.py",
    "sadtalker_align_face": "test_face_finding_cases.py",
    "pirender_face_generator": "test_pirender_cases.py",
    "sadtalker_mapping70": "test_vid2vid_cases.py",
    "sadtalker_mapping73": "test_vid2vid_cases.py",
    "sadtalker_kp_detector": "test_vid2vid_cases.py",
    "sadtalker_kp_transform": "test_vid2vid_cases.py",
    "sadtalker_dense_motion": "test_vid2vid_cases.py",
    "sadtalker_generator": "test_vid2vid_cases.py",
    "sadtalker_he_estimator": "test_vid2vid_cases.py",
    "sadtalker_animate70": "test_vid2vid_cases.py",
    "sadtalker_animate73": "test_vid2vid_cases.py",
    "sadtalker_facerender_data": "test_*_cases.py",
}
"""Which test file judges which case. Add a line when a case gets its test; the others are listed as not implemented."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cases", default=str(HERE / "cases"), help="folder of recorded cases (see tests/parity/conftest.py)"
    )


def find_cases(config: pytest.Config) -> dict[str, Path]:
    """Return the folders with a manifest.json in the folder of cases, or that folder itself, by name."""
    root = Path(config.getoption("cases", default=str(HERE / "cases")))
    if not root.is_dir():
        raise pytest.UsageError(f"--cases: {root} is not a folder")
    found = {}
    for name in ("manifest.json", "reference_values.json"):
        manifests = [root / name] if (root / name).is_file() else sorted(root.glob(f"*/{name}"))
        found |= {path.parent.resolve().name: path.parent for path in manifests}
    return found


@pytest.fixture(scope="session")
def case_folder(pytestconfig: pytest.Config) -> Any:  # noqa: ANN401 -- a function
    """Return a function from a case's name to its folder, which skips the test where the folder is not given."""

    def folder(name: str) -> Path:
        cases = find_cases(pytestconfig)
        if name not in cases:
            pytest.skip(f"--cases holds no {name}")
        return cases[name]

    return folder


@pytest.fixture(scope="session")
def metric_cases(case_folder: Any) -> dict[str, dict[str, Any]]:  # noqa: ANN401
    """Return the array cases of `metrics/reference_values.json` by id."""
    document = json.loads((case_folder("metrics") / "reference_values.json").read_text())
    return {case["id"]: case for case in document["arrays"]["cases"]}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test its cases: `rasterizer_case` the .npz files, `unjudged_case` the folders nobody implements."""
    cases = find_cases(metafunc.config)
    if "rasterizer_case" in metafunc.fixturenames:
        files = sorted(cases["rasterizer"].glob("*.npz")) if "rasterizer" in cases else []
        metafunc.parametrize("rasterizer_case", files, ids=[path.stem for path in files])
    if "unjudged_case" in metafunc.fixturenames:
        metafunc.parametrize("unjudged_case", sorted(set(cases) - set(JUDGES)))
