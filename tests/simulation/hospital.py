"""A hospital whose clock is ours: scanners that send, two destinations that come and go, and between them what the node
judges and decides by, on a real index.

Receiving is the receiver's intake, closing the closer, delivering the drainer: none of them is told that the time is
not real. A week takes seconds.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from unittest import mock

from pydicom import Dataset
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dicomnode.core.hours import WorkingHours, parse_hours
from dicomnode.core.ports import Deliverer
from dicomnode.core.routing import DestinationPolicy
from dicomnode.core.rules import RuleSpec
from dicomnode.core.types import AssociationEnd, CompletenessPolicy, Outcome, Outgoing, Receipt
from dicomnode.errors import PeerUnreachableError
from dicomnode.flow.closing import Closer
from dicomnode.flow.delivering import Drainer, Opening, Route
from dicomnode.flow.leasing import Leases
from dicomnode.flow.port import Call
from dicomnode.store import intake
from dicomnode.store.index import deliveries, health
from dicomnode.store.index.deliveries import Which
from dicomnode.store.index.retrying import RetryPolicy
from dicomnode.store.schema import Destination, Instance, Outbox, OutboxState, Series, SeriesState
from dicomnode.store.schema import Receipt as ReceiptRow
from tests.store.receiving import SCANNER, Reception, ct_header, encoded, receiving, routing

MONDAY: float = 1767571200.0  # 2026-01-05, 00:00 UTC
HOUR_S = 3600.0
RETRY = RetryPolicy(initial_s=30.0, maximum_s=1800.0, patience_s=72 * HOUR_S, probe_s=1800.0)
WAITS = CompletenessPolicy(quiet_s=60.0, released_quiet_s=5.0, deadline_s=600.0)
NIGHTS = WorkingHours((parse_hours("mon-fri 18:00-07:00"), parse_hours("sat-sun 00:00-24:00")), UTC)
OPENINGS = {"pacs": Opening(), "archive": Opening(NIGHTS, urgent_anytime=True)}
RULES = (
    RuleSpec("emergency", {"BodyPartExamined": "HEAD"}, send=("pacs", "archive"), priority="urgent"),
    RuleSpec("all", {"Modality": "*"}, send=("pacs", "archive")),
)
_MOST_BATCHES = 1000
_LEAST_STEP_S = 1.0
_DELIVERIES_EVERY_S = 120.0
"""Attempts that are due within so long are made together: of each alone, a week has thousands."""


@dataclass
class Clock:
    """Stands in for the module `time`."""

    now: float = MONDAY

    def time(self) -> float:
        return self.now

    monotonic = perf_counter = time

    def localtime(self, at: float) -> time.struct_time:
        return time.gmtime(at)


@dataclass
class Pacs(Deliverer):
    """A destination. `busy` and `never` hold SOP Instance UIDs that it refuses for the moment, and for good."""

    is_up: bool = True
    busy: set[str] = field(default_factory=set)
    never: set[str] = field(default_factory=set)
    received: dict[str, list[bytes]] = field(default_factory=dict)

    def deliver(self, batch: Sequence[Outgoing]) -> Iterator[Sequence[Receipt]]:
        for each in batch:
            if not self.is_up:
                raise PeerUnreachableError("it is down", "wait")
            uid = each.sop_instance_uid
            if uid in self.busy or uid in self.never:
                yield (Receipt(each.outbox_id, Outcome.REFUSED, 0xA700, "refused", "wait", uid in self.busy),)
                continue
            self.received.setdefault(uid, []).append(each.path.read_bytes())
            yield (Receipt(each.outbox_id, Outcome.SENT, 0, "success", "", False),)

    def probe(self, calling_ae: str) -> bool:
        if not self.is_up:
            raise PeerUnreachableError("it is down", "wait")
        return True

    def finish(self) -> None: ...

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Closing:
    """One closing of a series: the versions of instances that it rests on."""

    at: float
    series_row: int
    generation: int
    instances: frozenset[int]


class Hospital:
    """All of it, from midnight of a Monday; a context manager.

    sent  of each SOP Instance UID the bytes that were sent last
    """

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.pacs = {name: Pacs() for name in OPENINGS}
        self.sent: dict[str, bytes] = {}
        self.closings: list[Closing] = []
        self._folder = folder
        self._stack = ExitStack()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def __enter__(self) -> Hospital:
        policies = {
            "pacs": DestinationPolicy(calling_ae="DICOMNODE"),
            "archive": DestinationPolicy(when_complete=True, calling_ae="DICOMNODE"),
        }
        self._reception = self._stack.enter_context(
            receiving(self._folder, routing(*RULES, policies=policies, waits=WAITS))
        )
        self._stack.enter_context(mock.patch.object(intake, "time", self.clock))
        leases = Leases(self._reception.database, "one", lambda _: self.clock.now, self.clock.monotonic)
        self._drainers = {name: self._drainer(self._reception, name, leases) for name in OPENINGS}
        leases.know(list(OPENINGS))
        self._closer = Closer(self._reception.database, self._note_closing)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def now(self) -> float:
        return self.clock.now

    def scan(self, series: int, slices: Sequence[int], gap_s: float, how: AssociationEnd, **attributes: str) -> None:
        """Have a scanner send slices of a series over one association, from now on, `gap_s` seconds apart."""
        association: list[int] = []

        def arrive(number: int) -> None:
            if not association:
                association.append(self._reception.intake.association_opened(SCANNER))
            header = slice_of(series, number, **attributes)
            self._reception.receive(header, at=self.now, association=association[0])
            self.sent[header.SOPInstanceUID] = encoded(header)

        for place, number in enumerate(slices):
            self._at(self.now + place * gap_s, lambda number=number: arrive(number))  # type: ignore[misc]
        ended_at = self.now + max(0, len(slices) - 1) * gap_s + 0.1
        self._at(ended_at, lambda: self._reception.intake.association_ended(association[0], how))

    def pause(self, destination: str) -> None:
        with self._reception.database.write() as session:
            health.pause(session, destination, "a test", self.now)

    def resume(self, destination: str) -> None:
        with self._reception.database.write() as session:
            health.resume(session, destination, self.now)

    def retry_failed(self) -> None:
        """What `dicomnode jobs retry --failed` does."""
        with self._reception.database.write() as session:
            deliveries.send_again(session, Which(states=(OutboxState.FAILED,)), self.now, 10**6)

    def advance(self, seconds: float) -> None:
        """Let time pass: whatever is due happens when it is due."""
        until = self.now + seconds
        while (at := self._next()) is not None and at <= until:
            self.clock.now = max(self.now, at)
            self._happen()
        self.clock.now = until
        self._happen()

    def rows(self) -> list[tuple[Outbox, Instance]]:
        """Every delivery with its instance."""
        with self._reception.database.read() as session:
            found = session.execute(select(Outbox, Instance).join(Instance, Instance.id == Outbox.instance_row))
            return [(row, instance) for row, instance in found]

    def series(self) -> Sequence[Series]:
        return self._reception.rows(Series)

    def receipts(self) -> set[int]:
        """The outbox rows that something is said of."""
        return {row.outbox_row for row in self._reception.rows(ReceiptRow)}

    def _at(self, at: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (at, next(self._numbers), happens))

    def _happen(self) -> None:
        while self._agenda and self._agenda[0][0] <= self.now:
            heapq.heappop(self._agenda)[2]()
        self._closer.judge_due(self.now)
        for drainer in self._drainers.values():
            for _ in range(_MOST_BATCHES):
                if not drainer.drain(self.now):
                    break
            else:
                raise AssertionError("a destination is sent to without end")

    def _next(self) -> float | None:
        """When something is due next, as far as can be known."""
        times = [self._agenda[0][0]] if self._agenda else []
        with self._reception.database.read() as session:
            due = session.scalar(select(func.min(Series.due_at)).where(Series.state == SeriesState.RECEIVING))
            times += [] if due is None else [due]
            times += [at for name in OPENINGS if (at := self._next_delivery(session, name)) is not None]
        return max(min(times), self.now + _LEAST_STEP_S) if times else None

    def _next_delivery(self, session: Session, name: str) -> float | None:
        earliest = session.scalar(
            select(func.min(Outbox.next_attempt_at)).where(
                Outbox.destination == name, Outbox.state == OutboxState.READY
            )
        )
        if earliest is None or health.paused(session, name) is not None:
            return None
        at = max(earliest, session.get_one(Destination, name).down_until or 0.0, self.now + _DELIVERIES_EVERY_S)
        hours = OPENINGS[name].hours
        return at if hours.is_open(at) else hours.changes_at(at)

    def _drainer(self, reception: Reception, name: str, leases: Leases) -> Drainer:
        route = Route(name, "127.0.0.1:104", RETRY, lambda: self.pacs[name], opening=OPENINGS[name])
        return Drainer(reception.database, reception.files, route, leases, clock=self.clock.time)

    def _note_closing(self, session: Session, call: Call) -> None:
        series_row, generation, *_ = call.arguments
        members = select(Instance.id).where(Instance.series_row == series_row, Instance.active)
        self.closings.append(Closing(self.now, int(series_row), int(generation), frozenset(session.scalars(members))))


def slice_of(series: int, number: int, **attributes: str) -> Dataset:
    """One slice of a series that is a study of its own."""
    uid = f"1.2.3.{series}"
    return ct_header(
        number,
        SOPInstanceUID=f"{uid}.1.{number}",
        StudyInstanceUID=uid,
        SeriesInstanceUID=f"{uid}.1",
        PatientID=f"P{series}",
        **attributes,
    )
