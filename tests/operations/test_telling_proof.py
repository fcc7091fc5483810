"""What `why` tells of the proof that a destination holds a series."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.core.types import Outcome
from dicomnode.core.types import Receipt as Answer
from dicomnode.operations.telling.proof import proof_lines
from dicomnode.store.index import outbox, proofs
from dicomnode.store.index.retrying import RetryPolicy
from dicomnode.store.schema import Outbox, Proof, Series
from tests.store.receiving import Reception, ct_header, receiving

NOW = 1_700_000_000.0


@pytest.fixture(name="reception")
def _reception(tmp_path: Path) -> Iterator[Reception]:
    with receiving(tmp_path) as reception:
        for number in range(1, 9):
            reception.receive(ct_header(number))
        yield reception


def lines(reception: Reception) -> tuple[str, ...]:
    with reception.database.read() as session:
        return proof_lines(session, session.get_one(Series, 1))


def sent(reception: Reception) -> None:
    with reception.database.write() as session:
        answers = [Answer(row.id, Outcome.SENT, 0, "success", "", False) for row in session.query(Outbox)]
        outbox.record_answers(session, answers, RetryPolicy(), NOW)


def test_of_a_series_that_went_nowhere_nothing_is_told(reception: Reception) -> None:
    assert lines(reception) == ()


def test_a_series_is_sent_until_it_is_confirmed(reception: Reception) -> None:
    sent(reception)
    first, second = lines(reception)
    assert first == "proof at pacs: sent, 0 of 8 instances confirmed"
    assert second.startswith("  looked at again at 2023-11-1")
    with reception.database.write() as session:
        (case,) = proofs.claim(session, "pacs", NOW, NOW + 900, 8)
        proofs.confirm(session, [each.outbox_row for each in case.unproved], proofs.Method.FIND, NOW)
        proofs.put_off(session, case, None)
    assert lines(reception) == ("proof at pacs: confirmed, 8 of 8 instances confirmed (8 by find)",)


def test_what_lacks_is_named_with_what_was_done(reception: Reception) -> None:
    sent(reception)
    with reception.database.write() as session:
        (row,) = session.query(Proof)
        row.failures = {f"1.2.3.4.{number}": 0x0112 for number in range(2, 9)}
        row.method, row.asks, row.resends, row.due_at = "commitment", 2, 3, None
        row.meaning, row.hint = "7 not held", "look there"
        proofs.confirm(session, [1], proofs.Method.COMMITMENT, NOW)
    assert lines(reception) == (
        "proof at pacs: partial, 1 of 8 instances confirmed (1 by commitment)",
        "  lacks 1.2.3.4.2, 1.2.3.4.3, 1.2.3.4.4, 1.2.3.4.5, 1.2.3.4.6 and 2 more",
        "  asked by commitment 2 times; sent again 3 times; not asked any more: 7 not held; look there",
    )
    with reception.database.read() as session:
        ((proof, series),) = proofs.unproved_series(session, 20)
        assert (proof.destination, series.series_instance_uid) == ("pacs", "1.2.3.4")
        assert proofs.confirmed_counts(session) == {"pacs": 1}
