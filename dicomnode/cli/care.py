"""quarantine, release, discard: what a person decides of what the node keeps back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode.cli.console import OK, ConfigOption, JsonOption, configured, need_command, outcome, show
from dicomnode.errors import UsageError

if TYPE_CHECKING:
    from dicomnode.operations.quarantine import Requeued, Which
    from dicomnode.operations.release import Decided

quarantine_app = typer.Typer(
    help="Quarantine: what could not be processed, with its reason.",
    callback=need_command,
    invoke_without_command=True,
)

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Entries, as the list names them.")]
All = Annotated[bool, typer.Option("--all", help="Every entry that the other options leave.")]
ReasonLike = Annotated[
    str, typer.Option("--reason-like", metavar="TEXT", help="Only entries with this in their reason.")
]
EngineOption = Annotated[str, typer.Option("--engine", metavar="NAME", help="Only entries of this engine.")]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept in the audit trail.")]
SubjectArgument = Annotated[
    str | None, typer.Argument(metavar="[JOB|UID|ACCESSION]", help="A job's number, or a series or study.")
]
Commissioning = Annotated[bool, typer.Option("--commissioning", help="All that commissioning keeps back.")]
Since = Annotated[
    str, typer.Option("--since", metavar="DATE", help="With it: only what was made since, like 2026-11-21.")
]


@quarantine_app.command("list")
def list_(config: ConfigOption = None, as_json: JsonOption = False) -> int:
    """List what could not be processed. The newest first, each with its reason."""
    from dicomnode.operations.quarantine import quarantine

    show(quarantine(configured(config, rules_matter=False)), as_json)
    return OK


@quarantine_app.command("show")
def show_(
    entry: Annotated[str, typer.Argument(metavar="ID", help="An entry, as the list names it.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Tell all that is known of an entry. Which instances, which gates with which figures."""
    from dicomnode.operations.quarantine import show as ask

    show(ask(configured(config, rules_matter=False), entry), as_json)
    return OK


@quarantine_app.command("requeue")
def requeue(
    ids: Ids = None,
    every: All = False,
    reason_like: ReasonLike = "",
    engine: EngineOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Have entries done again, after a fix. By the rules and engines of now; what is derived keeps its UIDs."""
    from dicomnode.operations.quarantine import requeue as do

    which = _which(ids, every, reason_like, engine)
    answer = do(configured(config, rules_matter=False), which)
    return _show(answer, as_json, nothing=not answer.done)


@quarantine_app.command("dismiss")
def dismiss(
    ids: Ids = None,
    every: All = False,
    reason_like: ReasonLike = "",
    engine: EngineOption = "",
    reason: ReasonOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Take entries off the list. Nothing else follows; retention may forget them then."""
    from dicomnode.operations.quarantine import dismiss as do

    which = _which(ids, every, reason_like, engine)
    answer = do(configured(config, rules_matter=False), which, reason)
    return _show(answer, as_json, nothing=not answer.done)


def release(
    subject: SubjectArgument = None,
    commissioning: Commissioning = False,
    since: Since = "",
    reason: ReasonOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Let go what is kept back, after review. A result that a gate withheld, or deliveries that wait for a person."""
    from dicomnode.operations.release import release as do
    from dicomnode.operations.release import release_commissioned as do_commissioned

    kept, settings = _kept(subject, commissioning, since), configured(config, rules_matter=False)
    answer = do(settings, kept, reason) if isinstance(kept, str) else do_commissioned(settings, kept, reason)
    return _show(answer, as_json)


def discard(
    subject: SubjectArgument = None,
    commissioning: Commissioning = False,
    since: Since = "",
    reason: ReasonOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Let never leave what is kept back, after review. What was made stays stored here."""
    from dicomnode.operations.release import discard as do
    from dicomnode.operations.release import discard_commissioned as do_commissioned

    kept, settings = _kept(subject, commissioning, since), configured(config, rules_matter=False)
    answer = do(settings, kept, reason) if isinstance(kept, str) else do_commissioned(settings, kept, reason)
    return _show(answer, as_json)


def _which(ids: list[str] | None, every: bool, reason_like: str, engine: str) -> Which:
    """The entries that a person means. Raises UsageError where none is named."""
    from dicomnode.operations.quarantine import Which, require_some

    which = Which(tuple(ids or ()), every, reason_like, engine)
    require_some(which)
    return which


def _kept(subject: str | None, commissioning: bool, since: str) -> str | float:
    """What a person means: a subject, or all that commissioning keeps back since a time (seconds since the epoch)."""
    if (subject is None) == (not commissioning):
        raise UsageError("name a job, series or study, or say --commissioning", "one of both")
    return since_of(since) if subject is None else subject


def _show(answer: Decided | Requeued, as_json: bool, *, nothing: bool = False) -> int:
    show(answer, as_json)
    return outcome(nothing, answer.is_partly)


def since_of(text: str) -> float:
    """Seconds since the epoch of a date, or of a date and time, in the machine's time zone; of nothing: 0."""
    from datetime import datetime

    if not text:
        return 0.0
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise UsageError(f"--since {text}: no date", 'write it like 2026-11-21 or "2026-11-21 08:30"') from None
