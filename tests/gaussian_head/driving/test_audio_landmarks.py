"""The network from sound to codes: it hears as far ahead as declared, and a stream is the whole file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gaussian_head.driving.audio_landmarks import PAST, AudioLandmarkConfig, AudioLandmarkNet, Stream

FRAMES = 70


def network(look_ahead: int, dilations: tuple[int, ...] = (1, 2, 4), members: int = 2) -> AudioLandmarkNet:
    config = AudioLandmarkConfig((4, 6), 3, look_ahead, channels=8, dilations=dilations, members=members)
    net = AudioLandmarkNet(config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for part in (net.linear, net.head, net.enter_bias, net.input_mean):
            part.copy_(torch.randn(part.shape, generator=generator))
        net.gain.fill_(1.5)
    return net.requires_grad_(False)


def sound(frames: int = FRAMES) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(frames, 4, 6)).astype(np.float32)


@pytest.mark.parametrize("look_ahead", [0, 2, 4])
def test_it_hears_as_far_ahead_as_declared_and_no_further(look_ahead: int) -> None:
    net, features = network(look_ahead), sound()
    before = net(features)
    now = 40
    later = features.copy()
    later[now + look_ahead + 1 :] += 10
    assert torch.equal(net(later)[: now + 1], before[: now + 1])
    at_the_edge = features.copy()
    at_the_edge[now + look_ahead] += 10
    assert not torch.allclose(net(at_the_edge)[now], before[now], atol=0.1)


def test_it_hears_back_as_far_as_it_reaches() -> None:
    net, features = network(2), sound()
    before = net(features)
    behind = net.config.reach - net.look_ahead
    for frame, heard in ((40 - behind, True), (40 - behind - 1, False)):
        changed = features.copy()
        changed[frame] += 10
        assert torch.equal(net(changed)[40], before[40]) != heard


@pytest.mark.parametrize("look_ahead", [0, 2, 4])
@pytest.mark.parametrize("chunk", [1, 3, 16, FRAMES])
def test_a_stream_is_the_whole_file(look_ahead: int, chunk: int) -> None:
    net, features = network(look_ahead), sound()
    stream, codes = Stream(net), []
    for start in range(0, FRAMES, chunk):
        codes.append(stream.push(features[start : start + chunk]))
        assert sum(map(len, codes)) == max(0, min(start + chunk, FRAMES) - look_ahead)
    codes.append(stream.flush())
    assert torch.allclose(torch.cat(codes), net(features), atol=1e-4)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_sounds_shorter_than_the_look_ahead_are_spoken(frames: int) -> None:
    net, features = network(4), sound(frames)
    assert net(features).shape == (frames, 3)
    stream = Stream(net)
    codes = torch.cat([stream.push(features[:0]), stream.push(features), stream.push(features[:0]), stream.flush()])
    assert torch.allclose(codes, net(features), atol=1e-4)
    assert len(stream.flush()) == 0


def test_without_convolutions_it_is_the_linear_path() -> None:
    net, features = network(2, dilations=(1,), members=1), sound()
    net.head.zero_()
    x = net.normalise(features)
    window = x[30 - PAST : 30 + 2 + 1].flatten()
    assert torch.allclose(net(features)[30], 1.5 * window @ net.linear[0], atol=1e-4)


def test_members_predict_their_mean() -> None:
    net, features = network(4), sound()
    each = net.whole(net.normalise(features))
    assert not torch.allclose(each[0], each[1])
    assert torch.allclose(net(features), 1.5 * each.mean(0), atol=1e-5)


def test_an_undeclared_look_ahead_is_refused() -> None:
    with pytest.raises((ValueError, TypeError), match="look_ahead"):  # TypeError where types are checked at run time
        AudioLandmarkConfig((4, 6), 3, 3)
