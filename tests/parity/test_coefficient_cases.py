"""The five-point alignment and the coefficient files against what the references gave (specs/one_shot.md, vico.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from fill import draw_image

from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.geometry.face_alignment import STANDARD_POINTS, align_points, cut_aligned, fit_alignment
from gaussian_head.media.mat import read_deep3d, write_deep3d


def judge(manifest: dict[str, Any], arrays: Any, found: dict[str, np.ndarray]) -> None:  # noqa: ANN401 -- an npz
    assert set(found) == {output["name"] for output in manifest["outputs"]}
    for output in manifest["outputs"]:
        name, whole = output["name"], np.float64(found[output["name"]])
        assert list(whole.shape) == output["shape"], name
        steps = tuple(slice(None, None, step) for step in output["stride"] or [1] * whole.ndim)
        expected, limits = np.float64(arrays[f"out:{name}"]), manifest["tolerance"][name]
        error = np.abs(whole[steps] - expected)
        assert np.all(error <= limits["atol"] + limits["rtol"] * np.abs(expected)), f"{name}: {error.max()}"


def test_alignment_agrees(case_folder: Any) -> None:
    folder = case_folder("deep3d_align")
    manifest, arrays = json.loads((folder / "manifest.json").read_text()), np.load(folder / "case.npz")
    given = {item["name"]: item for item in manifest["inputs"]}
    assert not given["image_u8"]["stored_in_npz"]
    height, width, _ = given["image_u8"]["shape"]
    picture = draw_image("align_img", (3, height, width), seed=manifest["input_seed"])
    picture = np.ascontiguousarray(np.uint8(picture * 255).transpose(1, 2, 0))
    assert np.allclose(arrays["in:lm3d"], STANDARD_POINTS, atol=1e-6)
    landmarks = arrays["in:lm"]
    transforms = np.stack([fit_alignment(points, width, height) for points in landmarks])
    judge(manifest, arrays, {
        "trans_params": transforms,
        "lm_aligned": np.stack([align_points(*pair) for pair in zip(landmarks, transforms, strict=True)]),
        "crop": np.stack([cut_aligned(picture, transform) for transform in transforms]),
    })  # fmt: skip


def test_vico_files_agree(case_folder: Any, tmp_path: Path) -> None:
    folder = case_folder("vico_mat_roundtrip")
    manifest, arrays = json.loads((folder / "manifest.json").read_text()), np.load(folder / "case.npz")
    write_deep3d(tmp_path / "a.mat", arrays["in:coeff"], arrays["in:trans"])
    moving, fixed = FaceCoefficients.from_deep3d(*read_deep3d(tmp_path / "a.mat")).vico()
    mean, std = moving.mean(0), moving.std(0, ddof=1)
    generated = np.concatenate([moving[:1], arrays["in:pred"] * std + mean])
    coefficients, transforms = FaceCoefficients.from_vico(generated, fixed).deep3d()
    judge(manifest, arrays, {
        "dyn": moving, "fixed": fixed, "mean": mean, "std": std,
        "eval_coeff": coefficients, "eval_transform": transforms,
    })  # fmt: skip
