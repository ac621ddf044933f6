"""Command: take the tensors out of a checkpoint that holds objects besides, running none of its code.

python -m gaussian_head.convert_weights FILE OUT.safetensors [--part PREFIX]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from safetensors.torch import save_file

from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.media.files import replacing
from gaussian_head.networks.inert_pickle import read_tensors


@dataclass(frozen=True)
class ConvertOptions:
    """Turn a checkpoint of torch that is refused as unsafe into a .safetensors file of the same tensors."""

    file: Annotated[Path, tyro.conf.Positional]
    """The checkpoint; nothing that it names is run, whatever it is."""
    out: Annotated[Path, tyro.conf.Positional]
    """The .safetensors file, in a folder where weights are looked for, or named by an environment variable."""
    part: str = ""
    """Keep only tensors whose names begin so, and cut this off, as in `--part state_dict.` or `--part model.`"""
    debug: bool = False
    """Show the traceback of an error."""


def convert(options: ConvertOptions) -> None:
    """Read, choose and write; see `ConvertOptions`.

    Raises:
        UserError: The file is damaged, or holds no such tensors.
    """
    if options.out.suffix != ".safetensors":
        raise UserError(f"{options.out} must end in .safetensors.")
    tensors = read_tensors(options.file)
    kept = {name.removeprefix(options.part): t for name, t in tensors.items() if name.startswith(options.part)}
    if not kept:
        some = ", ".join(list(tensors)[:3]) or "none at all"
        raise UserError(f"{options.file} holds no tensors whose names begin with {options.part!r}; it holds {some}.")
    with replacing(options.out) as temporary:
        save_file(kept, temporary)
    print(f"{options.out}: {len(kept)} tensors, {', '.join(list(kept)[:3])} ...")


def main() -> None:
    """Parse the command line and run."""
    configure_logging()
    options = tyro.cli(ConvertOptions)
    run_command(lambda: convert(options), debug=options.debug)


if __name__ == "__main__":
    main()
