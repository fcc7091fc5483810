"""Puts the commands together, and turns errors into two lines and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from dicomnode import __version__
from dicomnode.cli import (
    ask,
    care,
    closing,
    cluster,
    deliveries,
    demo,
    engines,
    network,
    quality,
    retrieve,
    serve,
    setup,
)
from dicomnode.cli.console import FAILED, OK, STOPPED, USAGE, complain
from dicomnode.errors import DicomNodeError, EngineError, UsageError

COMMANDS: Final = (
    setup.init, setup.check, serve.serve, ask.status, network.echo, network.contexts,
    network.trace, network.send, retrieve.find, retrieve.fetch, engines.enhance, ask.why,
    deliveries.pause, deliveries.resume, care.release, care.discard, closing.close, demo.demo,
)  # fmt: skip

_DATABASE_HINT: Final = "see what is wrong with it: dicomnode check; docs/operations.md tells how to replace it"

app = typer.Typer(
    name="dicomnode",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help costs more time than everything else together
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in COMMANDS:
    app.command()(_command)
app.add_typer(ask.rules_app, name="rules")
app.add_typer(deliveries.jobs_app, name="jobs")
app.add_typer(care.quarantine_app, name="quarantine")
app.add_typer(cluster.cluster_app, name="cluster")
app.add_typer(engines.engines_app, name="engines")
app.add_typer(quality.quality_app, name="quality")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """The DICOM node between scanners and PACS: stores, routes, enhances, derives, delivers, and proves it.

    Research use only: not a medical device.
    """
    if version:
        typer.echo(f"dicomnode {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code: 0 ok, 1 failed, 2 called wrongly, 3 partly, 130 stopped by Ctrl-C."""
    try:
        code = int(app(list(arguments), standalone_mode=False, prog_name="dicomnode") or OK)
        if code == STOPPED:  # typer makes this of a KeyboardInterrupt, and says nothing
            _complain_stopped()
        return code
    except typer.TyperException as error:  # the command line itself is wrong
        context = getattr(error, "ctx", None)
        complain(error.format_message(), f"see: {context.command_path if context else 'dicomnode'} --help")
        return USAGE
    except UsageError as error:
        complain(str(error), error.hint)
        return USAGE
    except (DicomNodeError, EngineError) as error:
        complain(str(error), error.hint)
        return FAILED
    except (KeyboardInterrupt, typer.Abort):
        _complain_stopped()
        return STOPPED
    except BrokenPipeError:  # who reads our output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        complain(f"{where}{error.strerror or type(error).__name__}", "check the path, its owner and the free space")
        return FAILED
    except Exception as error:
        if not _is_of_database(error):
            raise
        complain(f"the index (node.sqlite, or node.database) cannot be used ({type(error).__name__})", _DATABASE_HINT)
        return FAILED


def _complain_stopped() -> None:
    complain("stopped", "run it again to go on")


def _is_of_database(error: Exception) -> bool:
    """Whether the database failed. The text of such an error may quote rows, which may be a patient's."""
    import sqlite3

    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(error, (SQLAlchemyError, sqlite3.Error, CommandError))
