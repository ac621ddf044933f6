"""PLY files of Gaussians: bit by bit there and back, in the layout that others read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from gaussian_head.errors import UserError
from gaussian_head.model.gaussians import Gaussians
from gaussian_head.model.ply import read_ply, write_ply


def some(count: int, degree: int) -> dict[str, torch.Tensor]:
    gaussians = Gaussians(count, degree)
    return {name: torch.randn_like(value) for name, value in gaussians.state_dict().items()}


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 57])
def test_there_and_back_bit_by_bit(tmp_path: Path, count: int, degree: int) -> None:
    gaussians = some(count, degree)
    if count > 1:  # bits, not numbers
        gaussians["means"][0] = torch.tensor([float("nan"), -0.0, 1e-42])
        gaussians["opacity_logits"][0] = float("-inf")
    write_ply(tmp_path / "a folder" / "x.ply", gaussians)
    found = read_ply(tmp_path / "a folder" / "x.ply")
    assert set(found) == set(Gaussians.NAMES)
    for name, value in gaussians.items():
        assert found[name].dtype == torch.float32
        assert found[name].shape == value.shape
        assert np.array_equal(found[name].numpy().view(np.int32), value.numpy().view(np.int32)), name
    Gaussians(count, degree).load_state_dict(found)
    write_ply(tmp_path / "again.ply", found)
    assert (tmp_path / "again.ply").read_bytes() == (tmp_path / "a folder" / "x.ply").read_bytes()


def test_layout_is_that_of_the_field(tmp_path: Path) -> None:
    gaussians = some(3, 1)
    write_ply(tmp_path / "x.ply", gaussians)
    file = PlyData.read(tmp_path / "x.ply")
    assert (file.byte_order, file.text) == ("<", False)
    vertices = file["vertex"]
    rest = " ".join(f"f_rest_{i}" for i in range(9))
    names = f"x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 {rest} opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    assert [p.name for p in vertices.properties] == names.split()
    assert {p.val_dtype for p in vertices.properties} == {"f4"}
    assert not vertices["nx"].any()
    assert np.array_equal(vertices["f_dc_2"], gaussians["sh0"][:, 0, 2])
    assert np.array_equal(vertices["f_rest_1"], gaussians["shN"][:, 1, 0])  # red first, all its harmonics
    assert np.array_equal(vertices["f_rest_3"], gaussians["shN"][:, 0, 1])
    assert np.array_equal(vertices["scale_1"], gaussians["log_scales"][:, 1])
    assert np.array_equal(vertices["opacity"], gaussians["opacity_logits"])
    assert np.array_equal(vertices["rot_0"], gaussians["quats"][:, 0])


@pytest.mark.parametrize("text", [False, True])
def test_files_of_others_in_any_order_and_number_format(tmp_path: Path, text: bool) -> None:
    gaussians = some(5, 2)
    write_ply(tmp_path / "x.ply", gaussians)
    own = PlyData.read(tmp_path / "x.ply")["vertex"].data
    names = [name for name in reversed(own.dtype.names) if name not in ("nx", "ny", "nz")]
    other = np.zeros(5, [("segment", "u1"), *((name, ">f8") for name in names)])
    for name in names:
        other[name] = own[name]
    PlyData([PlyElement.describe(other, "vertex")], text=text, byte_order=">").write(tmp_path / "y.ply")
    for name, value in read_ply(tmp_path / "y.ply").items():
        torch.testing.assert_close(value, gaussians[name])


def test_what_is_no_file_of_gaussians(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_ply(tmp_path / "nothing.ply")
    path = tmp_path / "x.ply"
    write_ply(path, some(9, 1))
    whole = path.read_bytes()
    for content in (b"", b"no ply", whole[: len(whole) // 2], whole[:-1], b"ply\nformat ascii 1.0\nend_header\n"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="no PLY file"):
            read_ply(path)
    points = np.zeros(4, [(name, "f4") for name in ("x", "y", "z", "f_rest_0")])
    PlyData([PlyElement.describe(points, "vertex")]).write(path)
    with pytest.raises(UserError, match=r"1 f_rest_\* and lacks f_dc_0.*rot_3"):
        read_ply(path)


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.ply"
    write_ply(path, some(4, 1))
    before = path.read_bytes()

    def half(self: PlyData, stream: Path) -> None:
        stream.write_bytes(b"ply")
        raise OSError("no space left")

    monkeypatch.setattr(PlyData, "write", half)
    with pytest.raises(OSError, match="no space"):
        write_ply(path, some(7, 1))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
