"""What `cluster status` tells of machines, queues, leases and take-overs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from sqlalchemy import update

from dicomnode.errors import NotFoundError, UsageError
from dicomnode.operations.cluster import ClusterStatus, cluster_status, forget
from dicomnode.store.index import processes
from dicomnode.store.index.processes import Sign
from dicomnode.store.schema import Action, Destination, Process
from tests.operations.sites import index_of, site
from tests.store.receiving import ct_header


def text(status: ClusterStatus) -> str:
    return "\n".join(status.lines())


def sign(host: str, role: str, roles: tuple[str, ...], version: str = "1.0") -> Sign:
    return Sign(role, host, f"home of {host}", 7, f"{host}:{role}:x", roles, version)


def test_before_anything_runs(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config):
        told = cluster_status(config)
    assert told.machines == ()
    assert "no machine runs" in text(told)


def test_machines_with_their_processes_roles_and_versions(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        with flow.reception.database.write() as session:
            processes.beat(session, sign("one", "flow", ("route", "enhance")))
            processes.beat(session, sign("one", "receive-1", ("receive",)))
            processes.beat(session, sign("two", "flow", ("derive",), "2.0"))
            session.execute(update(Process).where(Process.host == "two").values(beat_at=Process.beat_at - 31))
        told = cluster_status(config)
    one, two = told.machines
    assert [(process.role, process.roles, process.alive) for process in one.processes] == [
        ("flow", ("route", "enhance"), True),
        ("receive-1", ("receive",), True),
    ]
    assert (two.is_alive, two.versions) == (False, ("2.0",))
    assert "machine two  version 2.0  DEAD" in text(told)
    assert "  flow (route, enhance)  pid 7" in text(told)
    assert "versions 1.0 and 2.0 run side by side" in text(told)
    assert {queue.role: queue.machines for queue in told.queues} == {
        "route": 1, "enhance": 1, "derive": 0, "deliver": 0, "retrieve": 0,
    }  # fmt: skip


def test_what_waits_for_a_role_and_since_when(tmp_path: Path) -> None:
    config = site(tmp_path, destination={"pacs": {"peer": "pacs"}, "late": {"peer": "pacs"}})
    with index_of(config) as flow:
        flow.receive([ct_header(1), ct_header(2)])
        series, generation = flow.close()
        told = {queue.role: queue for queue in cluster_status(config).queues}
        assert told["route"].waiting == 1
        flow.pipeline.fail_plan(series, generation, "for this test")
        status = cluster_status(config)
    told = {queue.role: queue for queue in status.queues}
    assert (told["route"].waiting, told["route"].oldest_s) == (0, None)
    assert (told["enhance"].waiting, told["derive"].waiting, told["retrieve"].waiting) == (0, 0, 0)
    assert told["deliver"].waiting == 2
    assert told["deliver"].oldest_s is not None
    assert told["deliver"].oldest_s >= 0
    assert "deliver   2 waiting" in text(status)
    assert "no machine that runs has this role" in text(status)


def test_leases_and_take_overs(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        flow.receive([ct_header(1)])
        with flow.reception.database.write() as session:
            row = {"failures": 0, "lease_owner": "one/abc", "lease_until": time.time() + 50}
            session.add(Destination(name="pacs", **row))
            session.add(Destination(name="late", **{**row, "lease_until": time.time() - 1}))
            processes.record_takeover(session, ["three:flow:x"], "one")
        told = cluster_status(config)
    (lease,) = told.leases
    assert (lease.kind, lease.name, lease.machine) == ("destination", "pacs", "one")
    assert 0 < lease.left_s <= 50
    (taken,) = told.takeovers
    assert (taken.machine, taken.by) == ("three", "one")
    assert "destination pacs: one, for another" in text(told)
    assert "one took over what three had begun" in text(told)
    assert json.loads(json.dumps(told.to_json()))["takeovers"][0]["by"] == "one"


def test_a_machine_that_will_not_come_back_is_forgotten_and_one_that_runs_is_not(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        with flow.reception.database.write() as session:
            processes.beat(session, sign("one", "flow", ("route",)))
            processes.beat(session, sign("two", "flow", ("route",)))
            session.execute(update(Process).where(Process.host == "two").values(beat_at=Process.beat_at - 31))
        with pytest.raises(UsageError, match="one runs"):
            forget(config, "one")
        with pytest.raises(NotFoundError, match="'three'"):
            forget(config, "three")
        told = forget(config, "two")
        assert (told.machine, told.processes, told.lines()) == ("two", 1, ("two is forgotten, with 1 process",))
        assert [machine.name for machine in cluster_status(config).machines] == ["one"]
        (action,) = flow.reception.rows(Action)
        assert (action.what, action.subject) == ("cluster forget", "two")
