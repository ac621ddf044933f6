"""The network from sound to speech codes: temporal convolutions that hear a declared number of frames ahead.

After specs/gaussian_head.md i.4, with three decisions of our own:

* Features are normalised by statistics frozen at training, not per utterance: only so is a stream equal to a whole
  file.
* Beside the convolutions lies a linear path over the nearest frames, which starts as a ridge regression; the
  convolutions start at zero and learn what it misses.
* The network is an ensemble. Each member is trained without one stretch of the training frames, so that its error there
  is an honest one; together they predict their mean.

Convolutions are causal and use no padding: an output needs `reach` frames before it, and the first frame stands for
those before the beginning. Looking ahead is a shift: the code of frame i is what comes out once frame i + look_ahead
has gone in. A feature window itself hears a little further (mel: 80 ms and half an analysis window).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import gelu

from gaussian_head.driving.features import PARTS, average_parts
from gaussian_head.driving.ridge import FOLDS

PAST = 1
"""Frames before the current one that the linear path hears; on real clips of 8-15 s more of them did worse."""
KERNEL = 3


@dataclass(frozen=True)
class AudioLandmarkConfig:
    """Shape of the network."""

    feature_shape: tuple[int, int]
    """Window length and width of one frame's audio features."""
    codes: int
    """Components of the speech space."""
    look_ahead: Literal[0, 2, 4] = 4
    """Frames after the current one that are heard, 40 ms each: what a stream is late."""
    channels: int = 128
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Of the residual convolutions, in frames."""
    members: int = FOLDS
    """Networks in the ensemble."""

    def __post_init__(self) -> None:
        """Refuse a look-ahead that is none of the declared ones."""
        if self.look_ahead not in (0, 2, 4):
            raise ValueError(f"look_ahead must be 0, 2 or 4 frames, got {self.look_ahead}.")

    @property
    def inputs(self) -> int:
        """Numbers that describe one frame's sound."""
        return min(PARTS, self.feature_shape[0]) * self.feature_shape[1]

    @property
    def context(self) -> int:
        """Frames that the linear path hears."""
        return PAST + 1 + self.look_ahead

    @property
    def reach(self) -> int:
        """Frames that must go in before the first code comes out, less one."""
        return max(self.context - 1, (KERNEL - 1) * sum(self.dilations))


