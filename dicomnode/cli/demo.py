"""demo: the whole node, on a phantom, in ten seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicomnode.cli.console import FAILED, OK, ConfigOption, configured_if_any


def demo(
    folder: Annotated[Path, typer.Option("--folder", metavar="FOLDER", help="Where to put what it makes.")] = Path(
        "out/demo"
    ),
    config: ConfigOption = None,
) -> int:
    """Show the whole node on a phantom. Real associations on this machine, and the story told line by line."""
    from dicomnode.operations.demo import run_demo
    from dicomnode.settings import DerivedSettings

    configuration = configured_if_any(config, rules_matter=False)
    derived = DerivedSettings() if configuration is None else configuration.derived
    return OK if run_demo(folder, derived, typer.echo) else FAILED
