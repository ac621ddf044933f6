"""Pretrained speech encoders: where they are on disk, and how they become a `SpeechEncoder`. Nothing is fetched.

As the Hugging Face hub has them: `config.json`, `preprocessor_config.json` (whether the waveform is normalised) and
`model.safetensors` or `pytorch_model.bin`, which are read as plain tensors. `transformers` has the networks.
"""

from __future__ import annotations

import json
import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gaussian_head.errors import UserError
from gaussian_head.networks.speech_encoder import SpeechEncoder
from gaussian_head.networks.weights import (
    FOLDER,
    TABLE,
    WeightsMissingError,
    find_weights,
    hub_cache,
    load_state_dict,
    search_folders,
)

logger = logging.getLogger(__name__)

FAMILIES = {"wavlm": "wavlm", "wavlm-base-plus": "wavlm", "hubert": "hubert", "wav2vec2": "wav2vec2"}
"""Each encoder (a name in TABLE of `weights`) and its architecture, `model_type` in its config.json."""
PREFERRED = ("wavlm", "wavlm-base-plus")
"""What `auto` takes, the first whose weights are on disk."""
_CONVOLUTIONS = {"conv_kernel": [10, 3, 3, 3, 3, 2, 2], "conv_stride": [5, 2, 2, 2, 2, 2, 2]}


def load_encoder(name: str, layers: str = "last", weights: Path | None = None) -> SpeechEncoder:
    """Load a pretrained encoder from disk, onto a GPU where there is one.

    Args:
        name: A key of FAMILIES.
        layers: See `parse_layers`.
        weights: The encoder's folder, or the file of its weights in it; default: see `weights.find_weights`.

    Raises:
        UserError: `transformers` is not installed, the weights are missing or damaged or another network's, or it has
            no such layers.
    """
    path = find_encoder(name, weights)
    document = _read_json(path.with_name("config.json"), name)
    family = document.get("model_type")
    if family != FAMILIES[name]:
        raise UserError(f"{path.parent} holds a network of type {family}, expected {FAMILIES[name]} for {name}; "
                        f"{_how_to_get(name)}")  # fmt: skip
    if any(document.get(key, usual) != usual for key, usual in _CONVOLUTIONS.items()):
        raise UserError(f"{path.parent} holds a {family} whose steps are not 320 samples apart; {_how_to_get(name)}")
    processor = _read_json(path.with_name("preprocessor_config.json"), name)
    network = _build(path, family).to("cuda" if torch.cuda.is_available() else "cpu")
    return SpeechEncoder(network, layers, normalize=bool(processor.get("do_normalize", True)))


def find_encoder(name: str, weights: Path | None = None) -> Path:
    """Return the file of an encoder's weights; its folder holds the configuration.

    Raises:
        UserError: It is nowhere, or `transformers`, which has the network, is not installed; the message tells how to
            get what is missing.
    """
    try:
        path = find_weights(name, weights)
    except WeightsMissingError as error:
        repository, folder = TABLE[name].repository, TABLE[name].repository.partition("/")[2]
        if weights is not None or os.environ.get(TABLE[name].variable):
            raise UserError(f"{error} It must be the folder of {repository}; {_how_to_get(name)}") from error
        looked = ", ".join(
            [f"${TABLE[name].variable} (not set)", *(str(place / folder) for place in search_folders()),
             str(hub_cache() / f"models--{repository.replace('/', '--')}")]
        )  # fmt: skip
        raise UserError(
            f"the weights of {name} ({repository}) are not on this disk; looked in {looked}; put config.json, "
            f"preprocessor_config.json and model.safetensors or pytorch_model.bin into {(FOLDER / folder).resolve()}: "
            f"{_how_to_get(name)}"
        ) from error
    if find_spec("transformers") is None:
        raise UserError(f"{name} features need the package transformers; pip install 'gaussian-head[audio]'")
    return path


def preferred_encoder() -> str | None:
    """Return the encoder that `auto` means: the first of PREFERRED whose weights are on disk, None without any."""
    for name in PREFERRED:
        try:
            find_weights(name)
        except WeightsMissingError:
            continue
        if find_spec("transformers") is not None:
            return name
        logger.warning("the weights of %s are here, but not the package transformers, which audio features of it need: "
                       "pip install 'gaussian-head[audio]'", name)  # fmt: skip
    return None


def _build(path: Path, family: str) -> nn.Module:
    """Make the network that a folder describes and fill it, without the parts that are for training or recognition."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(path.parent, local_files_only=True, trust_remote_code=False)
        config.mask_time_prob = config.mask_feature_prob = 0.0
        with torch.device("meta"):  # random weights would take longer than reading true ones
            network = AutoModel.from_config(config, trust_remote_code=False)
    except (StrictDataclassError, OSError, LookupError, ValueError, TypeError, AttributeError) as error:
        first = " ".join(str(error).split())[:200]
        raise UserError(f"{path.with_name('config.json')} describes no {family} ({first}); get it again.") from error
    found = {_renamed(name, family): tensor.float() for name, tensor in load_state_dict(path).items()}
    wanted = network.state_dict()
    for name, tensor in wanted.items():
        if name not in found or found[name].shape != tensor.shape:
            shape = list(found[name].shape) if name in found else "nothing"
            raise UserError(f"{path} holds another network than its config.json says: {name} must be "
                            f"{list(tensor.shape)}, got {shape}; get the whole folder again.")  # fmt: skip
    network.load_state_dict({name: found[name] for name in wanted}, assign=True)
    return network


def _renamed(name: str, family: str) -> str:
    """Translate a published name: no prefix of a network with a head, weight norm in torch's present spelling."""
    name = name.removeprefix(f"{family}.")
    name = name.replace(".conv.weight_g", ".conv.parametrizations.weight.original0")
    return name.replace(".conv.weight_v", ".conv.parametrizations.weight.original1")


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing beside the weights; {_how_to_get(name)}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); {_how_to_get(name)}") from error
    if not isinstance(document, dict):
        raise UserError(f"{path} must hold a JSON object; {_how_to_get(name)}")
    return document


def _how_to_get(name: str) -> str:
    repository = TABLE[name].repository
    return f"hf download {repository} --local-dir {FOLDER / repository.partition('/')[2]}"
