"""demo: the whole node, on a phantom, in ten seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicomnode.cli.console import FAILED, OK, keep_quiet


def demo(
    folder: Annotated[Path, typer.Option("--folder", metavar="FOLDER", help="Where to put what it makes.")] = Path(
        "out/demo"
    ),
) -> int:
    """Show the whole node on a phantom. Real associations on this machine, and the story told line by line."""
    from dicomnode.operations.demo import run_demo

    keep_quiet()
    return OK if run_demo(folder, typer.echo) else FAILED
