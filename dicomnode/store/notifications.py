"""What peers told us, made durable: results of storage commitment, procedure steps, what an archive has available."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dicomnode import metrics
from dicomnode.core.notification import Availability, CommitmentReport, SeriesContent, StepContent, StepState
from dicomnode.core.ports import Noted
from dicomnode.core.types import Expectation
from dicomnode.errors import StoreError
from dicomnode.store.database import Database
from dicomnode.store.index import proofs
from dicomnode.store.index.expectations import expect
from dicomnode.store.schema import ProcedureStep
from dicomnode.telemetry import event


@dataclass(frozen=True, slots=True)
class Listed:
    """What a peer lists of one study."""

    source: Literal["MPPS", "IAN"]
    peer: str
    study_instance_uid: str
    series: tuple[SeriesContent, ...]


class StoreNotifications:
    """`Notifications` (`dicomnode.core.ports`) over the index. For any thread."""

    def __init__(self, database: Database, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    def committed(self, peer: str, report: CommitmentReport) -> Noted:
        with self._written() as session:
            confirmed = proofs.record_report(session, peer, report, self._now())
        if confirmed is None:
            return Noted.UNKNOWN
        proofs.tell(confirmed)
        metrics.count("dicomnode_notifications_total", peer=peer, kind="commitment")
        return Noted.TAKEN

    def step_created(self, peer: str, sop_instance_uid: str, step: StepContent) -> Noted:
        now = self._now()
        with self._written() as session:
            if _step(session, sop_instance_uid) is not None:
                return Noted.KNOWN
            row = ProcedureStep(
                sop_instance_uid=sop_instance_uid,
                peer=peer,
                study_instance_uid=step.study_instance_uid,
                state=StepState.IN_PROGRESS.value,
                series=_listed(step),
                created_at=now,
                updated_at=now,
            )
            session.add(row)
        _tell_step(row)
        return Noted.TAKEN

    def step_changed(self, peer: str, sop_instance_uid: str, step: StepContent) -> Noted:
        """An end lets what the step lists be expected: nothing more will come (PS3.4 F.7.2.2)."""
        now = self._now()
        with self._written() as session:
            row = _step(session, sop_instance_uid)
            if row is None or row.peer != peer:
                return Noted.UNKNOWN
            if row.state != StepState.IN_PROGRESS:
                return Noted.FINAL
            row.state = (step.state or StepState.IN_PROGRESS).value
            row.study_instance_uid = row.study_instance_uid or step.study_instance_uid
            row.series = row.series if step.series is None else _listed(step)
            row.updated_at = now
            if row.state != StepState.IN_PROGRESS:
                listed = tuple((str(uid), tuple(members)) for uid, members in row.series)
                _expect_all(session, Listed("MPPS", peer, row.study_instance_uid, listed), now)
        _tell_step(row)
        return Noted.TAKEN

    def available(self, peer: str, availability: Availability) -> Noted:
        with self._written() as session:
            listed = Listed("IAN", peer, availability.study_instance_uid, availability.series)
            _expect_all(session, listed, self._now())
        metrics.count("dicomnode_notifications_total", peer=peer, kind="availability")
        event("availability_noted", peer=peer, instances=sum(len(members) for _, members in availability.series))
        return Noted.TAKEN

    @contextmanager
    def _written(self) -> Iterator[Session]:
        """A transaction whose errors are of the node: the text of the database's own may quote rows."""
        try:
            with self._database.write() as session:
                yield session
        except SQLAlchemyError as error:
            raise StoreError(
                f"the index took no row ({type(error).__name__})", "look at the disk; the peer will tell it again"
            ) from None


def _step(session: Session, sop_instance_uid: str) -> ProcedureStep | None:
    return session.scalars(select(ProcedureStep).where(ProcedureStep.sop_instance_uid == sop_instance_uid)).first()


def _listed(step: StepContent) -> list[Any]:
    return [[uid, list(members)] for uid, members in step.series or ()]


def _expect_all(session: Session, listed: Listed, now: float) -> None:
    """Expect what is listed; of a study that is not named nothing can be expected."""
    for uid, members in listed.series if listed.study_instance_uid else ():
        told = Expectation(uid, listed.study_instance_uid, listed.source, listed.peer, len(members), members)
        expect(session, told, now)


def _tell_step(row: ProcedureStep) -> None:
    metrics.count("dicomnode_notifications_total", peer=row.peer, kind="procedure-step")
    instances = sum(len(members) for _, members in row.series)
    event(
        "step_noted", peer=row.peer, sop_instance_uid=row.sop_instance_uid, state=row.state.lower(), instances=instances
    )
