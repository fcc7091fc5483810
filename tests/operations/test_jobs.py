"""pause, resume, and what a person does about deliveries: seen in the index, and told by status and why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from dicomnode.config import Config
from dicomnode.core.types import Outcome
from dicomnode.errors import NotFoundError, UsageError
from dicomnode.operations.jobs import cancel, jobs, retry, which
from dicomnode.operations.pausing import pause, resume
from dicomnode.operations.status import status
from dicomnode.operations.why import why
from dicomnode.store.schema import Action, Outbox
from tests.flow.rooms import Flow
from tests.operations.sites import answer, index_of, site
from tests.store.receiving import ct_header

ANY = (None, None, None)


@pytest.fixture(name="config")
def _config(tmp_path: Path) -> Config:
    return site(tmp_path)


@pytest.fixture(name="flow")
def _flow(config: Config) -> Iterator[Flow]:
    """Three instances for `late`, of two series."""
    with index_of(config) as flow:
        flow.receive([ct_header(1), ct_header(2), ct_header(3, SeriesInstanceUID="1.2.3.9")])
        with flow.reception.database.write() as session:
            session.execute(update(Outbox).values(state="ready"))
        yield flow


def states(flow: Flow) -> list[str]:
    return [row.state for row in flow.reception.rows(Outbox)]


def fail(flow: Flow, *numbers: int) -> None:
    rows = flow.reception.rows(Outbox)
    for number in numbers:
        answer(flow, rows[number].id, Outcome.REFUSED, "it will not have it")


def test_a_pause_is_noted_shown_and_ended(config: Config, flow: Flow) -> None:
    assert pause(config, "late", "new disks").changed
    assert not pause(config, "late", "again").changed
    (destination,) = [one for one in status(config).destinations if one.name == "late"]
    assert "paused since" in destination.notes[0]
    assert "new disks (dicomnode resume late)" in destination.notes[0]
    assert any("paused since" in line for line in why(config, "1.2.3").lines())
    ended = resume(config, "late")
    assert (ended.changed, ended.paused, ended.waiting) == (True, False, 3)
    assert not resume(config, "late").changed
    assert [(row.what, row.subject, row.reason) for row in flow.reception.rows(Action)] == [
        ("pause", "late", "new disks"),
        ("resume", "late", ""),
    ]


@pytest.mark.parametrize("do", [lambda config: pause(config, "nowhere", ""), lambda config: resume(config, "nowhere")])
def test_a_destination_that_there_is_not_cannot_be_paused(config: Config, flow: Flow, do: object) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        do(config)  # type: ignore[operator]


def test_status_says_when_a_closed_destination_opens(tmp_path: Path) -> None:
    never_now = ["mon 00:00-00:01", "thu 00:00-00:01"]  # of either days there is one that is not today
    tables = {"pacs": {"peer": "pacs", "hours": never_now}, "late": {"peer": "pacs", "urgent_anytime": False}}
    config = site(tmp_path, destination=tables, rule=[{"name": "keep", "match": {"Modality": "CT"}, "send": ["late"]}])
    with index_of(config):
        notes = {one.name: one.notes for one in status(config).destinations}
    assert notes["late"] == ()
    assert "only what is urgent goes; opens at " in notes["pacs"][0]


def test_deliveries_are_listed_by_series_with_their_reason(config: Config, flow: Flow) -> None:
    fail(flow, 0, 1)
    found = jobs(config, which(["failed", "ready"], None, ANY))
    assert [(one.state, one.series_instance_uid, one.instances, one.reason) for one in found.deliveries] == [
        ("ready", "1.2.3.9", 1, ""),
        ("failed", "1.2.3.4", 2, "it will not have it"),
    ]
    assert found.total == 3
    assert len(found.lines()) == 2
    assert jobs(config, which(["failed"], "pacs", ANY)).lines() == ("nothing",)


def test_what_failed_is_sent_again_where_and_what_a_person_means(config: Config, flow: Flow) -> None:
    fail(flow, 0, 1, 2)
    assert retry(config, which(["failed"], "pacs", ANY)).nothing
    assert retry(config, which(["failed"], "late", (None, None, "1.2.3.4.1"))).instances == {"late": 1}
    assert states(flow) == ["ready", "failed", "failed"]
    assert retry(config, which(["failed"], "late", (None, "1.2.3.9", None))).instances == {"late": 1}
    assert states(flow) == ["ready", "failed", "ready"]
    assert retry(config, which(["failed"], None, ("1.2.3", None, None))).instances == {"late": 1}
    rows = flow.reception.rows(Outbox)
    assert {(row.state, row.attempts, row.finished_at) for row in rows} == {("ready", 0, None)}
    assert all(row.created_at > 1e9 for row in rows), "patience begins anew"
    assert [row.what for row in flow.reception.rows(Action)] == ["jobs retry"] * 3


def test_what_the_configuration_kept_back_is_judged_again(config: Config, flow: Flow) -> None:
    answer(flow, flow.reception.rows(Outbox)[0].id, Outcome.EXCLUDED, status=None)
    assert retry(config, which(["excluded"], None, ANY)).instances == {"late": 1}
    assert states(flow) == ["ready"] * 3


@pytest.mark.parametrize("chosen", [[], ["ready"], ["failed", "sent"]])
def test_what_to_retry_must_be_said(config: Config, flow: Flow, chosen: list[str]) -> None:
    with pytest.raises(UsageError):
        retry(config, which(chosen, "late", ANY))


def test_what_is_cancelled_is_not_sent_and_why_tells_who_did_it(config: Config, flow: Flow) -> None:
    answered = cancel(config, which(["held", "ready"], "late", (None, "1.2.3.4", None)), "wrong patient")
    assert answered.instances == {"late": 2}
    assert states(flow) == ["cancelled", "cancelled", "ready"]
    told = why(config, "1.2.3.4").lines()
    assert any("2 instances cancelled: wrong patient" in line for line in told)
    assert any("cancelled by" in line for line in told)
    (destination,) = [one for one in status(config).destinations if one.name == "late"]
    assert destination.cancelled == 2


def test_not_everything_is_cancelled_by_mistake(config: Config, flow: Flow) -> None:
    with pytest.raises(UsageError):
        cancel(config, which(["held", "ready"], None, ANY), "")
    assert states(flow) == ["ready"] * 3


def test_many_are_changed_in_parts(config: Config, flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomnode.operations.jobs._AT_ONCE", 1)
    fail(flow, 0, 1, 2)
    assert retry(config, which(["failed"], None, ANY)).instances == {"late": 3}
    assert states(flow) == ["ready"] * 3
    assert len(flow.reception.rows(Action)) == 1