class AudioLandmarkNet(torch.nn.Module):
    """Maps audio features to speech codes, for whole files (`forward`) and streams (`Stream`)."""

    def __init__(self, config: AudioLandmarkConfig, seed: int = 0) -> None:
        """Make a network whose prediction is zero until its linear path is set or it learns."""
        super().__init__()
        self.config = config
        m, d, h, k = config.members, config.inputs, config.channels, config.codes
        generator = torch.Generator().manual_seed(seed)

        def weight(rows: int, columns: int, scale: float) -> torch.nn.Parameter:
            drawn = torch.randn(m, rows, columns, generator=generator)
            return torch.nn.Parameter(drawn * (scale / math.sqrt(rows)))

        self.enter = weight(d, h, 1.0)
        self.enter_bias = torch.nn.Parameter(torch.zeros(m, 1, h))
        self.blocks = torch.nn.ParameterList([weight(KERNEL * h, h, 0.7) for _ in config.dilations])
        self.block_biases = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(m, 1, h)) for _ in config.dilations])
        self.head = torch.nn.Parameter(torch.zeros(m, h, k))
        self.register_buffer("linear", torch.zeros(m, config.context * d, k))
        self.register_buffer("input_mean", torch.zeros(d))
        self.register_buffer("input_scale", torch.ones(d))
        self.register_buffer("gain", torch.ones(()))

    @property
    def look_ahead(self) -> int:
        """Frames after the current one that are heard."""
        return self.config.look_ahead

    def forward(self, features: Float[np.ndarray, "T W C"]) -> Float[Tensor, "T K"]:
        """Predict the codes of a whole file: the members' mean, amplified by the gain."""
        return self.gain * self.whole(self.normalise(features)).mean(0)

    def normalise(self, features: Float[np.ndarray, "T W C"]) -> Float[Tensor, "T D"]:
        """Describe each frame's sound by zero-mean numbers of unit variance over the training."""
        frames = torch.from_numpy(average_parts(features).astype(np.float32))
        return (frames - self.input_mean) * self.input_scale

    def whole(self, x: Float[Tensor, "T D"]) -> Float[Tensor, "M T K"]:
        """Predict each member's codes of normalised frames; the ends are repeated."""
        reach, ahead = self.config.reach, self.look_ahead
        around = torch.arange(-(reach - ahead), len(x) + ahead).clamp(0, len(x) - 1)
        return self.valid(x[around].expand(self.config.members, 1, -1, -1))[:, 0]

    def valid(
        self, x: Float[Tensor, "M B N D"], dropout: float = 0.0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "M B R K"]:
        """Predict codes wherever all that is heard is there: R = N - reach of them.

        Args:
            x: Each member's own batch of normalised frames.
            dropout: Share of channels that are silenced.
            generator: Draws which; none: no dropout.
        """
        near = self.near(x)
        h = torch.matmul(x, self.enter[:, None]) + self.enter_bias[:, None]
        for weight, bias, dilation in zip(self.blocks, self.block_biases, self.config.dilations, strict=True):
            n = h.shape[2] - (KERNEL - 1) * dilation
            taps = torch.cat([h[:, :, i * dilation : i * dilation + n] for i in range(KERNEL)], -1)
            change = gelu(torch.matmul(taps, weight[:, None]) + bias[:, None])
            if generator is not None:
                kept = torch.rand(*change.shape[:2], 1, change.shape[3], generator=generator) >= dropout
                change = change * kept / (1 - dropout)
            h = h[:, :, (KERNEL - 1) * dilation :] + change
        return near + torch.matmul(h[:, :, -near.shape[2] :], self.head[:, None])

    def near(self, x: Float[Tensor, "M B N D"]) -> Float[Tensor, "M B R K"]:
        """Return the linear path's part of `valid`."""
        windows = x[:, :, self.config.reach - self.config.context + 1 :].unfold(2, self.config.context, 1)
        stacked = windows.transpose(3, 4).flatten(3)  # [M, B, R, context * D]
        return torch.matmul(stacked, self.linear[:, None])


class Stream:
    """Feeds a network frame by frame; what comes out is `look_ahead` frames late and equal to the whole file's."""

    def __init__(self, net: AudioLandmarkNet) -> None:
        """Begin a new sound."""
        self.net = net
        self._held: Float[Tensor, "N D"] | None = None

    @torch.no_grad()
    def push(self, features: Float[np.ndarray, "T W C"]) -> Float[Tensor, "R K"]:
        """Take some more frames.

        Returns:
            Codes of the frames that can be told now, none at first: the r-th code that ever comes out is frame r's.
        """
        x = self.net.normalise(features)
        reach = self.net.config.reach
        if self._held is None:
            if not len(x):
                return torch.zeros(0, self.net.config.codes)
            self._held = x[:1].expand(reach - self.net.look_ahead, -1)
        return self._advance(torch.cat([self._held, x]))

    @torch.no_grad()
    def flush(self) -> Float[Tensor, "R K"]:
        """End the sound, whose last frame stands for those after it, and return the codes that are still due."""
        if self._held is None:
            return torch.zeros(0, self.net.config.codes)
        last = self._held[-1:].expand(self.net.look_ahead, -1)
        codes = self._advance(torch.cat([self._held, last]))
        self._held = None
        return codes

    def _advance(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "R K"]:
        net, reach = self.net, self.net.config.reach
        self._held = x[-reach:] if reach else x[:0]
        if len(x) <= reach:
            return torch.zeros(0, net.config.codes)
        return net.gain * net.valid(x.expand(net.config.members, 1, -1, -1))[:, 0].mean(0)
