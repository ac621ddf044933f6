"""The report of a run: what was measured, what it was given, what it ran on."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gaussian_head.media.files import write_bytes

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA = 1
PACKAGES = ("gaussian-head", "torch", "numpy", "opencv-contrib-python", "mediapipe", "av")
NAME = "report.json"
COLUMNS = (
    ("full PSNR", "full", "psnr_db", "{:.2f} dB"),
    ("SSIM", "full", "ssim", "{:.4f}"),
    ("head PSNR", "head", "psnr_db", "{:.2f} dB"),
    ("mouth PSNR", "mouth", "psnr_db", "{:.2f} dB"),
    ("lips LMD", "lips", "lmd_px", "{:.2f} px"),
)


@dataclass(frozen=True)
class Report:
    """Everything `report.json` says; see docs/evaluation.md."""

    subject: str
    preset: str
    device: str
    rows: dict[str, dict[str, Any]]
    """By the way of driving: figures by region, and `from_ground_truth`."""
    timing_s: dict[str, float | None]
    render_fps: float
    peak_rss_mb: float

    def document(self) -> dict[str, Any]:
        """Return the JSON values."""
        return {
            "schema": SCHEMA,
            "subject": self.subject,
            "preset": self.preset,
            "device": self.device,
            "versions": versions(),
            "rows": self.rows,
            "timing_s": self.timing_s,
            "render_fps": round(self.render_fps, 2),
            "peak_rss_mb": self.peak_rss_mb,
        }

    def save(self, run: Path) -> Path:
        """Write `report.json` into the run folder; return its path."""
        path = run / NAME
        write_bytes(path, (json.dumps(self.document(), indent=1, allow_nan=False) + "\n").encode())
        return path

    def table(self) -> Table:
        """Return the figures as a table for the terminal."""
        from rich.table import Table

        table = Table(title=f"{self.subject} ({self.preset}), frames held out")
        table.add_column("row")
        for title, *_ in COLUMNS:
            table.add_column(title, justify="right")
        for name, row in self.rows.items():
            table.add_row(name, *format_row(row))
        return table

    def remarks(self) -> list[str]:
        """Say what each row was given, what could not be measured, and how fast it was."""
        lines = []
        for name, row in self.rows.items():
            if "unavailable" in row:
                lines.append(f"{name}: unavailable: {row['unavailable']}")
                continue
            lines.append(f"{name}: from ground truth: {', '.join(row['from_ground_truth'])}")
            if "aperture_correlation" in row["lips"]:
                lines.append(
                    f"{name}: mouth opening correlates {row['lips']['aperture_correlation']:.2f} with the tracked"
                )
            if "unavailable" in row["lips"]:
                lines.append(f"{name}: lips LMD unavailable: {row['lips']['unavailable']}")
        told = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in self.timing_s.items() if seconds is not None)
        return [*lines, f"time: {told or 'not recorded'}",
                f"render loop {self.render_fps:.1f} frames/s, peak memory {self.peak_rss_mb:.0f} MB"]  # fmt: skip


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that decide figures; null where one is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def format_row(row: dict[str, Any]) -> list[str]:
    """Write a row's figures in the order of COLUMNS."""
    return [format_figure(row.get(region, {}).get(figure), form) for _, region, figure, form in COLUMNS]


def format_figure(value: float | None, form: str) -> str:
    """Write a figure, or a dash where it could not be measured."""
    return "-" if value is None else form.format(value)
