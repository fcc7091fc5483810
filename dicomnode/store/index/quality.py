"""Quality reports of runs of engines and of phantoms, and their trends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Select, and_, func, select
from sqlalchemy.orm import Session

from dicomnode.core.drift import PHANTOM, SERIES, Chart, Charting, charts, sentence
from dicomnode.core.figures import FIGURES, TRENDED
from dicomnode.core.rules import Leaving
from dicomnode.core.scanners import Lineage
from dicomnode.store.index import replacing
from dicomnode.store.index.actions import record_action
from dicomnode.store.schema import Action, Derivation, Instance, Job, QualityRow, Series

Kind = Literal["job", "shadow", "constancy"]

REBASE: Final = "quality rebase"
"""The action by which a person says that a lineage's baseline begins anew; its subject is the lineage's key."""

_CHARTED: Final = 150
"""Reports at the beginning of a lineage, and at its end, that its charts are drawn of. Some lack some figures."""


@dataclass(frozen=True)
class Measured:
    """What is to be recorded of one output of a stage of a job.

    settings  resolved      report  the QualityReport as JSON      figures  the flat ones
    """

    stage: int
    kind: Kind
    lineage: Lineage
    passed: bool
    reasons: tuple[str, ...]
    report: Mapping[str, Any]
    figures: Mapping[str, float]
    card_digest: str = ""
    runtime: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    output: str = "image"


@dataclass(frozen=True)
class Pair:
    """The same stack by two versions of an engine: what each measured, and whether its gate passed."""

    series_row: int
    stack_key: str
    old: Mapping[str, float]
    new: Mapping[str, float]
    old_passed: bool
    new_passed: bool


def record(session: Session, job: Job, measured: Measured, now: float) -> QualityRow:
    """Store one report, in the place of one that is there for the same output, and judge its control charts with it."""
    known = select(QualityRow).where(
        QualityRow.job_row == job.id, QualityRow.stage == measured.stage, QualityRow.output == measured.output
    )
    row = session.scalar(known)
    if row is None:
        row = QualityRow(job_row=job.id, stage=measured.stage, output=measured.output)
        row.series_row, row.at = job.series_row, now
        session.add(row)
    row.stack_key = job.content["stack_key"]
    row.kind = measured.kind
    row.peer, row.device = measured.lineage.peer, measured.lineage.device
    row.protocol, row.engine, row.preset = measured.lineage.protocol, measured.lineage.engine, measured.lineage.preset
    row.card_digest, row.runtime, row.settings = measured.card_digest, measured.runtime, dict(measured.settings)
    row.passed, row.reasons = measured.passed, list(measured.reasons)
    row.figures, row.report = dict(measured.figures), dict(measured.report)
    row.seconds, row.drifts = measured.seconds, []
    session.flush()
    if row.kind != "shadow":
        row.drifts = _drifts(lineage_charts(session, measured.lineage))
    return row


def was_drifting(session: Session, lineage: Lineage) -> bool:
    """Whether the latest report of a lineage said that something drifts."""
    latest = _latest(session, lineage)
    return latest is not None and bool(latest.drifts)


def rebase(session: Session, lineage: Lineage, reason: str, now: float) -> None:
    """Begin the baseline of a lineage anew, as a person says: what drifted until now is settled."""
    record_action(session, REBASE, lineage.key, reason, now)
    latest = _latest(session, lineage)
    if latest is not None:
        latest.drifts = []


def _latest(session: Session, lineage: Lineage) -> QualityRow | None:
    rows = select(QualityRow).where(_of(lineage)).order_by(QualityRow.at.desc(), QualityRow.id.desc())
    return session.scalars(rows.limit(1)).first()


def lineage_of(row: QualityRow) -> Lineage:
    return Lineage(row.peer, row.device, row.protocol, row.engine, row.preset)


def reports_charted(session: Session, lineage: Lineage) -> int:
    """How many stacks were reported on in a lineage since its baseline began."""
    return session.scalar(select(func.count()).select_from(_charted(session, lineage).subquery())) or 0


def lineage_charts(session: Session, lineage: Lineage) -> dict[str, Chart]:
    """The control charts of a lineage by the figures' names: of its first reports, which are the baseline, and of its
    latest, which is as far as the smoothing remembers. A stack that was done again, as after a late slice or when it
    was sent twice, counts once."""
    charted = _charted(session, lineage).subquery()
    own = select(QualityRow.id, QualityRow.figures).where(QualityRow.id.in_(select(charted.c.id))).limit(_CHARTED)
    first = session.execute(own.order_by(QualityRow.at, QualityRow.id)).all()
    latest = session.execute(own.order_by(QualityRow.at.desc(), QualityRow.id.desc())).all()
    figures = {row: one for row, one in (*first, *reversed(latest))}  # noqa: C416  a Row is no tuple to mypy
    return charts(list(figures.values()), TRENDED, charting_of(lineage))


def charting_of(lineage: Lineage) -> Charting:
    return SERIES if lineage.engine else PHANTOM


def checks_of(job: Job, row: QualityRow) -> tuple[str, ...]:
    """A sentence for each thing that the gate after an engine checked of an output; of a phantom what is out of its
    limits."""
    stage: Mapping[str, Any] = job.stages[row.stage] if row.stage < len(job.stages) else {}
    gate = stage.get("outputs", {}).get(row.output, {}).get("after") or {}
    checks = [f"{'ok' if one['passed'] else 'NOT OK'}: {one['sentence']}" for one in gate.get("findings", ())]
    return tuple(checks or row.reasons)


def reports_of_series(session: Session, series_row: int) -> list[QualityRow]:
    """All reports on a received series, in the order of jobs and stages."""
    rows = select(QualityRow).where(QualityRow.series_row == series_row)
    return list(session.scalars(rows.order_by(QualityRow.job_row, QualityRow.stage, QualityRow.id)))


def reports_of_job(session: Session, job_row: int) -> list[QualityRow]:
    """The reports of one job, by stage and output."""
    rows = select(QualityRow).where(QualityRow.job_row == job_row)
    return list(session.scalars(rows.order_by(QualityRow.stage, QualityRow.id)))


def latest_of_lineages(session: Session, limit: int) -> list[QualityRow]:
    """The latest report of each lineage, of those that were last added to; never more than `limit`."""
    latest = (
        select(func.max(QualityRow.id))
        .where(QualityRow.kind != "shadow")
        .group_by(QualityRow.peer, QualityRow.device, QualityRow.protocol, QualityRow.engine, QualityRow.preset)
        .order_by(func.max(QualityRow.id).desc())
        .limit(limit)
    )
    return list(session.scalars(select(QualityRow).where(QualityRow.id.in_(latest)).order_by(QualityRow.id.desc())))


def pairs(session: Session, old: str, new: str, since: float = 0.0) -> list[Pair]:
    """Stacks that two versions (name@version) have both worked on with the same settings, in the order of the series.

    Where one did so several times, as after a late slice, its last report counts. A setting that only one of the
    versions has makes no difference.
    """
    by_engine = {engine: _latest_by_stack(session, engine, since) for engine in (old, new)}
    both = sorted(by_engine[old].keys() & by_engine[new].keys())
    return [
        Pair(*place, one.figures, other.figures, one.passed, other.passed)
        for place in both
        for one in by_engine[old][place].values()
        for other in by_engine[new][place].values()
        if all(one.settings[name] == other.settings[name] for name in one.settings.keys() & other.settings.keys())
    ]


def derived_slice(session: Session, job: Job, made: tuple[int, str], source_row: int) -> Instance | None:
    """The instance that was derived at the place of a source slice of what was made, (stage, output) of a job; None
    where that was not delivered."""
    stage, output = made
    if stage >= len(job.stages):
        return None
    leaving = Leaving(job.content["engines"][stage], "" if output == job.stages[stage]["output"] else output)
    series = replacing.series_of_output(job, leaving)
    rows = (
        select(Instance)
        .join(Derivation, Derivation.instance_row == Instance.id)
        .join(Series, Series.id == Instance.series_row)
        .where(
            Derivation.job_row == job.id,
            Derivation.source_row == source_row,
            Series.series_instance_uid == series,
            Instance.active,
        )
        .order_by(Instance.id)
    )
    return session.scalars(rows).first()


def series_uid(session: Session, row: QualityRow) -> str:
    """Series Instance UID of what a report is about."""
    return session.get_one(Series, row.series_row).series_instance_uid


def _latest_by_stack(session: Session, engine: str, since: float) -> dict[tuple[int, str], dict[str, QualityRow]]:
    """By stack and preset."""
    rows = select(QualityRow).where(QualityRow.engine == engine, QualityRow.at >= since).order_by(QualityRow.id)
    found: dict[tuple[int, str], dict[str, QualityRow]] = {}
    for row in session.scalars(rows):
        found.setdefault((row.series_row, row.stack_key), {})[row.preset] = row
    return found


def _drifts(charted: Mapping[str, Chart]) -> list[str]:
    return [
        sentence(FIGURES[name].meaning, FIGURES[name].unit, chart)
        for name, chart in charted.items()
        if chart.state == "drifting"
    ]


def _of(lineage: Lineage) -> ColumnElement[bool]:
    return and_(
        QualityRow.peer == lineage.peer,
        QualityRow.device == lineage.device,
        QualityRow.protocol == lineage.protocol,
        QualityRow.engine == lineage.engine,
        QualityRow.preset == lineage.preset,
        QualityRow.kind != "shadow",  # what is only tried out is compared, not charted
    )


def _charted(session: Session, lineage: Lineage) -> Select[int]:
    """Of each stack the last report since the baseline began."""
    last = select(func.max(QualityRow.id).label("id")).where(_since_baseline(session, lineage))
    return last.group_by(QualityRow.series_row, QualityRow.stack_key)


def _since_baseline(session: Session, lineage: Lineage) -> ColumnElement[bool]:
    """The reports of a lineage that count: all, or those after a person had the baseline begin anew."""
    at = session.scalar(select(func.max(Action.at)).where(Action.subject == lineage.key, Action.what == REBASE))
    return _of(lineage) if at is None else and_(_of(lineage), QualityRow.at > at)
