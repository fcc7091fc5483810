"""What commands share: exit codes, options, two-line errors, answers as text or JSON, progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

import typer

from dicomnode.errors import UsageError

if TYPE_CHECKING:
    from dicomnode.config import Config

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
PARTLY: Final = 3
STOPPED: Final = 130

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="Configuration file; else $DICOMNODE_CONFIG, else ./dicomnode.toml.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print facts as JSON.")]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and how many there are."""


class Answer(Protocol):
    """What an operation found out, for programs and for people."""

    def to_json(self) -> Mapping[str, Any]: ...

    def lines(self) -> Sequence[str]: ...


def complain(what: str, hint: str) -> None:
    """An error in two lines: what, and what to do next. Either may quote what came from outside."""
    from dicomnode.operations.terminal import printable

    typer.echo(f"error: {printable(' '.join(what.split()))}", err=True)
    typer.echo(f" next: {printable(' '.join(hint.split())) or 'see docs/commands.md'}", err=True)


def show(answer: Answer, as_json: bool) -> None:
    """Print an answer to standard output."""
    if as_json:
        typer.echo(json.dumps(answer.to_json(), indent=2, ensure_ascii=False))
    else:
        for line in answer.lines():
            typer.echo(line)


def need_command(context: typer.Context) -> None:
    """Raise UsageError where a group of commands is called without one of them."""
    if context.invoked_subcommand is None:
        commands = ", ".join(getattr(context.command, "commands", ()))
        raise UsageError(f"a command is missing: {commands}", f"see: {context.command_path} --help")


def outcome(failed: bool, partly: bool) -> int:
    """The exit code of work that has parts."""
    return FAILED if failed else PARTLY if partly else OK


def configured(option: Path | None, *, rules_matter: bool = True) -> Config:
    """The configuration that the command is to use. Libraries are kept from writing about data sets from here on.

    rules_matter  False for a command that uses no rules: an error in one does not stop it
    """
    from dicomnode.config import find_config, load_config

    keep_quiet()
    return load_config(find_config(option), rules_matter=rules_matter)


def configured_if_any(option: Path | None, *, rules_matter: bool = True) -> Config | None:
    """As `configured`, for commands that work without a configuration too."""
    from dicomnode.config import has_config

    keep_quiet()
    return configured(option, rules_matter=rules_matter) if has_config(option) else None


def keep_quiet() -> None:
    """Only our own warnings reach the terminal; libraries may quote data sets."""
    from dicomnode import telemetry

    telemetry.configure("console", "warning")


@contextmanager
def progress() -> Iterator[Progress]:
    """A bar where standard error is a terminal; elsewhere a line at each tenth."""
    if not sys.stderr.isatty():
        yield _PlainProgress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def report(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total)
            bars.update(tasks[label], completed=done, total=total)

        yield report


class _PlainProgress:
    def __init__(self) -> None:
        self._tenths: dict[str, int] = {}

    def __call__(self, label: str, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth > self._tenths.get(label, 0):
            self._tenths[label] = tenth
            typer.echo(f"{label}: {done} of {total}", err=True)
