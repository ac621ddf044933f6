"""Every option that a user can set is read by something."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OPTION_SUFFIXES = ("Config", "Options", "Arguments", "Args")


def trees() -> list[ast.Module]:
    packages = ("cuda_ext", "gaussian_head", "data_utils")
    return [ast.parse(path.read_text()) for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def is_declaration(node: ast.FunctionDef) -> bool:
    """Whether the body is a docstring or `...` alone, as in a protocol."""
    return all(isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) for line in node.body)


def test_every_option_is_read_somewhere() -> None:
    options: dict[str, str] = {}
    read: set[str] = set()
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name.endswith(OPTION_SUFFIXES) and is_dataclass(node):
                options |= {f.target.id: node.name for f in node.body if isinstance(f, ast.AnnAssign)}
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
    unread = {f"{owner}.{name}" for name, owner in options.items() if name not in read}
    assert not unread, f"options that nothing reads: {sorted(unread)}"


def test_every_parameter_of_a_command_is_read() -> None:
    for path in (ROOT / "gaussian_head").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef) or is_declaration(node):
                continue
            arguments = {a.arg for a in [*node.args.args, *node.args.kwonlyargs]} - {"self", "cls"}
            used = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
            assert arguments <= used, f"{path.name}: {node.name} never reads {sorted(arguments - used)}"
