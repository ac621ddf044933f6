"""Folders as the hub has them, of speech encoders with two layers and random weights: to test how things are done."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

HIDDEN = 32
LOCAL_REACH = 20
"""Steps that a layer with local attention sees on either side."""


def save_encoder(folder: Path, family: str, *, norm: str = "layer", normalize: bool = True, seed: int = 0, **changes):
    """Write a tiny network of a family and return its folder."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(seed)
    config = getattr(transformers, {"wavlm": "WavLM", "hubert": "Hubert", "wav2vec2": "Wav2Vec2"}[family] + "Config")(
        hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, conv_dim=[HIDDEN] * 7,
        num_conv_pos_embedding_groups=4, feat_extract_norm=norm, do_stable_layer_norm=norm == "layer", vocab_size=8,
        **changes,
    )  # fmt: skip
    network = transformers.AutoModel.from_config(config)
    # as unlike each other as those of a trained network: at the usual 0.02 attention would be a mean of all steps
    for name, parameter in network.named_parameters():
        if "norm" not in name and parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.3)
    return write(folder, network, normalize=normalize)


def write(folder: Path, network: nn.Module, *, normalize: bool) -> Path:
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": normalize, "sampling_rate": 16_000}))
    return folder


def make_local(folder: Path, family: str) -> None:
    """Let attention see nothing farther than LOCAL_REACH steps (WavLM), or nothing at all (the others cannot)."""
    import transformers

    network = transformers.AutoModel.from_pretrained(folder)
    with torch.no_grad():
        if family == "wavlm":
            far = torch.arange(network.config.num_buckets) % (network.config.num_buckets // 2) >= LOCAL_REACH
            network.encoder.layers[0].attention.rel_attn_embed.weight[far] = -1e4
        else:
            for layer in network.encoder.layers:
                layer.attention.out_proj.weight.zero_()
    network.save_pretrained(folder)


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Syllables of a buzzing voice, ever louder, over an offset: no stretch has the mean and deviation of the whole."""
    time = np.arange(round(seconds * 16_000)) / 16_000
    voice = sum(np.sin(2 * np.pi * 120 * n * time + n) / n for n in range(1, 9))
    loudness = (0.2 + time / 60) * np.clip(np.sin(2 * np.pi * 2.7 * time) + 0.3, 0, None)
    noise = np.random.default_rng(seed).normal(size=len(time))
    return (0.2 * loudness * voice + 0.003 * noise + 0.01).astype(np.float32)
