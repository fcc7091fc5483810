"""What peers told us, in the index: on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.core.notification import Availability, CommitmentReport, StepContent, StepState
from dicomnode.core.ports import Noted
from dicomnode.core.proof import Action, Step
from dicomnode.core.types import Outcome
from dicomnode.core.types import Receipt as Answer
from dicomnode.store.index import outbox, proofs
from dicomnode.store.index.retrying import RetryPolicy
from dicomnode.store.notifications import StoreNotifications
from dicomnode.store.schema import Commitment, ExpectationRow, Outbox, ProcedureStep, Proof, Series
from tests.store.receiving import Reception, ct_header, receiving

pytestmark = pytest.mark.both_databases
NOW = 5000.0
UIDS = [f"1.2.3.4.{number}" for number in (1, 2, 3)]
STEP_UID = "1.2.840.1"


@pytest.fixture(name="reception")
def _reception(tmp_path: Path) -> Iterator[Reception]:
    with receiving(tmp_path) as reception:
        for number in (1, 2, 3):
            reception.receive(ct_header(number))
        yield reception


@pytest.fixture(name="notifications")
def _notifications(reception: Reception) -> StoreNotifications:
    return StoreNotifications(reception.database, lambda: NOW)


def step(state: StepState | None, *uids: str) -> StepContent:
    return StepContent(state, "1.2.3", (("1.2.3.4", uids),) if uids else None)


def test_a_step_lets_what_it_lists_be_expected_at_its_end_only(
    reception: Reception, notifications: StoreNotifications
) -> None:
    assert notifications.step_created("ct1", STEP_UID, step(StepState.IN_PROGRESS)) is Noted.TAKEN
    assert notifications.step_changed("ct1", STEP_UID, step(None, *UIDS[:1])) is Noted.TAKEN
    assert reception.rows(ExpectationRow) == []
    assert notifications.step_changed("ct1", STEP_UID, step(StepState.COMPLETED, *UIDS)) is Noted.TAKEN
    (row,) = reception.rows(ExpectationRow)
    assert (row.series_instance_uid, row.study_instance_uid, row.source, row.peer) == (
        "1.2.3.4",
        "1.2.3",
        "MPPS",
        "ct1",
    )
    assert (row.instances, row.sop_instance_uids) == (3, UIDS)
    (series,) = reception.rows(Series)
    assert series.due_at is not None
    assert series.due_at <= NOW
    assert notifications.step_changed("ct1", STEP_UID, step(None, *UIDS[:1])) is Noted.FINAL
    assert reception.rows(ProcedureStep)[0].state == "COMPLETED"


def test_a_step_that_ends_with_what_it_had_listed_before_lets_that_be_expected(
    reception: Reception, notifications: StoreNotifications
) -> None:
    notifications.step_created("ct1", STEP_UID, step(StepState.IN_PROGRESS))
    notifications.step_changed("ct1", STEP_UID, step(None, *UIDS[:2]))
    notifications.step_changed("ct1", STEP_UID, step(StepState.DISCONTINUED))
    assert [row.sop_instance_uids for row in reception.rows(ExpectationRow)] == [UIDS[:2]]


def test_a_step_is_its_makers(reception: Reception, notifications: StoreNotifications) -> None:
    notifications.step_created("ct1", STEP_UID, step(StepState.IN_PROGRESS))
    assert notifications.step_created("ct2", STEP_UID, step(StepState.IN_PROGRESS)) is Noted.KNOWN
    assert notifications.step_changed("ct2", STEP_UID, step(StepState.COMPLETED, *UIDS)) is Noted.UNKNOWN
    assert notifications.step_changed("ct1", "1.2.840.2", step(StepState.COMPLETED, *UIDS)) is Noted.UNKNOWN
    assert reception.rows(ExpectationRow) == []


def test_what_an_archive_has_available_is_expected(reception: Reception, notifications: StoreNotifications) -> None:
    notifications.available("pacs", Availability("1.2.3", (("1.2.3.4", tuple(UIDS)), ("1.2.3.5", ("1.2.3.5.1",)))))
    notifications.available("pacs", Availability("", (("1.2.3.6", ("1.2.3.6.1",)),)))  # of no study that it names
    rows = [(row.series_instance_uid, row.source, row.instances) for row in reception.rows(ExpectationRow)]
    assert rows == [("1.2.3.4", "IAN", 3), ("1.2.3.5", "IAN", 1)]


def sent(reception: Reception, at: float = NOW) -> None:
    """All that waits was answered with success."""
    with reception.database.write() as session:
        rows = [row.id for row in session.query(Outbox) if row.state == "ready"]
        answers = [Answer(row, Outcome.SENT, 0, "success", "", False) for row in rows]
        outbox.record_answers(session, answers, RetryPolicy(), at)


def asked(reception: Reception, *uids: str, transaction_uid: str = "1.2.99", at: float = NOW) -> None:
    """A commitment was asked for."""
    with reception.database.write() as session:
        (case,) = proofs.claim(session, "pacs", at, at + 900, 8)
        proofs.asked(session, case, proofs.Method.COMMITMENT, 1, at)
        rows = {each.sop_instance_uid: each.outbox_row for each in case.unproved}
        proofs.commitment_asked(
            session,
            Commitment(
                transaction_uid=transaction_uid,
                proof_row=case.proof_row,
                peer="pacs",
                outbox_rows=[rows[uid] for uid in uids],
                sop_instance_uids=list(uids),
                asked_at=at,
                answered_at=None,
            ),
        )


def confirmed(reception: Reception) -> list[str | None]:
    return [row.confirmed_by for row in reception.rows(Outbox)]


def test_a_report_confirms_what_it_names_and_keeps_why_it_fails_others(
    reception: Reception, notifications: StoreNotifications
) -> None:
    sent(reception)
    asked(reception, *UIDS)
    report = CommitmentReport("1.2.99", tuple(UIDS[:2]), {UIDS[2]: 0x0112, "1.2.666": 0x0110}, is_whole=False)
    for _ in range(2):  # a report may come twice
        assert notifications.committed("pacs", report) is Noted.TAKEN
        assert confirmed(reception) == ["commitment", "commitment", None]
    (proof,) = reception.rows(Proof)
    assert proof.failures == {UIDS[2]: 0x0112}
    assert (proof.asked_at, proof.answered_at, proof.due_at) == (None, NOW, NOW)
    assert proof.hint


def test_a_report_that_all_is_kept_needs_to_name_nothing(
    reception: Reception, notifications: StoreNotifications
) -> None:
    sent(reception)
    asked(reception, *UIDS[:2])
    assert notifications.committed("pacs", CommitmentReport("1.2.99", (), {}, is_whole=True)) is Noted.TAKEN
    assert confirmed(reception) == ["commitment", "commitment", None]


@pytest.mark.parametrize(
    ("peer", "transaction_uid"), [("other", "1.2.99"), ("pacs", "1.2.98"), ("", "1.2.99"), ("pacs", "")]
)
def test_a_report_counts_only_from_who_was_asked_in_that_transaction(
    reception: Reception, notifications: StoreNotifications, peer: str, transaction_uid: str
) -> None:
    sent(reception)
    asked(reception, *UIDS)
    report = CommitmentReport(transaction_uid, tuple(UIDS), {}, is_whole=True)
    assert notifications.committed(peer, report) is Noted.UNKNOWN
    assert confirmed(reception) == [None, None, None]
    (proof,) = reception.rows(Proof)
    assert proof.asked_at == NOW


def test_a_report_confirms_nothing_that_was_not_asked_for_or_is_to_be_sent_again(
    reception: Reception, notifications: StoreNotifications
) -> None:
    sent(reception)
    asked(reception, *UIDS[:2])
    with reception.database.write() as session:
        row = session.get_one(Outbox, reception.rows(Outbox)[0].id)
        row.state = "ready"
    notifications.committed("pacs", CommitmentReport("1.2.99", tuple(UIDS), {}, is_whole=True))
    assert confirmed(reception) == [None, "commitment", None]


def test_an_answer_is_whole_once_every_transaction_has_its_report(
    reception: Reception, notifications: StoreNotifications
) -> None:
    sent(reception)
    asked(reception, *UIDS[:2])
    with reception.database.write() as session:
        session.add(
            Commitment(
                transaction_uid="1.2.100", proof_row=reception.rows(Proof)[0].id, peer="pacs", asked_at=NOW,
                outbox_rows=[reception.rows(Outbox)[2].id], sop_instance_uids=UIDS[2:], answered_at=None,
            )
        )  # fmt: skip
    notifications.committed("pacs", CommitmentReport("1.2.100", (), {UIDS[2]: 0x0110}, is_whole=False))
    assert reception.rows(Proof)[0].asked_at == NOW
    notifications.committed("pacs", CommitmentReport("1.2.99", tuple(UIDS[:2]), {}, is_whole=True))
    (proof,) = reception.rows(Proof)
    assert (proof.asked_at, proof.answered_at) == (None, NOW)
    assert proof.failures == {UIDS[2]: 0x0110}


def test_who_looks_at_a_series_has_it_to_himself_until_more_is_sent(reception: Reception) -> None:
    sent(reception)
    with reception.database.write() as session:
        (case,) = proofs.claim(session, "pacs", NOW, NOW + 900, 8)
        assert proofs.claim(session, "pacs", NOW + 899, NOW + 1800, 8) == []
        proofs.put_off(session, case, None)
    reception.receive(ct_header(4))
    sent(reception, NOW + 10)
    with reception.database.write() as session:
        (again,) = proofs.claim(session, "pacs", NOW + 10, NOW + 900, 8)
    reception.receive(ct_header(5))
    sent(reception, NOW + 11)
    with reception.database.write() as session:
        proofs.put_off(session, again, None)  # what came since must be looked at
        assert proofs.is_due(session, "pacs", NOW + 11)


def test_what_was_given_up_is_asked_anew_when_a_person_wants_it(reception: Reception) -> None:
    sent(reception)
    with reception.database.write() as session:
        assert proofs.begin_anew(session, None, None, NOW) == []  # it is still being asked
        (case,) = proofs.claim(session, "pacs", NOW, NOW + 900, 8)
        row = session.get_one(Proof, case.proof_row)
        row.resends, row.asks, row.failures = 3, 2, {UIDS[0]: 0x0112}
        proofs.give_up(session, case, Step(Action.GIVE_UP, meaning="1 not held", hint="look there"))
    with reception.database.write() as session:
        assert proofs.begin_anew(session, "archive", None, NOW) == []
        assert proofs.begin_anew(session, "pacs", "1.2.3.5", NOW) == []
        assert proofs.begin_anew(session, "pacs", "1.2.3.4", NOW) == [("pacs", "1.2.3.4")]
        (again,) = proofs.claim(session, "pacs", NOW, NOW + 900, 8)
    assert (again.sight.resends, again.sight.asks, again.sight.failures) == (0, 0, {})


def test_a_transaction_without_a_result_is_forgotten_after_a_month(reception: Reception) -> None:
    sent(reception)
    asked(reception, *UIDS)
    for days, there in ((29.9, 1), (30.1, 0)):
        with reception.database.write() as session:
            proofs.forget_commitments(session, NOW + days * 86400)
        assert len(reception.rows(Commitment)) == there


def test_a_result_may_be_told_twice_for_a_day(reception: Reception, notifications: StoreNotifications) -> None:
    sent(reception)
    asked(reception, *UIDS)
    notifications.committed("pacs", CommitmentReport("1.2.99", tuple(UIDS), {}, is_whole=True))
    for seconds, there in ((86399, 1), (86401, 0)):
        with reception.database.write() as session:
            proofs.forget_commitments(session, NOW + seconds)
        assert len(reception.rows(Commitment)) == there
