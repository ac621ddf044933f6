"""Speech encoders: windows without seams, layers, rates, and how folders of weights are found and refused."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
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

pytestmark = pytest.mark.usefixtures("bare_machine")
LONG_S = 38.3
"""More than two windows."""


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


def test_no_seam_is_visible_where_attention_sees_everything(tmp_path: Path) -> None:
    """One sound slowly turns into another: nothing jumps, while features of pieces cut apart do."""
    time = np.arange(16_000 * 38) / 16_000
    hum = sum(np.sin(2 * np.pi * 100 * n * time) / n for n in range(1, 9))
    sound = ((1 - time / 38) * hum + time / 38 * np.sin(2 * np.pi * 700 * time)).astype(np.float32)
    encoder = load_encoder("wavlm", weights=save_encoder(tmp_path / "x", "wavlm"))

    def largest_jump(features: np.ndarray) -> float:
        return np.linalg.norm(np.diff(features, axis=0), axis=1)[100:-100].max()

    apart = np.concatenate([*encoder.encode(sound[:320_000]), *encoder.encode(sound[320_000:])])
    assert largest_jump(np.concatenate(list(encoder.encode(sound)))) < 0.05 * largest_jump(apart)


@pytest.mark.parametrize("count", [1, 999, 1000, 1001, 1799, 1800, 1801, 2600, 30_000])
def test_windows_overlap_enough(count: int) -> None:
    windows = place_windows(count)
    assert windows[0][0] == 0
    assert windows[-1][1] == count
    assert all(stop - start == min(count, WINDOW) for start, stop in windows)
    overlaps = [stop - start for (_, stop), (start, _) in zip(windows, windows[1:], strict=False)]
    assert all(overlap >= 2 * DISCARDED + FADE for overlap in overlaps)
    assert len(windows) <= 1 + -(-(count - WINDOW) // 800) or count <= WINDOW


def test_long_sounds_come_in_pieces(tmp_path: Path) -> None:
    encoder = load_encoder("hubert", weights=save_encoder(tmp_path / "x", "hubert", norm="group"))
    assert max(len(steps) for steps in encoder.encode(speech(60))) <= WINDOW


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_layers(tmp_path: Path, norm: str) -> None:
    folder = save_encoder(tmp_path / "x", "hubert", norm=norm)
    sound = speech(1)
    first, *_, last = whole(folder, sound)

    def scaled(state: np.ndarray) -> np.ndarray:
        return (state - state.mean(1, keepdims=True)) / np.sqrt(state.var(1, keepdims=True) + 1e-5)

    assert np.abs(encoded(folder, "hubert", sound, "1") - scaled(first)).max() < 1e-4
    assert np.array_equal(encoded(folder, "hubert", sound, "2"), encoded(folder, "hubert", sound))
    if norm == "group":  # there the last layer's output is what comes out of the network
        mixed = 0.25 * scaled(first) + 0.75 * scaled(last)
        assert np.abs(encoded(folder, "hubert", sound, "1:1,2:3") - mixed).max() < 1e-4
        mean = (scaled(first) + scaled(last)) / 2
        assert np.abs(encoded(folder, "hubert", sound, "mix") - mean).max() < 1e-4


@pytest.mark.parametrize(
    ("text", "spelling"), [("last", "last"), ("2", "last"), ("1", "1"), ("1,2", "mix"), ("2:3,1:1", "1:0.25,2:0.75")]
)
def test_a_choice_of_layers_has_one_spelling(tmp_path: Path, text: str, spelling: str) -> None:
    folder = save_encoder(tmp_path / "x", "wavlm")
    assert load_encoder("wavlm", text, folder).layers == spelling
    assert load_encoder("wavlm", spelling, folder).layers == spelling


def test_shares_of_layers() -> None:
    assert parse_layers("last", 24) == {24: 1}
    assert parse_layers("12:1,6:3", 24) == {6: 0.75, 12: 0.25}
    assert parse_layers("mix", 4) == dict.fromkeys(range(1, 5), 0.25)


@pytest.mark.parametrize("text", ["", "0", "25", "-1", "best", "1,1", "1:0", "1:-1", "1:nan", "1:inf", "1;2", "1.5"])
def test_layers_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match=r"one of 1\.\.24"):
        parse_layers(text, 24)


def test_features_of_frames(tmp_path: Path) -> None:
    encoder = load_encoder("wavlm", weights=save_encoder(tmp_path / "x", "wavlm"))
    sound = speech(1)
    steps = np.concatenate(list(encoder.encode(sound)))
    features = encoder.features(sound.astype(np.float64), 25)
    assert features.shape == (25, 2, HIDDEN)
    assert features.dtype == np.float16
    assert len(steps) == 49
    assert np.allclose(features.reshape(50, HIDDEN)[:49], steps, atol=2e-3)
    assert np.array_equal(features[24, 1], features[24, 0])
    assert np.array_equal(encoder.features(sound, 10), features[:10])
    assert np.array_equal(encoder.features(sound, 30)[25:], np.broadcast_to(features[24, 1], (5, 2, HIDDEN)))


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("sound", [np.zeros(1), np.zeros(20_000), np.ones(399), np.sign(speech(1))])
def test_poor_sounds_give_finite_features(tmp_path: Path, norm: str, sound: np.ndarray) -> None:
    encoder = load_encoder("wavlm", weights=save_encoder(tmp_path / "x", "wavlm", norm=norm))
    features = encoder.features(sound, -(-len(sound) // 640))
    assert np.isfinite(features).all()


def test_no_sound_at_all_is_refused(tmp_path: Path) -> None:
    encoder = load_encoder("wavlm", weights=save_encoder(tmp_path / "x", "wavlm"))
    with pytest.raises(UserError, match="empty"):
        encoder.features(np.zeros(0), 1)


def test_a_checkpoint_of_torch_with_a_head_on_it_and_old_names_is_the_same(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "x", "wavlm")
    tensors = load_file(folder / "model.safetensors")
    old = {"original0": "weight_g", "original1": "weight_v"}
    renamed = {f"wavlm.{name}": tensor for name, tensor in tensors.items()}
    for new, name in old.items():
        key = "wavlm.encoder.pos_conv_embed.conv."
        renamed[key + name] = renamed.pop(f"{key}parametrizations.weight.{new}")
    other = shutil.copytree(folder, tmp_path / "y", ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(renamed | {"lm_head.weight": torch.ones(8, HIDDEN)}, other / "pytorch_model.bin")
    assert np.array_equal(encoded(other, "wavlm", speech(1)), encoded(folder, "wavlm", speech(1)))


def remove(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def cut_short(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 5000)


def drop_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layers.1.attention.k_proj.bias"]
    save_file(tensors, folder / "model.safetensors")


def edit(file: str, **changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        document = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(document | changes))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("config.json"), r"config\.json is missing.*hf download microsoft/wavlm-large"),
        (remove("preprocessor_config.json"), r"preprocessor_config\.json is missing"),
        (cut_short, "cannot be read as plain tensors"),
        (drop_a_tensor, r"layers\.1\.attention\.k_proj\.bias must be \[32\], got nothing"),
        (edit("config.json", hidden_size=64), r"must be \[64.*got \[32"),
        (edit("config.json", model_type="hubert"), "of type hubert, expected wavlm"),
        (edit("config.json", conv_stride=[5, 2, 2, 2, 2, 2, 1]), "320 samples apart"),
        (edit("config.json", num_attention_heads="many"), "describes no wavlm"),
        (lambda folder: (folder / "config.json").write_text("{"), "is damaged"),
    ],
)
def test_damaged_folders_are_refused(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    folder = save_encoder(tmp_path / "x", "wavlm")
    damage(folder)
    with pytest.raises(UserError, match=message):
        load_encoder("wavlm", weights=folder)


def test_weights_are_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = save_encoder(tmp_path / "made", "wavlm")
    assert preferred_encoder() is None
    hub = tmp_path / "huggingface/models--microsoft--wavlm-large"
    cached = shutil.copytree(made, hub / "snapshots/abc")
    (hub / "refs").mkdir()
    (hub / "refs/main").write_text("abc")
    assert find_encoder("wavlm") == cached / "model.safetensors"
    default = shutil.copytree(made, tmp_path / "checkpoints/wavlm-large")
    assert find_encoder("wavlm").resolve() == default / "model.safetensors"
    shared = shutil.copytree(made, tmp_path / "shared/wavlm-large")
    monkeypatch.setenv("GAUSSIAN_HEAD_CHECKPOINTS", str(shared.parent))
    assert find_encoder("wavlm") == shared / "model.safetensors"
    named = shutil.copytree(made, tmp_path / "named")
    monkeypatch.setenv("GAUSSIAN_HEAD_WAVLM", str(named))
    assert find_encoder("wavlm") == named / "model.safetensors"
    assert find_encoder("wavlm", made) == made / "model.safetensors"
    assert preferred_encoder() == "wavlm"


def test_missing_weights_are_told_with_places_and_command(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refusal:
        load_encoder("wavlm-base-plus")
    told = str(refusal.value)
    assert "$GAUSSIAN_HEAD_WAVLM_BASE_PLUS (not set)" in told
    assert "models--microsoft--wavlm-base-plus" in told
    assert f"into {tmp_path / 'checkpoints/wavlm-base-plus'}: " in told
    assert told.endswith("hf download microsoft/wavlm-base-plus --local-dir checkpoints/wavlm-base-plus")
    with pytest.raises(UserError, match="nowhere is no file.*hf download facebook/hubert-large-ls960-ft"):
        load_encoder("hubert", weights=Path("nowhere"))


def test_without_transformers_auto_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save_encoder(tmp_path / "checkpoints/wavlm-large", "wavlm")
    monkeypatch.setattr(pretrained_speech, "find_spec", lambda _: None)
    with caplog.at_level(logging.WARNING):
        assert preferred_encoder() is None
    assert "transformers" in caplog.text
    with pytest.raises(UserError, match=r"gaussian-head\[audio\]"):
        load_encoder("wavlm")
