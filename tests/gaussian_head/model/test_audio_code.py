"""What a field hears: the published network, and the windows it is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gaussian_head.model.audio_code import AudioCode, audio_windows


def weights(*parts: torch.nn.Module) -> int:
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


def test_it_has_as_many_weights_as_the_published_networks():
    code = AudioCode((16, 29))  # DeepSpeech's features (specs/gaussian_head.md e.3)
    assert weights(code.steps, code.frame) == 30_720
    assert weights(code.attention, code.share) == 2_149


@pytest.mark.parametrize("shape", [(16, 80), (2, 1024), (1, 512), (20, 7)])
def test_features_of_every_extractor_become_one_code(shape):
    assert AudioCode(shape)(torch.randn(8, *shape)).shape == (32,)


def test_of_a_longer_window_the_first_steps_are_heard():
    code, windows = AudioCode((20, 5)), torch.randn(8, 20, 5)
    beyond, within = windows.clone(), windows.clone()
    beyond[:, 16:] += 1
    within[:, 15] += 1
    assert torch.equal(code(windows), code(beyond))
    assert not torch.equal(code(windows), code(within))


def test_frames_are_averaged_in_shares_that_the_sound_decides():
    code, windows = AudioCode((16, 5)), torch.randn(8, 16, 5)
    each = torch.stack([code.frame(code.steps(frame.T[None])[..., 0])[0] for frame in windows])
    shares = torch.linalg.lstsq(each.T, code(windows)[:, None]).solution[:, 0]  # 32 equations, 8 unknowns
    assert shares.sum().item() == pytest.approx(1, abs=1e-3)
    assert shares.min() > 0
    alike = windows[:1].expand(8, -1, -1)
    torch.testing.assert_close(code(alike), each[0])


def test_windows_hold_the_frames_around_and_zeros_beyond_the_ends():
    features = np.random.default_rng(0).normal(size=(11, 2, 3)).astype(np.float32)
    windows = audio_windows(features)
    assert windows.shape == (11, 8, 2, 3)
    for i in range(11):
        for j, k in enumerate(range(i - 4, i + 4)):
            expected = features[k] if 0 <= k < 11 else np.zeros((2, 3))
            assert np.array_equal(windows[i, j], expected)


@pytest.mark.parametrize("chunk", [1, 3, 8, 11])
def test_pieces_are_cut_from_the_whole(chunk):
    features = np.random.default_rng(0).normal(size=(11, 2, 3)).astype(np.float16)
    pieces = [audio_windows(features, start, min(start + chunk, 11)) for start in range(0, 11, chunk)]
    assert torch.equal(torch.cat(pieces), audio_windows(features))


def test_features_that_may_not_be_written_to_are_cut_as_well():
    features = np.zeros((11, 2, 3), np.float32)
    features.flags.writeable = False  # as windows of a mel spectrogram are
    assert audio_windows(features, 4, 5).shape == (1, 8, 2, 3)


def test_windows_of_long_sound_take_no_memory_of_their_own():
    features = np.zeros((1000, 2, 3), np.float32)
    assert audio_windows(features).untyped_storage().nbytes() <= 1007 * 6 * 4
