"""What waits for a person, what a person decides, and what follows in the outbox; on both databases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from dicomnode.core.types import Sender
from dicomnode.core.withholding import COMMISSIONING, DISCARDED, NOT_CHECKED, RELEASED
from dicomnode.store.index import jobs, outbox, reviews
from dicomnode.store.index.arrivals import Identity, StoredFile, record_derived
from dicomnode.store.schema import Instance, Job, JobState, Outbox, Plan, Series, SeriesState
from tests.store.receiving import Reception, ct_header, receiving

pytestmark = pytest.mark.both_databases

US = Sender("", "DICOMNODE", "DICOMNODE", "", 500.0)


def closed(reception: Reception, content: dict[str, Any], states: Sequence[JobState] = ()) -> list[Job]:
    """Receive one instance, close its series with a plan, and let its jobs end so."""
    reception.receive(ct_header(1))
    with reception.database.write() as session:
        session.execute(update(Series).values(state=SeriesState.CLOSED.value, generation=1, due_at=None))
        planned = [({"engines": ["ct-nlm"], "priority": "normal", "rules": ["r"], "stack_key": "s"}, [1])] * len(states)
        made = jobs.record_plan(session, 1, 1, {"jobs": [], "stacks": [], "unreadable": [], **content}, planned, 1.0)
        for job, state in zip(made, states, strict=True):
            job.state = state.value
    return made


def derived(session: Session, job: Job, number: int, withheld: str | None, destination: str = "pacs") -> None:
    """A derived instance of a series of its own, on its way to a destination."""
    identity = Identity("P1", "", "1.2.3", "A1", f"1.2.9.{number}", "CT")
    file = StoredFile(f"1.2.9.{number}.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", f"d{number}", 10)
    made = record_derived(session, identity, [file], job.id, US)
    to = outbox.DerivedOutgoing(destination, ("r",), "DICOMNODE", 100, 1, 600.0, withheld)
    outbox.enqueue_derived(session, made, to, 500.0 + number)


def waiting(reception: Reception) -> list[tuple[str, str | None]]:
    """State and reason of the deliveries of derived objects."""
    return [(row.state, row.reason) for row in reception.rows(Outbox) if row.origin == "derived"]


def test_what_is_withheld_anew_has_to_be_released_anew(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        (job,) = closed(reception, {}, [JobState.ENHANCED])
        with reception.database.write() as session:
            session.execute(update(Job).values(review="released"))
            jobs.record_result(session, job.id, JobState.WITHHELD, {"reasons": ["noise"], "stages": []}, "r", 2.0)
        with reception.database.read() as session:
            assert [one.id for one in reviews.jobs_to_release(session, 1)] == [job.id]


def test_quarantine_is_what_the_last_closing_left(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        closed(reception, {"unreadable": [{"instance_id": 1, "reason": "no pixels"}]}, list(JobState))
        with reception.database.read() as session:
            states = [job.state for job, _ in reviews.jobs_in_quarantine(session)]
            assert states == ["failed", "withheld", "refused"]
            assert [plan.trouble for plan, _ in reviews.plans_in_quarantine(session)] == ["unreadable"]
            assert reviews.quarantine_counts(session) == {"unreadable": 1, "failed": 1, "withheld": 1, "refused": 1}
            assert reviews.has_quarantined(session, 1)
            assert not reviews.has_quarantined(session, 2)


def test_a_plan_that_failed_is_in_quarantine_and_one_without_trouble_is_not(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        closed(reception, {"failed": "the disk failed"})
        with reception.database.read() as session:
            assert reviews.quarantine_counts(session) == {"failed plan": 1}
    with receiving(tmp_path / "other") as reception:
        closed(reception, {}, [JobState.DERIVED])
        with reception.database.read() as session:
            assert reviews.quarantine_counts(session) == {}


def test_what_is_requeued_is_judged_again_now_and_leaves_the_list_at_once(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        closed(reception, {}, [JobState.FAILED])
        with reception.database.write() as session:
            assert reviews.reopen(session, session.get_one(Series, 1), 900.0)
            assert not reviews.reopen(session, session.get_one(Series, 1), 901.0), "it is under way"
        (series,) = reception.rows(Series)
        assert (series.state, series.due_at, series.generation) == ("receiving", 900.0, 1)
        with reception.database.read() as session:
            assert reviews.quarantine_counts(session) == {}


def test_what_is_dismissed_leaves_the_list(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        closed(reception, {"failed": "x"}, [JobState.FAILED])
        with reception.database.write() as session:
            for found in (session.get_one(Plan, 1), session.get_one(Job, 1)):
                reviews.dismiss(found)
        with reception.database.read() as session:
            assert reviews.quarantine_counts(session) == {}


def test_a_released_job_is_taken_up_once(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        closed(reception, {}, [JobState.WITHHELD, JobState.WITHHELD, JobState.FAILED])
        with reception.database.write() as session:
            assert [job.id for job in reviews.jobs_to_release(session, 1)] == [1, 2]
            session.get_one(Job, 1).review = "released"
        with reception.database.write() as session:
            assert [job.id for job in reviews.jobs_to_release(session, 1)] == [2]
            assert [job.id for job in reviews.released_jobs(session, "released")] == [1]
            assert reviews.take_up(session, 1, 700.0)
            assert not reviews.take_up(session, 1, 701.0)
        assert reception.rows(Job)[0].state == "enhanced"


def test_results_of_withheld_jobs_are_forgotten_after_their_time(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        closed(reception, {}, [JobState.WITHHELD, JobState.WITHHELD])
        with reception.database.write() as session:
            session.execute(update(Job).where(Job.id == 1).values(result="a", updated_at=100.0))
            session.execute(update(Job).where(Job.id == 2).values(result="b", updated_at=200.0))
            assert [job.result for job in reviews.results_withheld_before(session, 150.0)] == ["a"]
            reviews.forget_results(session, [1])
            assert reviews.results_withheld_before(session, 150.0) == []
        assert [job.result for job in reception.rows(Job)] == [None, "b"]


def test_what_is_withheld_is_counted_by_destination_and_reason(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        (job,) = closed(reception, {}, [JobState.DERIVED])
        with reception.database.write() as session:
            derived(session, job, 1, COMMISSIONING)
            derived(session, job, 2, COMMISSIONING)
            derived(session, job, 3, None)
            found = reviews.withheld_deliveries(session, ["pacs", "archive"])
        assert [(one.destination, one.reason, one.instances, one.series) for one in found] == [
            ("pacs", COMMISSIONING, 2, 2)
        ]


def test_release_lets_go_what_was_derived_from_a_series_and_nothing_else(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        (job,) = closed(reception, {}, [JobState.DERIVED])
        with reception.database.write() as session:
            derived(session, job, 1, "patient differs")
            derived(session, job, 2, "patient differs")
            one = session.scalars(select(Series.id).where(Series.series_instance_uid == "1.2.9.1")).one()
            assert reviews.release(session, reviews.of_series(one), [], 900.0) == 1
        assert waiting(reception) == [("ready", RELEASED), ("withheld", "patient differs")]
        with reception.database.write() as session:
            assert reviews.release(session, reviews.of_series(1), [], 901.0) == 1, "by the series it came from"
            assert reviews.release(session, reviews.of_series(1), [], 902.0) == 0, "twice changes nothing"
        rows = [row for row in reception.rows(Outbox) if row.origin == "derived"]
        assert [(row.state, row.created_at, row.next_attempt_at) for row in rows] == [
            ("ready", 900.0, 900.0), ("ready", 901.0, 901.0),
        ]  # fmt: skip


def test_what_commissioning_kept_is_compared_first_where_the_destination_is_asked(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        (job,) = closed(reception, {}, [JobState.DERIVED])
        with reception.database.write() as session:
            derived(session, job, 1, COMMISSIONING, "pacs")
            derived(session, job, 2, COMMISSIONING, "archive")
            derived(session, job, 3, NOT_CHECKED, "pacs")
            assert reviews.release(session, reviews.in_commissioning(502.0), ["pacs"], 900.0) == 1
            assert reviews.release(session, reviews.in_commissioning(0.0), ["pacs"], 900.0) == 1
        assert waiting(reception) == [("withheld", NOT_CHECKED), ("ready", RELEASED), ("withheld", NOT_CHECKED)]


def test_what_is_discarded_never_leaves(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        (job,) = closed(reception, {}, [JobState.DERIVED])
        with reception.database.write() as session:
            derived(session, job, 1, COMMISSIONING)
            derived(session, job, 2, None)
            assert reviews.discard(session, reviews.in_commissioning(0.0), 900.0) == 1
            assert reviews.release(session, reviews.in_commissioning(0.0), [], 901.0) == 0
        assert waiting(reception) == [("cancelled", DISCARDED), ("ready", None)]


def test_where_commissioning_begins_what_has_not_left_is_kept_but_not_what_was_released(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        (job,) = closed(reception, {}, [JobState.DERIVED])
        with reception.database.write() as session:
            derived(session, job, 1, COMMISSIONING)
            reviews.release(session, reviews.in_commissioning(0.0), [], 900.0)
            derived(session, job, 2, None)
            assert reviews.withhold_derived(session, ["another"]) == 0
            assert reviews.withhold_derived(session, None) == 1
        assert waiting(reception) == [("ready", RELEASED), ("withheld", COMMISSIONING)]
        originals = [row.state for row in reception.rows(Outbox) if row.origin == "received"]
        assert originals == ["ready"] * len(originals)
        assert len(reception.rows(Instance)) == 3
