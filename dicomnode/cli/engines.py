"""enhance, engines list: engines without the node."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicomnode.cli.console import OK, ConfigOption, JsonOption, configured_if_any, need_command, outcome, progress, show

engines_app = typer.Typer(
    help="Engines: what can be done with images.", callback=need_command, invoke_without_command=True
)


def enhance(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A folder of DICOM files.", exists=True)],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the derived files.")],
    engine: Annotated[str, typer.Option("--engine", metavar="NAME", help="An engine, as NAME or NAME@VERSION.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the engine; may be repeated.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Enhance files to files, without a server. Of a configuration only [derived] is used, if there is one."""
    from dicomnode.operations.engines import parse_settings
    from dicomnode.operations.enhance import enhance_folder
    from dicomnode.settings import DerivedSettings

    configuration = configured_if_any(config, rules_matter=False)
    derived = DerivedSettings() if configuration is None else configuration.derived
    chosen = parse_settings(engine, settings or [])
    with progress() as report:
        answer = enhance_folder(source, target, engine, chosen, report, derived)
    show(answer, as_json)
    return outcome(answer.failed, answer.partly)


@engines_app.command("list")
def list_engines(config: ConfigOption = None, as_json: JsonOption = False) -> int:
    """The engines there are. What they are for, their settings, and which rules of a configuration use them."""
    from dicomnode.operations.engines import describe_engines

    configuration = configured_if_any(config)
    show(describe_engines(None if configuration is None else configuration.rules()), as_json)
    return OK
