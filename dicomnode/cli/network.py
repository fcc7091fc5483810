"""echo, contexts, trace, send: what there is to ask of one peer."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dicomnode.cli.console import FAILED, OK, STOPPED, ConfigOption, JsonOption, configured, outcome, progress, show

PeerArgument = Annotated[str, typer.Argument(metavar="PEER", help="Name of a [peer.NAME] in the configuration.")]


class TraceAction(StrEnum):
    """What `dicomnode trace` does."""

    ON = "on"
    OFF = "off"
    SHOW = "show"


def echo(
    peer: PeerArgument,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Ask a peer whether it answers (C-ECHO), and how fast."""
    from dicomnode.operations.echo import echo as ask

    answer = ask(configured(config, rules_matter=False), peer)
    show(answer, as_json)
    return OK if answer.answered else FAILED


def contexts(
    peer: PeerArgument,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Ask a peer what it accepts: classes, transfer syntaxes, limits. Nothing is sent."""
    from dicomnode.operations.contexts import contexts as ask

    answer = ask(configured(config, rules_matter=False), peer)
    show(answer, as_json)
    return outcome(not answer.classes, False)


def trace(
    peer: PeerArgument,
    action: Annotated[TraceAction, typer.Argument(help="Begin, end, or show what was recorded.")] = TraceAction.SHOW,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Record associations with a peer: contexts, PDUs, times. Never what they carry."""
    from dicomnode.operations.trace import trace as do

    show(do(configured(config, rules_matter=False), peer, action.value), as_json)
    return OK


def send(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder, searched with all below it, or one file.", exists=True)
    ],
    to: Annotated[str, typer.Option("--to", metavar="PEER", help="Name of a [peer.NAME] in the configuration.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Send DICOM files to a peer as they are (C-STORE)."""
    from dicomnode.operations.send import send_folder

    settings = configured(config, rules_matter=False)
    with progress() as report:
        answer = send_folder(settings, folder, to, report)
    show(answer, as_json)
    return STOPPED if answer.stopped else outcome(answer.failed, answer.partly)
