"""Builds the compiled operators of `cuda_ext`: a plain shared library, free of torch and of Python's own headers.

One build serves every torch version. The translation units with loops are compiled once per instruction set and chosen
at run time. Without a C++ compiler the installation goes on and the operators run on plain PyTorch.
"""

from __future__ import annotations

import logging
import os
import platform
import re
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
KERNELS = sorted(CSRC.glob("*/*_cpu.cpp"))
DISPATCH = CSRC / "dispatch.cpp"
CUDA_SOURCES = sorted(CSRC.glob("*/*.cu"))
HEADERS = sorted(CSRC.rglob("*.h"))
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
CUDA_FLAGS = ["-std=c++17", "-O3", "-Xptxas=-v", "--cudart=static", "-shared", "-Xcompiler=-fPIC,-fvisibility=hidden"]
CUDA_ARCHITECTURES = ("75", "80", "90", "100", "120")
"""Compute capabilities to compile for, as far as nvcc knows them; newer GPUs compile the last one's PTX themselves."""
CUDA_SWITCH = os.environ.get("GAUSSIAN_HEAD_CUDA", "")
"""0: leave the CUDA kernels out; 90 or 80,90: compile for these GPUs alone."""
PTXAS_LOG = ".ptxas.txt"
"""Ending of the file beside the library with the registers and spills of its kernels."""
NO_CUDA = "gaussian-head: %s. The CUDA operators were NOT compiled; tensors on a GPU will run on plain PyTorch, slowly."
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
                self.build_cuda(built, target)
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

    def build_cuda(self, built: Path, target: Path) -> None:
        """Compile the CUDA kernels; the runtime is linked in, so that the library loads without a GPU."""
        nvcc = find_nvcc()
        known = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=False).stdout
        chosen = CUDA_SWITCH.split(",") if CUDA_SWITCH else [a for a in CUDA_ARCHITECTURES if f"compute_{a}\n" in known]
        if not chosen:
            logger.warning(NO_CUDA, f"{nvcc} knows none of the compute capabilities {CUDA_ARCHITECTURES}")
            raise CompileError("nvcc too old or too new")
        targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in chosen]
        targets.append(f"-gencode=arch=compute_{chosen[-1]},code=compute_{chosen[-1]}")
        flags = [*CUDA_FLAGS, f"--threads={os.cpu_count() or 1}", *targets]
        said = self.must_run([nvcc, *flags, *map(str, CUDA_SOURCES), "-o", str(built)], NO_CUDA)
        summary = ptxas_summary(said)
        target.with_suffix(PTXAS_LOG).write_text(f"{summary}\n\n{said}")
        logger.info("registers / bytes of stack / bytes spilled, by compute capability:\n%s", summary)

    def copy_extensions_to_source(self) -> None:
        """Copy what was built into the checkout, the CUDA compiler's report too."""
        super().copy_extensions_to_source()
        for log in Path(self.build_lib).glob(f"cuda_ext/*{PTXAS_LOG}"):
            shutil.copyfile(log, Path("cuda_ext") / log.name)

    def must_run(self, command: list[str], consequence: str = NO_COMPILER) -> str:
        """Run a compiler and return what it said; on failure show it and raise CompileError."""
        logger.info(" ".join(command))
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        said = result.stdout + result.stderr
        if result.returncode != 0:
            logger.warning(consequence, f"{Path(command[0]).name} failed:\n{said[-4000:]}")
            raise CompileError(f"{command[0]} failed")
        return said


def find_nvcc() -> str | None:
    """Return CUDA's compiler: on the PATH, in $CUDA_HOME, or where it is usually installed."""
    homes = (os.environ.get("CUDA_HOME", "/usr/local/cuda"), "/usr/local/cuda")
    return shutil.which("nvcc", path=os.pathsep.join([os.environ.get("PATH", ""), *(f"{home}/bin" for home in homes)]))


def ptxas_summary(said: str) -> str:
    """Make a Markdown table of registers / bytes of stack / bytes spilled out of what `nvcc -Xptxas -v` says."""
    found: dict[str, dict[str, str]] = {}
    shared: dict[str, int] = {}
    pattern = (
        r"Compiling entry function '(\w+)' for 'sm_(\d+)a?'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers([^\n]*)"
    )
    for mangled, sm, stack, stores, loads, registers, rest in re.findall(pattern, said, flags=re.DOTALL):
        name = kernel_name(mangled)
        found.setdefault(name, {})[sm] = f"{registers} / {stack} / {int(stores) + int(loads)}"
        size = re.search(r"(\d+) bytes smem", rest)
        shared[name] = max(shared.get(name, 0), int(size[1]) if size else 0)
    columns = sorted({sm for cells in found.values() for sm in cells}, key=int)
    head = ["kernel", "bytes shared", *(f"sm_{sm}" for sm in columns)]
    rows = [[name, str(shared[name]), *(cells.get(sm, "") for sm in columns)] for name, cells in sorted(found.items())]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def kernel_name(mangled: str) -> str:
    """Return a kernel's own name with its template arguments; it lies in one unnamed namespace."""
    namespace = re.match(r"_ZN(\d+)", mangled)
    own = mangled[namespace.end() + int(namespace[1]) :]
    digits = re.match(r"\d+", own)[0]
    name, rest = own[len(digits) :][: int(digits)], own[len(digits) + int(digits) :]
    arguments = re.match(r"I((?:L[a-z]\d+E)+)E", rest)
    values = re.findall(r"L[a-z](\d+)E", arguments[1]) if arguments else []
    return f"{name}{'<' + ', '.join(values) + '>' if values else ''}"


def library(name: str, sources: list[Path]) -> Extension:
    """Declare a library inside the package `cuda_ext`."""
    depends = ["setup.py", *map(str, HEADERS)]
    return Extension(f"cuda_ext.{name}", [str(source) for source in sources], depends=depends, optional=True)


libraries = [library("_operators_cpu", [*KERNELS, DISPATCH])]
if CUDA_SWITCH != "0" and find_nvcc():
    libraries.append(library("_operators_cuda", CUDA_SOURCES))
setup(ext_modules=libraries, cmdclass={"build_ext": BuildOperators})
