"""What best tells the fields how the mouth moves: short runs of each condition, measured on frames held out.

python benchmarks/conditions.py data/A data/B [--out output/conditions] [--markdown docs/conditions.md]
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

import torch
import tyro

from gaussian_head.data.subject import Subject
from gaussian_head.errors import configure_logging, run_command
from gaussian_head.evaluation import registry
from gaussian_head.evaluation.held_out import measure_held_out
from gaussian_head.evaluation.report import Report, describe_machine, format_value
from gaussian_head.media.files import write_bytes
from gaussian_head.progress import track
from gaussian_head.render.trained import load_trained
from gaussian_head.training.fit import ORDER, fit_stage
from gaussian_head.training.landmarks_fit import fit_landmarks
from gaussian_head.training.landmarks_validation import validate_landmarks
from gaussian_head.training.presets import QUICK, FitConfig
from gaussian_head.training.trainer import Trainer
from gaussian_head.training.validation import validate

Condition = Literal["landmarks", "audio", "both"]
COLUMNS = (
    ("psnr", "full"), ("psnr", "mouth"), ("ssim", "mouth"), ("liplmd", "full"), ("aperture_correlation", "full"),
    ("aperture_lag_frames", "full"), ("psnr_shift", "full"),
)  # fmt: skip
PRESET = "conditions"


@dataclass(frozen=True)
class ConditionsOptions:
    """Train every subject under every condition, and measure it moved by true and by predicted landmarks."""

    data: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Subject folders."""
    out: Path = Path("output/conditions")
    """Folder of the runs; finished stages are kept."""
    size: int = 256
    """Longer side of the pictures, px."""
    share: float = 0.3
    """Length of the runs, as a share of the quick preset's steps."""
    threads: int = 2
    """torch's threads."""
    markdown: Path | None = None
    """Page to write; default: the table is printed."""
    debug: bool = False
    """Show the traceback of an error."""


def compare(options: ConditionsOptions) -> None:
    """Train, measure and tell; see `ConditionsOptions`."""
    torch.set_num_threads(options.threads)
    parts = [_header(options)]
    for folder in options.data:
        subject = Subject(folder, options.size)
        lines = []
        for condition in get_args(Condition):
            run = options.out / f"{subject.layout.subject}_{condition}"
            report = _measure(subject, run, _config(options, condition))
            lines += [_line(report, row, f"`{row}`, {condition}") for row in ("oracle", "predicted")]
            if condition == "landmarks":
                report = _measure(subject, run, _config(options, condition), ridge=True)
                lines.append(_line(report, "predicted", "`predicted`, landmarks by the ridge regression"))
        parts.append(_table(subject, lines))
    page = "\n".join(parts)
    if options.markdown is None:
        print(page)
    else:
        write_bytes(options.markdown, page.encode())
        print(options.markdown)


def _config(options: ConditionsOptions, condition: Condition) -> FitConfig:
    shorter = {name: replace(stage, steps=round(options.share * stage.steps)) for name in ORDER
               if (stage := getattr(QUICK, name))}  # fmt: skip
    return replace(QUICK, size=options.size, head=replace(QUICK.head, condition=condition), **shorter)


def _measure(subject: Subject, run: Path, config: FitConfig, *, ridge: bool = False) -> Report:
    """Train what is not trained yet, and measure the val frames."""
    listener = Trainer(run, config.landmarks.trainer, validate_landmarks, track)
    fit_landmarks(subject, run, config, PRESET, listener, choice="ridge" if ridge else "network")
    for stage in ORDER:
        fit_stage(stage, subject, run, config, PRESET, Trainer(run, config.trainer, validate, track))
    names = {name for name, _ in COLUMNS}
    metrics = [metric for metric in registry.METRICS if names & {entry.name for entry in metric.entries}]
    report, _ = measure_held_out(subject, load_trained(run), run, metrics)
    return report


def _line(report: Report, row: str, title: str) -> list[str]:
    figures = [(report.figure(row, name, region), report.entries[name]) for name, region in COLUMNS]
    return [title, *(format_value(None if figure is None else figure.value, entry) for figure, entry in figures)]


def _header(options: ConditionsOptions) -> str:
    machine = describe_machine()
    return (
        "# Conditions\n\n"
        "Written by `python benchmarks/conditions.py`: what tells the fields how the mouth moves (`train --condition`, "
        f"[model.md](model.md#condition)),\nin short runs ({options.size} px, {options.share:.0%} of quick's "
        "steps, one seed) on frames held out.\n"
        "Row `oracle` has the true landmarks, `predicted` those of the network from sound, or of the ridge regression; "
        "with `audio`\nneither moves the mouth: the sound does, in the field.\n"
        f"Machine: {machine['processor']}, {machine['cores']} cores.\n"
    )


def _table(subject: Subject, lines: list[list[str]]) -> str:
    entries = registry.entries()
    titles = [f"{entries[name].title}{'' if region == 'full' else f', {region}'}" for name, region in COLUMNS]
    units = [f" ({entries[name].unit})" if entries[name].unit else "" for name, _ in COLUMNS]
    header = ["row", *(title + unit for title, unit in zip(titles, units, strict=True))]
    ruler = ["---", *["---:"] * len(COLUMNS)]
    rows = "\n".join(f"| {' | '.join(line)} |" for line in (header, ruler, *lines))
    return f"## {subject.layout.subject} ({len(subject.val)} frames held out of {subject.frames})\n\n{rows}\n"


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(ConditionsOptions)
    configure_logging()
    run_command(lambda: compare(options), debug=options.debug)


if __name__ == "__main__":
    main()
