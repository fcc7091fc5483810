"""The node's tables: its truth about what arrived, what was decided, and what was delivered where.

The workflow engine keeps its own tables in the same database and holds row ids of these only. Times are seconds since
the epoch, UTC. Lists and reports are JSON text.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, MetaData, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012  SQLAlchemy's own attribute


_LARGE = BigInteger().with_variant(Integer, "sqlite")
"""64 bits everywhere; SQLite's integers all are, and only one called INTEGER may be a row id."""


class Origin(StrEnum):
    RECEIVED = "received"
    DERIVED = "derived"


class SeriesState(StrEnum):
    """HELD is incomplete at its deadline, where a person is to say how it goes on (`on_deadline = "hold"`)."""

    RECEIVING = "receiving"
    CLOSED = "closed"
    HELD = "held"


class JobState(StrEnum):
    """A job is one stack through one chain of engines. All but the first two are ends.

    SUPERSEDED by another job, after a slice came late or changed; CANCELLED since its sources were rejected.
    """

    PLANNED = "planned"
    ENHANCED = "enhanced"
    DERIVED = "derived"
    REFUSED = "refused"
    WITHHELD = "withheld"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"


class OutboxState(StrEnum):
    """HELD waits for its series to close; READY is sent as soon as the destination takes it; the others are ends.

    WITHHELD waits for a person or a check, the row's `reason` says for what; released it is READY.
    EXCLUDED is what our own configuration keeps from the destination. CANCELLED is what is not to be sent any more.
    """

    HELD = "held"
    READY = "ready"
    SENT = "sent"
    FAILED = "failed"
    EXCLUDED = "excluded"
    WITHHELD = "withheld"
    CANCELLED = "cancelled"


class Association(Base):
    """One association by which a sender gave us instances: evidence for completeness.

    The receiver draws the id, so that the row can wait for the first instance. `owner` is the receiver.
    """

    __tablename__ = "association"
    id: Mapped[int] = mapped_column(_LARGE, primary_key=True, autoincrement=False)
    owner: Mapped[str]
    peer: Mapped[str]
    calling_ae: Mapped[str]
    called_ae: Mapped[str]
    source_address: Mapped[str]
    opened_at: Mapped[float]
    ended_at: Mapped[float | None] = mapped_column(index=True)
    ended: Mapped[str | None]


