"""Builds the compiled operators of `cuda_ext`: a plain shared library, free of torch and of Python's own headers.

One build serves every torch version. The translation units with loops are compiled once per instruction set and chosen
at run time. Without a C++ compiler the installation goes on and the operators run on plain PyTorch.
"""

from __future__ import annotations

import logging
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

logger = logging.getLogger("gaussian_head.setup")

CSRC = Path("cuda_ext/csrc")
KERNELS = [CSRC / "rasterize/rasterize_cpu.cpp", CSRC / "ssim/ssim_cpu.cpp"]
DISPATCH = CSRC / "dispatch.cpp"
CUDA_SOURCES = sorted(CSRC.glob("*/*.cu"))
HEADERS = sorted(CSRC.rglob("*.h"))
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
NO_COMPILER = "gaussian-head: %s. The operators were NOT compiled and will run on plain PyTorch, many times slower. \
Install g++ or clang++ and run: python setup.py build_ext --inplace"


def cpu_copies() -> dict[str, list[str]]:
    """Return the instruction sets to compile for on this machine, and their flags."""
    copies = {"baseline": []}
    if platform.machine().lower() in ("x86_64", "amd64"):
        copies["avx2"] = ["-mavx2", "-mfma", "-mbmi"]
        copies["avx512"] = [*copies["avx2"], "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"]
    return copies


class BuildOperators(build_ext):
    """Compiles shared libraries with the compiler's own command line."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return the library's path; it is no Python module, so its name carries no Python tag."""
        return str(Path(*fullname.split("."))) + ".so"

    def build_extension(self, ext: Extension) -> None:
        """Compile one library; raises CompileError, which `optional=True` turns into a warning."""
        target = Path(self.get_ext_fullpath(ext.name))
        inputs = [*ext.sources, *ext.depends]
        if (
            not self.force
            and target.is_file()
            and target.stat().st_mtime > max(Path(p).stat().st_mtime for p in inputs)
        ):
            logger.info("%s is up to date", target)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            built = Path(folder) / target.name
            if ext.name.endswith("cuda"):
                self.build_cuda(built)
            else:
                self.build_cpu(built, Path(folder))
            shutil.copyfile(built, target.with_name(target.name + ".new"))
            target.with_name(target.name + ".new").replace(target)

    def build_cpu(self, built: Path, folder: Path) -> None:
        """Compile the kernels once per instruction set, and the dispatcher that chooses."""
        compiler = next((found for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None)
        if compiler is None:
            logger.warning(NO_COMPILER, "no C++ compiler found")
            raise CompileError("no C++ compiler")
        copies = cpu_copies()
        probe = subprocess.run([compiler, "-fopenmp", "-x", "c++", "-E", "/dev/null"], capture_output=True, check=False)
        openmp = ["-fopenmp"] if probe.returncode == 0 else []
        jobs = [(source, isa, [*flags, f"-DISA={isa}"]) for isa, flags in copies.items() for source in KERNELS]
        jobs.append((DISPATCH, "all", ["-DWITH_X86"] if "avx2" in copies else []))
        objects = [str(folder / f"{source.stem}_{isa}.o") for source, isa, _ in jobs]
        commands = [
            [compiler, *FLAGS, *openmp, *flags, "-c", str(source), "-o", built_object]
            for (source, _, flags), built_object in zip(jobs, objects, strict=True)
        ]
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.must_run, commands))
        self.must_run([compiler, "-shared", *openmp, *objects, "-o", str(built)])

    def build_cuda(self, built: Path) -> None:
        """Compile the CUDA kernels; the runtime is linked in, so that the library loads without a GPU."""
        command = [
            "nvcc",
            "-std=c++17",
            "-O3",
            "-arch=all-major",
            "--cudart",
            "static",
            "-Xcompiler",
            "-fPIC",
            "-shared",
        ]
        self.must_run([*command, *map(str, CUDA_SOURCES), "-o", str(built)])

    def must_run(self, command: list[str]) -> None:
        """Run a compiler; on failure show what it said and raise CompileError."""
        logger.info(" ".join(command))
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            logger.warning(NO_COMPILER, f"{Path(command[0]).name} failed:\n{result.stderr[-4000:]}")
            raise CompileError(f"{command[0]} failed")


def library(name: str, sources: list[Path]) -> Extension:
    """Declare a library inside the package `cuda_ext`."""
    depends = ["setup.py", *map(str, HEADERS)]
    return Extension(f"cuda_ext.{name}", [str(source) for source in sources], depends=depends, optional=True)


libraries = [library("_operators_cpu", [*KERNELS, DISPATCH])]
if CUDA_SOURCES and shutil.which("nvcc"):
    libraries.append(library("_operators_cuda", CUDA_SOURCES))
setup(ext_modules=libraries, cmdclass={"build_ext": BuildOperators})
