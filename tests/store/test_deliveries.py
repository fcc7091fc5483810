"""Deliveries as a person means them, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from dicomnode.core.rules import RuleSpec
from dicomnode.store.index import deliveries, health, leases
from dicomnode.store.index.deliveries import Which
from dicomnode.store.index.retrying import RetryPolicy
from dicomnode.store.schema import Destination, Outbox, OutboxState
from tests.store.receiving import Reception, ct_header, receiving, routing

pytestmark = pytest.mark.both_databases

READY = (OutboxState.READY,)


@pytest.fixture(name="reception")
def _reception(tmp_path: Path) -> Iterator[Reception]:
    """Two series of two studies, of two instances and one, for two destinations."""
    rule = RuleSpec("all", {"Modality": "*"}, send=("pacs", "archive"))
    with receiving(tmp_path, routing(rule)) as reception:
        for number, study in ((1, "1.2.3"), (2, "1.2.3"), (3, "1.2.9")):
            reception.receive(ct_header(number, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1"), at=number)
        yield reception


@pytest.mark.parametrize(
    ("which", "found"),
    [
        (Which(READY), {"archive": 3, "pacs": 3}),
        (Which(READY, "pacs"), {"pacs": 3}),
        (Which(READY, "pacs", study_instance_uid="1.2.3"), {"pacs": 2}),
        (Which(READY, None, None, "1.2.9.1"), {"archive": 1, "pacs": 1}),
        (Which(READY, "pacs", sop_instance_uid="1.2.3.4.2"), {"pacs": 1}),
        (Which(READY, "pacs", "1.2.9", "1.2.3.1"), {}),
        (Which((OutboxState.SENT,)), {}),
        (Which(READY, "x' OR 1=1 --"), {}),
    ],
)
def test_what_is_meant(reception: Reception, which: Which, found: dict[str, int]) -> None:
    with reception.database.read() as session:
        assert deliveries.counts(session, which) == found


def test_groups_are_the_series_of_each_destination_the_latest_first(reception: Reception) -> None:
    with reception.database.read() as session:
        found = deliveries.groups(session, Which(READY), 3)
    assert [(one.destination, one.series_instance_uid, one.instances, one.since) for one in found] == [
        ("archive", "1.2.9.1", 1, 3.0),
        ("pacs", "1.2.9.1", 1, 3.0),
        ("archive", "1.2.3.1", 2, 1.0),
    ]


def test_what_is_cancelled_and_sent_again_in_parts(reception: Reception) -> None:
    which = Which(READY, "pacs")
    with reception.database.write() as session:
        assert deliveries.cancel(session, which, "wrong", 100.0, limit=2) == 2
        assert deliveries.cancel(session, which, "wrong", 101.0, limit=2) == 1
        assert deliveries.cancel(session, which, "wrong", 102.0, limit=2) == 0
    rows = [row for row in reception.rows(Outbox) if row.destination == "pacs"]
    assert [(row.state, row.reason, row.finished_at) for row in rows] == [
        ("cancelled", "wrong", 100.0),
        ("cancelled", "wrong", 100.0),
        ("cancelled", "wrong", 101.0),
    ]


def test_what_is_sent_again_begins_anew(reception: Reception) -> None:
    failed = Which((OutboxState.FAILED,), "pacs")
    with reception.database.write() as session:
        session.execute(update(Outbox).values(state="failed", attempts=9, finished_at=50.0, next_attempt_at=1e9))
        assert deliveries.send_again(session, failed, 100.0, limit=10) == 3
        assert deliveries.send_again(session, failed, 100.0, limit=10) == 0
    rows = [row for row in reception.rows(Outbox) if row.destination == "pacs"]
    assert {(row.state, row.attempts, row.created_at, row.next_attempt_at, row.finished_at) for row in rows} == {
        ("ready", 0, 100.0, 100.0, None)
    }


def test_a_parked_destination_is_tried_at_once(reception: Reception) -> None:
    with reception.database.write() as session:
        leases.know(session, ["pacs", "archive"])
        health.failed(session, "pacs", ("no answer", ""), RetryPolicy(), 100.0)
        for name in ("pacs", "archive"):
            deliveries.try_now(session, name, 101.0)
    assert {row.name: row.down_until for row in reception.rows(Destination)} == {"pacs": 101.0, "archive": None}
