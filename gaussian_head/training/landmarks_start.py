"""Where the landmark network starts: a ridge regression for each member, on top of a pretrained network if any."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from gaussian_head.driving.audio_landmarks import PAST, AudioLandmarkNet
from gaussian_head.driving.features import average_parts, silent_frames
from gaussian_head.driving.regression import SILENCE_SHARE, correlation
from gaussian_head.driving.ridge import solve
from gaussian_head.driving.speech_space import SpeechSpace
from gaussian_head.geometry.landmarks import mouth_aperture
from gaussian_head.training.landmarks import Speaker, targets

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SHARES = (0.0, 0.5, 1.0)
"""How much of a pretrained network's prediction a person may begin with."""


class Rows:
    """Samples of a regression: the frames that each member may learn from, and silence."""

    def __init__(self, net: AudioLandmarkNet, speakers: Sequence[Speaker], spaces: Sequence[SpeechSpace]) -> None:
        """Stack the context of every training frame.

        Args:
            net: Its statistics are set; its prediction is what comes before the regression.
            speakers: Whom to learn from.
            spaces: Their speech spaces.
        """
        members = net.config.members
        x, y, before, weight, member, kept, owner = [], [], [], [], [], [], []
        for i, (speaker, space) in enumerate(zip(speakers, spaces, strict=True)):
            codes, closed = targets(speaker, space)
            silences = silent_frames(speaker.features[speaker.train], speaker.extractor)
            n, s = len(speaker.train), len(silences)
            with torch.no_grad():
                predicted = net.whole(net.normalise(speaker.features)).numpy()
                still = np.concatenate([net.whole(net.normalise(frame[None])).numpy() for frame in silences], 1)
            x += [_stack(net, speaker.features)[speaker.train], *(_stack(net, frame[None]) for frame in silences)]
            y += [codes[speaker.train], np.tile(closed, (s, 1))]
            before += [predicted[:, speaker.train], still]
            weight += [np.ones(n) / n, np.full(s, SILENCE_SHARE)]  # every speaker counts alike
            member += [speaker.folds(members), np.full(s, -1)]
            kept += [speaker.seen(members)[:, speaker.train], np.ones((members, s), bool)]
            owner += [np.full(n + s, i)]
        self.x: Float[np.ndarray, "R D"] = np.concatenate(x) / np.sqrt(x[0].shape[1])
        self.y: Float[np.ndarray, "R K"] = np.concatenate(y)
        self.before: Float[np.ndarray, "M R K"] = np.concatenate(before, 1).astype(np.float64)
        self.weight: Float[np.ndarray, " R"] = np.concatenate(weight) * sum(len(s.train) for s in speakers)
        self.member: Int[np.ndarray, " R"] = np.concatenate(member)
        """Which member has not seen a row; -1 where all have."""
        self.kept = np.concatenate(kept, 1)
        self.owner = np.concatenate(owner)


def start_from_ridge(net: AudioLandmarkNet, speakers: Sequence[Speaker], spaces: Sequence[SpeechSpace]) -> float:
    """Set the linear path of every member, in place, to what most helps on its held-out frames.

    What the network predicts already is kept to the share that helps most; the regression learns the rest.

    Returns:
        Correlation of the mouth opening on held-out frames, mean over the speakers.
    """
    rows = Rows(net, speakers, spaces)
    shares = SHARES if np.abs(rows.before).max() > 0 else (0.0,)
    scores = {}
    for penalty in PENALTIES:
        fitted = _solve_members(rows, penalty)
        for share in shares:
            held_out = _held_out(rows, fitted, share)
            scores[penalty, share] = np.mean([
                _opening_correlation(held_out[(rows.owner == i) & (rows.member >= 0)], speaker, space)
                for i, (speaker, space) in enumerate(zip(speakers, spaces, strict=True))
            ])  # fmt: skip
    penalty, share = max(scores, key=scores.get)
    of_target, of_before = _solve_members(rows, penalty)
    linear = torch.from_numpy((of_target - share * of_before) / np.sqrt(rows.x.shape[1])).float()
    with torch.no_grad():
        net.linear.mul_(share).add_(linear)
        net.head.mul_(share)
    return float(scores[penalty, share])


def adapt(net: AudioLandmarkNet, common: SpeechSpace, own: SpeechSpace) -> None:
    """Let a network of the common space speak in a person's own, in place."""
    matrix = torch.from_numpy(common.into(own)).float()
    with torch.no_grad():
        for part in (net.linear, net.head):
            part.copy_(part @ matrix)


def _stack(net: AudioLandmarkNet, features: Float[np.ndarray, "T W C"]) -> Float[np.ndarray, "T D"]:
    """Lay normalised frames i - PAST .. i + look_ahead side by side, as the linear path takes them."""
    x = ((average_parts(features) - net.input_mean.numpy()) * net.input_scale.numpy()).astype(np.float64)
    around = np.arange(len(x))[:, None] + np.arange(-PAST, net.look_ahead + 1)
    return x[around.clip(0, len(x) - 1)].reshape(len(x), -1)


def _solve_members(rows: Rows, penalty: float) -> tuple[Float[np.ndarray, "M D K"], Float[np.ndarray, "M D K"]]:
    """Regress each member's rows: to the targets, and to what was predicted before."""
    k = rows.y.shape[1]
    both = [
        solve(rows.x[kept], np.concatenate([rows.y, before], 1)[kept], rows.weight[kept], penalty)
        for kept, before in zip(rows.kept, rows.before, strict=True)
    ]
    return np.stack([b[:, :k] for b in both]), np.stack([b[:, k:] for b in both])


def _held_out(
    rows: Rows, fitted: tuple[Float[np.ndarray, "M D K"], Float[np.ndarray, "M D K"]], share: float
) -> Float[np.ndarray, "R K"]:
    """Predict every row by the member that has not seen it; zeros for the others."""
    held_out = np.zeros_like(rows.y)
    for m, (of_target, of_before) in enumerate(zip(*fitted, strict=True)):
        own = rows.member == m
        held_out[own] = share * rows.before[m, own] + rows.x[own] @ (of_target - share * of_before)
    return held_out


def _opening_correlation(codes: Float[np.ndarray, "N K"], speaker: Speaker, space: SpeechSpace) -> float:
    heard = mouth_aperture(space.decode(codes).numpy())
    return correlation(heard, mouth_aperture(speaker.landmarks[speaker.train]))
