"""A running `dicomnode serve` for tests: configured, started, killed, started again, asked, and never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from dicomnode.testing.peers import Call, Orthanc, StoreScp
from dicomnode.testing.processes import ServerProcess, free_port, listens, wait_until
from dicomnode.testing.sender import echo

Settings = Mapping[str, Any]
"""The tree of a dicomnode.toml."""

NODE_AE: Final = "DICOMNODE"
SCANNER_AE: Final = "SCANNER"

TO_PLAN: Final = """
    origin = 'received' AND (state <> 'closed' OR NOT EXISTS
        (SELECT 1 FROM plan WHERE plan.series_row = series.id AND plan.generation = series.generation))
"""
"""Of a series that came, and of whose last closing there is no plan."""

UNFINISHED: Final = f"""
    SELECT (SELECT count(*) FROM series WHERE {TO_PLAN})
         + (SELECT count(*) FROM job WHERE state IN ('planned', 'enhanced'))
         + (SELECT count(*) FROM outbox WHERE state IN ('held', 'ready'))
"""

_START_TIMEOUT_S: Final = 90.0
_STOP_TIMEOUT_S: Final = 60.0
_COMMAND_TIMEOUT_S: Final = 300.0


def toml(settings: Settings) -> str:
    """A settings tree as TOML: a header for each table, its values in line; JSON's scalars and arrays are TOML's."""
    lines: list[str] = []
    for name, table in settings.items():
        for header, values in _tables(name, table):
            lines += ["", header, *(f"{_key(key)} = {_value(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _tables(name: str, table: Any) -> list[tuple[str, Mapping[str, Any]]]:
    if isinstance(table, Sequence):
        return [(f"[[{name}]]", each) for each in table]
    if table and all(isinstance(value, Mapping) for value in table.values()):
        return [(f"[{name}.{_key(key)}]", value) for key, value in table.items()]
    return [(f"[{name}]", table)]


def _key(key: str) -> str:
    return json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items()) + " }"
    return json.dumps(str(value) if isinstance(value, Path) else value)


def settings(
    destinations: Mapping[str, Orthanc | StoreScp], rules: Sequence[Settings], **tables: Settings
) -> dict[str, Any]:
    """A site as a test wants it: one scanner, short waits, quick retries; `tables` adds to the tables of that name."""
    tree: dict[str, Any] = {
        "node": {"ae_title": NODE_AE, "host": "127.0.0.1", "durability": "power", "receivers": 1},
        "limits": {"disk_reserve": "1 MB"},
        "completeness": {"quiet_s": 4.0, "released_quiet_s": 0.5, "deadline_s": 6.0, "quiet_max_s": 0.0},
        "peer": {"scanner": {"ae_title": SCANNER_AE}},
        "destination": {},
        "log": {"format": "json", "level": "debug"},
    }
    for name, destination in destinations.items():
        tree["peer"][name] = {"ae_title": destination.ae_title, "host": "127.0.0.1", "port": destination.port}
        tree["destination"][name] = {"peer": name, "retry": {"initial_s": 0.5, "maximum_s": 2.0}}
    for name, table in tables.items():
        tree[name] = _merged(tree.get(name, {}), table)
    tree["rule"] = list(rules)
    return tree


def _merged(table: Settings, more: Settings) -> dict[str, Any]:
    both = dict(table)
    for key, value in more.items():
        both[key] = _merged(both.get(key, {}), value) if isinstance(value, Mapping) else value
    return both


_STARTED: Final = '"node_started"'


class Node(ServerProcess):
    """`dicomnode serve` with a configuration, data and log of its own under `folder`; a context manager.

    Its working directory, HOME and TMPDIR are empty folders of its own, so that a test sees what it writes there.
    `kill_at` names a point of `dicomnode.faults` at which it kills itself, once in all its lives; `environment` is
    added to the server's; `only` names the roles that it has, where it has not all.
    """

    def __init__(
        self,
        folder: Path,
        tree: Settings,
        kill_at: str = "",
        environment: Mapping[str, str] | None = None,
        only: str = "",
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.configuration = folder / "dicomnode.toml"
        self._kill_at = kill_at
        self._environment = environment or {}
        for name in ("work", "home", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.configure(tree)
        self._listens = not only or "receive" in only.split(",")
        arguments = [sys.executable, "-m", "dicomnode", "serve", "--config", str(self.configuration)]
        arguments += ["--only", only] if only else []
        super().__init__(arguments, folder / "node.log", folder / "work")

    def configure(self, tree: Settings) -> None:
        """Write the configuration; a running node reads it at its next start or SIGHUP."""
        node = {**tree["node"], "port": self.port, "data": self.data}
        self.configuration.write_text(toml({**tree, "node": node}))

    def call(self, calling_ae: str = SCANNER_AE, called_ae: str = NODE_AE) -> Call:
        """How a sender calls this node."""
        return Call(self.port, called_ae, calling_ae)

    def start(self) -> None:
        """Start it and wait until it answers C-ECHO, or says that it runs where it does not receive."""
        kill = {"DICOMNODE_KILL_AT": self._kill_at, "DICOMNODE_KILL_ONCE": str(self.folder / "killed")}
        self.launch({**self._surroundings(), **(kill if self._kill_at else {}), **self._environment})
        if self._listens:
            self.await_ready(lambda: listens(self.port) and echo(self.call()), _START_TIMEOUT_S)
        else:
            self.await_said(_STARTED, _START_TIMEOUT_S)

    def stop(self) -> int:
        """SIGTERM, as systemd does; its exit code."""
        self.signal(signal.SIGTERM)
        return self.exit_code(_STOP_TIMEOUT_S)

    def reload(self) -> None:
        """SIGHUP: read the configuration again."""
        self.signal(signal.SIGHUP)

    def forget(self) -> None:
        """Delete the whole data folder of the stopped node."""
        assert not self.running, "stop the node first"
        shutil.rmtree(self.data)

    def __enter__(self) -> Self:
        self.start()
        return self

    def command(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a `dicomnode` command with this node's configuration, as an administrator beside it would."""
        command = [sys.executable, "-m", "dicomnode", *map(str, arguments), "--config", str(self.configuration)]
        return subprocess.run(
            command,
            cwd=self.folder / "work",
            env={**os.environ, **self._surroundings()},
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )

    def ask(self, *arguments: str | Path) -> Any:
        """What a command answers with `--json`; raises RuntimeError with what it printed where it failed."""
        answer = self.command(*arguments, "--json")
        if answer.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, arguments))}: {answer.stderr}{answer.stdout}")
        return json.loads(answer.stdout)

    def status(self) -> Any:
        return self.ask("status")

    def unfinished(self) -> int:
        """How many series, jobs and deliveries are still to be done, read from the index itself: that costs little."""
        with contextlib.closing(
            sqlite3.connect(f"{(self.data / 'node.sqlite').as_uri()}?mode=ro", uri=True)
        ) as database:
            (count,) = database.execute(UNFINISHED).fetchone()
        return int(count)

    def wait_until_idle(self, timeout_s: float = 120.0) -> None:
        """Wait until nothing is left to do."""
        try:
            wait_until(lambda: self.unfinished() == 0, timeout_s, "the node had nothing left to do")
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it said:\n{self.tail()}") from None

    def log(self) -> str:
        """All that it has printed since it was first started."""
        return self.output.read_text(errors="replace")

    def wait_for_log(self, text: str, times: int = 1, timeout_s: float = 30.0) -> None:
        """Wait until `text` stands so many times in the log."""
        what = f"the log of {self.folder} held {text!r} {times} times"
        wait_until(lambda: self.log().count(text) >= times, timeout_s, what)

    def _surroundings(self) -> dict[str, str]:
        return {
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "DICOMNODE_STRICT_EVENTS": "1",
        }
