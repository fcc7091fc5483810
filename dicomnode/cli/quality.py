"""quality: what engines did to images, in figures, over time, and by version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicomnode.cli.care import since_of
from dicomnode.cli.console import OK, PARTLY, ConfigOption, JsonOption, configured, need_command, show

quality_app = typer.Typer(
    help="Quality: what engines did to images, in figures.", callback=need_command, invoke_without_command=True
)


@quality_app.command("show")
def show_(
    subject: Annotated[str, typer.Argument(metavar="UID|ACCESSION", help="An object, series or study.")],
    png: Annotated[Path | None, typer.Option("--png", metavar="FOLDER", help="Write a page of each into it.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write all of them as a table.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Tell what was measured of a series. Before and after each engine, or of a phantom."""
    from dicomnode.operations.quality import show_quality

    show(show_quality(configured(config, rules_matter=False), subject, png, csv), as_json)
    return OK


@quality_app.command("trends")
def trends(
    drifting: Annotated[
        bool, typer.Option("--drifting", help="Only what drifts; exit code 3 where anything does.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Tell how figures go on. By scanner, protocol and engine, with what drifts."""
    from dicomnode.operations.trends import trends as ask

    answer = ask(configured(config, rules_matter=False), drifting_only=drifting)
    show(answer, as_json)
    return PARTLY if drifting and answer.trends else OK


@quality_app.command("rebase")
def rebase(
    key: Annotated[str, typer.Argument(metavar="NAME", help="As the trends name it.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept in the audit trail.")] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Let a trend begin anew. As after a new tube, or a change of a protocol that was meant."""
    from dicomnode.operations.trends import rebase as do

    show(do(configured(config, rules_matter=False), key, reason), as_json)
    return OK


@quality_app.command("compare")
def compare(
    old: Annotated[str, typer.Argument(metavar="OLD", help="An engine with its version, as ct-denoise@1.2.0.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Another, as ct-denoise@1.3.0.")],
    since: Annotated[str, typer.Option("--since", metavar="DATE", help="Only what was measured since.")] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Compare two versions of an engine. On the series that both have worked on."""
    from dicomnode.operations.trends import compare_versions

    show(compare_versions(configured(config, rules_matter=False), old, new, since_of(since)), as_json)
    return OK
