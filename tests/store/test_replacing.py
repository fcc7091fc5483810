"""Closings of a series in any order against a model: what the last one derived holds and is sent, and nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from dicomnode.core.types import Sender
from dicomnode.store.index import jobs as job_index
from dicomnode.store.index import outbox, replacing, withdrawals
from dicomnode.store.index.arrivals import Identity, StoredFile, record_derived
from dicomnode.store.schema import Instance, Job, JobState, Outbox, Series, Withdrawal
from tests.store.receiving import Reception, ct_header, receiving

US = Sender("", "DICOMNODE", "DICOMNODE", "", 1000.0)
TARGET = outbox.DerivedOutgoing("pacs", ("rule",), "DICOMNODE", 100, 1, 1000.0)
JOB = {
    "stack_key": "axial", "engines": ["engine"], "settings": {}, "priority": "normal",
    "outputs": [{"engine": "engine", "targets": []}],
}  # fmt: skip

SLICES = st.dictionaries(st.integers(1, 4), st.integers(0, 1), min_size=1)
"""What a closing finds: versions by the number of their slice."""

STEPS = st.lists(st.tuples(SLICES, st.sampled_from(["", "sent", "told", "undone"])), min_size=1, max_size=5)


@pytest.mark.parametrize("by_volume", [False, True])
@settings(max_examples=10, deadline=None)
@given(steps=STEPS)
def test_what_the_last_closing_derived_holds(by_volume: bool, steps: list[tuple[dict[int, int], str]]) -> None:
    with tempfile.TemporaryDirectory() as folder, receiving(Path(folder)) as reception:
        sources = received(reception)
        for generation, (slices, then) in enumerate(steps, start=1):
            uids = derived_uids(slices, by_volume)
            series = f"1.8.{'.'.join(uids.values())[-40:]}" if by_volume else "1.8"
            if then == "undone":  # it is planned, and never gets to derive
                with reception.database.write() as session:
                    planned(session, generation, [sources[one] for one in slices.items()])
                continue
            with reception.database.write() as session:
                job = planned(session, generation, [sources[one] for one in slices.items()])
                derive(session, job, (series, uids), by_volume)
            assert_holds(reception, set(uids.values()))
            arrive(reception, told=then == "told") if then else None


def received(reception: Reception) -> dict[tuple[int, int], int]:
    """Every version of every slice that there may be: its row."""
    for number in range(1, 5):
        for version in range(2):
            reception.receive(ct_header(number, PatientName=f"Version^{version}"))
    return {(int(row.sop_instance_uid[-1]), row.version): row.id for row in reception.rows(Instance)}


def derived_uids(slices: Mapping[int, int], by_volume: bool) -> dict[int, str]:
    """What Identity says, in short: of each slice, or of each slice and all of them."""
    whole = ".".join(f"{number}.{version}" for number, version in sorted(slices.items()))
    return {
        number: f"1.9.{number}.{version}" + (f".{whole}" if by_volume else "") for number, version in slices.items()
    }


def planned(session: Session, generation: int, instance_rows: list[int]) -> Job:
    (job,) = job_index.record_plan(session, 1, generation, {}, [(dict(JOB), instance_rows)], 1000.0)
    replacing.supersede_unfinished(session, [job], 1000.0)
    return job


def derive(session: Session, job: Job, made: tuple[str, Mapping[int, str]], by_volume: bool) -> None:
    series, uids = made
    files = [StoredFile(uid, "1.2", "1.2.840.10008.1.2.1", uid, 1) for uid in uids.values()]
    instances = record_derived(session, Identity("P1", "", "1.2.3", "A1", series, "CT"), files, job.id, US)
    sources = zip(instances, job.instance_rows, strict=True)
    replacing.record_derivations(session, job, tuple(sources), by_volume=by_volume)
    revived = replacing.revive(session, instances)
    outbox.enqueue_derived(session, revived.instances, TARGET, 1000.0)
    replacing.resume(session, revived, "pacs", None, 1000.0)
    job_index.end_job(session, job.id, JobState.DERIVED, [], 1000.0)
    job.derived_series = [series]
    replacing.supersede(session, job, 1000.0)


def arrive(reception: Reception, *, told: bool) -> None:
    """All that waits arrives; and the destination is told what holds no longer."""
    with reception.database.write() as session:
        session.execute(update(Outbox).where(Outbox.state == "ready").values(state="sent"))
        for note in withdrawals.due_withdrawals(session, "pacs") if told else ():
            withdrawals.record_note(session, note, "pacs", 1, 1000.0)


def assert_holds(reception: Reception, valid: set[str]) -> None:
    with reception.database.read() as session:
        rows = session.execute(
            select(Instance.sop_instance_uid, Outbox.state, Withdrawal.id)
            .join(Outbox, Outbox.instance_row == Instance.id)
            .outerjoin(Withdrawal, Withdrawal.instance_row == Instance.id)
            .where(Instance.origin == "derived")
        ).all()
    for uid, state, withdrawal in rows:
        assert (withdrawal is None) == (uid in valid), uid
        assert state in ({"ready", "sent"} if uid in valid else {"cancelled", "sent"}), uid
    assert {uid for uid, *_ in rows} >= valid
    unfinished = [job for job in reception.rows(Job) if job.state == "planned"]
    assert unfinished == []
    assert all(series.job_row is not None for series in reception.rows(Series) if series.origin == "derived")
