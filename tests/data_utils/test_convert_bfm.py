"""The published forms of the morphable model, written small: what comes out, and what is refused and why."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.io import savemat

from data_utils.convert_bfm import ConvertOptions, convert
from gaussian_head.errors import UserError
from gaussian_head.geometry.face_model import FaceModel
from gaussian_head.networks.bfm import load_face_model

WHOLE, TRIMMED, KEPT, TRIANGLES = 120, 110, 90, 150
RNG = np.random.default_rng(0)
BASEL = {
    "shapeMU": RNG.normal(size=(3 * WHOLE, 1)) * 1e5, "shapePC": RNG.normal(size=(3 * WHOLE, 7)),
    "shapeEV": RNG.uniform(1e3, 9e3, (7, 1)), "texMU": RNG.uniform(0, 255, (3 * WHOLE, 1)),
    "texPC": RNG.normal(size=(3 * WHOLE, 7)), "texEV": RNG.uniform(1, 9, (7, 1)),
}  # fmt: skip
TRIM, FRONT = RNG.permutation(WHOLE)[:TRIMMED], RNG.permutation(TRIMMED)[:KEPT]
EXPRESSIONS, DEVIATIONS = RNG.normal(size=(4, 3 * TRIMMED)).astype(np.float32), RNG.uniform(1e3, 9e3, 4)
FACES, AROUND = RNG.integers(0, KEPT, (TRIANGLES, 3)), RNG.integers(0, TRIANGLES + 1, (KEPT, 8))
KEYPOINTS, SKIN = RNG.integers(0, KEPT, (1, 68)), RNG.integers(0, 2, (1, KEPT))
INFO = {"tri": FACES + 1.0, "point_buf": AROUND + 1.0, "keypoints": KEYPOINTS + 1.0, "skinmask": SKIN}


def write_guo(folder: Path, **changed: object) -> Path:
    savemat(folder / "01_MorphableModel.mat", {k: v for k, v in (BASEL | changed).items() if v is not None})
    header, mean = np.array([4], "<i4"), np.zeros(3 * TRIMMED, "<f4")
    (folder / "Exp_Pca.bin").write_bytes(header.tobytes() + mean.tobytes() + EXPRESSIONS.astype("<f4").tobytes())
    (folder / "std_exp.txt").write_text(" ".join(repr(float(x)) for x in DEVIATIONS))
    savemat(folder / "BFM_exp_idx.mat", {"trimIndex": TRIM[:, None] + 1.0})
    savemat(folder / "BFM_front_idx.mat", {"idx": FRONT[:, None] + 1.0})
    savemat(folder / "facemodel_info.mat", INFO)
    return folder / "01_MorphableModel.mat"


def deep3d_arrays() -> dict[str, np.ndarray]:
    """What Deep3DFaceRecon's own conversion makes of the same (specs/vico.md 1.2)."""
    kept = (3 * TRIM[FRONT][:, None] + np.arange(3)).reshape(-1)
    of_trimmed = (3 * FRONT[:, None] + np.arange(3)).reshape(-1)
    return {
        "meanshape": (BASEL["shapeMU"] / 1e5)[kept].T, "meantex": BASEL["texMU"][kept].T,
        "idBase": (BASEL["shapePC"] * BASEL["shapeEV"].T / 1e5)[kept],
        "texBase": (BASEL["texPC"] * BASEL["texEV"].T)[kept],
        "exBase": (EXPRESSIONS.T * DEVIATIONS / 1e5)[of_trimmed], **INFO,
    }  # fmt: skip


def write_adnerf(folder: Path) -> Path:
    savemat(folder / "01_MorphableModel.mat", BASEL)
    chosen = TRIM[FRONT]
    expressions = EXPRESSIONS.reshape(4, TRIMMED, 3)[:, FRONT].reshape(4, -1)
    pickled = {
        "topology_info": {"sub_inds": chosen, "tris": FACES, "vert_tris": AROUND},
        "exp_info": {"mu_exp": np.full(3 * KEPT, 7.0), "base_exp": expressions, "sig_exp": DEVIATIONS},
        "keys_info": {
            "keyinds": KEYPOINTS[0], "left_contour": RNG.integers(0, KEPT, (8, 20)),
            "right_contour": RNG.integers(0, KEPT, (8, 20)), "rigid_ids": np.arange(30),
        },
    }  # fmt: skip
    for name, content in pickled.items():
        np.save(folder / f"{name}.npy", content, allow_pickle=True)
    return folder / "01_MorphableModel.mat"


