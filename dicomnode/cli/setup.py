"""init, check: from nothing to a configuration that can be served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode.cli.console import FAILED, OK, ConfigOption, JsonOption, keep_quiet, show

if TYPE_CHECKING:
    from dicomnode.operations.setup import Question


def init(
    config: Annotated[Path, typer.Option("--config", help="File to write.")] = Path("dicomnode.toml"),
    ae_title: Annotated[str | None, typer.Option("--ae-title", help="Our AE title.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Our TCP port.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="Folder for what is received.")] = None,
    scanner: Annotated[
        str | None, typer.Option("--scanner", metavar="NAME,AE,HOST", help='Who sends to us; "" for nobody yet.')
    ] = None,
    pacs: Annotated[
        str | None, typer.Option("--pacs", metavar="AE,HOST,PORT", help='Where we send to; "" for nowhere yet.')
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; take the default of what is not given.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
) -> int:
    """Ask five questions and write a commented configuration file."""
    from dicomnode.operations import setup

    setup.require_absent(config, force)
    given = {
        "ae_title": ae_title,
        "port": None if port is None else str(port),
        "data": data,
        "scanner": scanner,
        "pacs": pacs,
    }
    answers = {question.key: _answer(question, given[question.key], yes) for question in setup.QUESTIONS}
    setup.write(config, setup.site(answers))
    typer.echo(f"{config} is written.")
    typer.echo(f"next: dicomnode check --config {config}")
    return OK


def check(config: ConfigOption = None, as_json: JsonOption = False) -> int:
    """Validate the configuration. Looks at names, rules, ports, paths and peers; starts nothing, changes nothing."""
    from dicomnode.config import find_config
    from dicomnode.operations.check import check as examine

    keep_quiet()
    report = examine(find_config(config))
    show(report, as_json)
    return FAILED if report.problems else OK


def _answer(question: Question, given: str | None, yes: bool) -> str:
    if given is not None:
        return given
    if yes:
        return question.default

    def acceptable(text: str) -> str:
        try:
            question.read(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None  # typer asks again
        return text

    shown = bool(question.default)
    return str(typer.prompt(question.text, question.default, value_proc=acceptable, show_default=shown))
