"""Speech encoders: windows without seams, layers, rates, and how folders of weights are found and refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gaussian_head.errors import UserError
from gaussian_head.networks import pretrained_speech
from gaussian_head.networks.pretrained_speech import find_encoder, load_encoder, preferred_encoder
from gaussian_head.networks.speech_encoder import DISCARDED, FADE, WINDOW, parse_layers, place_windows

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
from tiny_encoder import HIDDEN, make_local, save_encoder, speech  # noqa: E402 -- needs transformers

LONG_S = 47.3
"""More than two windows."""


@pytest.fixture(autouse=True)
def _bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, without variables and with empty caches."""
    for name in list(os.environ):
        if name.startswith("GAUSSIAN_HEAD_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "huggingface"))
    monkeypatch.chdir(tmp_path)


def whole(folder: Path, sound: np.ndarray) -> tuple[np.ndarray, ...]:
    """What transformers itself makes of a sound shown at once: the features of each layer, the last one's last."""
    network = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder)
    inputs = processor(sound, sampling_rate=16_000, return_tensors="pt").input_values
    with torch.no_grad():
        found = network(inputs, output_hidden_states=True)
    return *(state[0].numpy() for state in found.hidden_states[1:-1]), found.last_hidden_state[0].numpy()


def encoded(folder: Path, name: str, sound: np.ndarray, layers: str = "last") -> np.ndarray:
    return np.concatenate(list(load_encoder(name, layers, folder).encode(sound)))


KINDS = [
    ("wavlm", "wavlm", "layer", True),
    ("wavlm-base-plus", "wavlm", "group", False),
    ("hubert", "hubert", "layer", True),
    ("hubert", "hubert", "group", True),
    ("wav2vec2", "wav2vec2", "layer", False),
    ("wav2vec2", "wav2vec2", "group", True),
]


@pytest.mark.parametrize(("name", "family", "norm", "normalize"), KINDS)
def test_a_sound_of_one_window_is_what_transformers_makes_of_it(
    tmp_path: Path, name: str, family: str, norm: str, normalize: bool
) -> None:
    folder = save_encoder(tmp_path / "x", family, norm=norm, normalize=normalize)
    sound = speech(3)
    ours = encoded(folder, name, sound)
    assert ours.shape == (149, HIDDEN)
    assert np.abs(ours - whole(folder, sound)[-1]).max() < 1e-4


@pytest.mark.parametrize(("name", "family", "norm", "normalize"), KINDS)
def test_windows_equal_the_whole_where_attention_is_local(
    tmp_path: Path, name: str, family: str, norm: str, normalize: bool
) -> None:
    positions = 16 if family == "wavlm" else 128  # with local attention of two layers, 46 steps; without, 64
    folder = save_encoder(tmp_path / "x", family, norm=norm, normalize=normalize, num_conv_pos_embeddings=positions)
    make_local(folder, family)
    sound = speech(LONG_S)
    ours, true = encoded(folder, name, sound), whole(folder, sound)[-1]
    assert len(place_windows(len(true))) == 3
    assert ours.shape == true.shape
    assert true.std() > 0.1
    assert np.abs(ours - true).max() < 1e-4


def test_no_seam_is_visible_with_attention_over_everything(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "x", "wavlm")
    sound = speech(LONG_S)
    ours, true = encoded(folder, "wavlm", sound), whole(folder, sound)[-1]
    off = np.linalg.norm(ours - true, axis=1) / np.linalg.norm(true - true.mean(0), axis=1).mean()
    jumps = np.abs(np.diff(ours - true, axis=0)).max(1)
    print("relative deviation", off.mean(), off.max(), "jump", jumps.max(), np.abs(np.diff(true, axis=0)).max(1).mean())
