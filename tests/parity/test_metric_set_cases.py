"""Sets and decoding against the recorded references: ViCo's ranking, hashes of decoded pictures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gaussian_head.evaluation.clip import open_clip
from gaussian_head.evaluation.protocols import VICO_BETTER, vico_ranking


def test_vico_ranking(metric_cases: dict[str, dict[str, Any]]) -> None:
    if "vico.ranking" not in metric_cases:
        pytest.skip("vico.ranking is not among the cases")
    case = metric_cases["vico.ranking"]
    given = case["input"]
    better = dict.fromkeys(given["larger_better"], "higher") | dict.fromkeys(given["smaller_better"], "lower")
    better |= dict.fromkeys(given["abs_smaller_better"], "zero")
    assert better == VICO_BETTER
    table = {metric: values for metric, values in given["table"].items() if metric != "Name"}
    score = vico_ranking(table, given["table"]["Name"], better)
    assert set(score) == set(case["value"])
    for name, expected in case["value"].items():
        assert abs(score[name] - expected) <= case["tol"]["abs"], name


def test_decoded_pictures(case_folder: Any) -> None:
    """Every recorded video that is in the folder decodes to the recorded bytes."""
    folder: Path = case_folder("metrics")
    cases = json.loads((folder / "reference_values.json").read_text())["video"]["cases"]
    present = {name: facts for name, facts in cases.items() if (folder / f"{name}.mp4").is_file()}
    if not present:
        pytest.skip(f"none of the videos {', '.join(cases)} is in the folder")
    for name, facts in present.items():
        path = folder / f"{name}.mp4"
        if hashlib.sha256(path.read_bytes()).hexdigest() != facts["mp4_sha256"]:
            pytest.fail(f"{path} is not the recorded file")
        whole, total, means = hashlib.sha256(), 0, []
        for index, rgb in enumerate(open_clip(path).pictures()):
            content = np.ascontiguousarray(rgb).tobytes()
            whole.update(content)
            expected = facts["rgb24_sha256_frame"].get(str(index))
            assert expected in (None, hashlib.sha256(content).hexdigest()), f"{name}, frame {index}"
            means.append(rgb.reshape(-1, 3).mean(0))
            total += 1
        assert total == facts["frames"]
        assert whole.hexdigest() == facts["rgb24_sha256_all_frames"], name
        np.testing.assert_allclose(np.mean(means, 0), facts["rgb_mean"], atol=1e-9)
