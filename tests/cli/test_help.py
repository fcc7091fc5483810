"""`--help` answers at once, and every command has one."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest
import typer.main

from dicomnode import __version__
from dicomnode.cli.app import app
from tests.cli.conftest import Command

HEAVY = {"alembic", "cv2", "dbos", "highdicom", "numpy", "pydantic", "pydicom", "pynetdicom", "scipy", "sqlalchemy"}
HELP = """
import json, sys
from dicomnode.cli.app import run
code = run(["--help"])
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


def leaf_commands() -> list[tuple[str, ...]]:
    found = []
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        found += [(name, sub) for sub in getattr(command, "commands", {})] or [(name,)]
    return found


def test_help_imports_nothing_heavy() -> None:
    helped = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    assert "Commands:" in helped.stdout
    imported = {module.partition(".")[0] for module in json.loads(helped.stderr)}
    assert imported & HEAVY == set()


def test_help_takes_less_than_three_tenths_of_a_second_of_work() -> None:
    """Processor time, so that a busy machine does not matter; the best of three."""
    used = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "dicomnode", "--help"], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(used) < 0.3


@pytest.mark.parametrize("name", leaf_commands(), ids=" ".join)
def test_every_command_explains_itself(command: Command, name: tuple[str, ...]) -> None:
    ran = command(*name, "--help")
    assert ran.code == 0
    assert f"Usage: dicomnode {' '.join(name)}" in ran.out


def test_no_command_is_a_question_for_help(command: Command) -> None:
    assert command().out == command("--help").out


def test_version(command: Command) -> None:
    assert command("--version").out == f"dicomnode {__version__}\n"
