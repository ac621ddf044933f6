"""From the figures of clips to the figures of a set: means, pooled distances, and the table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from gaussian_head.evaluation import registry
from gaussian_head.evaluation.frechet import frechet_distance
from gaussian_head.evaluation.metric import Entry
from gaussian_head.evaluation.protocols import Protocol
from gaussian_head.evaluation.word_error_rate import pool_word_error_rate

if TYPE_CHECKING:
    from rich.table import Table

REGIONS = ("full", "head", "mouth")

Row = dict[str, dict[str, dict[str, Any]]]
"""JSON values by entry and region."""


def average_row(
    documents: list[dict[str, Any]], features: list[Path], task: str, protocol: Protocol
) -> tuple[Row, dict[str, str]]:
    """Average the figures of clips.

    Args:
        documents: What was written of each clip.
        features: The clips' .npz files: `<entry>.picture` and `<entry>.truth` make a Frechet distance of all clips
            together, `wer` the word error rate of the corpus.
        task: Whose columns are wanted.
        protocol: How its paper averages.

    Returns:
        By entry and region `value` (what the protocol reports), `pooled`, `frame_mean` (all frames of all clips; null
        for figures that are not means of frames), `video_mean`, and what they rest on; and why columns are empty.
    """
    pooled, reasons = _pool(features)
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for document in documents:
        reasons = document["unavailable"] | reasons
        for figure in document["figures"]:
            found.setdefault((figure["entry"], figure["region"]), []).append(figure)
    row: Row = {}
    for entry in protocol.entries(task):
        for region in REGIONS:
            whole = pooled.get(entry) if region == "full" else None
            averaged = _average(found.get((entry, region), []), whole, protocol)
            if averaged["value"] is not None:
                row.setdefault(entry, {})[region] = averaged
    for (entry, _), figures in found.items():
        reasons.setdefault(entry, next((figure["reason"] for figure in figures if figure["reason"]), ""))
    missing = [entry for entry in protocol.entries(task) if entry not in row]
    return row, {entry: reasons.get(entry, "no clip has it") for entry in missing}


def set_tables(document: dict[str, Any], width: int) -> list[Table]:
    """Return tables for each task of `set.json`: the whole picture's figures in the paper's column order.

    Args:
        document: What `set.json` holds.
        width: Of the terminal, in characters; the columns that do not fit go into a further table.
    """
    known, tables = registry.entries(), []
    for task, facts in document["tasks"].items():
        rows, columns = list(facts["rows"]), []
        for name in facts["columns"]:
            values = (figures.get(name, {}).get("full", {}).get("value") for figures in facts["rows"].values())
            title = known[name].title if name in known else name
            columns.append((title, *(_write(value, known.get(name)) for value in values)))
        title, room = f"{document['protocol']}, {task}: {facts['clips']} clips", width - max(map(len, rows)) - 4
        chosen: list[tuple[str, ...]] = []
        for column in [*columns, None]:
            if column is None or (chosen and sum(map(_width, [*chosen, column])) > room):
                tables.append(_table(title, rows, chosen))
                title, chosen = "", []
            if column is not None:
                chosen.append(column)
    return tables


def missing_columns(document: dict[str, Any]) -> list[str]:
    """Say of every empty column why it is; once where all rows and tasks give the same reason."""
    told: dict[str, list[str]] = {}
    for facts in document["tasks"].values():
        for reasons in facts["unavailable"].values():
            for name, reason in reasons.items():
                if name not in told.setdefault(reason, []):
                    told[reason].append(name)
    return [f"unavailable: {', '.join(names)}: {reason}" for reason, names in told.items()]


def _width(column: tuple[str, ...]) -> int:
    return max(map(len, column)) + 3


def _table(title: str, rows: list[str], columns: list[tuple[str, ...]]) -> Table:
    from rich.table import Table

    table = Table(title=title or None, title_justify="left")
    table.add_column("row", no_wrap=True)
    for column in columns:
        table.add_column(column[0], justify="right", no_wrap=True)
    for i, row in enumerate(rows):
        table.add_row(row, *(column[i + 1] for column in columns))
    return table


def _average(figures: list[dict[str, Any]], pooled: float | None, protocol: Protocol) -> dict[str, Any]:
    held = [figure for figure in figures if figure["value"] is not None]
    frames = [value for figure in held for value in figure["trace"] if value is not None]
    by_frame = bool(frames) and all(figure["trace"] for figure in held)
    frame_mean = math.fsum(frames) / len(frames) if by_frame else None
    video_mean = math.fsum(figure["value"] for figure in held) / len(held) if held else None
    value = frame_mean if protocol.averaging == "frames" and by_frame else video_mean
    return {
        "value": value if pooled is None else pooled,
        "pooled": pooled,
        "frame_mean": frame_mean,
        "video_mean": video_mean,
        "clips": len(held),
        "clips_without": len(figures) - len(held),
        "frames": sum(figure["counted"] for figure in figures),
        "excluded_frames": sum(figure["excluded"] for figure in figures),
    }


def _pool(files: list[Path]) -> tuple[dict[str, float], dict[str, str]]:
    """Return figures of the whole set by entry, and why some could not be had."""
    held: dict[str, list[Float[np.ndarray, "M D"]]] = {}
    for path in files:
        with np.load(path, allow_pickle=False) as features:
            for name in features.files:
                if len(features[name]):  # without rows it also lacks columns
                    held.setdefault(name, []).append(features[name])
    together = {name: np.concatenate(arrays) for name, arrays in held.items()}
    values, reasons = {}, {}
    for name, array in together.items():
        entry, _, side = name.rpartition(".")
        try:
            if side == "picture" and f"{entry}.truth" in together:
                values[entry] = frechet_distance(array, together[f"{entry}.truth"])
            elif name == "wer":
                values[name] = pool_word_error_rate(array)
        except ValueError as error:
            reasons[entry or name] = str(error)
    return values, reasons


def _write(value: float | None, entry: Entry | None) -> str:
    return "-" if value is None else (entry.form if entry else "{:.4g}").format(value)
