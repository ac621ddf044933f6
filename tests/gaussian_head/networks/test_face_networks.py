"""The published face networks load from files of the published form, and refuse others by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gaussian_head.errors import UserError
from gaussian_head.networks.bisenet import BiSeNet, class_probabilities, load_bisenet
from gaussian_head.networks.coefficient_regressor import CoefficientRegressor, load_coefficient_regressor
from gaussian_head.networks.easyportrait_fpn import CLASSES, EasyPortraitFpn, load_face_labeller

FRAME = np.random.default_rng(5).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def regressor() -> CoefficientRegressor:
    torch.manual_seed(1)
    return CoefficientRegressor().eval()


@pytest.fixture(scope="module")
def labeller() -> EasyPortraitFpn:
    torch.manual_seed(2)
    return EasyPortraitFpn(8).eval()


@torch.inference_mode()
def test_regressor_from_both_publications(regressor: CoefficientRegressor, tmp_path: Path) -> None:
    state, faces = regressor.state_dict(), torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    deep3d = saved(tmp_path / "epoch_20.pth", {"net_recon": state, "opt_00": {"state": {}}})
    sadtalker = tmp_path / "SadTalker_V0.0.2_256.safetensors"
    save_file(
        {f"face_3drecon.{name}": value for name, value in state.items()} | {"generator.x": torch.ones(1)}, sadtalker
    )
    for path in (deep3d, sadtalker):
        assert torch.equal(load_coefficient_regressor(path)(faces), regressor(faces))


def test_another_network_and_a_torn_file_are_refused(regressor: CoefficientRegressor, tmp_path: Path) -> None:
    path = saved(tmp_path / "79999_iter.pth", regressor.state_dict())
    with pytest.raises(
        UserError, match=r"79999_iter\.pth holds another network than BiSeNet: cp\.resnet\.conv1\.weight is missing"
    ):
        load_bisenet(path)
    path.write_bytes(path.read_bytes()[:-100_000])
    with pytest.raises(UserError, match=r"79999_iter\.pth cannot be read as plain tensors \(damaged"):
        load_bisenet(path)


def test_bisenet_gives_probabilities_at_its_own_size(tmp_path: Path) -> None:
    network = load_bisenet(saved(tmp_path / "79999_iter.pth", BiSeNet().state_dict()))
    shares = class_probabilities(network, FRAME)
    assert shares.shape == (19, 512, 512)
    assert np.allclose(shares.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize(("name", "side"), [("fpn-fp-224.pth", 224), ("fpn-fp.pth", 384)])
def test_labeller_sees_pictures_of_the_size_in_the_name(
    labeller: EasyPortraitFpn, tmp_path: Path, name: str, side: int
) -> None:
    path = saved(tmp_path / name, {"state_dict": labeller.state_dict(), "meta": {"CLASSES": CLASSES[8]}})
    found = load_face_labeller(path)
    assert (found.side, found.classes) == (side, CLASSES[8])
    seen = []
    found.network.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    labels = found.label(FRAME)
    assert labels.shape == FRAME.shape[:2]
    assert labels.dtype == np.uint8
    assert labels.max() < 8
    height, width = seen[0][2:]
    assert width == side
    assert height % 32 == 0
    assert abs(height - side * 60 / 90) <= 16


def test_weights_that_know_no_teeth_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "fpn-ps-512.pth", {"state_dict": EasyPortraitFpn(2).state_dict()})
    with pytest.raises(UserError, match=r"tells 2 classes apart, expected 8"):
        load_face_labeller(path)
