"""Who may import whom: the contracts in pyproject.toml hold, and they cover every room there is."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {"core", "net", "store", "pixels", "inference", "deliver", "flow", "operations", "serve", "cli"}
BESIDE_THE_ROOMS = {"testing"}
"""What stands outside the order: test tools may use every room."""


def contracts() -> list[dict[str, Any]]:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    found: list[dict[str, Any]] = tool["importlinter"]["contracts"]
    return found


def test_the_import_contracts_hold() -> None:
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    linted = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_every_room_has_its_place_in_the_order() -> None:
    (order,) = (contract for contract in contracts() if contract["name"].startswith("who stands on whom"))
    placed = {word.strip("()").removeprefix("dicomnode.") for line in order["layers"] for word in line.split()}
    packages = {path.parent.name for path in (ROOT / "dicomnode").glob("*/__init__.py")}
    assert packages - BESIDE_THE_ROOMS == ROOMS
    assert placed >= ROOMS
