"""One attempt at one retrieval: ask what there is, have it sent, count what came, ask again for what did not.

A peer's word is never taken for it: C-MOVE may succeed with images missing. What counts is our own index, beside what
the peer's C-FIND listed. So an attempt may be killed anywhere; the next one asks for what is missing, and nothing else.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Final

from dicomnode.core.headers import number, value
from dicomnode.core.identity import is_valid_uid
from dicomnode.core.ports import Intake
from dicomnode.core.retrieving import (
    RetrievalState,
    RetrieveMethod,
    SeriesAtPeer,
    SeriesCount,
    Wanted,
    count,
    end_of,
    one_by_one,
    requests,
)
from dicomnode.core.types import AssociationEnd, Expectation, Header, Sender
from dicomnode.errors import AssociationLostError, PeerError, RequestFailedError
from dicomnode.net.query import FIND_CONTEXTS, Level, find
from dicomnode.net.retrieve import MOVE_CONTEXTS, SubOperations, get, get_contexts, move
from dicomnode.net.scp.storage import StorageService
from dicomnode.net.scu import Association, Opening, PeerAddress, associate
from dicomnode.store.database import Database
from dicomnode.store.index import retrievals
from dicomnode.store.index.expectations import expect
from dicomnode.store.schema import Retrieval

_GET, _MOVE = RetrieveMethod.GET, RetrieveMethod.MOVE
_ROUNDS: Final = {
    RetrieveMethod.AUTO: (_GET, _GET, _MOVE, _MOVE),
    RetrieveMethod.GET: (_GET, _GET, _GET),
    RetrieveMethod.MOVE: (_MOVE, _MOVE, _MOVE),
}
"""How often what is missing is asked for, and by which way. One that brings nothing is not tried again."""

USED: Final = {_GET: "C-GET", _MOVE: "C-MOVE"}
_MOST_STUDIES: Final = 50
"""Of one accession number."""

_SETTLE_S: Final = 5.0
"""How long after C-MOVE's last response something may still come."""
_MOST_COUNTED: Final = 2**31
_LOOK_S: Final = 0.5
_TELL_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Source:
    """A peer as it is fetched from.

    calling_ae         our AE title: who asks, and where C-MOVE sends to
    max_dataset_bytes  largest data set taken in by C-GET
    """

    name: str
    address: PeerAddress
    method: RetrieveMethod
    calling_ae: str
    opening: Opening
    max_dataset_bytes: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How a retrieval ended, why, and what to do next."""

    state: RetrievalState
    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Rooms:
    """Where what is fetched goes, and where it is counted.

    wait  sleeps so many seconds; True where the node is stopping
    """

    database: Database
    intake: Intake
    wait: Callable[[float], bool]


class Fetch:
    """One attempt at one retrieval. `run` raises PeerError where it is to be tried again later, or is hopeless."""

    def __init__(self, rooms: Rooms, source: Source, retrieval: Retrieval) -> None:
        self._rooms = rooms
        self._source = source
        self._retrieval = retrieval
        self._whole_studies = not retrieval.series_instance_uids
        self._told_at = 0.0

    def run(self) -> Ended:
        """Fetch what is wanted, as far as the peer gives it. Raises PeerError."""
        listed = self._survey()
        counts = self._count(listed)
        problem: PeerError | None = None
        method = RetrieveMethod(self._retrieval.method)
        ways = deque(_ROUNDS[self._source.method if method is RetrieveMethod.AUTO else method])
        while ways and (wanted := tuple(requests(counts, self._whole_studies))):
            way, held = ways.popleft(), sum(one.held for one in counts)
            problem = self._ask(way, wanted, listed)
            counts = self._settle(listed, way is _MOVE and problem is None)
            if sum(one.held for one in counts) == held:
                ways = deque(other for other in ways if other is not way)
        listed_uids = {series.series_instance_uid for series in listed}
        unlisted = [uid for uid in self._retrieval.series_instance_uids if uid not in listed_uids]
        return _ended(end_of(counts, unlisted), problem)

    def _survey(self) -> tuple[SeriesAtPeer, ...]:
        """What the peer lists, and listed before."""
        with associate(self._source.address, self._source.calling_ae, FIND_CONTEXTS, self._source.opening) as peer:
            listed = [series for study, patient in self._studies(peer) for series in self._series(peer, study, patient)]
        now = time.time()
        with self._rooms.database.write() as session:
            known = retrievals.note_listed(session, self._retrieval.id, listed)
            for series in known:
                if series.instances is not None:
                    expect(session, _expectation(series, self._source.name), now)
        return known

    def _studies(self, peer: Association) -> Iterator[tuple[str, str]]:
        """(Study Instance UID, Patient ID) of what is wanted; peers that match by their own rules are not believed."""
        keyword, wanted = "StudyInstanceUID", self._retrieval.study_instance_uid
        if self._retrieval.accession_number:
            keyword, wanted = "AccessionNumber", self._retrieval.accession_number
        keys = {"StudyInstanceUID": "", "PatientID": "", keyword: wanted}
        for match in tuple(find(peer, Level.STUDY, keys, _MOST_STUDIES)):
            study = value(match, "StudyInstanceUID")
            if is_valid_uid(study) and value(match, keyword) in (wanted, ""):
                yield study, value(match, "PatientID")

    def _series(self, peer: Association, study: str, patient_id: str) -> Iterator[SeriesAtPeer]:
        above = {"PatientID": patient_id, "StudyInstanceUID": study}
        keys = {**above, "SeriesInstanceUID": "", "NumberOfSeriesRelatedInstances": ""}
        for match in tuple(find(peer, Level.SERIES, keys)):
            series = value(match, "SeriesInstanceUID")
            if is_valid_uid(series) and (self._whole_studies or series in self._retrieval.series_instance_uids):
                listed = SeriesAtPeer(study, series, _count_said(match), patient_id=patient_id)
                yield _with_images(peer, listed)

    def _ask(self, way: RetrieveMethod, wanted: Sequence[Wanted], listed: Sequence[SeriesAtPeer]) -> PeerError | None:
        """Have it sent; the last thing that went wrong."""
        self._tell(way, SubOperations(), always=True)
        try:
            return self._get(wanted, listed) if way is _GET else self._move(wanted)
        except PeerError as error:
            return error

    def _move(self, wanted: Sequence[Wanted]) -> PeerError | None:
        source = self._source
        with associate(source.address, source.calling_ae, MOVE_CONTEXTS, source.opening) as peer:

            def ask(one: Wanted) -> None:
                done = move(peer, one, source.calling_ae, lambda told: self._tell(_MOVE, told))
                self._tell(_MOVE, done.sub_operations, always=True)

            return _each(wanted, ask)

    def _get(self, wanted: Sequence[Wanted], listed: Sequence[SeriesAtPeer]) -> PeerError | None:
        classes = frozenset[str]().union(*(series.sop_class_uids for series in listed))
        source = self._source
        with associate(source.address, source.calling_ae, get_contexts(classes), source.opening) as peer:
            sender = Sender(source.name, source.address.called_ae, source.calling_ae, peer.address, time.time())
            store = StorageService(self._rooms.intake, source.max_dataset_bytes)
            with _arriving(self._rooms.intake, sender) as association_id:
                exchange = peer.exchange(sender, association_id)

                def ask(one: Wanted) -> None:
                    done = get(peer, one, store, exchange, lambda told: self._tell(_GET, told))
                    self._tell(_GET, done.sub_operations, always=True)

                return _each(wanted, ask)

    def _settle(self, listed: Sequence[SeriesAtPeer], more_may_come: bool) -> tuple[SeriesCount, ...]:
        """Count what is there, once nothing comes any more."""
        counts = self._count(listed)
        patience_s = _SETTLE_S if more_may_come else 0.0
        while patience_s > 0 and any(one.lacking for one in counts) and not self._rooms.wait(_LOOK_S):
            before, counts = counts, self._count(listed)
            patience_s = patience_s - _LOOK_S if before == counts else _SETTLE_S
        return counts

    def _count(self, listed: Sequence[SeriesAtPeer]) -> tuple[SeriesCount, ...]:
        with self._rooms.database.read() as session:
            counts = tuple(count(series, retrievals.held(session, series)) for series in listed)
        with self._rooms.database.write() as session:
            retrievals.note_counts(session, self._retrieval.id, counts)
        return counts

    def _tell(self, way: RetrieveMethod, told: SubOperations, *, always: bool = False) -> None:
        """Let who waits for it see how it goes on; rarely enough to slow nobody."""
        if always or time.monotonic() > self._told_at + _TELL_S:
            self._told_at = time.monotonic()
            with self._rooms.database.write() as session:
                retrievals.note_progress(session, self._retrieval.id, USED[way], asdict(told))


@contextmanager
def _arriving(intake: Intake, sender: Sender) -> Iterator[int]:
    """An association that brings us instances, as evidence for completeness: its id; how it ended is told."""
    association_id = intake.association_opened(sender)
    how = AssociationEnd.ABORTED
    try:
        yield association_id
        how = AssociationEnd.RELEASED
    except AssociationLostError:
        how = AssociationEnd.LOST
        raise
    finally:
        intake.association_ended(association_id, how)


def _each(wanted: Sequence[Wanted], ask: Callable[[Wanted], None]) -> PeerError | None:
    """Ask for one after the other; what a peer cannot do with one says nothing of the others.

    Some archives refuse a list of which they lack one: its members are asked for by themselves then.
    """
    problem: PeerError | None = None
    waiting = deque(wanted)
    while waiting:
        one = waiting.popleft()
        try:
            ask(one)
        except RequestFailedError as error:
            problem = error
            waiting.extendleft(one_by_one(one))
    return problem


def _count_said(match: Header) -> int | None:
    """How many instances a peer says that a series has; None for what is no count."""
    said = number(match, "NumberOfSeriesRelatedInstances")
    return int(said) if said is not None and 0 <= said < _MOST_COUNTED else None


def _with_images(peer: Association, series: SeriesAtPeer) -> SeriesAtPeer:
    """The series with its instances, where the peer answers at the IMAGE level."""
    keys = {
        "PatientID": series.patient_id,
        "StudyInstanceUID": series.study_instance_uid,
        "SeriesInstanceUID": series.series_instance_uid,
        "SOPInstanceUID": "",
        "SOPClassUID": "",
    }
    try:
        images = tuple(find(peer, Level.IMAGE, keys))
    except RequestFailedError:
        return series
    uids = tuple(dict.fromkeys(uid for image in images if is_valid_uid(uid := value(image, "SOPInstanceUID"))))
    classes = frozenset(uid for image in images if is_valid_uid(uid := value(image, "SOPClassUID")))
    if not uids:
        return series
    return SeriesAtPeer(
        series.study_instance_uid, series.series_instance_uid, len(uids), uids, classes, series.patient_id
    )


def _expectation(series: SeriesAtPeer, peer: str) -> Expectation:
    return Expectation(
        series.series_instance_uid,
        series.study_instance_uid,
        "C-FIND",
        peer,
        series.instances,
        series.sop_instance_uids,
    )


def _ended(counted: tuple[RetrievalState, str], problem: PeerError | None) -> Ended:
    """Raises the problem where it may pass."""
    state, reason = counted
    if state is RetrievalState.COMPLETE:
        return Ended(state, reason)
    if problem is None:
        return Ended(state, reason, "see what it lists: dicomnode find; look at its log, then fetch again")
    if problem.transient:
        raise problem
    return Ended(state, f"{reason}: {problem}", problem.hint)
