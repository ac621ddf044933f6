"""PIRender's generator: what the recorded case does not say; loading its checkpoint; VGG-19's names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gaussian_head.errors import UserError
from gaussian_head.networks.pirender import PIRenderGenerator, PIRenderWidths, load_pirender, warp
from gaussian_head.networks.vgg19 import Vgg19, load_vgg19
from gaussian_head.networks.weights import TABLE, WeightsMissingError

pytestmark = pytest.mark.usefixtures("bare_machine")
SMALL = PIRenderWidths(descriptor=16, modulation=8, flow=4, editing=4, widest=16)


@torch.inference_mode()
def test_source_is_looked_at_once() -> None:
    network = PIRenderGenerator(SMALL).eval()
    source, windows = torch.rand(1, 3, 64, 96) * 2 - 1, torch.randn(3, 73, 27)
    together = network.draw(network.look_at(source), windows)
    for i in range(3):
        alone = network(source, windows[i : i + 1])
        for all_found, found in zip(together, alone, strict=True):
            torch.testing.assert_close(all_found[i : i + 1], found, rtol=1e-4, atol=1e-4)
    assert together.flow.shape == (3, 2, 16, 24)
    assert not torch.allclose(together.picture[0], together.picture[1])


def test_warp_moves_by_pixels_of_the_flow() -> None:
    picture = torch.rand(1, 3, 64, 64)
    flow = torch.zeros(1, 2, 64, 64)
    flow[:, 0] = 63 / 64 * 8  # the grid spans 63 px of it, the picture 64
    moved = warp(picture, flow)
    # the corner-aligned grid is read as if it were not: the picture is enlarged by 64/63 about its middle
    grid = torch.linspace(-1, 1, 64)
    still = torch.stack(torch.meshgrid(grid, grid, indexing="xy"), -1)[None]
    still[..., 0] += 0.25
    expected = torch.nn.functional.grid_sample(picture, still, align_corners=False)
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-4)
    assert moved[..., 60:].abs().max() == 0
    assert warp(picture, flow, "border")[..., 60:].min() > 0


def test_first_convolution_of_a_residual_block_is_idle() -> None:
    network = PIRenderGenerator(SMALL)
    network(torch.rand(1, 3, 64, 64), torch.randn(1, 73, 27)).picture.sum().backward()
    block = network.editing_net.decoder.res1.res0
    assert block.conv1.weight.grad is None
    assert block.conv2.weight.grad is not None


def test_the_checkpoint_is_read(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissingError, match=r"^needs epoch_00190_iteration_000400000_checkpoint\.pt, see"):
        load_pirender()
    averaged, other = PIRenderGenerator(SMALL).state_dict(), PIRenderGenerator(SMALL).state_dict()
    place = tmp_path / "checkpoints" / TABLE["pirender"].file
    place.parent.mkdir()
    torch.save({"net_G": other, "net_G_ema": averaged, "current_epoch": 190, "current_iteration": 400_000}, place)
    network = load_pirender(widths=SMALL)
    assert all(torch.equal(value, averaged[name]) for name, value in network.state_dict().items())
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())

    with pytest.raises(UserError, match="holds another network than PIRenderGenerator"):
        load_pirender()  # the published widths
    averaged.pop("editing_net.decoder.final.model.0.bias")
    torch.save({"net_G_ema": averaged}, place)
    with pytest.raises(UserError, match=r"editing_net\.decoder\.final\.model\.0\.bias is missing"):  # never half loaded
        load_pirender(widths=SMALL)


def test_vgg19_has_torchvisions_names_and_the_first_of_each_stage(tmp_path: Path) -> None:
    network = Vgg19()
    numbers = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28]
    names = [f"features.{number}.{kind}" for number in numbers for kind in ("weight", "bias")]
    assert list(network.state_dict()) == names
    assert network.features[28].weight.shape == (512, 512, 3, 3)
    with torch.inference_mode():
        seen = network(torch.rand(1, 3, 32, 48))
    assert [tuple(features.shape[1:]) for features in seen] == [
        (64, 32, 48), (128, 16, 24), (256, 8, 12), (512, 4, 6), (512, 2, 3),
    ]  # fmt: skip

    held = network.state_dict() | {"features.30.weight": torch.zeros(2), "classifier.0.weight": torch.zeros(3)}
    torch.save(held, tmp_path / "whole.pth")
    loaded = load_vgg19(tmp_path / "whole.pth")
    assert all(torch.equal(loaded.state_dict()[name], held[name]) for name in names)
    held["features.28.weight"] = torch.zeros(512, 512, 1, 1)
    torch.save(held, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"not torchvision's VGG-19: features\.28\.weight must be \[512, 512, 3, 3\]"):
        load_vgg19(tmp_path / "other.pth")
