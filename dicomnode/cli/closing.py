"""close: a person ends the waiting for a series."""

from __future__ import annotations

from typing import Annotated

import typer

from dicomnode.cli.console import OK, ConfigOption, JsonOption, configured, show

SubjectArgument = Annotated[
    str, typer.Argument(metavar="UID|ACCESSION", help="A series, or a study with all that still arrives of it.")
]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept in the audit trail.")]


def close(
    subject: SubjectArgument, reason: ReasonOption = "", config: ConfigOption = None, as_json: JsonOption = False
) -> int:
    """Close a series now, whatever is missing. One that still arrives, or that waits for a person."""
    from dicomnode.operations.close import close as do

    show(do(configured(config, rules_matter=False), subject, reason), as_json)
    return OK
