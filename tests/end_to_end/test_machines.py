"""Two machines with one index on PostgreSQL and one folder of files, as behind a balancer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import Orthanc
from dicomnode.testing.processes import wait_until
from dicomnode.testing.sender import RawObject, send_verbatim
from tests.end_to_end.observation import TIMEOUT_S
from tests.end_to_end.studies import phantom_series

RULE = {"name": "denoise", "match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send": ["pacs"]}
SLICES = 6


def machine(folder: Path, name: str, url: str, pacs: Orthanc, only: str = "") -> Node:
    """One of the machines; each has a folder of its own for what is only its."""
    server = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    shared = {"name": name, "database": server, "files": folder / "shared", "receivers": 2, "durability": "process"}
    tree = settings({"pacs": pacs}, [RULE], node=shared)
    return Node(folder / name, tree, only=only)


@pytest.mark.peer("postgresql")
@pytest.mark.peer("orthanc")
def test_a_study_that_arrives_at_two_machines_is_one(
    tmp_path: Path, pacs: Orthanc, new_postgresql_url: Callable[[], str]
) -> None:
    sent = [RawObject.read(path) for path in phantom_series(tmp_path / "scanner", slices=SLICES)]
    url = new_postgresql_url()
    one, two = machine(tmp_path, "one", url, pacs), machine(tmp_path, "two", url, pacs, "receive")
    with one, two:
        shares = [(one, sent[::2]), (two, sent[1::2]), (one, sent), (two, sent[::-1])]
        statuses: list[int] = []

        def send(node: Node, share: list[RawObject]) -> None:
            statuses.extend(send_verbatim(node.call(), share).values())

        threads = [threading.Thread(target=send, args=share) for share in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_S)
        assert statuses == [0] * 3 * SLICES
        wait_until(lambda: len(pacs.sop_instance_uids()) == 2 * SLICES, TIMEOUT_S, "the PACS held everything")
        wait_until(lambda: waiting(one) == 0, TIMEOUT_S, "all deliveries have their receipts")
        status = two.status()
        assert {(each["host"], each["role"]) for each in status["processes"]} == {
            *(("one", role) for role in ("receive-1", "receive-2", "deliver", "flow", "retrieve")),
            *(("two", role) for role in ("receive-1", "receive-2")),
        }
        assert status["running"]
        assert (status["counts"]["instances_received"], status["counts"]["instances_derived"]) == (SLICES, SLICES)
        assert status["problems"] == []
        assert two.stop() == 0
        assert {each["host"] for each in one.status()["processes"]} == {"one"}
        assert one.stop() == 0
    assert len(list((tmp_path / "shared" / "objects").rglob("*.dcm"))) == 2 * SLICES
    assert "delivery_failed" not in one.log()


def waiting(node: Node) -> int:
    """Deliveries that are still to be done."""
    (destination,) = node.status()["destinations"]
    return int(destination["ready"] + destination["held"])
