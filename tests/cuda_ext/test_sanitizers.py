"""The compiled operators under the address and undefined-behaviour sanitizers, on random and on broken scenes."""

from __future__ import annotations

import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cuda_ext._library import instruction_sets, is_built

ROOT = Path(__file__).resolve().parent.parent.parent
CSRC = ROOT / "cuda_ext" / "csrc"
SOURCES = (
    *sorted(CSRC.glob("*/*_cpu.cpp")),
    Path(__file__).with_name("sanitize") / "fuzz_operators.cpp",
)
SCENES = 200
MAX_PAIRS = 2000
"""Of the test build: some of the scenes have more."""
FLAGS = [
    "-std=c++17", "-O0", "-g1", "-fno-omit-frame-pointer", "-Wno-psabi", "-fopenmp", f"-I{CSRC}",
    f"-DMAX_PAIRS={MAX_PAIRS}", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
]  # fmt: skip
COPIES = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma", "-mbmi"],
    "avx512": ["-mavx2", "-mfma", "-mbmi", "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"],
    "wide": ["-DSIMD_LANES=16"],
}
"""How each copy is compiled; `wide` runs the sixteen-lane code of avx512 on any machine."""


def compiler(folder: Path) -> str:
    """Return a C++ compiler with sanitizers, or skip."""
    found = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no C++ compiler")
    probe = folder / "probe.cpp"
    probe.write_text("int main() { return 0; }\n")
    build = [found, *FLAGS, str(probe), "-o", str(folder / "probe")]
    if any(subprocess.run(c, capture_output=True, check=False).returncode for c in (build, [str(folder / "probe")])):
        pytest.skip(f"{found} has no address and undefined-behaviour sanitizers with OpenMP")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("copy", list(COPIES))
def test_no_fault_on_any_scene(copy: str, tmp_path: Path) -> None:
    here = [*(instruction_sets() if is_built() else ["baseline"]), "wide"]
    if copy not in here or (copy.startswith("avx") and platform.machine() not in ("x86_64", "AMD64")):
        pytest.skip(f"this machine does not run {copy}")
    found = compiler(tmp_path)
    objects = [tmp_path / f"{source.stem}.o" for source in SOURCES]

    def compile_one(source: Path, to: Path) -> subprocess.CompletedProcess[str]:
        command = [found, *FLAGS, *COPIES[copy], f"-DISA={copy}", "-c", str(source), "-o", str(to)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(2) as pool:
        for result in pool.map(compile_one, SOURCES, objects):
            assert result.returncode == 0, result.stderr
    program = tmp_path / "fuzz_operators"
    subprocess.run([found, *FLAGS, *map(str, objects), "-o", str(program)], check=True)
    result = subprocess.run([str(program), str(SCENES)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