class Patient(Base):
    __tablename__ = "patient"
    __table_args__ = (UniqueConstraint("patient_id", "issuer"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    patient_id: Mapped[str]
    issuer: Mapped[str]


class Study(Base):
    __tablename__ = "study"
    id: Mapped[int] = mapped_column(primary_key=True)
    patient_row: Mapped[int] = mapped_column(ForeignKey("patient.id"))
    study_instance_uid: Mapped[str] = mapped_column(unique=True)
    accession_number: Mapped[str] = mapped_column(index=True)


class Series(Base):
    """`generation` counts how often the series was closed: a late slice opens it again. `planned_generation` is the one
    that the last plan is of, 0 before the first.

    `due_at` is when its completeness is judged next; None while it is closed. `opened_at` is when the first instance of
    this opening came. `close_by` is the person who wants it closed now. `job_row` is the first job that made a derived
    series (no foreign key: jobs refer to the series they came from).
    """

    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("study_row", "series_instance_uid"), Index(None, "state", "due_at"))
    id: Mapped[int] = mapped_column(primary_key=True)
    study_row: Mapped[int] = mapped_column(ForeignKey("study.id"))
    series_instance_uid: Mapped[str] = mapped_column(index=True)
    modality: Mapped[str]
    origin: Mapped[str]
    job_row: Mapped[int | None]
    state: Mapped[str]
    generation: Mapped[int]
    planned_generation: Mapped[int]
    expected: Mapped[int | None]
    expected_source: Mapped[str]
    quiet_s: Mapped[float]
    released_quiet_s: Mapped[float]
    deadline_s: Mapped[float]
    quiet_min_s: Mapped[float]
    quiet_max_s: Mapped[float]
    longest_s: Mapped[float]
    on_deadline: Mapped[str]
    opened_at: Mapped[float]
    close_by: Mapped[str | None]
    first_at: Mapped[float]
    last_at: Mapped[float]
    due_at: Mapped[float | None]
    closed_at: Mapped[float | None]
    verdict: Mapped[dict[str, Any] | None]


UNPLANNED: Final = Series.planned_generation < Series.generation
"""Of a series whose last closing has no plan yet: these few are in an index of their own, however many are stored."""
Index("ix_series_unplanned", Series.state, Series.closed_at, sqlite_where=UNPLANNED, postgresql_where=UNPLANNED)


class PaceRow(Base):
    """What is learned of one sender's pauses (`dicomnode.core.quiet.Pace`). `sender` is a peer, or the AE title and
    address of a caller that has no name; `learned_to` the last row of `instance` that there was then."""

    __tablename__ = "pace"
    sender: Mapped[str] = mapped_column(primary_key=True)
    content: Mapped[dict[str, Any]]
    learned_to: Mapped[int]
    updated_at: Mapped[float]


class ExpectationRow(Base):
    """What something says that a series holds (`dicomnode.core.types.Expectation`); it may come before the series."""

    __tablename__ = "expectation"
    __table_args__ = (UniqueConstraint("series_instance_uid", "source", "peer"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    series_instance_uid: Mapped[str] = mapped_column(index=True)
    study_instance_uid: Mapped[str] = mapped_column(index=True)
    source: Mapped[str]
    peer: Mapped[str]
    instances: Mapped[int | None]
    sop_instance_uids: Mapped[list[Any] | None]
    at: Mapped[float]


class Instance(Base):
    """One stored version of a SOP instance. `active` is the newest version of its SOP Instance UID.

    `version` counts the different bytes that came under the UID, from 0: two receivers that take in the same UID at
    once collide there. `file` is the key of its bytes (`dicomnode.store.files`). `matched` is False where no rule
    wanted to forward it; `rules_digest` tells which rules it was judged by.
    `kept_back` holds a sentence for each thing that the loop protection did not let it do.
    `position_mm` is the position along the normal of `orientation`, both None where the object has no geometry.
    """

    __tablename__ = "instance"
    __table_args__ = (UniqueConstraint("sop_instance_uid", "version"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    series_row: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    association_row: Mapped[int | None] = mapped_column(_LARGE, ForeignKey("association.id"))
    sop_instance_uid: Mapped[str]
    sop_class_uid: Mapped[str]
    version: Mapped[int]
    transfer_syntax_uid: Mapped[str]
    file: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(_LARGE)
    origin: Mapped[str]
    peer: Mapped[str]
    calling_ae: Mapped[str]
    called_ae: Mapped[str]
    source_address: Mapped[str]
    received_at: Mapped[float]
    active: Mapped[bool]
    matched: Mapped[bool]
    rules_digest: Mapped[str]
    kept_back: Mapped[list[Any]]
    derived_by_us: Mapped[bool]
    position_mm: Mapped[float | None]
    orientation: Mapped[str | None]


class Outbox(Base):
    """One instance for one destination. `after_series` is the series whose originals go first, until `hold_until`.

    `created_at` is since when it waits: a retry or a release sets it anew. `reason` tells why it is withheld or
    cancelled.
    `confirmed_by` is what proved that the destination holds it: commitment, find or receipts.
    """

    __tablename__ = "outbox"
    __table_args__ = (
        UniqueConstraint("instance_row", "destination"),
        Index(None, "destination", "state", "priority", "next_attempt_at"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    destination: Mapped[str]
    instance_row: Mapped[int] = mapped_column(ForeignKey("instance.id"))
    origin: Mapped[str]
    rules: Mapped[list[Any]]
    calling_ae: Mapped[str]
    priority: Mapped[int]
    state: Mapped[str]
    reason: Mapped[str | None]
    after_series: Mapped[int | None] = mapped_column(ForeignKey("series.id"))
    hold_until: Mapped[float | None]
    attempts: Mapped[int]
    next_attempt_at: Mapped[float]
    created_at: Mapped[float]
    finished_at: Mapped[float | None]
    confirmed_at: Mapped[float | None]
    confirmed_by: Mapped[str | None]


class Receipt(Base):
    """The answer to one attempt at one outbox row."""

    __tablename__ = "receipt"
    id: Mapped[int] = mapped_column(primary_key=True)
    outbox_row: Mapped[int] = mapped_column(ForeignKey("outbox.id"), index=True)
    at: Mapped[float]
    outcome: Mapped[str]
    status: Mapped[int | None]
    meaning: Mapped[str]
    hint: Mapped[str]


class Destination(Base):
    """Health and lease of a destination. One drainer at a time owns it until `lease_until`, by the database's clock.

    `down_since` is when the outage began; `held_told_at` when it was said that something was not taken in time.
    """

    __tablename__ = "destination"
    name: Mapped[str] = mapped_column(primary_key=True)
    lease_owner: Mapped[str | None]
    lease_until: Mapped[float | None]
    failures: Mapped[int]
    down_since: Mapped[float | None]
    down_until: Mapped[float | None]
    held_told_at: Mapped[float | None]
    last_error: Mapped[str | None]
    last_hint: Mapped[str | None]


class Pause(Base):
    """A time in which a person wanted nothing to be sent to a destination; it lasts while `resumed_at` is None."""

    __tablename__ = "pause"
    __table_args__ = (Index(None, "destination", "resumed_at"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    destination: Mapped[str]
    paused_at: Mapped[float]
    resumed_at: Mapped[float | None]
    who: Mapped[str]
    reason: Mapped[str]


class Action(Base):
    """Something that a person did: `what` to which `subject` (a UID, a row id, a configured name), and why."""

    __tablename__ = "action"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[float] = mapped_column(index=True)
    who: Mapped[str]
    what: Mapped[str]
    subject: Mapped[str] = mapped_column(index=True)
    reason: Mapped[str]


class Plan(Base):
    """The RoutingPlan of one closing of a series, with its explanation.

    `trouble` is what a person should look at: "failed" (no plan could be made), "unreadable" (some instances cannot be
    read), or ""; `review` what a person decided of it, or "".
    """

    __tablename__ = "plan"
    __table_args__ = (UniqueConstraint("series_row", "generation"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    series_row: Mapped[int] = mapped_column(ForeignKey("series.id"))
    generation: Mapped[int]
    created_at: Mapped[float]
    content: Mapped[dict[str, Any]]
    trouble: Mapped[str] = mapped_column(index=True)
    review: Mapped[str]


class Purge(Base):
    """The files of a series that retention deleted; its rows stay, and tell of it.

    Those of its instances whose row id is `through` or less have no file any more: what came later has one. `at` is
    when that was decided, before any file was touched; `removed_at` when the last of them was gone.
    """

    __tablename__ = "purge"
    series_row: Mapped[int] = mapped_column(ForeignKey("series.id"), primary_key=True, autoincrement=False)
    through: Mapped[int]
    instances: Mapped[int]
    size_bytes: Mapped[int] = mapped_column(_LARGE)
    reason: Mapped[str]
    at: Mapped[float]
    removed_at: Mapped[float | None] = mapped_column(index=True)


class PatientCheck(Base):
    """What a destination said of patient and study when it was asked before derived objects left for it.

    `outcome` is "same", "differs", or why it could not be asked; `differences` the keywords, our values and theirs.
    """

    __tablename__ = "patient_check"
    __table_args__ = (UniqueConstraint("study_row", "destination"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    study_row: Mapped[int] = mapped_column(ForeignKey("study.id"))
    destination: Mapped[str]
    at: Mapped[float]
    outcome: Mapped[str]
    differences: Mapped[list[Any]]


class DiskUse(Base):
    """How full a disk of a machine was, about once an hour and whenever its level changed.

    `disk` is "files" or, where the index is a file on another one, "index"; `level` a `dicomnode.core.disk.Level`.
    """

    __tablename__ = "disk_use"
    machine: Mapped[str] = mapped_column(primary_key=True)
    disk: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[float] = mapped_column(primary_key=True, autoincrement=False)
    free_bytes: Mapped[int] = mapped_column(_LARGE)
    total_bytes: Mapped[int] = mapped_column(_LARGE)
    level: Mapped[str]


class NeedState(StrEnum):
    """WAITING for more series; DUE: its job is made now, of what there is; FIRED: it was; HELD waits for a person;
    ENDED: at its deadline there was no input."""

    WAITING = "waiting"
    DUE = "due"
    FIRED = "fired"
    HELD = "held"
    ENDED = "ended"


class StudyNeed(Base):
    """One rule with `needs` for one study: which are fulfilled, and when the others are waited for no longer.

    `needs` are all of them by name, the first the input; `met` gives for each that is fulfilled the series row,
    generation, Series Instance UID, stack key and instance rows. `content` is the planned job of the first, once there.
    """

    __tablename__ = "study_need"
    __table_args__ = (UniqueConstraint("study_row", "rule"), Index(None, "state", "due_at"))
    id: Mapped[int] = mapped_column(primary_key=True)
    study_row: Mapped[int] = mapped_column(ForeignKey("study.id"))
    rule: Mapped[str]
    needs: Mapped[list[Any]]
    met: Mapped[dict[str, Any]]
    content: Mapped[dict[str, Any] | None]
    on_deadline: Mapped[str]
    state: Mapped[str]
    due_at: Mapped[float | None]
    job_row: Mapped[int | None]


class Job(Base):
    """One stack of one closing of a series, through one chain of engines.

    `content` is the planned job; `instance_rows` its slices in order; `stages` what each engine reported;
    `derived_series` the Series Instance UIDs that it made or added to; `review` what a person decided of how it ended
    (`dicomnode.core.review`), or "". `supersedes` and `superseded_by` are the jobs on the same stack before and after
    it, where a slice came late or changed in between.
    """

    __tablename__ = "job"
    __table_args__ = (UniqueConstraint("series_row", "generation", "ordinal"), Index(None, "state", "review"))
    id: Mapped[int] = mapped_column(primary_key=True)
    series_row: Mapped[int] = mapped_column(ForeignKey("series.id"))
    generation: Mapped[int]
    ordinal: Mapped[int]
    content: Mapped[dict[str, Any]]
    instance_rows: Mapped[list[Any]]
    state: Mapped[str]
    reasons: Mapped[list[Any]]
    stages: Mapped[list[Any]]
    derived_series: Mapped[list[Any]]
    result: Mapped[str | None]
    review: Mapped[str]
    supersedes: Mapped[int | None]
    superseded_by: Mapped[int | None]
    created_at: Mapped[float]
    updated_at: Mapped[float]


class QualityRow(Base):
    """Figures of one output of an engine on one stack (`dicomnode.core.figures`), or of a phantom as it was scanned.

    `kind` is "job", "shadow" (a version that is only tried out) or "constancy". `peer`, `device`, `protocol`, `engine`
    and `preset` are what trends are kept by (`dicomnode.core.scanners.Lineage`): hashes, no text of a data set.
    `engine` is name@version, with :output behind it where that is not the main one; "" of a phantom. `report` is the
    QualityReport as JSON, `figures` the flat ones, `passed` what the gate said, `reasons` its sentences; `drifts`
    what the control charts said when it was recorded.
    """

    __tablename__ = "quality_report"
    __table_args__ = (
        UniqueConstraint("job_row", "stage", "output"),
        Index(None, "peer", "device", "protocol", "engine", "preset", "at"),
        Index(None, "engine", "series_row"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    job_row: Mapped[int] = mapped_column(ForeignKey("job.id"))
    stage: Mapped[int]
    output: Mapped[str]
    series_row: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    stack_key: Mapped[str]
    kind: Mapped[str]
    peer: Mapped[str]
    device: Mapped[str]
    protocol: Mapped[str]
    engine: Mapped[str]
    preset: Mapped[str]
    card_digest: Mapped[str]
    runtime: Mapped[str]
    settings: Mapped[dict[str, Any]]
    passed: Mapped[bool]
    reasons: Mapped[list[Any]]
    figures: Mapped[dict[str, Any]]
    report: Mapped[dict[str, Any]]
    drifts: Mapped[list[Any]]
    seconds: Mapped[float]
    at: Mapped[float]


class Late(Base):
    """A received instance that came after its series was closed for the `generation`th time, and what becomes of it:
    a value of `dicomnode.core.types.LatePolicy`. Instances without a row came in time."""

    __tablename__ = "late"
    instance_row: Mapped[int] = mapped_column(ForeignKey("instance.id"), primary_key=True, autoincrement=False)
    series_row: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    generation: Mapped[int]
    policy: Mapped[str]


class Derivation(Base):
    """One derived instance as an output of a job; `source_row` is the source slice at its place, and `by_volume` says
    that all sources of the job influenced it. Several jobs may have made the same instance."""

    __tablename__ = "derivation"
    __table_args__ = (UniqueConstraint("job_row", "instance_row"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    job_row: Mapped[int] = mapped_column(ForeignKey("job.id"))
    instance_row: Mapped[int] = mapped_column(ForeignKey("instance.id"), index=True)
    source_row: Mapped[int] = mapped_column(ForeignKey("instance.id"), index=True)
    by_volume: Mapped[bool]


class Withdrawal(Base):
    """A derived instance that holds no longer: superseded by what job `job_row` made, or its sources were rejected.

    `title` is the code value of the rejection note that says so where it was delivered (PS3.16 CID 7010). `settled`:
    nobody is to be told of it any more.
    """

    __tablename__ = "withdrawal"
    id: Mapped[int] = mapped_column(primary_key=True)
    instance_row: Mapped[int] = mapped_column(ForeignKey("instance.id"), unique=True)
    title: Mapped[str]
    job_row: Mapped[int | None] = mapped_column(ForeignKey("job.id"))
    reason: Mapped[str]
    at: Mapped[float]
    settled: Mapped[bool] = mapped_column(index=True)


class WithdrawalNote(Base):
    """A withdrawal of which a rejection note of ours (instance `note_row`) tells a destination."""

    __tablename__ = "withdrawal_note"
    __table_args__ = (UniqueConstraint("withdrawal_row", "destination"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    withdrawal_row: Mapped[int] = mapped_column(ForeignKey("withdrawal.id"))
    destination: Mapped[str]
    note_row: Mapped[int] = mapped_column(ForeignKey("instance.id"), index=True)
    at: Mapped[float]


class Rejection(Base):
    """A received Key Object Selection Document: unread, or a rejection note (IHE RAD IOCM) and what became of it.

    `state` is unread, applied, noted (it cancels nothing) or ignored; `title` its code value (PS3.16 CID 7010).
    """

    __tablename__ = "rejection"
    id: Mapped[int] = mapped_column(primary_key=True)
    instance_row: Mapped[int] = mapped_column(ForeignKey("instance.id"), unique=True)
    state: Mapped[str] = mapped_column(index=True)
    title: Mapped[str]
    reason: Mapped[str]
    read_at: Mapped[float | None]


class RejectedInstance(Base):
    """A received instance that a rejection note rejects, and whose rejection we act on."""

    __tablename__ = "rejected_instance"
    __table_args__ = (UniqueConstraint("rejection_row", "sop_instance_uid"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    rejection_row: Mapped[int] = mapped_column(ForeignKey("rejection.id"))
    sop_instance_uid: Mapped[str] = mapped_column(index=True)


class Process(Base):
    """A running process of the node and its last sign of life, by the database's clock.

    `role` is its name on its machine (`flow`, `receive-1`), `roles` are those that it has. `home` is its data folder's
    id; `executor_id` is new at each start.
    """

    __tablename__ = "process"
    role: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str] = mapped_column(primary_key=True)
    home: Mapped[str]
    pid: Mapped[int]
    executor_id: Mapped[str] = mapped_column(unique=True)
    roles: Mapped[list[Any]]
    version: Mapped[str]
    started_at: Mapped[float]
    beat_at: Mapped[float]


class Compatibility(Base):
    """One row: the oldest revision of the schema whose code can work with this database."""

    __tablename__ = "compatibility"
    readers_from: Mapped[str] = mapped_column(primary_key=True)


class Takeover(Base):
    """A process whose workflows were given to others: it gave no sign of life. It works no more, should it wake up."""

    __tablename__ = "takeover"
    id: Mapped[int] = mapped_column(primary_key=True)
    executor_id: Mapped[str] = mapped_column(unique=True)
    host: Mapped[str]
    by_host: Mapped[str]
    at: Mapped[float]


class Proof(Base):
    """What is asked of one destination about one series that was sent there (`dicomnode.core.proof`).

    `due_at` is when it is looked at next, None where nothing is to be asked any more; it moves with each instance sent.
    `asks` counts the questions by `method` without a full answer, `resends` how often something had to be sent again.
    `asked_at` is None unless an answer is waited for; `failures` holds the Failure Reason (0008,1197) of each SOP
    Instance UID that the latest answer does not confirm.
    """

    __tablename__ = "proof"
    __table_args__ = (UniqueConstraint("series_row", "destination"), Index(None, "destination", "due_at"))
    id: Mapped[int] = mapped_column(primary_key=True)
    series_row: Mapped[int] = mapped_column(ForeignKey("series.id"))
    destination: Mapped[str]
    due_at: Mapped[float | None]
    began_at: Mapped[float]
    method: Mapped[str]
    asks: Mapped[int]
    asked_at: Mapped[float | None]
    answered_at: Mapped[float | None]
    failures: Mapped[dict[str, Any]]
    resends: Mapped[int]
    meaning: Mapped[str]
    hint: Mapped[str]


class Commitment(Base):
    """One Storage Commitment request (PS3.4 J.3.2) to a peer.

    `outbox_rows` and `sop_instance_uids` are what it asks for, in the same order; `answered_at` is None until the
    N-EVENT-REPORT has come.
    """

    __tablename__ = "commitment"
    id: Mapped[int] = mapped_column(primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(unique=True)
    proof_row: Mapped[int] = mapped_column(ForeignKey("proof.id"), index=True)
    peer: Mapped[str]
    outbox_rows: Mapped[list[Any]]
    sop_instance_uids: Mapped[list[Any]]
    asked_at: Mapped[float]
    answered_at: Mapped[float | None]


class ProcedureStep(Base):
    """A Modality Performed Procedure Step that a peer told us of (PS3.4 F.7): its state, and UIDs only.

    `series` holds [Series Instance UID, [SOP Instance UID, ...]] of each series that it lists.
    """

    __tablename__ = "procedure_step"
    id: Mapped[int] = mapped_column(primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(unique=True)
    peer: Mapped[str]
    study_instance_uid: Mapped[str] = mapped_column(index=True)
    state: Mapped[str]
    series: Mapped[list[Any]]
    created_at: Mapped[float]
    updated_at: Mapped[float]


class Retrieval(Base):
    """A study or series to be fetched from a peer (`dicomnode.core.retrieving`): one row a request, and how it ended.

    Asked for by `study_instance_uid` or by `accession_number`; no `series_instance_uids` are all series. `expected` and
    `held` count instances: what the peer lists, and what of that is in our index. `missing` names what did not come, as
    far as the peer named it; `sub_operations` are the latest counts that the peer gave.
    """

    __tablename__ = "retrieval"
    __table_args__ = (Index(None, "state", "next_attempt_at"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    peer: Mapped[str]
    study_instance_uid: Mapped[str]
    accession_number: Mapped[str]
    series_instance_uids: Mapped[list[Any]]
    method: Mapped[str]
    requested_by: Mapped[str]
    requested_at: Mapped[float]
    state: Mapped[str]
    attempts: Mapped[int]
    next_attempt_at: Mapped[float]
    lease_owner: Mapped[str | None]
    lease_until: Mapped[float | None]
    finished_at: Mapped[float | None]
    used: Mapped[str]
    expected: Mapped[int | None]
    held: Mapped[int | None]
    missing: Mapped[list[Any]]
    sub_operations: Mapped[dict[str, Any]]
    reason: Mapped[str]
    hint: Mapped[str]


class RetrievalSeries(Base):
    """A series of a retrieval as the peer listed it; what it listed once is looked for though it lists it no more."""

    __tablename__ = "retrieval_series"
    __table_args__ = (UniqueConstraint("retrieval_row", "series_instance_uid"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    retrieval_row: Mapped[int] = mapped_column(ForeignKey("retrieval.id"))
    study_instance_uid: Mapped[str]
    series_instance_uid: Mapped[str] = mapped_column(index=True)
    instances: Mapped[int | None]
    sop_instance_uids: Mapped[list[Any] | None]
    sop_class_uids: Mapped[list[Any]]
    held: Mapped[int]
