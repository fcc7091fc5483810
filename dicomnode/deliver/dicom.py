"""Delivery to a DICOM destination by C-STORE, over several associations where there is enough to send."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Final

from dicomnode.core.ports import Transcoder
from dicomnode.core.types import Outgoing, Receipt
from dicomnode.deliver.forms import Allowed, Forms
from dicomnode.deliver.lane import Lane, Line, Proposal
from dicomnode.deliver.work import Work
from dicomnode.net.contexts import VERIFICATION, ProposedContext, grouped
from dicomnode.net.pdu import MAXIMUM_LENGTH_BYTES
from dicomnode.net.scu import Interruption, Opening, PeerAddress, Timeouts, associate
from dicomnode.net.trace import PeerTrace

_WORTH_AN_ASSOCIATION: Final = 4
"""So many instances for each: one opened for less takes a place at the destination, and saves nothing."""

_GRANTED_FOR_S: Final = 60.0
"""How long a destination that granted fewer associations than we may open is not asked for more."""

_SIGN_OF_LIFE_S: Final = 5.0
_ECHO: Final = (ProposedContext(VERIFICATION, ("1.2.840.10008.1.2",)),)
_SUCCESS: Final = 0x0000
_FINISH_S: Final = 1.0
"""How long what is being sent may still take once nobody takes receipts any more."""


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """How to deal with one destination.

    idle_s         how long associations are kept for the next batch; destinations limit how many they have open
    associations   how many may be open at once
    maximum_bytes  largest P-DATA-TF to send
    allowed        what it may be sent at all
    trace          where its associations are traced, while that is switched on
    """

    timeouts: Timeouts = field(default_factory=Timeouts)
    idle_s: float = 20.0
    associations: int = 4
    maximum_bytes: int = MAXIMUM_LENGTH_BYTES
    allowed: Allowed = field(default_factory=Allowed)
    trace: PeerTrace | None = None


class DicomDeliverer:
    """A `Deliverer` for one drainer thread. It keeps its associations for the next batch; `close` ends them."""

    def __init__(
        self,
        address: PeerAddress,
        settings: DeliverySettings = DeliverySettings(),
        transcoder: Transcoder | None = None,
    ) -> None:
        """Without a transcoder compressed objects go as they are stored, or not at all."""
        self._settings = settings
        opening = self._opening = Opening(settings.timeouts, settings.maximum_bytes, trace=settings.trace)
        self._address = address
        self._probing = Interruption()
        self._forms = Forms(settings.allowed, transcoder is not None)
        line = Line(address, opening, self._forms, transcoder)
        self._lanes = tuple(Lane(line) for _ in range(settings.associations))
        self._threads = ThreadPoolExecutor(settings.associations, f"send {address}")
        self._lock = threading.Lock()  # held while delivering: the idle timer must not end an association then
        self._timer: threading.Timer | None = None
        self._work: Work | None = None
        self._is_finishing = False
        self._is_interrupted = False
        self._granted = settings.associations
        self._granted_until = 0.0

    def deliver(self, batch: Sequence[Outgoing]) -> Iterator[Sequence[Receipt]]:
        """See `dicomnode.core.ports.Deliverer`. What cannot be sent gets its receipt, and the rest goes on."""
        with self._lock:
            self._cancel_timer()
            try:
                yield from self._deliver(batch)
            finally:
                self._start_timer()

    def probe(self, calling_ae: str) -> bool:
        """See `dicomnode.core.ports.Deliverer`: C-ECHO (PS3.4 annex A) on an association of its own."""
        opening = replace(self._opening, interruption=self._probing)
        with associate(self._address, calling_ae, _ECHO, opening) as association:
            return bool(association.accepted) and association.echo() == _SUCCESS

    def finish(self) -> None:
        """See `dicomnode.core.ports.Deliverer`."""
        self._is_finishing = True
        if (work := self._work) is not None:
            work.stop()

    def interrupt(self) -> None:
        """See `dicomnode.core.ports.Deliverer`. A connection attempt that is under way still takes its time-out."""
        self._is_interrupted = True
        self._probing.interrupt()
        self.finish()
        for lane in self._lanes:
            lane.cut()

    def close(self) -> None:
        """Release the associations; waits for a batch that is being delivered."""
        with self._lock:
            self._cancel_timer()
            self._end_associations()
        self._threads.shutdown()

    def _deliver(self, batch: Sequence[Outgoing]) -> Iterator[Sequence[Receipt]]:
        refused = {each.outbox_id: receipt for each in batch if (receipt := self._forms.not_allowed(each)) is not None}
        if refused:
            yield tuple(refused.values())
        rest = [each for each in batch if each.outbox_id not in refused]
        for contexts in grouped(kind for each in rest for kind in self._forms.of(each)):
            classes = {context.abstract_syntax for context in contexts}
            members = [each for each in rest if each.sop_class_uid in classes]
            yield from self._share(members, Proposal(members[0].calling_ae, frozenset(contexts)))

    def _share(self, batch: Sequence[Outgoing], proposal: Proposal) -> Iterator[Sequence[Receipt]]:
        """Deliver what fits one association over as many as pay. Raises the PeerError that ended it, if any did."""
        work = self._work = Work(batch)
        running: dict[Lane, Future[None]] = {}
        if self._is_finishing:
            work.stop()
        try:
            while work.waits or not all(future.done() for future in running.values()):
                self._add_lanes(work, proposal, running)
                yield work.receipts(_SIGN_OF_LIFE_S)
                self._note_granted(work)
                if not work.waits and not work.lanes:
                    self._cut(running)  # it waits for an association that there is no need for any more
            yield work.receipts(0.0)
        finally:
            self._end(work, running)
        for future in running.values():
            future.result()  # a lane fails by a mistake of ours only
        if work.error is not None and not self._is_interrupted:
            raise work.error

    def _add_lanes(self, work: Work, proposal: Proposal, running: dict[Lane, Future[None]]) -> None:
        """One more, once those before are connected: the first finds out whether the destination is there at all, and
        of several that ask at once some destinations reject all."""
        busy = sum(not future.done() for future in running.values())
        free = sorted((lane for lane in self._lanes if lane not in running or running[lane].done()), key=_is_closed)
        for lane in free[: self._lanes_for(work) - busy]:
            lane.mend()
            if self._is_interrupted:
                lane.cut()
            running[lane] = self._threads.submit(lane.run, work, proposal)
            running[lane].add_done_callback(lambda _: work.wake())

    def _lanes_for(self, work: Work) -> int:
        if not work.waits or not work.lanes:
            return int(work.waits)
        granted = self._granted if time.monotonic() < self._granted_until else len(self._lanes)
        return min(granted, -(-work.size // _WORTH_AN_ASSOCIATION), work.lanes + 1)

    def _note_granted(self, work: Work) -> None:
        if work.granted is not None:
            self._granted, self._granted_until = work.granted, time.monotonic() + _GRANTED_FOR_S
            work.granted = None

    def _end(self, work: Work, running: dict[Lane, Future[None]]) -> None:
        """Have all lanes ended: nobody takes receipts any more."""
        work.stop()
        self._work = None
        if wait(running.values(), _FINISH_S).not_done:
            self._cut(running)
            wait(running.values())

    def _cut(self, running: dict[Lane, Future[None]]) -> None:
        for lane, future in running.items():
            if not future.done():
                lane.cut()

    def _end_associations(self) -> None:
        for lane in self._lanes:
            lane.end()

    def _start_timer(self) -> None:
        if any(lane.is_open for lane in self._lanes):
            self._timer = threading.Timer(self._settings.idle_s, self._end_if_idle)
            self._timer.daemon = True
            self._timer.start()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_if_idle(self) -> None:
        if self._lock.acquire(blocking=False):
            try:
                self._end_associations()
            finally:
                self._lock.release()


def _is_closed(lane: Lane) -> bool:
    return not lane.is_open
