"""The morphable model's mathematics against what the reference gave on a small random model (specs/one_shot.md 1.4)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from fill import draw
from torch import Tensor

from data_utils.convert_bfm import model_from_deep3d
from gaussian_head.geometry import face_model as fm

BASES = {"idBase": 0.02, "exBase": 0.02, "texBase": 4.0}
"""Half the range that the recording's recipe draws each basis from."""
OUTPUTS = (
    "face_shape", "rotation", "transformed", "camera_vertex", "projection", "texture", "normal", "color", "landmarks",
    "reg_coeff", "reg_gamma", "reflectance", "landmark_loss",
)  # fmt: skip


@pytest.fixture(scope="module")
def recorded(case_folder: Any) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray]]:
    folder = case_folder("deep3d_bfm_math")
    manifest, stored = json.loads((folder / "manifest.json").read_text()), np.load(folder / "case.npz")
    inputs = {}
    for entry in manifest["inputs"]:
        name = entry["name"]
        if entry["stored_in_npz"]:
            inputs[name] = stored[f"in:{name}"]
        else:
            inputs[name] = draw(name, entry["shape"], manifest["input_seed"], lo=-BASES[name], hi=BASES[name])
    return manifest, inputs, {entry["name"]: stored[f"out:{entry['name']}"] for entry in manifest["outputs"]}


@pytest.fixture(scope="module")
def found(recorded: Any) -> dict[str, Tensor]:
    _, inputs, _ = recorded
    model = model_from_deep3d({name: inputs[name] for name in inputs if name not in ("coeffs", "lm_gt")})
    given = fm.FaceParameters.split(torch.from_numpy(inputs["coeffs"]))
    center = torch.full((2,), fm.DEEP3D_PICTURE_PX / 2)
    shape, rotation = model.shape(given.identity, given.expression), fm.matrix_from_angles(given.angles)
    moved = fm.move(shape, rotation, given.translation)
    camera = fm.deep3d_to_camera(moved)
    pixels = fm.project(camera, fm.DEEP3D_FOCAL_PX, center)
    upward = torch.stack([pixels[..., 0], fm.DEEP3D_PICTURE_PX - pixels[..., 1]], -1)  # the reference's y points up
    albedo, normals = model.albedo(given.albedo), model.normals(shape)
    landmarks = upward.gather(1, model.landmark_vertices(pixels)[..., None].expand(-1, -1, 2))
    return {
        "face_shape": shape,
        "rotation": rotation.transpose(1, 2),  # the reference multiplies rows
        "transformed": moved,
        "camera_vertex": camera * torch.tensor([1.0, 1.0, -1.0]),  # the reference's depth is positive
        "projection": upward,
        "texture": albedo,
        "normal": normals,
        "color": fm.shade(albedo, normals @ rotation.transpose(1, 2), given.light),
        "landmarks": landmarks,
        "reg_coeff": fm.coefficient_energy(given)[None],
        "reg_gamma": fm.light_tint(given.light)[None],
        "reflectance": fm.albedo_variance(albedo, model.skin)[None],
        "landmark_loss": fm.landmark_energy(landmarks, torch.from_numpy(inputs["lm_gt"]))[None],
    }


@pytest.mark.parametrize("name", OUTPUTS)
def test_face_model_agrees(recorded: Any, found: dict[str, Tensor], name: str) -> None:
    manifest, _, outputs = recorded
    limits, expected = manifest["tolerance"][name], outputs[name]
    values = found[name].numpy()
    assert values.shape == expected.shape
    assert np.all(np.abs(values - expected) <= limits["atol"] + limits["rtol"] * np.abs(expected))


def test_every_recorded_output_is_judged(recorded: Any) -> None:
    assert {entry["name"] for entry in recorded[0]["outputs"]} == set(OUTPUTS)


def test_the_257_numbers_come_back(recorded: Any) -> None:
    numbers = torch.from_numpy(recorded[1]["coeffs"])
    assert torch.equal(fm.FaceParameters.split(numbers).joined(), numbers)
