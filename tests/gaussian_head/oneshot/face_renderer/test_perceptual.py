"""The losses by which face renderers learn what looks alike."""

from __future__ import annotations

import logging

import pytest
import torch
from torch.nn.functional import avg_pool2d

from gaussian_head.networks.weights import WeightsMissingError
from gaussian_head.oneshot.face_renderer import perceptual
from gaussian_head.oneshot.face_renderer.perceptual import FeatureLoss, PyramidLoss, choose_perceptual_loss, gram


def halves(pictures: torch.Tensor) -> list[torch.Tensor]:
    return [avg_pool2d(pictures, 2**k) for k in range(4)]


def test_pyramid_is_the_sum_over_four_sizes() -> None:
    found, wanted = (torch.rand(2, 3, 32, 32) * 2 - 1 for _ in range(2))
    expected = 0
    for a, b in zip(halves(found), halves(wanted), strict=True):
        down, right = ((x[:, :, 1:] - x[:, :, :-1], x[..., 1:] - x[..., :-1]) for x in (a, b))
        expected += (a - b).abs().mean()
        expected += (down[0] - right[0]).abs().mean() + (down[1] - right[1]).abs().mean()
    torch.testing.assert_close(PyramidLoss()(found, wanted), expected)
    assert PyramidLoss()(found, found) == 0


def network(pictures: torch.Tensor) -> list[torch.Tensor]:
    return [pictures**2, avg_pool2d(pictures, 2)]


def test_features_are_compared_at_every_size_and_textures_at_the_first() -> None:
    found, wanted = (torch.rand(2, 3, 32, 32) * 2 - 1 for _ in range(2))
    mean, std = (torch.tensor(value)[:, None, None] for value in (perceptual.MEAN, perceptual.STD))
    expected, texture = 0, 0
    for scale, (a, b) in enumerate(zip(halves(found), halves(wanted), strict=True)):
        for f, g in zip(network(((a + 1) / 2 - mean) / std), network(((b + 1) / 2 - mean) / std), strict=True):
            expected += (f - g).abs().mean()
            if scale == 0:
                texture += (
                    torch.einsum("bchw,bdhw->bcd", f, f) - torch.einsum("bchw,bdhw->bcd", g, g)
                ).abs().mean() / (f[0].numel())
    torch.testing.assert_close(FeatureLoss(network, 2)(found, wanted), expected)
    torch.testing.assert_close(FeatureLoss(network, 2, gram_weight=7)(found, wanted), expected + 7 * texture)
    two_sizes = FeatureLoss(network, 16)(found, wanted)
    torch.testing.assert_close(two_sizes, FeatureLoss(network, 2, scales=2)(found, wanted))
    with pytest.raises(ValueError, match="must be 48 px or more"):
        FeatureLoss(network, 48)(found, wanted)


def test_gram_forgets_places() -> None:
    features = torch.rand(1, 5, 6, 6)
    shuffled = features.flatten(2)[..., torch.randperm(36)].unflatten(2, (6, 6))
    torch.testing.assert_close(gram(features), gram(shuffled))


def test_only_what_was_found_is_learnt_from() -> None:
    found, wanted = (torch.rand(1, 3, 32, 32).requires_grad_() for _ in range(2))
    for loss in (PyramidLoss(), FeatureLoss(network, 2)):
        loss(found, wanted).backward()
    assert found.grad.abs().sum() > 0
    assert wanted.grad is None


@pytest.mark.parametrize(
    ("present", "chosen"), [(("vgg19", "alexnet"), "vgg19"), (("alexnet",), "alexnet"), ((), "pyramid")]
)
def test_auto_takes_the_first_whose_weights_are_here(
    present: tuple[str, ...], chosen: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def loader(name: str) -> object:
        def load() -> object:
            if name not in present:
                raise WeightsMissingError(f"needs {name}.pth")
            return network

        return load

    for name in ("vgg19", "alexnet"):
        monkeypatch.setattr(getattr(perceptual, name), f"load_{name}", loader(name))
    with caplog.at_level(logging.INFO):
        loss = choose_perceptual_loss("auto", 250)
    assert f"perceptual loss: {chosen}" in caplog.text
    assert isinstance(loss, PyramidLoss if chosen == "pyramid" else FeatureLoss)
    if chosen == "pyramid":
        with pytest.raises(WeightsMissingError):
            choose_perceptual_loss("vgg19")  # named: not replaced by another
    else:
        assert loss.gram_weight == 250
