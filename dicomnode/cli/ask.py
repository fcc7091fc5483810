"""status, why, rules explain: questions about what the node did and would do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicomnode.cli.console import OK, ConfigOption, JsonOption, configured, need_command, show
from dicomnode.errors import UsageError

rules_app = typer.Typer(
    help="Rules: which objects go where, and which are enhanced.", callback=need_command, invoke_without_command=True
)


def status(config: ConfigOption = None, as_json: JsonOption = False) -> int:
    """Tell how the node is. What it holds, what waits, what failed, and what no rule matches."""
    from dicomnode.operations.status import status as ask

    show(ask(configured(config, rules_matter=False)), as_json)
    return OK


def why(
    subject: Annotated[
        str, typer.Argument(metavar="UID|ACCESSION|FILE", help="An object, series, study or DICOM file.")
    ],
    each_check: Annotated[
        bool, typer.Option("--checks", help="Tell each check of the gates, those that passed too.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Tell what happened to an object, and why. Every rule, gate and attempt; the answer may show patient data."""
    from dicomnode.operations.why import why as ask

    _refuse_no_file(subject)
    show(ask(configured(config, rules_matter=False), subject, each_check=each_check), as_json)
    return OK


def _refuse_no_file(subject: str) -> None:
    """Raise UsageError for what can only be meant as a file, and is none. An accession number may hold a slash."""
    try:
        path = Path(subject)
        if path.is_dir():
            raise UsageError(f"{subject} is a folder", "name one file in it")
        in_a_folder = "/" in subject and (subject.startswith(("/", ".")) or path.parent.is_dir())
        if (in_a_folder or path.suffix.lower() == ".dcm") and not path.exists():
            raise UsageError(f"there is no such file: {subject}", "check its name and its folder")
    except (OSError, ValueError):  # no path can be so: it is none
        return


@rules_app.command("explain")
def explain(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A DICOM file.", exists=True, dir_okay=False)],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Judge a file by the rules, clause by clause. Nothing is stored or sent."""
    from dicomnode.operations.explain import explain_file

    show(explain_file(configured(config), file), as_json)
    return OK
