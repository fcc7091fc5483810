"""enhance, engines list: engines without the node."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicomnode.cli.console import OK, JsonOption, keep_quiet, outcome, progress, show

engines_app = typer.Typer(help="Engines: what can be done with images.", no_args_is_help=True)


def enhance(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A folder of DICOM files.", exists=True)],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the derived files.")],
    engine: Annotated[str, typer.Option("--engine", metavar="NAME", help="An engine, as NAME or NAME@VERSION.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the engine; may be repeated.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Enhance files to files, without a server or a configuration."""
    from dicomnode.operations.engines import parse_settings
    from dicomnode.operations.enhance import enhance_folder

    keep_quiet()
    chosen = parse_settings(engine, settings or [])
    with progress() as report:
        answer = enhance_folder(source, target, engine, chosen, report)
    show(answer, as_json)
    return outcome(answer.failed, answer.partly)


@engines_app.command("list")
def list_engines(as_json: JsonOption = False) -> int:
    """The engines there are, what they are for, and their settings."""
    from dicomnode.operations.engines import describe_engines

    keep_quiet()
    show(describe_engines(), as_json)
    return OK
