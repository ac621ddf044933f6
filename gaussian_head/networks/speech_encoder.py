"""Speech encoders of wav2vec 2.0's family: WavLM, HuBERT, wav2vec 2.0 (specs/gaussian_head.md a.3, i.3).

Steps come at 50 Hz, two a video frame: step j sees samples 320 j to 320 j + 399 and, through attention, whatever else
the network is shown.

A long sound is shown in windows of 20 s, about what these networks were trained on. What is measured over time is
measured once, over the whole sound: the waveform's mean and deviation, and the group norm of the first convolution.
The outer 1.5 s of a window are discarded where the sound goes on. Convolutions and positional convolution reach less
far (1.28 s), so they never see a cut. Neighbouring windows fade into each other over another second, so that what
attention makes of its surroundings changes without a jump.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32
from numpy import ndarray
from torch import Tensor, nn

from gaussian_head.errors import UserError

SPEECH_HZ = 16_000
STEP = 320
"""Samples from step to step."""
SIGHT = 400
"""Samples that the convolutions see for one step."""
STEPS_PER_FRAME = 2
WINDOW = 1000
"""Steps that the network is shown at a time: 20 s."""
DISCARDED = 75
"""Steps discarded at each end of a window, 1.5 s, but for the ends of the sound."""
FADE = 50
"""Steps over which a window fades into the next: 1 s."""
_PIECE = 320_000
"""Samples measured at a time."""


class SpeechEncoder:
    """A pretrained network that turns speech into features."""

    def __init__(self, network: nn.Module, layers: str = "last", *, normalize: bool = False) -> None:
        """Take over the network.

        Args:
            network: A WavLMModel, HubertModel or Wav2Vec2Model of `transformers`; its upper layers are cut off where
                `layers` needs none of them.
            layers: Which layers' output; see `parse_layers`.
            normalize: Give the waveform zero mean and unit variance first, as the network was trained.

        Raises:
            UserError: The network has no such layers.
        """
        self._count = len(network.encoder.layers)
        self.shares = parse_layers(layers, self._count)
        self.normalize = normalize
        self._takes_final = set(self.shares) == {self._count}
        network.encoder.layers = network.encoder.layers[: max(self.shares)]
        self._norm: _WholeSoundNorm | None = None
        first = network.feature_extractor.conv_layers[0]
        if isinstance(first.layer_norm, nn.GroupNorm):
            self._norm = first.layer_norm = _WholeSoundNorm(first.layer_norm)
        self._network = network.eval().requires_grad_(False)

    @property
    def width(self) -> int:
        """Return C, the number of features of a step."""
        return self._network.config.hidden_size

    @property
    def layers(self) -> str:
        """Return the choice of layers in one spelling: `last`, `mix`, `9`, or `6:0.25,9:0.75`."""
        if self._takes_final:
            return "last"
        if len(self.shares) == self._count and len(set(self.shares.values())) == 1:
            return "mix"
        if len(self.shares) == 1:
            return str(next(iter(self.shares)))
        return ",".join(f"{layer}:{share:.4g}" for layer, share in self.shares.items())

    def features(self, speech: Float[ndarray, "S"], frames: int) -> Float16[ndarray, "T 2 C"]:
        """Compute the features of T video frames; see `fill`."""
        out = np.empty((frames, STEPS_PER_FRAME, self.width), np.float16)
        self.fill(out, speech)
        return out

    def fill(self, out: Float16[ndarray, "T 2 C"], speech: Float[ndarray, "S"]) -> None:
        """Compute the features of T video frames into an array, such as a file mapped into memory.

        Frame i gets steps 2 i and 2 i + 1. A sound of whole frames has one step less than two a frame, so the last one
        is repeated, as for frames beyond the end of the sound.

        Args:
            out: Filled.
            speech: Samples at 16 kHz, at least one.

        Raises:
            UserError: There is no sample.
        """
        rows = out.reshape(-1, out.shape[-1])
        done = 0
        for steps in self.encode(speech):
            taken = steps[: len(rows) - done]
            rows[done : done + len(taken)] = taken
            done += len(taken)
            if done == len(rows):
                return
        rows[done:] = rows[done - 1]

    @torch.no_grad()
    def encode(self, speech: Float[ndarray, "S"]) -> Iterator[Float32[ndarray, "J C"]]:
        """Yield the features of all steps in order, a window's worth at a time.

        Args:
            speech: Samples at 16 kHz, at least one; less than a step's 400 are filled up with silence.

        Raises:
            UserError: There is no sample.
        """
        if not len(speech):
            raise UserError("the sound is empty; give one of at least one sample.")
        speech = np.asarray(speech, np.float32)
        if self.normalize:
            # 1e-7: transformers' Wav2Vec2FeatureExtractor
            speech = (speech - speech.mean(dtype=np.float64)) / np.sqrt(speech.var(dtype=np.float64) + 1e-7)
        speech = np.pad(speech.astype(np.float32), (0, max(0, SIGHT - len(speech))))
        if self._norm is not None:
            self._norm.measure(self._network.feature_extractor.conv_layers[0].conv, speech)
        count = (len(speech) - SIGHT) // STEP + 1
        windows = place_windows(count)
        begin, fading = 0, None
        for i, (start, stop) in enumerate(windows):
            states = self._states(speech[start * STEP : (stop - 1) * STEP + SIGHT])
            end = stop if i == len(windows) - 1 else (windows[i + 1][0] + stop - FADE) // 2
            steps = states[begin - start : end - start]
            if fading is not None:
                share = ((np.arange(FADE, dtype=np.float32) + 0.5) / FADE)[:, None]
                steps[:FADE] = (1 - share) * fading + share * steps[:FADE]
            fading = states[end - start : end - start + FADE]
            begin = end
            yield steps

    def _states(self, samples: Float32[ndarray, "N"]) -> Float32[ndarray, "J C"]:
        """Show the network one window and mix its layers."""
        device = next(self._network.parameters()).device
        mixed = torch.zeros((), device=device)

        def take(share: float) -> Any:  # noqa: ANN401 -- a hook of torch
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:  # noqa: ANN401
                nonlocal mixed
                state = output[0] if isinstance(output, tuple) else output
                mixed = mixed + share * nn.functional.layer_norm(state, state.shape[-1:])

            return hook

        layers = self._network.encoder.layers
        hooks = [] if self._takes_final else [
            layers[layer - 1].register_forward_hook(take(share)) for layer, share in self.shares.items()
        ]  # fmt: skip
        try:
            final = self._network(torch.from_numpy(samples)[None].to(device)).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        return (final if self._takes_final else mixed)[0].float().cpu().numpy()


def parse_layers(text: str, count: int) -> dict[int, float]:
    """Read which layers of an encoder to take.

    The last layer alone is taken as it is, as in the field's files. All others are scaled first, each step to zero mean
    and unit variance over its features, since what passes through the layers grows on its way.

    Args:
        text: `last`; a layer `1` .. `24`; several with their shares, `6:1,9:3` (without: equal ones); or `mix`, equal
            shares of all layers.
        count: Number of layers.

    Returns:
        Share of each layer, 1 the lowest; they add up to 1.

    Raises:
        UserError: It is none of these, or there is no such layer.
    """
    if text == "last":
        return {count: 1.0}
    listed = text if text != "mix" else ",".join(map(str, range(1, count + 1)))
    parts = [part.partition(":") for part in listed.split(",")]
    try:
        shares = {int(layer): float(share or 1) for layer, _, share in parts}
    except ValueError:
        shares = {}
    if len(shares) < len(parts) or not all(1 <= n <= count and 0 < share < math.inf for n, share in shares.items()):
        raise UserError(
            f"layers must be last, mix, one of 1..{count}, or several of these with shares such as 6:1,9:3; got {text}."
        )
    total = sum(shares.values())
    return {layer: shares[layer] / total for layer in sorted(shares)}


def place_windows(count: int) -> list[tuple[int, int]]:
    """Cover steps 0 .. count - 1 with windows, evenly spaced, that overlap by 2 DISCARDED + FADE steps or more.

    Returns:
        First step and the step after the last of each; a single window where all steps fit into one.
    """
    if count <= WINDOW:
        return [(0, count)]
    gaps = -(-(count - WINDOW) // (WINDOW - 2 * DISCARDED - FADE))
    return [(start, start + WINDOW) for start in ((count - WINDOW) * i // gaps for i in range(gaps + 1))]


class _WholeSoundNorm(nn.Module):
    """The group norm of a first convolution, which scales each channel by its statistics over time, over all of it."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self._norm = norm
        self._mean = self._scale = torch.zeros(0)

    def measure(self, convolution: nn.Conv1d, speech: Float32[ndarray, "S"]) -> None:
        """Take the statistics of a sound, a piece at a time."""
        (kernel,), (stride,) = convolution.kernel_size, convolution.stride
        count = (len(speech) - kernel) // stride + 1
        weight, per_piece = convolution.weight, _PIECE // stride
        total = square = torch.zeros(len(weight), dtype=torch.float64, device=weight.device)
        for begin in range(0, count, per_piece):
            end = min(begin + per_piece, count)
            piece = torch.from_numpy(speech[begin * stride : (end - 1) * stride + kernel]).to(weight.device)
            out = convolution(piece[None, None])[0].double()
            total, square = total + out.sum(1), square + out.square().sum(1)
        mean = total / count
        scale = self._norm.weight / (square / count - mean.square()).clamp_min(0).add(self._norm.eps).sqrt()
        self._mean, self._scale = mean.float()[:, None], scale.float()[:, None]

    def forward(self, x: Float[Tensor, "1 C J"]) -> Float[Tensor, "1 C J"]:
        return (x - self._mean) * self._scale + self._norm.bias[:, None]
