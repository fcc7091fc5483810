"""What is said of how many instances a series has, and which: evidence for its completeness."""

from __future__ import annotations

from sqlalchemy import case, select, update
from sqlalchemy.orm import Session

from dicomnode.core.types import Expectation
from dicomnode.store.schema import ExpectationRow, Series, SeriesState, Study


def expect(session: Session, expectation: Expectation, now: float) -> None:
    """Record what something says of a series, in place of what it said before; if the series is arriving, it is judged
    by it at once. The session is one of `Database.write`."""
    row = session.scalars(
        select(ExpectationRow).where(
            ExpectationRow.series_instance_uid == expectation.series_instance_uid,
            ExpectationRow.source == expectation.source,
            ExpectationRow.peer == expectation.peer,
        )
    ).first()
    if row is None:
        row = ExpectationRow(
            series_instance_uid=expectation.series_instance_uid, source=expectation.source, peer=expectation.peer
        )
        session.add(row)
    row.study_instance_uid = expectation.study_instance_uid
    row.instances = expectation.instances
    row.sop_instance_uids = None if expectation.sop_instance_uids is None else list(expectation.sop_instance_uids)
    row.at = now
    session.flush()
    _judge_now(session, expectation, now)


def expectations_of(session: Session, study_instance_uid: str, series_instance_uid: str) -> list[ExpectationRow]:
    """All that is said of a series, the latest last."""
    rows = select(ExpectationRow).where(
        ExpectationRow.series_instance_uid == series_instance_uid,
        ExpectationRow.study_instance_uid == study_instance_uid,
    )
    return list(session.scalars(rows.order_by(ExpectationRow.at, ExpectationRow.id)))


def _judge_now(session: Session, expectation: Expectation, now: float) -> None:
    study = select(Study.id).where(Study.study_instance_uid == expectation.study_instance_uid)
    session.execute(
        update(Series)
        .where(
            Series.series_instance_uid == expectation.series_instance_uid,
            Series.study_row == study.scalar_subquery(),
            Series.state == SeriesState.RECEIVING,
        )
        .values(due_at=case((Series.due_at < now, Series.due_at), else_=now))
        .execution_options(synchronize_session=False)
    )
