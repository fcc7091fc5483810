"""The systemd unit: systemd accepts it, and it says what the node needs."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from dicomnode.cli.app import COMMANDS

UNIT = Path(__file__).resolve().parents[2] / "deploy/systemd/dicomnode.service"


@pytest.fixture(name="service")
def _service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)  # Environment= stands there twice
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT)
    return parser["Service"]


def test_systemd_accepts_the_unit() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    verified = subprocess.run(["systemd-analyze", "verify", str(UNIT)], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")


def test_the_unit_starts_a_command_that_there_is(service: configparser.SectionProxy) -> None:
    program, command = service["ExecStart"].split()[1:3]
    assert program == "dicomnode"
    assert command in {function.__name__ for function in COMMANDS}


def test_reload_is_the_signal_that_the_node_reads_its_configuration_at(service: configparser.SectionProxy) -> None:
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"


def test_the_unit_gives_no_more_rights_than_a_low_port_needs(service: configparser.SectionProxy) -> None:
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == "CAP_NET_BIND_SERVICE"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["User"] != "root"
