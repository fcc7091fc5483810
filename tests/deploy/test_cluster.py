"""The example of several machines: its configuration can be read, and its units start roles that there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.config import examine
from dicomnode.serve.places import places

EXAMPLE = Path(__file__).resolve().parents[2] / "deploy/cluster"


def test_the_configuration_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICOMNODE_NODE__NAME", "dicom-1")
    config, problems = examine(EXAMPLE / "dicomnode.toml")
    assert problems == ()
    assert config is not None
    assert config.database is not None
    assert config.rules().rules


def test_each_machine_must_be_given_a_name() -> None:
    _, problems = examine(EXAMPLE / "dicomnode.toml")
    assert "name" in str(problems[0])


def test_the_drop_in_starts_roles_that_there_are() -> None:
    lines = (EXAMPLE / "roles.conf").read_text().splitlines()
    command = next(line for line in lines if line.startswith("ExecStart=/")).split()
    roles = command[command.index("--only") + 1]
    assert {place.name for place in places([roles], receivers=1, apart=True)} == {"receive-1", "deliver"}
