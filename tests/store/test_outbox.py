"""The outbox: leases, order, retries, patience, and derived objects that follow their sources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from dicomnode.core.routing import DestinationPolicy
from dicomnode.core.rules import RuleSpec
from dicomnode.core.types import Outcome
from dicomnode.core.types import Receipt as Answer
from dicomnode.store.index import arrivals, deliveries, health, leases, outbox, overview, purges
from dicomnode.store.index.arrivals import Identity, StoredFile
from dicomnode.store.index.deliveries import Which
from dicomnode.store.index.outbox import MOST_ABORTS, DerivedOutgoing, Wanted
from dicomnode.store.index.retrying import RetryPolicy
from dicomnode.store.index.series import release_held
from dicomnode.store.schema import Destination, Instance, Outbox, OutboxState, Receipt, Series
from tests.store.receiving import SCANNER, Reception, ct_header, receiving, routing

RETRY = RetryPolicy(initial_s=10.0, maximum_s=80.0, patience_s=1000.0)
LATER = 5000.0

pytestmark = pytest.mark.both_databases


@pytest.fixture(name="reception")
def _reception(tmp_path: Path) -> Iterator[Reception]:
    rules = (
        RuleSpec("all", {"Modality": "*"}, send=("pacs", "archive")),
        RuleSpec("urgent", {"Modality": "DX"}, send=("pacs",), priority="urgent"),
    )
    with receiving(tmp_path, routing(*rules, policies={"archive": DestinationPolicy(True, "")})) as reception:
        yield reception


def ready(reception: Reception, destination: str = "pacs", now: float = LATER, limit: int = 64) -> list[str]:
    with reception.database.read() as session:
        found, _ = outbox.ready(session, destination, now, Wanted(limit))
        return [instance.sop_instance_uid for _, instance in found]


def answer(
    reception: Reception, row: int, outcome: Outcome, *, transient: bool = False, now: float = LATER
) -> OutboxState:
    status = {Outcome.SENT: 0x0000, Outcome.REFUSED: 0xA700}.get(outcome)
    with reception.database.write() as session:
        return outbox.record_answer(session, Answer(row, outcome, status, "meaning", "hint", transient), RETRY, now)


def row_of(reception: Reception, destination: str = "pacs", number: int = 0) -> Outbox:
    return [row for row in reception.rows(Outbox) if row.destination == destination][number]


def lease(reception: Reception, owner: str, now: float, until: float) -> bool:
    with reception.database.write() as session:
        leases.know(session, ["pacs"])
        return leases.take(session, "pacs", owner, now, until)


def test_one_owner_at_a_time_holds_a_lease_until_it_expires(reception: Reception) -> None:
    assert lease(reception, "one", 100.0, 160.0)
    assert not lease(reception, "two", 159.9, 220.0)
    assert lease(reception, "one", 150.0, 210.0), "its owner renews it"
    assert not lease(reception, "two", 209.0, 270.0)
    assert lease(reception, "two", 210.0, 270.0)
    assert not lease(reception, "one", 211.0, 270.0)


def test_a_lease_that_is_given_up_is_free(reception: Reception) -> None:
    lease(reception, "one", 100.0, 160.0)
    with reception.database.write() as session:
        leases.release(session, "two")
    assert not lease(reception, "two", 101.0, 161.0)
    with reception.database.write() as session:
        leases.release(session, "one")
    assert lease(reception, "two", 101.0, 161.0)


def test_urgent_comes_first_then_the_oldest(reception: Reception) -> None:
    reception.receive(ct_header(1))
    reception.receive(ct_header(2))
    reception.receive(ct_header(3, Modality="DX"))
    assert ready(reception) == ["1.2.3.4.3", "1.2.3.4.1", "1.2.3.4.2"]
    assert ready(reception, limit=2) == ["1.2.3.4.3", "1.2.3.4.1"]


def test_a_batch_has_one_calling_ae_title(tmp_path: Path) -> None:
    rule = RuleSpec("all", {"Modality": "*"}, send=("pacs",))
    with receiving(tmp_path, routing(rule, policies={"pacs": DestinationPolicy(calling_ae="")})) as reception:
        for number, calling in enumerate(("CT1", "CT2", "CT1")):
            reception.receive(ct_header(number), arrivals.Sender("", calling, "NODE", "", 1000.0))
        assert ready(reception) == ["1.2.3.4.0", "1.2.3.4.2"]
        for row in (0, 2):
            answer(reception, row_of(reception, number=row).id, Outcome.SENT)
        assert ready(reception) == ["1.2.3.4.1"]


def test_what_is_held_is_sent_once_its_series_is_closed(reception: Reception) -> None:
    reception.receive(ct_header())
    assert ready(reception, "archive") == []
    with reception.database.write() as session:
        release_held(session, reception.rows(Series)[0].id, LATER)
    assert ready(reception, "archive") == ["1.2.3.4.1"]


@pytest.mark.parametrize("outcome", [Outcome.SENT, Outcome.WARNING, Outcome.DUPLICATE])
def test_what_arrived_is_sent(reception: Reception, outcome: Outcome) -> None:
    reception.receive(ct_header())
    assert answer(reception, row_of(reception).id, outcome, now=1010.0) == OutboxState.SENT
    assert (row_of(reception).attempts, row_of(reception).finished_at) == (1, 1010.0)
    (receipt,) = reception.rows(Receipt)
    assert (receipt.outbox_row, receipt.at, receipt.outcome) == (row_of(reception).id, 1010.0, outcome.value)
    assert ready(reception) == []


def test_a_duplicate_is_no_success_where_other_bytes_have_arrived(reception: Reception) -> None:
    reception.receive(ct_header())
    first = row_of(reception).id
    assert answer(reception, first, Outcome.SENT) == OutboxState.SENT
    assert answer(reception, first, Outcome.DUPLICATE) == OutboxState.SENT, "its own bytes came twice"
    reception.receive(ct_header(PatientName="Roe^Jane"))
    corrected = row_of(reception, number=1).id
    assert answer(reception, corrected, Outcome.DUPLICATE) == OutboxState.FAILED
    assert "another version" in reception.rows(Receipt)[-1].meaning
    with reception.database.write() as session:
        purges.note(session, session.get_one(Series, 1), "older than 30 days", LATER)
    reception.receive(ct_header(PatientName="Roe^Jane"))
    assert answer(reception, row_of(reception, number=2).id, Outcome.DUPLICATE) == OutboxState.SENT


def test_a_lasting_refusal_ends_it_and_a_passing_one_is_tried_again(reception: Reception) -> None:
    reception.receive(ct_header(1))
    reception.receive(ct_header(2))
    assert answer(reception, row_of(reception, number=0).id, Outcome.REFUSED) == OutboxState.FAILED
    second = row_of(reception, number=1).id
    assert answer(reception, second, Outcome.REFUSED, transient=True, now=1100.0) == OutboxState.READY
    assert ready(reception, now=1109.9) == []
    assert ready(reception, now=1111.1) == ["1.2.3.4.2"]


def test_each_attempt_has_its_receipt_and_waits_longer(reception: Reception) -> None:
    reception.receive(ct_header())
    row, waits, now = row_of(reception).id, [], 1000.0
    for _ in range(6):
        answer(reception, row, Outcome.REFUSED, transient=True, now=now)
        waits.append(row_of(reception).next_attempt_at - now)
    for wait, plain in zip(waits, (10, 20, 40, 80, 80, 80), strict=True):
        assert plain <= wait <= 1.1 * plain
    assert [receipt.status for receipt in reception.rows(Receipt)] == [0xA700] * 6


@given(failures=st.integers(1, 10_000))
def test_a_wait_is_never_shorter_than_the_first_nor_longer_than_the_cap(failures: int) -> None:
    assert 10.0 <= RETRY.delay_s(failures) <= 88.0


def test_patience_ends_by_an_answer_or_by_silence(reception: Reception) -> None:
    for number in range(3):
        reception.receive(ct_header(number), at=1000.0 + 500.0 * number)
    with reception.database.write() as session:
        assert outbox.oldest_ready(session, "pacs") == 1000.0
        assert outbox.give_up(session, "pacs", 1501.0, 2501.0, limit=5) == 0, "it was never tried"
        session.execute(update(Outbox).values(attempts=1))
        assert outbox.give_up(session, "pacs", 1501.0, 2501.0, limit=1) == 1
        assert outbox.give_up(session, "pacs", 1501.0, 2501.0, limit=5) == 1
    assert [state for where, _, state in reception.outbox() if where == "pacs"] == ["failed", "failed", "ready"]
    assert [row.finished_at for row in reception.rows(Outbox) if row.state == "failed"] == [2501.0, 2501.0]
    assert reception.rows(Receipt)[-1].meaning == "not taken within the destination's patience"


def test_what_was_not_taken_in_time_is_told_once_in_an_outage(reception: Reception) -> None:
    lease(reception, "one", 100.0, 160.0)
    error = ("no answer", "look")
    with reception.database.write() as session:
        health.failed(session, "pacs", error, RETRY, 100.0)
        told = [outbox.is_to_be_told(session, "pacs", RETRY, now) for now in (200.0, 300.0, 1100.0)]
        assert told == [True, False, False]
        health.works(session, "pacs", 1150.0)
        health.failed(session, "pacs", error, RETRY, 1160.0)
        assert outbox.is_to_be_told(session, "pacs", RETRY, 1170.0)
        assert not outbox.is_to_be_told(session, "pacs", RETRY, 9999.0)


def test_what_a_destination_refuses_in_vain_is_told_once_in_its_patience(reception: Reception) -> None:
    lease(reception, "one", 100.0, 160.0)
    with reception.database.write() as session:
        told = [outbox.is_to_be_told(session, "pacs", RETRY, now) for now in (200.0, 1199.0, 1200.0, 1300.0)]
        assert told == [True, False, True, False]
        health.failed(session, "pacs", ("no answer", "look"), RETRY, 1400.0)
        told = [outbox.is_to_be_told(session, "pacs", RETRY, now) for now in (2500.0, 2600.0)]
        assert told == [True, False], "an outage is told though what was refused before it was told"


def test_an_instance_that_a_working_destination_aborts_at_is_at_fault_in_the_end(reception: Reception) -> None:
    reception.receive(ct_header())
    row = row_of(reception).id
    states = [answer(reception, row, Outcome.ABORTED, transient=True, now=LATER + n) for n in range(MOST_ABORTS)]
    assert states == [OutboxState.READY] * (MOST_ABORTS - 1) + [OutboxState.FAILED]
    with reception.database.write() as session:
        deliveries.send_again(session, Which((OutboxState.FAILED,)), LATER + 100, limit=1)
    assert answer(reception, row, Outcome.ABORTED, transient=True, now=LATER + 101) == OutboxState.READY


def test_while_the_destination_is_down_no_instance_is_at_fault(reception: Reception) -> None:
    reception.receive(ct_header())
    lease(reception, "one", 100.0, 160.0)
    with reception.database.write() as session:
        health.failed(session, "pacs", ("broke off", ""), RETRY, 100.0)
    row = row_of(reception).id
    for n in range(3 * MOST_ABORTS):
        assert answer(reception, row, Outcome.ABORTED, transient=True, now=LATER + n) == OutboxState.READY


@pytest.mark.parametrize("ended", [OutboxState.SENT, OutboxState.CANCELLED, OutboxState.FAILED])
def test_an_answer_that_comes_late_changes_no_end_unless_it_arrived(reception: Reception, ended: OutboxState) -> None:
    """Another machine has sent it meanwhile, or a person has cancelled it."""
    reception.receive(ct_header())
    row = row_of(reception).id
    with reception.database.write() as session:
        session.execute(update(Outbox).where(Outbox.id == row).values(state=ended.value))
    assert answer(reception, row, Outcome.REFUSED, transient=True) == ended
    assert row_of(reception).state == ended.value
    assert answer(reception, row, Outcome.SENT) == OutboxState.SENT


def test_what_came_just_now_does_not_wait_for_all_that_an_outage_has_left(reception: Reception) -> None:
    for number in range(1, 46):
        reception.receive(ct_header(number), at=1000.0 + number)
    reception.receive(ct_header(99, SeriesInstanceUID="1.2.3.9"), at=2000.0)
    assert "1.2.3.4.99" in ready(reception, limit=20), "though more than forty wait longer"


def test_situations_tell_what_is_to_be_done_where(reception: Reception) -> None:
    with reception.database.write() as session:
        leases.know(session, ["pacs", "archive", "idle"])
    reception.receive(ct_header(1, Modality="DX"))
    with reception.database.write() as session:
        health.pause(session, "archive", "maintenance", 1500.0)
        release_held(session, reception.rows(Series)[0].id, LATER)
        found = health.situations(session, ["pacs", "archive", "idle"], LATER)
    assert {name: (one.urgent, one.normal, one.paused) for name, one in found.items()} == {
        "pacs": (True, False, False),
        "archive": (False, True, True),
        "idle": (False, False, False),
    }


def test_a_pause_lasts_until_it_is_ended(reception: Reception) -> None:
    with reception.database.write() as session:
        assert health.pause(session, "pacs", "maintenance", 100.0)
        assert not health.pause(session, "pacs", "again", 101.0)
        assert health.resume(session, "pacs", 150.0)
        assert not health.resume(session, "pacs", 151.0)
        health.pause(session, "pacs", "", 300.0)
    with reception.database.read() as session:
        assert health.pauses_since(session, "pacs", 0.0) == [(100.0, 150.0), (300.0, None)]
        assert health.pauses_since(session, "pacs", 200.0) == [(300.0, None)]
        assert health.paused(session, "archive") is None


def test_a_machine_gives_up_the_leases_of_its_former_self_only(reception: Reception) -> None:
    lease(reception, leases.owner_on("a", "1"), 100.0, 160.0)
    with reception.database.write() as session:
        leases.release_of_machine(session, "b")
        leases.release_of_machine(session, "a_")
    assert not lease(reception, "b/1", 101.0, 161.0)
    with reception.database.write() as session:
        leases.release_of_machine(session, "a")
    assert lease(reception, "b/1", 101.0, 161.0)


def test_only_what_is_still_held_is_renewed(reception: Reception) -> None:
    lease(reception, "one", 100.0, 160.0)
    with reception.database.write() as session:
        assert leases.renew(session, "one", 159.0, 220.0) == {"pacs"}
        assert leases.renew(session, "two", 159.0, 220.0) == frozenset()
        assert leases.holders(session, 219.0) == {"pacs": "one"}
        assert leases.renew(session, "one", 220.0, 280.0) == frozenset(), "it has ended: another may have it"
        assert leases.holders(session, 220.0) == {}


def test_a_destination_that_fails_is_parked_longer_each_time_until_it_works(reception: Reception) -> None:
    lease(reception, "one", 100.0, 160.0)
    for failures, plain in ((1, 10.0), (2, 20.0), (3, 40.0)):
        with reception.database.write() as session:
            until = health.failed(session, "pacs", ("refused", "look"), RETRY, 200.0).down_until
        assert until is not None
        assert 200.0 + plain <= until <= 200.0 + 1.1 * plain
        (row,) = reception.rows(Destination)
        assert (row.failures, row.down_until, row.last_error, row.last_hint) == (failures, until, "refused", "look")
    with reception.database.write() as session:
        assert health.works(session, "pacs", 260.0) == 60.0
    (row,) = reception.rows(Destination)
    assert (row.failures, row.down_until, row.last_error, row.last_hint) == (0, None, None, None)


def derive(reception: Reception, *uids: str, file: str = "d", series: str = "2.25.1", job: int = 1) -> list[Instance]:
    source = reception.rows(Series)[0]
    files = [StoredFile(uid, "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", f"{file}{uid}", 10) for uid in uids]
    identity = Identity("P1", "", "1.2.3", "A1", series, "CT")
    with reception.database.write() as session:
        instances = arrivals.record_derived(session, identity, files, job, SCANNER)
        for destination in ("pacs", "archive"):
            to = DerivedOutgoing(destination, ("all",), "DICOMNODE", 100, source.id, hold_until=4000.0)
            outbox.enqueue_derived(session, instances, to, 1500.0)
    return instances


def derived_ready(reception: Reception, destination: str, now: float) -> list[str]:
    return [uid for uid in ready(reception, destination, now) if uid.startswith("2.25")]


def test_a_derived_object_waits_for_its_sources_at_that_destination_only(reception: Reception) -> None:
    reception.receive(ct_header(1))
    derive(reception, "2.25.11")
    assert derived_ready(reception, "pacs", 2000.0) == []
    answer(reception, row_of(reception, "pacs").id, Outcome.SENT)
    assert derived_ready(reception, "pacs", 2000.0) == ["2.25.11"]
    assert derived_ready(reception, "archive", 2000.0) == [], "its source is held there"


def test_a_derived_object_waits_for_no_other_series(reception: Reception) -> None:
    reception.receive(ct_header(1))
    reception.receive(ct_header(2, SeriesInstanceUID="1.2.3.9"))
    derive(reception, "2.25.11")
    answer(reception, row_of(reception, "pacs").id, Outcome.SENT)
    assert derived_ready(reception, "pacs", 2000.0) == ["2.25.11"]


def test_a_derived_object_waits_no_longer_than_it_may(reception: Reception) -> None:
    reception.receive(ct_header(1))
    derive(reception, "2.25.11")
    assert derived_ready(reception, "pacs", 3999.0) == []
    assert derived_ready(reception, "pacs", 4000.0) == ["2.25.11"]


def test_a_source_that_failed_for_good_is_not_waited_for(reception: Reception) -> None:
    reception.receive(ct_header(1))
    derive(reception, "2.25.11")
    answer(reception, row_of(reception, "pacs").id, Outcome.FAILED)
    assert derived_ready(reception, "pacs", 2000.0) == ["2.25.11"]


def test_the_first_derived_result_wins_and_is_enqueued_once(reception: Reception) -> None:
    reception.receive(ct_header(1))
    first = derive(reception, "2.25.11", "2.25.12")
    again = derive(reception, "2.25.12", "2.25.11", "2.25.13", file="other", job=2)
    assert [row.id for row in again[:2]] == [first[1].id, first[0].id]
    assert [row.file for row in again] == ["d2.25.12", "d2.25.11", "other2.25.13"]
    derived = [uid for where, uid, _ in reception.outbox() if where == "pacs" and uid.startswith("2.25")]
    assert derived == ["2.25.11", "2.25.12", "2.25.13"]


def test_what_was_sent_is_not_enqueued_again(reception: Reception) -> None:
    reception.receive(ct_header(1))
    derive(reception, "2.25.11")
    for row in reception.rows(Outbox):
        answer(reception, row.id, Outcome.SENT)
    derive(reception, "2.25.11", file="other", job=2)
    assert {state for _, _, state in reception.outbox()} == {"sent"}


def test_a_derived_series_is_closed_and_belongs_to_its_sources_study(reception: Reception) -> None:
    reception.receive(ct_header(1))
    derive(reception, "2.25.11")
    source, derived = reception.rows(Series)
    assert (derived.origin, derived.state, derived.due_at, derived.job_row) == ("derived", "closed", None, 1)
    assert derived.study_row == source.study_row
    (instance,) = [row for row in reception.rows(Instance) if row.series_row == derived.id]
    assert (instance.origin, instance.active, instance.derived_by_us) == ("derived", True, True)


def test_a_ready_row_is_not_sent_before_its_time(reception: Reception) -> None:
    reception.receive(ct_header(1))
    change: dict[str, Any] = {"next_attempt_at": 9000.0}
    with reception.database.write() as session:
        session.execute(update(Outbox).values(**change))
    assert ready(reception, now=8999.0) == []
    assert ready(reception, now=9000.0) == ["1.2.3.4.1"]


def test_what_the_configuration_keeps_back_is_neither_sent_nor_failed(reception: Reception) -> None:
    reception.receive(ct_header())
    row = reception.rows(Outbox)[0]
    kept = Answer(row.id, Outcome.EXCLUDED, None, "not allowed", "see sop_classes", transient=False)
    with reception.database.write() as session:
        assert outbox.record_answer(session, kept, RetryPolicy(), 1001.0) is OutboxState.EXCLUDED
    with reception.database.read() as session:
        assert overview.failed_deliveries(session, 10) == []
        delivery = overview.deliveries_of(session, 1)[0]
    assert (delivery.sent, delivery.waiting, delivery.failed, delivery.excluded) == (0, 0, 0, 1)
