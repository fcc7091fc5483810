"""What all tests share: the `peer` marker and free ports."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Iterator

import pydicom.config
import pytest

from dicomnode.testing.peers import PEERS, missing_programs
from dicomnode.testing.processes import free_port


def pytest_configure() -> None:
    """An undeclared log event is an error, here and in every process that a test starts.

    SIGTERM unwinds the tests as Ctrl-C does: else the servers that they started would outlive them.
    """
    os.environ["DICOMNODE_STRICT_EVENTS"] = "1"
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _pydicom_as_it_was() -> Iterator[None]:
    """Undo what reading data sets sets for its process (`dicomnode.pixels.read.quiet_pydicom`): this one tests on."""
    logger, mode = logging.getLogger("pydicom"), pydicom.config.settings.reading_validation_mode
    disabled = logger.disabled
    with warnings.catch_warnings():
        yield
    logger.disabled, pydicom.config.settings.reading_validation_mode = disabled, mode


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("peer"):
        (name,) = marker.args
        missing = missing_programs(name)
        if not missing:
            continue
        reason = f"needs {name}: apt-get install {PEERS[name].package} (not found: {', '.join(missing)})"
        if os.environ.get("DICOMNODE_REQUIRE_PEERS") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(name="port")
def _port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on."""
    return free_port()
