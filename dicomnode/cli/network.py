"""echo, send: talk to a peer without the node."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicomnode.cli.console import FAILED, OK, STOPPED, ConfigOption, JsonOption, configured, outcome, progress, show


def echo(
    peer: Annotated[str, typer.Argument(metavar="PEER", help="Name of a [peer.NAME] in the configuration.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Ask a peer whether it answers (C-ECHO), and how fast."""
    from dicomnode.operations.echo import echo as ask

    answer = ask(configured(config, rules_matter=False), peer)
    show(answer, as_json)
    return OK if answer.answered else FAILED


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
