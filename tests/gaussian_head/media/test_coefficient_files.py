"""ViCo's feature files and PIRender's LMDB: round trips, and what is refused."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.io import savemat

from gaussian_head.data.coefficient_files import load_coefficients
from gaussian_head.errors import UserError
from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.media.coefficient_files import pack_pirender, parse_pirender, read_pirender, read_vico, write_vico
from gaussian_head.media.mat import write_deep3d, write_sadtalker

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((4, 260)).astype(np.float32)
FACE = FaceCoefficients.from_pirender(ROWS)


def test_any_file_becomes_the_record(tmp_path: Path) -> None:
    write_vico(tmp_path / "a.bin", *FACE.vico())
    write_deep3d(tmp_path / "deep3d.mat", *FACE.deep3d())
    write_sadtalker(tmp_path / "sadtalker.mat", *FACE.sadtalker())
    savemat(tmp_path / "generated.mat", {"coeff_3dmm": FACE.motion(crop=False)})
    for name in ("a.bin", "deep3d.mat"):
        assert np.array_equal(load_coefficients(tmp_path / name).pirender(), ROWS)
    held = load_coefficients(tmp_path / "sadtalker.mat")
    assert np.array_equal(held.motion(crop=True), FACE.motion(crop=True))
    assert np.array_equal(held.identity, np.tile(FACE.identity[:1], (4, 1)))
    assert np.array_equal(load_coefficients(tmp_path / "generated.mat").expression, FACE.expression)


def test_other_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.mat and \.bin files, got .*a\.npy"):
        load_coefficients(tmp_path / "a.npy")
    for name in ("none.mat", "none.bin"):
        with pytest.raises(FileNotFoundError, match="is missing"):
            load_coefficients(tmp_path / name)
    savemat(tmp_path / "empty.mat", {"coeff_3dmm": np.zeros((0, 70))})
    with pytest.raises(UserError, match="holds no frame"):
        load_coefficients(tmp_path / "empty.mat")


class Spy:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("was_run"),))


@pytest.mark.parametrize(("content", "message"), [
    ({"angle.exp.trans": ROWS[:, :73]}, r"must hold id\.gamma\.tex \[frames, 187\]"),
    ({"angle.exp.trans": ROWS[:, :70], "id.gamma.tex": ROWS[:, :187]}, r"\[frames, 73\], got \[4, 70\]"),
    ({"angle.exp.trans": ROWS[:3, :73], "id.gamma.tex": ROWS[:, :187]}, "has 3 rows, id.gamma.tex 4"),
    ({"angle.exp.trans": ROWS[:, :73] * np.nan, "id.gamma.tex": ROWS[:, :187]}, r"frame 0 \(of 4 such\) is not finite"),
    (ROWS, "must hold angle"),
    (Spy(), "cannot be read as plain arrays"),
])  # fmt: skip
def test_other_features_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "a.bin")
    with pytest.raises(UserError, match=message):
        read_vico(Path("a.bin"))
    assert not Path("was_run").exists()


def test_damaged_features_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_vico(path, *FACE.vico())
    whole = path.read_bytes()
    for piece in (b"", b"<html>", whole[:100], whole[: len(whole) // 2], pickle.dumps(Spy(), protocol=2)):
        path.write_bytes(piece)
        with pytest.raises(UserError, match="cannot be read as plain arrays"):
            read_vico(path)


def test_number_types_of_an_lmdb_are_told_by_their_length() -> None:
    assert np.array_equal(parse_pirender(pack_pirender(ROWS.astype(np.float64)), 4), ROWS)
    assert np.array_equal(parse_pirender(ROWS.astype(np.float64).tobytes(), 4), ROWS)
    for value, frames in ((ROWS.tobytes(), 3), (ROWS.tobytes()[:-4], 4), (b"", 0)):
        with pytest.raises(UserError, match=f"{frames} frames of 260 numbers must take"):
            parse_pirender(value, frames)


def make_lmdb(monkeypatch: pytest.MonkeyPatch, values: dict[bytes, bytes]) -> None:
    """Stand in for the package: it is optional."""

    class Reading(SimpleNamespace):
        def __enter__(self) -> Reading:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    reading = Reading(get=values.get, cursor=lambda: Reading(iternext=lambda **_: iter(sorted(values))))
    module = ModuleType("lmdb")
    module.Error = RuntimeError
    module.open = lambda *_, **__: Reading(begin=lambda: reading)
    monkeypatch.setitem(sys.modules, "lmdb", module)


def test_videos_of_an_lmdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data.mdb").touch()
    values = {b"length": b"0000002", b"a-coeff_3dmm": ROWS.tobytes(), b"a-length": b"0000004", b"a-0000000": b"jpeg"}
    make_lmdb(monkeypatch, {**values, b"b-coeff_3dmm": np.float64(ROWS[:2]).tobytes(), b"b-length": b"0000002"})
    found = dict(read_pirender(tmp_path))
    assert list(found) == ["a", "b"]
    assert np.array_equal(found["a"], ROWS)
    assert np.array_equal(found["b"], ROWS[:2])
    make_lmdb(monkeypatch, {b"a-coeff_3dmm": ROWS.tobytes()})
    with pytest.raises(UserError, match="0 frames of 260"):
        list(read_pirender(tmp_path))


def test_an_lmdb_needs_its_package_and_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(UserError, match="pip install lmdb"):
        list(read_pirender(tmp_path))
    make_lmdb(monkeypatch, {})
    with pytest.raises(FileNotFoundError, match=r"holds no data\.mdb"):
        list(read_pirender(tmp_path))
