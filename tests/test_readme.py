"""What the README shows exists and parses."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def shown_commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def is_installed() -> bool:
    try:
        metadata.distribution("gaussian-head")
    except metadata.PackageNotFoundError:
        return False
    return True


def test_the_two_commands_come_first() -> None:
    opening = "\n".join(README.splitlines()[:25])
    assert "bash scripts/demo.sh" in opening
    assert "bash scripts/test.sh" in opening


@pytest.mark.parametrize("line", shown_commands())
def test_command_parses(line: str) -> None:
    words = shlex.split(line, comments=True)
    assert subprocess.run(["bash", "-n", "-c", line], check=False).returncode == 0
    if words[0] == "bash":
        script = ROOT / words[1]
        assert script.is_file()
        command, flags = ["bash", script], []
    else:
        assert words[0] == "python"
        module = words[2] if words[1] == "-m" else words[1].removesuffix(".py").replace("/", ".")
        path = ROOT / module.replace(".", "/")
        if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()):
            pytest.skip(f"{module} is not written yet")
        if words[1] != "-m" and not is_installed():
            pytest.skip("a path to a command needs the project installed (scripts/setup.sh)")
        named = words[1:3] if words[1] == "-m" else words[1:2]
        subcommand = ["all"] if "all" in words else []
        command, flags = [sys.executable, *named, *subcommand], [word for word in words[3:] if word.startswith("-")]
    result = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for flag in flags:
        assert re.search(rf"(?<![\w-]){flag}(?![\w-])", result.stdout), f"{flag} is not in the help of: {line}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if target == "docs/images/demo.png" and not (ROOT / target).exists():
            pytest.skip("the README's picture is not made yet")
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_folder_of_the_tree_exists() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    parent = ""
    for line in tree.splitlines():
        for name in re.findall(r"(?:^|\s)(\w+/)(?=\s|$)", line.split("    ", 1)[0] if line[:1] != " " else line[:19]):
            parent = name if line[0] != " " else parent
            path = ROOT / name if line[0] != " " else ROOT / parent / name
            assert path.is_dir(), f"the README's tree names {path.relative_to(ROOT)}"
