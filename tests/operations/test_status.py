"""`dicomnode status`: what there is, what waits, and what a person should look at."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from sqlalchemy import update

from dicomnode.core.types import Outcome
from dicomnode.errors import NotFoundError
from dicomnode.operations.status import Problem, Status, status
from dicomnode.store.index import health, leases
from dicomnode.store.index.retrying import RetryPolicy
from dicomnode.store.schema import Job, Outbox, Process, Series
from tests.flow.rooms import Flow, phantom
from tests.operations.sites import answer, index_of, site
from tests.store.receiving import PACS, ct_header


def kinds(told: Status) -> list[str]:
    return [problem.kind for problem in told.problems]


def text(told: Status) -> str:
    return "\n".join(told.lines())


def test_before_the_first_start_there_is_nothing_to_tell(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        status(site(tmp_path))
    assert "serve" in caught.value.hint


def test_an_empty_node_needs_no_attention(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config):
        told = status(config)
    assert not told.running
    assert told.problems == ()
    assert set(told.counts.values()) == {0}
    assert [destination.name for destination in told.destinations] == ["pacs", "late"]
    assert "not running" in text(told)
    assert "nothing needs attention" in text(told)
    assert told.reserve_bytes == 1_000_000
    json.dumps(told.to_json())


def test_what_is_there_is_counted(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        flow.receive(phantom())
        arriving = status(config)
        flow.run()
        told = status(config)
    assert (arriving.counts["series_arriving"], arriving.open_associations) == (1, 4)
    wanted = {"studies": 1, "series_received": 1, "series_derived": 1, "series_arriving": 0}
    assert {name: told.counts[name] for name in wanted} == wanted
    assert (told.counts["instances_received"], told.counts["instances_derived"]) == (4, 4)
    assert told.counts["bytes"] > 8 * 128 * 128 * 2
    assert {state: count for state, count in told.jobs.items() if count} == {"derived": 1}
    pacs, late = told.destinations
    assert (pacs.ready, pacs.held, late.ready, late.held) == (8, 0, 0, 4)
    assert told.problems == ()


def make_unrouted(flow: Flow) -> str:
    flow.receive([ct_header(1, Modality="US")])
    close(flow)
    return "1.2.3.4"


def make_refused(flow: Flow) -> str:
    study = phantom()
    for dataset in study:
        dataset.PixelSpacing = [9, 9]
    flow.receive(study)
    flow.run()
    return flow.received.series_instance_uid


def make_failed(flow: Flow) -> str:
    flow.receive(phantom())
    for row, _ in flow.pipeline.plan(*flow.close()):
        flow.pipeline.fail(row, "it died", "give it memory")
    return flow.received.series_instance_uid


def make_unplanned(flow: Flow) -> str:
    flow.receive(phantom())
    flow.pipeline.fail_plan(*flow.close(), "the reader died")
    return flow.received.series_instance_uid


def make_undelivered(flow: Flow) -> str:
    flow.receive([ct_header(1)])
    close(flow)
    answer(flow, flow.reception.rows(Outbox)[0].id, Outcome.FAILED, "the data set does not match")
    return "1.2.3.4.1"


def close(flow: Flow) -> None:
    with flow.reception.database.write() as session:
        session.execute(update(Series).values(state="closed", due_at=None, generation=1))


@pytest.mark.parametrize(
    ("kind", "make", "reason"),
    [
        ("unrouted", make_unrouted, "no rule matches this series; it is kept"),
        ("refused", make_refused, "ct-nlm: row spacing 9 mm"),
        ("failed", make_failed, "ct-nlm: it died; give it memory"),
        ("unplanned", make_unplanned, "the reader died"),
        ("undelivered", make_undelivered, "to late: the data set does not match"),
    ],
)
def test_each_kind_of_problem_is_told(tmp_path: Path, kind: str, make: object, reason: str) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        uid = make(flow)  # type: ignore[operator]
        (problem,) = status(config).problems
    assert (problem.kind, problem.about) == (kind, uid)
    assert problem.reason.startswith(reason)
    assert uid in "\n".join(_lines(problem))


def _lines(problem: Problem) -> list[str]:
    return [problem.kind, problem.about, problem.reason]


def test_what_is_withheld_is_told(tmp_path: Path) -> None:
    config = site(tmp_path)
    stage = {"engine": "ct-nlm", "folder": None, "before": None, "after": None}
    withheld = {"run_chain": lambda **_: {"state": "withheld", "reasons": ["fat changes"], "stages": [stage]}}
    with index_of(config, withheld) as flow:
        flow.receive(phantom())
        flow.run()
        told = status(config)
    assert told.problems == (Problem("withheld", flow.received.series_instance_uid, "ct-nlm: fat changes"),)
    assert "1 withheld" in text(told)


def test_what_was_planned_again_is_no_problem_any_more(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        study = phantom(5)
        flow.receive(study[:4])
        flow.pipeline.fail_plan(*flow.close(), "the reader died")
        flow.receive(study[4:])
        flow.run()
        assert status(config).problems == ()


def test_lists_of_problems_have_an_end(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        flow.receive([ct_header(number, SeriesInstanceUID=f"1.2.3.{number}", Modality="US") for number in range(25)])
        close(flow)
        assert len(kinds(status(config))) == 20


def test_what_only_came_back_is_not_unrouted(tmp_path: Path) -> None:
    """Its destination filed it under another series; the rule is about scanners."""
    config = site(tmp_path, rule=[{"name": "scanner", "match": {"calling_ae": "SCANNER"}, "send": ["pacs"]}])
    with index_of(config) as flow:
        flow.receive([ct_header(1)])
        answer(flow, flow.reception.rows(Outbox)[0].id, Outcome.SENT, status=0)
        flow.reception.receive(ct_header(1, SeriesInstanceUID="1.2.3.77"), PACS)
        close(flow)
        with flow.reception.database.write() as session:
            session.execute(update(Series).where(Series.series_instance_uid == "1.2.3.77").values(generation=0))
        assert status(config).problems == ()


def test_a_destination_that_is_down_is_told_with_what_to_do(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        now = time.time()
        with flow.reception.database.write() as session:
            leases.know(session, ["pacs"])
            retry = RetryPolicy(100.0, probe_s=100.0)
            health.failed(session, "pacs", ("no connection\x1b[2J", "start it"), retry, now)
        told = status(config)
    pacs = told.destinations[0]
    assert (pacs.failures, pacs.last_hint) == (1, "start it")
    assert pacs.down_for_s is not None
    assert 90 < pacs.down_for_s < 111
    assert "next: start it" in text(told)
    assert told.problems == (Problem("down", "pacs", "no connection\x1b[2J; start it"),)
    assert "\x1b" not in text(told)


def test_a_destination_that_was_removed_is_listed_while_rows_wait_for_it(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        flow.receive([ct_header(1)])
    renamed = site(tmp_path, destination={"new": {"peer": "pacs"}}, rule=[])
    told = status(renamed)
    assert [(one.name, one.held) for one in told.destinations] == [("new", 0), ("late", 1)]
    (problem,) = told.problems
    assert (problem.kind, problem.about) == ("unconfigured", "late")
    assert problem.reason.startswith("1 instance ")
    assert status(config).problems == ()


def process(role: str, host: str, pid: int, started_at: float, beat_at: float) -> Process:
    identity = f"{host}:{role}:{pid}"
    life = {"started_at": started_at, "beat_at": beat_at}
    return Process(role=role, host=host, home=host, pid=pid, executor_id=identity, roles=[role], version="1", **life)


def test_processes_are_alive_while_they_say_so(tmp_path: Path) -> None:
    config = site(tmp_path)
    now = time.time()
    with index_of(config) as flow:
        with flow.reception.database.write() as session:
            session.add(process(role="receive", host="h", pid=1, started_at=now - 4000, beat_at=now - 1))
        told = status(config)
        assert told.running
        assert "up 1 h 6 min" in text(told)
        with flow.reception.database.write() as session:
            session.add(process(role="deliver", host="h", pid=2, started_at=now - 70, beat_at=now - 31))
        told = status(config)
        assert not told.running
        assert [process.alive for process in told.processes] == [False, True]
        assert "DEAD" in text(told)
        assert [(problem.kind, problem.about) for problem in told.problems] == [("dead", "deliver")]
        with flow.reception.database.write() as session:
            session.execute(update(Process).values(beat_at=now - 31))
        assert status(config).problems == (), "it is not running, which is no process's fault"


def test_of_a_machine_that_died_it_is_told_how_to_forget_it(tmp_path: Path) -> None:
    config = site(tmp_path)
    now = time.time()
    with index_of(config) as flow:
        with flow.reception.database.write() as session:
            session.add(process("flow", "one", 1, now - 50, now - 1))
            session.add(process("flow", "two", 1, now - 50, now - 31))
        (problem,) = status(config).problems
    assert (problem.kind, problem.about) == ("dead", "flow")
    assert "on two" in problem.reason
    assert "dicomnode cluster forget" in problem.reason


def test_the_machine_is_told_where_there_are_several(tmp_path: Path) -> None:
    config = site(tmp_path)
    now = time.time()
    with index_of(config) as flow:
        for host in ("one", "two"):
            with flow.reception.database.write() as session:
                session.add(process(role="receive-1", host=host, pid=1, started_at=now - 1, beat_at=now - 1))
            assert (f"on {host}" in text(status(config))) == (host == "two")


def test_no_patient_is_in_it(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        flow.receive([ct_header(1, Modality="US", AccessionNumber="ACC-7"), ct_header(2)])
        close(flow)
        told = status(config)
    everything = json.dumps(told.to_json()) + text(told)
    assert not any(word in everything for word in ("Doe", "P1", "ACC-7"))


def test_jobs_that_wait_are_counted(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        flow.receive(phantom())
        flow.pipeline.plan(*flow.close())
        assert "1 waiting" in text(status(config))
        assert len(flow.reception.rows(Job)) == 1


def test_one_is_said_as_one(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        flow.receive([ct_header(1)])
        told = status(config)
    assert "1 instance in 1 series of 1 study; 1 series arriving over 1 association" in text(told)


def test_the_nearest_rule_is_told_and_not_what_was_found(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        flow.receive([ct_header(1, Modality="XYZ")])
        flow.run()
        (problem,) = status(config).problems
    assert problem.kind == "unrouted"
    assert "the nearest is " in problem.reason
    assert "which wants Modality " in problem.reason
    assert "XYZ" not in problem.reason, "it might be a patient's name"
