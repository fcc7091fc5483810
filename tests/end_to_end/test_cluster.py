"""Several machines with one index on PostgreSQL: one dies in the middle of its work, and the database goes away."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import Orthanc, PostgreSql
from dicomnode.testing.processes import wait_until
from dicomnode.testing.sender import RawObject, echo, send_verbatim
from tests.end_to_end.observation import TIMEOUT_S
from tests.end_to_end.studies import phantom_series

pytestmark = [pytest.mark.peer("postgresql"), pytest.mark.peer("orthanc")]

RULE = {"name": "denoise", "match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send": ["pacs"]}
SLICES = 6


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
    two = machine(tmp_path, "two", url, pacs, "receive,route,enhance,derive,deliver")
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
    with machine(tmp_path, "one", url, pacs, "receive") as one:
        other = machine(tmp_path / "elsewhere", "one", url, pacs, "receive")
        told = other.command("serve", "--only", "receive")
        assert told.returncode == 1
        assert "another machine that shares the database is 'one' already" in told.stderr
        assert "process_waiting" not in told.stderr
        assert one.running


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
    with machine(tmp_path, "one", server.url(), pacs, "receive,route,enhance,derive,deliver") as node:
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
