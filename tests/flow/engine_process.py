"""A process that runs the workflow engine for a test: `python -m tests.flow.engine_process FOLDER ACTION...`.

Its workflow `pair` has two steps, which write what they do to `FOLDER/steps`. The database is $ENGINE_URL, else a file
in FOLDER.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import text

from dicomnode.errors import InputError
from dicomnode.flow.port import RECOVERIES, Call, Workflows, follow_up, step
from dicomnode.store.database import Database, migrate, sqlite_url
from dicomnode.store.schema import Patient

FOLDER = Path(sys.argv[1])
QUEUE = {"work": 2}
URL = os.environ.get("ENGINE_URL") or sqlite_url(FOLDER)
US = f"process {os.getpid()}"
CLAIMED = "UPDATE {}workflow_status SET status = 'PENDING', executor_id = :us WHERE workflow_uuid = 'pair:lost'".format(
    "" if URL.startswith("sqlite") else "dbos."
)


def note(text: str) -> None:
    with (FOLDER / "steps").open("a") as file:
        file.write(f"{text}\n")


def noted() -> list[str]:
    path = FOLDER / "steps"
    return path.read_text().splitlines() if path.exists() else []


def first(name: str) -> str:
    note(f"first {name}")
    return f"result of {name}"


def second(result: str) -> None:
    note(f"second after {result}")
    if "killed" in result and not (FOLDER / "killed").exists():
        (FOLDER / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if "slow" in result:
        time.sleep(2.0)
    note(f"end {result}")


def fail() -> None:
    raise InputError("it cannot be read", "ask again")


def fail_foreign() -> None:
    raise ValueError("Doe^Jane")


def pair(name: str, number: int) -> None:
    result = step("first", first, name)
    step("second", second, result)
    if number:
        follow_up(Call("pair", "work", f"pair:{name}:next", (f"{name} next", number - 1)))


def failing(foreign: int) -> None:
    step("fail", fail_foreign if foreign else fail)


WORKFLOWS: dict[str, Callable[..., None]] = {"pair": pair, "failing": failing}


@contextmanager
def serving(queues: Mapping[str, int]) -> Iterator[tuple[Workflows, Database]]:
    migrate(URL)
    workflows = Workflows(URL, WORKFLOWS, queues, US)
    workflows.start()
    with closing(Database(URL)) as database:
        yield workflows, database
    workflows.stop(10)


@contextmanager
def engine() -> Iterator[tuple[Workflows, Database]]:
    with serving(QUEUE) as (workflows, database):
        note(f"taken over {workflows.recover(workflows.owners() - {US})}")
        yield workflows, database


def until(lines: int, timeout_s: float = 30.0) -> None:
    give_up_at = time.monotonic() + timeout_s
    while sum(line.startswith("end") for line in noted()) < lines and time.monotonic() < give_up_at:
        time.sleep(0.05)


def enqueue(workflows: Workflows, database: Database, call: Call) -> None:
    with database.write() as session:
        workflows.enqueue(session, call)


def run(name: str, times: str) -> None:
    """Enqueue a pair so often, under one id."""
    with engine() as (workflows, database):
        for _ in range(int(times)):
            enqueue(workflows, database, Call("pair", "work", f"pair:{name}", (name, 0)))
        until(1)


def resume(ends: str) -> None:
    """Only start, and wait."""
    with engine():
        until(int(ends))


def give_back(way: str) -> None:
    """Find the work of the dead, and serve another queue."""
    with serving({"other": 1}) as (workflows, _):
        dead = sorted(workflows.owners() - {US})
        note(f"given back {RECOVERIES[way](dead)}, then {RECOVERIES[way](dead)}")
        time.sleep(1.0)  # several polls
        note(f"waits {sorted(workflows.unfinished())}")


def drop() -> None:
    """A workflow is claimed, and lost before it begins: the database failed in between."""
    with engine() as (workflows, database):
        enqueue(workflows, database, Call("pair", "work", "pair:lost", ("lost", 0), delay_s=3600.0))
        with database.write() as session:
            session.execute(text(CLAIMED), {"us": US})
        note(f"dropped {sorted(workflows.dropped())}")
        enqueue(workflows, database, Call("pair", "work", "pair:slow", ("slow", 0)))
        while "second after result of slow" not in noted():
            time.sleep(0.05)
        note(f"dropped {sorted(workflows.dropped())}")
        workflows.give_back(workflows.dropped())
        until(2)
        workflows.give_back(["pair:lost"])
        time.sleep(1.0)  # several polls
        note(f"dropped {sorted(workflows.dropped())}")


def forget() -> None:
    """What has ended long ago is dropped, what has just ended is not, nor what waits."""
    with engine() as (workflows, database):
        enqueue(workflows, database, Call("pair", "work", "pair:ended", ("ended", 0)))
        until(1)
        while workflows.unfinished():
            time.sleep(0.05)
        enqueue(workflows, database, Call("pair", "work", "pair:waits", ("waits", 0), delay_s=3600.0))
        note(f"forgotten {workflows.forget(time.time() - 3600.0)}, then {workflows.forget(time.time() + 1.0)}")


def chain() -> None:
    with engine() as (workflows, database):
        enqueue(workflows, database, Call("pair", "work", "pair:chain", ("chain", 2)))
        until(3)


def transactions() -> None:
    """One transaction that rolls back, one that commits, each with a row of ours."""
    with engine() as (workflows, database):
        try:
            with database.write() as session:
                session.add(Patient(patient_id="rolled back", issuer=""))
                workflows.enqueue(session, Call("pair", "work", "pair:back", ("back", 0)))
                raise RuntimeError
        except RuntimeError:
            note(f"unfinished {sorted(workflows.unfinished())}")
        with database.write() as session:
            session.add(Patient(patient_id="committed", issuer=""))
            workflows.enqueue(session, Call("pair", "work", "pair:kept", ("kept", 0)))
        until(1)


def delayed() -> None:
    with engine() as (workflows, database):
        enqueue(workflows, database, Call("pair", "work", "pair:late", ("late", 0), delay_s=2.0))
        enqueue(workflows, database, Call("pair", "work", "pair:now", ("now", 0)))
        note(f"unfinished {sorted(workflows.unfinished())}")
        until(2)


def errors() -> None:
    with engine() as (workflows, database):
        for foreign in (0, 1):
            enqueue(workflows, database, Call("failing", "work", f"failing:{foreign}", (foreign,)))
        give_up_at = time.monotonic() + 20
        while workflows.unfinished() and time.monotonic() < give_up_at:
            time.sleep(0.05)


if __name__ == "__main__":
    globals()[sys.argv[2]](*sys.argv[3:])
