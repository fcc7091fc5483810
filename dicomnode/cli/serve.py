"""serve: run the node."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from dicomnode.cli.console import ConfigOption


class LogFormat(StrEnum):
    console = "console"
    json = "json"


def serve(
    config: ConfigOption = None,
    log_format: Annotated[
        LogFormat | None, typer.Option("--log-format", help="Lines for people, or one JSON object a line.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="ROLE[,ROLE]", help="Run only these roles here; may be repeated."),
    ] = None,
) -> int:
    """Run the node. Until SIGTERM or Ctrl-C; SIGHUP reads the configuration again."""
    from dicomnode.config import find_config, load_config
    from dicomnode.serve import serve as run_node

    return run_node(load_config(find_config(config)), None if log_format is None else log_format.value, only)
