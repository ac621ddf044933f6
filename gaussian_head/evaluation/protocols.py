"""Which figures the papers report over a set of clips, in which order, and how they average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gaussian_head.errors import UserError
from gaussian_head.evaluation.metric import Better

ANY_TASK = "video"
"""The task of a protocol that knows one only."""


@dataclass(frozen=True)
class Protocol:
    """How a paper, or a line of papers, measures a set of clips."""

    name: str
    title: str
    tasks: Mapping[str, tuple[str, ...]]
    """Entries by task, in the order of the paper's columns."""
    uses_truth: bool
    """Each clip is compared with the true footage of the same name; else clips are measured alone."""
    averaging: Literal["frames", "videos"]
    """What the paper's figure is: the mean over all frames of all clips, or the mean of the clips' figures."""
    source: str

    def entries(self, task: str) -> tuple[str, ...]:
        """Return the columns of a task.

        Raises:
            UserError: The protocol has no such task.
        """
        if task not in self.tasks:
            raise UserError(f"protocol {self.name} has the tasks {', '.join(self.tasks)}, got {task!r}.")
        return self.tasks[task]


_VICO_LISTENER = ("ssim_vico", "cpbd", "psnr_vico", "fid", "csim", "expl1", "posel1")

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "vico", "ViCo challenge",
            {"speaker": (*_VICO_LISTENER, "av_offset", "av_conf", "liplmd"), "listener": _VICO_LISTENER},
            uses_truth=True, averaging="frames",
            source="vico.solutions' boards of both tracks; the 2022 board tells angle and translation apart, posel1 is "
            "their mean; sync and lips count for speakers only. SSIM, PSNR, CPBD, CSIM and LipLMD pool the frames of "
            "all videos, FID their features, AVOffset and AVConf are means of videos (specs/metrics.md, 0 and 1). "
            "ExpFD and PoseFD of the 2023 rules are defined nowhere and left out",
        ),
        Protocol(
            "self", "self-reconstruction (TalkingGaussian, SyncTalk, GGTalker)",
            {ANY_TASK: (
                "psnr", "lpips", "ssim", "fid", "lmd", "aue_lower", "aue_upper", "sync_c", "sync_d",
                "ssim_skimage", "flmd", "aue", "csim", "aperture_correlation", "aperture_lag_frames", "pose_jitter",
                "neck_seam",
            )},
            uses_truth=True, averaging="videos",
            source="the columns of specs/peers.md 1.1-1.3 (SyncTalk's MS-SSIM is not among ours), then our own; each "
            "prediction against the held-out footage of its own subject, one video a subject, mean over subjects",
        ),
        Protocol(
            "cross", "driven by other audio (SyncTalk, TalkingGaussian)",
            {ANY_TASK: (
                "sync_d", "sync_c", "av_offset", "av_conf", "cpbd", "blinks_per_s", "blink_duration_s", "flow_px",
                "frame_mse", "silence_leakage", "pose_jitter", "neck_seam",
            )},
            uses_truth=False, averaging="videos",
            source="LSE-D and LSE-C as in specs/peers.md 1.2 and 1.3, then what else needs no truth; the true row is "
            "the subjects' real footage with its own sound",
        ),
        Protocol(
            "diffused", "Diffused Heads",
            {ANY_TASK: (
                "fvd", "fid_diffused", "blinks_per_s", "blink_duration_s", "ofm_diffused", "fmse_diffused",
                "av_offset", "av_conf", "wer",
            )},
            uses_truth=True, averaging="videos",
            source="the order of specs/diffused_heads.md section 10; FVD, FID and WER are pooled over the set, the "
            "rest are means of videos",
        ),
    )
}  # fmt: skip

VICO_BETTER: dict[str, Better] = {
    "CPBD": "higher", "FID": "lower", "SSIM": "higher", "PSNR": "higher", "CSIM": "higher", "ExpL1": "lower",
    "PoseL1": "lower", "AVOffset": "zero", "AVConf": "higher", "LipLMD": "lower", "ExpFD": "lower", "PoseFD": "lower",
}  # fmt: skip
"""What ViCo's score ranks, and which way is better (specs/metrics.md section 0)."""


def vico_ranking(
    table: Mapping[str, Sequence[float]], names: Sequence[str], better: Mapping[str, Better] = VICO_BETTER
) -> dict[str, int]:
    """Return ViCo's score of each competitor: the sum of its ranks over the metrics; the lowest wins.

    Rank 1 is best. Equal values share the mean of their ranks, cut to a whole number (specs/metrics.md section 0).

    Args:
        table: For each metric one value a competitor; metrics that `better` does not name are not ranked.
        names: The competitors, in the order of the values.
        better: Which way is better. Metrics that are not in the table are left out for all competitors alike.

    Raises:
        UserError: A column has not one finite value for each name, or none is ranked.
    """
    from scipy.stats import rankdata  # slow to import, and only needed here

    ranked = [metric for metric in table if metric in better]
    if not ranked:
        raise UserError(f"nothing to rank by: the table has {', '.join(table) or 'no columns'}.")
    score = np.zeros(len(names), int)
    for metric in ranked:
        values = np.asarray(table[metric], float)
        if values.shape != (len(names),) or not np.isfinite(values).all():
            raise UserError(f"{metric} must have one finite value for each of the {len(names)} names.")
        cost = {"higher": -values, "lower": values, "zero": np.abs(values)}[better[metric]]
        score += rankdata(cost, method="average").astype(int)
    return dict(zip(names, score.tolist(), strict=True))
