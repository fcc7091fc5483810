"""Several machines with one index on PostgreSQL: one dies in the middle of its work, and the database goes away."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.engine import make_url

import dicomnode
from dicomnode.store.database import Database
from dicomnode.store.index import processes
from dicomnode.store.index.processes import Sign
from dicomnode.store.schema import Process
from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import Orthanc, PostgreSql
from dicomnode.testing.processes import wait_until
from dicomnode.testing.sender import RawObject, echo, send_verbatim
from tests.end_to_end.observation import TIMEOUT_S
from tests.end_to_end.studies import phantom_series
from tests.store.test_compatibility import NEXT

pytestmark = [pytest.mark.peer("postgresql"), pytest.mark.peer("orthanc")]

RULE = {"name": "denoise", "match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send": ["pacs"]}
SLICES = 6
ROLES = "receive,route,enhance,derive,deliver"


def machine(folder: Path, name: str, url: str, pacs: Orthanc, only: str, kill_at: str = "") -> Node:
    """One of the machines, with these roles; each has a folder of its own for what is only its."""
    server = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    shared = {"name": name, "database": server, "files": folder / "shared", "durability": "process"}
    tree = settings({"pacs": pacs}, [RULE], node=shared, cluster={"dead_after_s": 5.0})
    return Node(folder / name, tree, kill_at, only=only)


def events(node: Node, name: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in node.log().splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == name]


def test_a_machine_that_dies_while_it_enhances_is_replaced_by_another(
    tmp_path: Path, pacs: Orthanc, new_postgresql_url: Callable[[], str]
) -> None:
    sent = [RawObject.read(path) for path in phantom_series(tmp_path / "scanner", slices=SLICES)]
    url = new_postgresql_url()
    one = machine(tmp_path, "one", url, pacs, "receive,route,enhance", kill_at="enhance.after_engine")
    two = machine(tmp_path, "two", url, pacs, ROLES)
    with one:
        assert set(send_verbatim(one.call(), sent).values()) == {0}
        wait_until((one.folder / "killed").exists, TIMEOUT_S, "the engine had run")
        one.kill()
    with two:
        wait_until(lambda: len(pacs.sop_instance_uids()) == 2 * SLICES, TIMEOUT_S, "the PACS held everything")
        (taken,) = events(two, "work_taken_over")
        assert (taken["machine"], taken["workflows"]) == ("one", 1)
        assert len(pacs.get_json("/series")) == 2
        assert two.stop() == 0
    assert len(set(pacs.sop_instance_uids())) == 2 * SLICES


def test_a_machine_of_a_name_that_is_taken_says_so_at_once(
    tmp_path: Path, pacs: Orthanc, new_postgresql_url: Callable[[], str]
) -> None:
    url = new_postgresql_url()
    with closing(Database(url)) as database, database.write() as session:
        processes.beat(session, Sign("receive-1", "one", "its home", 1, "one:receive-1:x", ("receive",), "1"))
        session.execute(update(Process).values(beat_at=Process.beat_at + 3600.0))  # it lives while this test does
    told = machine(tmp_path, "one", url, pacs, "receive").command("serve", "--only", "receive")
    assert told.returncode == 1
    assert "another machine that shares the database is 'one' already" in told.stderr
    assert "process_waiting" not in told.stderr


def next_version(folder: Path) -> Mapping[str, str]:
    """The environment of a copy of the node that calls itself 99 and adds to the schema."""
    here = Path(dicomnode.__file__).parent
    for package in (here, here.parent / "engines"):
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    init = folder / "dicomnode" / "__init__.py"
    init.write_text(re.sub(r'__version__ = ".*"', '__version__ = "99"', init.read_text()))
    versions = folder / "dicomnode" / "store" / "migrations" / "versions"
    last = max(path.name[:4] for path in versions.glob("[0-9]*.py"))
    (versions / "9999_next.py").write_text(NEXT.format(last=last, readers_from=last))
    return {"PYTHONPATH": str(folder)}


def test_two_versions_run_side_by_side_and_the_old_one_leaves_its_work_to_the_new(
    tmp_path: Path, pacs: Orthanc, new_postgresql_url: Callable[[], str]
) -> None:
    first, second, third = (
        [RawObject.read(path) for path in phantom_series(tmp_path / f"scanner{seed}", slices=SLICES, seed=seed)]
        for seed in (1, 2, 3)
    )
    url = new_postgresql_url()
    old, new = (machine(tmp_path, name, url, pacs, ROLES) for name in ("old", "new"))
    new._environment = next_version(tmp_path / "packages")
    with old, new:
        assert set(send_verbatim(old.call(), first).values()) == {0}, "it goes on with the schema of the new"
        assert set(send_verbatim(new.call(), second).values()) == {0}
        machines = old.ask("cluster", "status")["machines"]
        versions = {each["name"]: {process["version"] for process in each["processes"]} for each in machines}
        assert versions == {"old": {dicomnode.__version__}, "new": {"99"}}
        assert set(send_verbatim(old.call(), third).values()) == {0}
        wait_until(lambda: len(events(old, "series_closed") + events(new, "series_closed")) > 0, TIMEOUT_S, "in flight")
        assert old.stop() == 0
        wait_until(lambda: len(pacs.sop_instance_uids()) == 6 * SLICES, TIMEOUT_S, "the PACS held everything")
        assert events(old, "job_failed") + events(new, "job_failed") + events(new, "plan_failed") == []
        assert new.stop() == 0
    assert len(set(pacs.sop_instance_uids())) == 6 * SLICES
    assert len(pacs.get_json("/series")) == 6


@pytest.fixture(name="server")
def _server() -> Iterator[PostgreSql]:
    """A PostgreSQL of the test's own, that it may stop; its user must be able to reach the folder."""
    with tempfile.TemporaryDirectory(prefix="dicomnode-") as folder, PostgreSql(Path(folder)) as server:
        yield server


def test_an_outage_of_the_database_is_answered_waited_for_and_told_once(
    tmp_path: Path, pacs: Orthanc, server: PostgreSql
) -> None:
    first, second = (
        [RawObject.read(path) for path in phantom_series(tmp_path / f"scanner{seed}", slices=SLICES, seed=seed)]
        for seed in (1, 2)
    )
    with machine(tmp_path, "one", server.url(), pacs, ROLES) as node:
        node.wait_for_log("node_started")
        assert set(send_verbatim(node.call(), first[:3]).values()) == {0}
        server.kill()
        statuses = send_verbatim(node.call(), second[:3])
        assert all(status is not None and status & 0xFF00 == 0xA700 for status in statuses.values())
        assert echo(node.call())
        server.start()
        node.wait_for_log("database_found")
        assert set(send_verbatim(node.call(), [*first, *second]).values()) == {0}
        wait_until(lambda: len(pacs.sop_instance_uids()) == 4 * SLICES, TIMEOUT_S, "the PACS held everything")
        assert node.stop() == 0
    assert events(node, "process_ended") == []
    lost, found = events(node, "database_lost"), events(node, "database_found")
    assert 1 <= len(found) <= len(lost) <= 3, "each process tells once that it is gone, and that it is back"
    assert len(set(pacs.sop_instance_uids())) == 4 * SLICES
