"""pause, resume, jobs: what a person does about deliveries."""

from __future__ import annotations

from typing import Annotated

import typer

from dicomnode.cli.console import FAILED, OK, ConfigOption, JsonOption, configured, need_command, show

jobs_app = typer.Typer(
    help="Deliveries: what waits, failed or was kept back.", callback=need_command, invoke_without_command=True
)

DestinationArgument = Annotated[str, typer.Argument(metavar="DESTINATION", help="Name of a [destination.NAME].")]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept in the audit trail.")]
To = Annotated[str | None, typer.Option("--to", metavar="DESTINATION", help="Only deliveries to this destination.")]
StudyOption = Annotated[str | None, typer.Option("--study", metavar="UID", help="Only of this study.")]
SeriesOption = Annotated[str | None, typer.Option("--series", metavar="UID", help="Only of this series.")]
InstanceOption = Annotated[str | None, typer.Option("--instance", metavar="UID", help="Only of this instance.")]
Failed = Annotated[bool, typer.Option("--failed", help="Those that were given up.")]
Waiting = Annotated[bool, typer.Option("--waiting", help="Those that wait to be sent.")]
Withheld = Annotated[bool, typer.Option("--withheld", help="Those that wait for a person or a check.")]
Excluded = Annotated[bool, typer.Option("--excluded", help="Those that the configuration kept back.")]
Cancelled = Annotated[bool, typer.Option("--cancelled", help="Those that are not to be made.")]


def pause(
    destination: DestinationArgument,
    reason: ReasonOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Send nothing to a destination until it is resumed. On every machine, within a second; what comes waits."""
    from dicomnode.operations.pausing import pause as do

    show(do(configured(config, rules_matter=False), destination, reason), as_json)
    return OK


def resume(destination: DestinationArgument, config: ConfigOption = None, as_json: JsonOption = False) -> int:
    """Send to a paused destination again. What waits goes at once."""
    from dicomnode.operations.pausing import resume as do

    show(do(configured(config, rules_matter=False), destination), as_json)
    return OK


@jobs_app.command("list")
def list_(
    failed: Failed = False,
    waiting: Waiting = False,
    withheld: Withheld = False,
    excluded: Excluded = False,
    cancelled: Cancelled = False,
    to: To = None,
    study: StudyOption = None,
    series: SeriesOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """List deliveries, each series and destination a line. Without a state: what waits, failed or is withheld."""
    from dicomnode.operations.jobs import jobs, which

    chosen = {
        "failed": failed, "held": waiting, "ready": waiting, "withheld": withheld, "excluded": excluded,
        "cancelled": cancelled,
    }  # fmt: skip
    states = [name for name, wanted in chosen.items() if wanted] or ["failed", "held", "ready", "withheld"]
    show(jobs(configured(config, rules_matter=False), which(states, to, (study, series, None))), as_json)
    return OK


@jobs_app.command("retry")
def retry(
    failed: Failed = False,
    excluded: Excluded = False,
    to: To = None,
    study: StudyOption = None,
    series: SeriesOption = None,
    instance: InstanceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Have deliveries made again, from the start. Back-off and patience begin anew, and what is kept back is judged."""
    from dicomnode.operations.jobs import retry as do
    from dicomnode.operations.jobs import which

    states = [name for name, wanted in (("failed", failed), ("excluded", excluded)) if wanted]
    answer = do(configured(config, rules_matter=False), which(states, to, (study, series, instance)))
    show(answer, as_json)
    return FAILED if answer.nothing else OK


@jobs_app.command("cancel")
def cancel(
    failed: Failed = False,
    withheld: Withheld = False,
    to: To = None,
    study: StudyOption = None,
    series: SeriesOption = None,
    instance: InstanceOption = None,
    reason: ReasonOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Have deliveries not made. Those that wait, unless a state is named; what is being sent goes."""
    from dicomnode.operations.jobs import cancel as do
    from dicomnode.operations.jobs import which

    states = [name for name, wanted in (("failed", failed), ("withheld", withheld)) if wanted] or ["held", "ready"]
    answer = do(configured(config, rules_matter=False), which(states, to, (study, series, instance)), reason)
    show(answer, as_json)
    return FAILED if answer.nothing else OK


@jobs_app.command("prove")
def prove(to: To = None, series: SeriesOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> int:
    """Ask destinations anew whether they hold what they were sent, where that was given up without proof."""
    from dicomnode.operations.proving import prove as do

    answer = do(configured(config, rules_matter=False), to, series)
    show(answer, as_json)
    return FAILED if answer.nothing else OK
