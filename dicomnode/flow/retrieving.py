"""Fetching what was asked for: a few threads, each with one retrieval at a time, and one at a time of each peer.

A retrieval is a row; who works at it holds its lease, and renews it. After the death of a machine the lease runs out,
and another goes on where it stopped: what is in the index is not asked for again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy.orm import Session

from dicomnode import metrics
from dicomnode.core.ports import Intake
from dicomnode.core.retrieving import RetrievalState
from dicomnode.errors import ConfigError, DicomNodeError
from dicomnode.flow.fetching import Ended, Fetch, Rooms, Source
from dicomnode.flow.repeating import Repeating
from dicomnode.net.scu import Interruption
from dicomnode.store.database import Database
from dicomnode.store.index import retrievals
from dicomnode.store.index.processes import clock
from dicomnode.store.index.retrying import RetryPolicy
from dicomnode.store.reach import enduring
from dicomnode.store.schema import Retrieval
from dicomnode.telemetry import event

_POLL_S: Final = 1.0
LEASE_S: Final = 60.0
_RENEW_S: Final = 15.0
_TRIED_AT_ONCE: Final = 2
"""So often what a killed process had begun is taken up without a pause."""
_MOST_TRIES: Final = 50
_DEADLY: Final = (
    RetrievalState.FAILED,
    "the process that fetches ended at it again and again",
    "report it with the node's log; then fetch again",
)


@dataclass(frozen=True)
class RetrieveTerms:
    """Whom we fetch from, how patiently, and from how many at once. Replaced as a whole at a reload."""

    sources: Mapping[str, Source]
    retry: RetryPolicy
    at_once: int = 4


class Retrieving:
    """Works at retrievals until it is stopped.

    owner   a name that no other process has, on any machine that shares the index
    now_of  the clock that leases go by: the database's
    """

    def __init__(
        self,
        database: Database,
        intake: Intake,
        owner: str,
        terms: RetrieveTerms,
        now_of: Callable[[Session], float] = clock,
    ) -> None:
        self.terms = terms
        self._database = database
        self._owner = owner
        self._clock = now_of
        self._stopping = threading.Event()
        self._in_hand: set[int] = set()
        self._interruption = Interruption()
        self._rooms = Rooms(database, intake, self._stopping.wait)
        self._keeper = Repeating("retrieve leases", _RENEW_S, self._renew)
        self._threads = tuple(
            threading.Thread(target=self._run, name=f"retrieve {number + 1}") for number in range(terms.at_once)
        )

    @property
    def is_alive(self) -> bool:
        return self._keeper.is_alive and all(thread.is_alive() for thread in self._threads)

    def start(self) -> None:
        self._take_up()
        self._keeper.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Break off what is being fetched; what came of it is kept, the rest is fetched after the next start."""
        self._stopping.set()
        self._interruption.interrupt()
        self._keeper.stop()
        for thread in self._threads:
            thread.join()
        with enduring(), self._database.write() as session:
            retrievals.release(session, self._owner)

    def work(self) -> bool:
        """Fetch one thing that is due; whether there was any."""
        with self._database.read() as session:  # no turn of the writers' is taken for nothing
            if retrievals.next_due(session, self._clock(session)) is None:
                return False
        with self._database.write() as session:
            now = self._clock(session)
            row = retrievals.lease_next(session, self._owner, now, now + LEASE_S)
        if row is None:
            return False
        self._in_hand.add(row.id)
        try:
            self._fetch(row)
        finally:
            self._in_hand.discard(row.id)
        return True

    def _run(self) -> None:
        while not self._stopping.wait(_POLL_S):
            with enduring():
                while not self._stopping.is_set() and self.work():
                    pass

    def _take_up(self) -> None:
        """What our former life had begun is due: at once, or later where it may be what ends us each time."""
        with self._database.write() as session:
            now = self._clock(session)
            for row in retrievals.left_by(session, self._owner):
                if row.attempts > _MOST_TRIES:
                    retrievals.finish(session, row.id, self._owner, _DEADLY, now)
                    continue
                delay_s = self.terms.retry.delay_s(row.attempts) if row.attempts > _TRIED_AT_ONCE else 0.0
                retrievals.postpone(session, row.id, self._owner, (row.reason, row.hint), now + delay_s)

    def _renew(self, _: float) -> None:
        in_hand = tuple(self._in_hand)
        if in_hand:
            with self._database.write() as session:
                retrievals.renew(session, self._owner, in_hand, self._clock(session) + LEASE_S)

    def _fetch(self, row: Retrieval) -> None:
        event("retrieval_started", retrieval_id=row.id, peer=row.peer, attempt=row.attempts)
        started = time.monotonic()
        try:
            source = self._source(row.peer)
            self._finish(row, Fetch(self._rooms, source, row).run(), time.monotonic() - started)
        except DicomNodeError as error:
            if not self._stopping.is_set():  # else it is we who broke it off
                self._put_off(row, error, time.monotonic() - started)

    def _source(self, peer: str) -> Source:
        source = self.terms.sources.get(peer)
        if source is None:
            raise ConfigError(f"there is no peer {peer!r} with host and port", f"add them to [peer.{peer}]")
        return replace(source, opening=replace(source.opening, interruption=self._interruption))

    def _put_off(self, row: Retrieval, error: DicomNodeError, seconds: float) -> None:
        """Try it again later, where that may help and patience allows it."""
        delay_s = self.terms.retry.delay_s(row.attempts)
        passing = error.transient or isinstance(error, ConfigError)
        with self._database.write() as session:
            now = self._clock(session)
            again = passing and now <= row.requested_at + self.terms.retry.patience_s
            if again:
                retrievals.postpone(session, row.id, self._owner, (str(error), error.hint), now + delay_s)
        if not again:
            self._finish(row, self._given_up(row, error), seconds)
            return
        event(
            "retrieval_postponed",
            retrieval_id=row.id,
            peer=row.peer,
            attempt=row.attempts,
            retry_s=delay_s,
            error=type(error).__name__,
            reason=str(error),
            hint=error.hint,
        )

    def _given_up(self, row: Retrieval, error: DicomNodeError) -> Ended:
        with self._database.read() as session:
            known = session.get_one(Retrieval, row.id)
        if not known.held:
            return Ended(RetrievalState.FAILED, str(error), error.hint)
        reason = f"{known.held} of {known.expected} instances: {error}"
        return Ended(RetrievalState.PARTIAL, reason, error.hint)

    def _finish(self, row: Retrieval, ended: Ended, seconds: float) -> None:
        with self._database.write() as session:
            end = (ended.state, ended.reason, ended.hint)
            if not retrievals.finish(session, row.id, self._owner, end, self._clock(session)):
                return
            held = session.get_one(Retrieval, row.id).held
        metrics.count("dicomnode_retrievals_total", peer=row.peer, state=ended.state.value)
        _tell_end(row, ended, held, seconds)


def _tell_end(row: Retrieval, ended: Ended, held: int | None, seconds: float) -> None:
    if ended.state is RetrievalState.COMPLETE:
        event("retrieval_ended", retrieval_id=row.id, peer=row.peer, instances=held, seconds=seconds)
        return
    event(
        "retrieval_incomplete",
        retrieval_id=row.id,
        peer=row.peer,
        state=ended.state.value,
        instances=held,
        seconds=seconds,
        reason=ended.reason,
        hint=ended.hint,
    )
