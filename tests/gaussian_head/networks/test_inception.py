"""FID's network has the published names, shapes and poolings; pictures enter it as the two programs do it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gaussian_head.errors import UserError
from gaussian_head.networks.inception import (
    Inception,
    average,
    maximum,
    resize_without_half_pixel,
    tensorflow_input,
    torch_input,
)
from gaussian_head.networks.weights import load_into

TORCHVISION = 27_161_264
"""Parameters torchvision documents for its Inception-v3: 1000 classes, and an auxiliary classifier."""
AUXILIARY = 128 * 768 + 2 * 128 + 768 * 128 * 25 + 2 * 768 + 1000 * 769


@pytest.fixture(scope="module")
def network() -> Inception:
    return Inception().eval()


def test_parameters_are_those_of_the_public_file(network: Inception) -> None:
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == TORCHVISION - AUXILIARY + 8 * 2049 == 23_850_960
    state = network.state_dict()
    assert state["fc.weight"].shape == (1008, 2048)
    assert state["Conv2d_1a_3x3.conv.weight"].shape == (32, 3, 3, 3)
    assert state["Mixed_5b.branch1x1.conv.weight"].shape == (64, 192, 1, 1)
    assert state["Mixed_6b.branch7x7dbl_2.conv.weight"].shape == (128, 128, 7, 1)
    assert state["Mixed_7c.branch3x3dbl_3b.bn.running_var"].shape == (384,)


def test_a_file_without_counters_of_batches_loads(network: Inception, tmp_path: Path) -> None:
    kept = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    torch.save(kept, tmp_path / "inception.pth")
    load_into(Inception(), tmp_path / "inception.pth")
    del kept["Mixed_6a.branch3x3.bn.weight"]
    torch.save(kept, tmp_path / "inception.pth")
    with pytest.raises(UserError, match="another network than Inception"):
        load_into(Inception(), tmp_path / "inception.pth")


def test_sizes_inside(network: Inception) -> None:
    sizes = {}
    names = ("Mixed_5b", "Mixed_5d", "Mixed_6e", "Mixed_7a", "Mixed_7c")
    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda _module, _given, out, name=name: sizes.update({name: tuple(out.shape[1:])})
        )
        for name in names
    ]
    with torch.no_grad():
        features = network(torch.zeros(1, 3, 299, 299))
    for hook in hooks:
        hook.remove()
    assert features.shape == (1, 2048)
    assert sizes == {
        "Mixed_5b": (256, 35, 35),
        "Mixed_5d": (288, 35, 35),
        "Mixed_6e": (768, 17, 17),
        "Mixed_7a": (1280, 8, 8),
        "Mixed_7c": (2048, 8, 8),
    }


def test_averages_leave_the_padding_out_and_the_last_block_takes_the_maximum(network: Inception) -> None:
    assert torch.equal(average(torch.ones(1, 1, 5, 5)), torch.ones(1, 1, 5, 5))
    corner = torch.zeros(1, 1, 3, 3)
    corner[..., 0, 0] = 8
    assert average(corner)[0, 0, 0, 0] == 2
    assert torch.equal(maximum(-corner)[0, 0], torch.zeros(3, 3))
    assert maximum(corner)[0, 0].tolist() == [[8, 8, 0], [8, 8, 0], [0, 0, 0]]
    assert (network.Mixed_7b.pool, network.Mixed_7c.pool) == (average, maximum)


def test_resize_of_tensorflow_by_hand() -> None:
    line = torch.tensor([0.0, 30.0, 60.0]).reshape(1, 1, 1, 3)
    doubled = resize_without_half_pixel(line, 1, 6)[0, 0, 0]
    assert doubled.tolist() == [0, 15, 30, 45, 60, 60]
    halved = resize_without_half_pixel(torch.arange(8.0).reshape(1, 1, 8, 1), 4, 1)[0, 0, :, 0]
    assert halved.tolist() == [0, 2, 4, 6]  # every other pixel as it is: no averaging, no half pixel
    square = torch.tensor([[0.0, 4.0], [8.0, 12.0]]).reshape(1, 1, 2, 2)
    assert resize_without_half_pixel(square, 4, 4)[0, 0].tolist() == [
        [0, 2, 4, 4],
        [4, 6, 8, 8],
        [8, 10, 12, 12],
        [8, 10, 12, 12],
    ]


def test_ranges_of_the_two_inputs() -> None:
    pixels = torch.tensor([0, 64, 128, 255], dtype=torch.uint8).reshape(4, 1, 1, 1).expand(4, 3, 7, 9)
    assert tensorflow_input(pixels)[:, 0, 150, 150].tolist() == [-1, -0.5, 0, 127 / 128]
    found = torch_input(pixels / 255)
    assert found.shape == (4, 3, 299, 299)
    torch.testing.assert_close(found[:, 1, 3, 4], 2 * torch.tensor([0, 64, 128, 255]) / 255 - 1)


def test_resize_of_torch_by_hand() -> None:
    ramp = torch.linspace(0, 1, 598).reshape(1, 1, 1, 598).expand(1, 3, 598, 598)
    found = torch_input(ramp)[0, 0, 0]  # half the size: pixel i lies midway between 2 i and 2 i + 1
    torch.testing.assert_close(found, 2 * (ramp[0, 0, 0, ::2] + ramp[0, 0, 0, 1::2]) / 2 - 1, atol=1e-5, rtol=0)