def converted(source: Path) -> FaceModel:
    out = source.parent / "model.safetensors"
    facts = convert(ConvertOptions(source, out=out))
    assert json.loads(out.with_suffix(".json").read_text()) == facts
    return load_face_model(out)


def assert_same(a: FaceModel, b: FaceModel, *but: str) -> None:
    for field in fields(FaceModel):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if field.name not in but:
            assert (x is None) == (y is None), field.name
            assert x is None or torch.allclose(x, y, rtol=1e-6, atol=1e-6), field.name


@pytest.fixture
def basel_model(tmp_path: Path) -> FaceModel:
    return converted(write_guo(tmp_path))


def test_basels_file_gives_what_the_reference_makes_of_it(tmp_path: Path, basel_model: FaceModel) -> None:
    savemat(tmp_path / "BFM_model_front.mat", deep3d_arrays())
    assert_same(converted(tmp_path / "BFM_model_front.mat"), basel_model)
    shape = (BASEL["shapeMU"].reshape(-1, 3) / 1e5)[TRIM[FRONT]]
    np.testing.assert_allclose(basel_model.mean_shape, shape - shape.mean(0), atol=1e-6)
    vertex, column = 17, 3
    basis = (BASEL["shapePC"][3 * TRIM[FRONT[vertex]] + 1, column] * BASEL["shapeEV"][column, 0]) / 1e5
    assert basel_model.identity_basis[vertex, 1, column] == pytest.approx(basis, rel=1e-5)
    assert basel_model.mean_albedo.max() <= 1


def test_adnerfs_files_give_the_same_model_with_contours(tmp_path: Path, basel_model: FaceModel) -> None:
    (tmp_path / "adnerf").mkdir()
    other = converted(write_adnerf(tmp_path / "adnerf"))
    assert_same(other, basel_model, "vertex_faces", "skin", "left_contour", "right_contour", "rigid")
    assert other.left_contour.shape == other.right_contour.shape == (8, 20)
    for vertex, around in enumerate(other.vertex_faces[:20]):
        expected = sorted(triangle for triangle, corners in enumerate(FACES) for c in corners if c == vertex)
        assert sorted(x for x in around.tolist() if x < TRIANGLES) == expected


def test_adnerfs_converted_file(tmp_path: Path) -> None:
    direct = converted(write_adnerf(tmp_path))
    chosen = (3 * TRIM[FRONT][:, None] + np.arange(3)).reshape(-1)
    expressions = np.load(tmp_path / "exp_info.npy", allow_pickle=True).item()
    info = {
        "mu_shape": BASEL["shapeMU"][chosen, 0], "b_shape": BASEL["shapePC"][chosen].T,
        "sig_shape": BASEL["shapeEV"][:, 0],
        "mu_tex": BASEL["texMU"][chosen, 0], "b_tex": BASEL["texPC"][chosen].T, "sig_tex": BASEL["texEV"][:, 0],
        "mu_exp": expressions["mu_exp"], "b_exp": expressions["base_exp"], "sig_exp": expressions["sig_exp"],
    }  # fmt: skip
    np.save(tmp_path / "3DMM_info.npy", info, allow_pickle=True)
    assert_same(converted(tmp_path / "3DMM_info.npy"), direct)


