"""One process of the node with a role of the test's own: `python -m tests.serve.one_process MODE CONFIG CHANNEL`."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from sqlalchemy.exc import OperationalError

from dicomnode import telemetry
from dicomnode.config import Config, load_config
from dicomnode.errors import ConfigError
from dicomnode.serve import process
from dicomnode.serve.places import Place
from dicomnode.store.database import Database


class StubRole:
    """Does nothing, and says what it was asked to do."""

    def __init__(self, mode: str) -> None:
        self._mode = mode
        if mode == "cannot be built":
            raise ConfigError("another dicomnode is running", "stop it first")

    @property
    def is_alive(self) -> bool:
        if self._mode == "an error":
            raise LookupError("something that nobody thought of")
        return self._mode != "a thread died"

    def start(self) -> None:
        if self._mode == "cannot start":
            raise ConfigError("cannot listen", "see node.port")

    def reload(self, config: Config) -> None:
        print("reloaded", config.node.ae_title, flush=True)

    def stop(self) -> None:
        print("stopped", flush=True)


def main() -> int:
    mode, source, descriptor = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    process._role = lambda *_: StubRole(mode)  # type: ignore[assignment]
    if mode == "full disk":
        Database.write = _full  # type: ignore[assignment]
    telemetry.configure("json", "debug")
    return process.run(Place("stub", ()), load_config(source), socket.socket(fileno=descriptor), process.Inherited())


def _full(*_: object, **__: object) -> None:
    raise OperationalError("INSERT", {}, Exception("database or disk is full"))


if __name__ == "__main__":
    sys.exit(main())
