"""Writes docs/gpu.md and docs/gpu.json out of what scripts/gpu_check.sh left in its folder. Standard library only.

    python benchmarks/gpu_page.py FOLDER

FOLDER holds steps.tsv (name, status, seconds, detail), machine.txt and, as far as the steps got, ptxas.txt and
benchmark.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def read_steps(folder: Path) -> list[dict[str, str]]:
    """Return what each step came to."""
    lines = (folder / "steps.tsv").read_text().splitlines()
    return [dict(zip(("name", "status", "seconds", "detail"), line.split("\t"), strict=True)) for line in lines]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def benchmark_table(report: dict) -> str:
    """Return a row for every variant and a column for every size, microseconds."""
    sizes = report["sizes"]
    names = list(dict.fromkeys(name for size in sizes for name in size["median_us"]))
    head = ["median µs", *(f"{size['gaussians']} @ {size['px']} px" for size in sizes)]
    return table(head, [[name, *(str(size["median_us"].get(name, "")) for size in sizes)] for name in names])


def page(folder: Path) -> tuple[str, dict]:
    """Return the page and the same as a dictionary."""
    steps = read_steps(folder)
    ran = any(step["name"] == "tests" and step["status"] in ("passed", "failed") for step in steps)
    machine = (folder / "machine.txt").read_text().strip()
    parts = [
        "# The CUDA operators on a GPU",
        "*Written by `bash scripts/gpu_check.sh`; run it wherever there is a GPU and commit what it writes.*",
        "Run on the machine below." if ran else "**Compiled, not yet run.** No GPU was found where this was written.",
        "```\n" + machine + "\n```",
        table(["step", "came to", "s", ""], [list(step.values()) for step in steps]),
    ]
    record: dict = {"ran": ran, "machine": machine.splitlines(), "steps": steps}
    benchmark = folder / "benchmark.json"
    if benchmark.is_file():
        record["benchmark"] = json.loads(benchmark.read_text())
        parts += ["## Times", "GPU time between two events, medians.", benchmark_table(record["benchmark"])]
    registers = folder / "ptxas.txt"
    if registers.is_file():
        record["registers"] = registers.read_text().split("\n\n")[0].splitlines()
        parts += ["## Registers / bytes of stack / bytes spilled", "\n".join(record["registers"])]
    return "\n\n".join(parts) + "\n", record


def main() -> None:
    """Write both files and print their paths."""
    text, record = page(Path(sys.argv[1]))
    for path, content in ((ROOT / "docs/gpu.md", text), (ROOT / "docs/gpu.json", json.dumps(record, indent=1) + "\n")):
        path.write_text(content)
        print(path)


if __name__ == "__main__":
    main()