def test_facts_are_told(tmp_path: Path) -> None:
    facts = convert(ConvertOptions(write_guo(tmp_path), out=tmp_path / "model.safetensors"))
    assert (facts["vertices"], facts["triangles"]) == (KEPT, TRIANGLES)
    assert (facts["identity"], facts["expression"], facts["albedo"]) == (7, 4, 7)
    assert len(facts["source_sha256"]) == 64


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def rewrite(name: str, **changed: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: savemat(folder / name, INFO | changed)


FAULTS = {
    "a file beside it": (remove("std_exp.txt"), "lacks std_exp.txt .with Exp_Pca.bin. of Deep3DFaceRecon"),
    "truncated expressions": (
        lambda folder: (folder / "Exp_Pca.bin").write_bytes((folder / "Exp_Pca.bin").read_bytes()[:-1]),
        r"Exp_Pca.bin has \d+ bytes; 4 components of 110 vertices .* make 6604",
    ),
    "deviations": (lambda folder: (folder / "std_exp.txt").write_text("1 2"), "has 2 numbers, Exp_Pca.bin 4"),
    "words for deviations": (lambda folder: (folder / "std_exp.txt").write_text("one"), "must hold numbers"),
    "a triangle's corner": (rewrite("facemodel_info.mat", tri=FACES), "tri runs from 0 to 89, expected 1 to 90"),
    "landmarks": (rewrite("facemodel_info.mat", keypoints=np.ones((1, 51))), r"keypoints is \[51\], expected \[68\]"),
    "skin": (rewrite("facemodel_info.mat", skinmask=np.ones((1, 7))), "skinmask has 7 values, the mesh 90"),
    "components": (lambda f: write_guo(f, shapePC=np.ones((30, 7))), r"shapePC is \[30, 7\], expected \[360, K\]"),
    "a number": (lambda f: write_guo(f, texMU=np.full((360, 1), np.nan)), "albedo holds values that are not finite"),
    "an array": (lambda f: write_guo(f, texEV=None), "lacks texEV"),
    "another model": (lambda f: savemat(f / "01_MorphableModel.mat", {"x": 1}), r"holds \['x'\].*the model of 2009"),
    "no matlab file": (lambda f: (f / "01_MorphableModel.mat").write_bytes(b"x" * 300), "no readable Matlab file"),
    "a truncated matlab file": (
        lambda f: (f / "01_MorphableModel.mat").write_bytes((f / "01_MorphableModel.mat").read_bytes()[:5000]),
        "no readable Matlab file",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_named_and_nothing_is_written(tmp_path: Path, fault: str) -> None:
    source, (break_it, message) = write_guo(tmp_path), FAULTS[fault]
    break_it(tmp_path)
    with pytest.raises(UserError, match=message):
        convert(ConvertOptions(source, out=tmp_path / "model.safetensors"))
    assert not list(tmp_path.glob("*model.safetensors"))


@pytest.mark.parametrize("name", ["model2017-1_face12_nomouth.h5", "renamed.mat"])
def test_another_years_model_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
    with pytest.raises(UserError, match="2017 and 2019, whose mesh .* are others .* the model of 2009 is needed"):
        convert(ConvertOptions(tmp_path / name))


def test_a_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "ran",)

    source = write_adnerf(tmp_path)
    np.save(tmp_path / "keys_info.npy", {"keyinds": Bomb()}, allow_pickle=True)
    with pytest.raises(UserError, match="keys_info.npy is no readable .* which may run code"):
        convert(ConvertOptions(source, out=tmp_path / "model.safetensors"))
    (tmp_path / "keys_info.npy").write_bytes(pickle.dumps({}))
    with pytest.raises(UserError, match="keys_info.npy is no readable"):
        convert(ConvertOptions(source, out=tmp_path / "model.safetensors"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("name", "wrong", "message"), [
    ("landmarks", torch.zeros(67, dtype=torch.int64), r"landmarks is \[67\], expected \[68\]"),
    ("faces", torch.full((5, 3), KEPT), "faces names what does not exist"),
    ("mean_albedo", torch.zeros(KEPT, 3, dtype=torch.float64), "mean_albedo is torch.float64"),
    ("mean_shape", torch.full((KEPT, 3), torch.nan), "mean_shape holds values that are not finite"),
    ("skin", None, ""),
    ("faces", None, r"missing \['faces'\]"),
])  # fmt: skip
@pytest.mark.usefixtures("basel_model")
def test_a_file_of_ours_that_is_wrong_is_refused(
    tmp_path: Path, name: str, wrong: torch.Tensor | None, message: str
) -> None:
    tensors = load_file(tmp_path / "model.safetensors")
    tensors = {k: wrong if k == name else x for k, x in tensors.items()}
    save_file({k: x for k, x in tensors.items() if x is not None}, tmp_path / "model.safetensors")
    if message:
        with pytest.raises(UserError, match=message):
            load_face_model(tmp_path / "model.safetensors")
    else:
        assert load_face_model(tmp_path / "model.safetensors").skin is None
