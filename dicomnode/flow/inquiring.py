"""Asking a destination, on one association, whether it holds what it was sent: by Storage Commitment, or by C-FIND.

A question is in the index before it is put: its result may come to another process, on an association that the
destination opens, or after we were killed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from dicomnode.core.notification import STORAGE_COMMITMENT
from dicomnode.core.ports import Notifications
from dicomnode.core.proof import (
    LARGEST_TRANSACTION,
    NO_SUCH_INSTANCE,
    Method,
    ProofPolicy,
    asks_of,
    method_for,
    transaction_uid,
)
from dicomnode.core.types import Sender
from dicomnode.errors import AssociationLostError, RequestFailedError
from dicomnode.net.commitment import COMMITMENT_CONTEXTS, CommitmentUser
from dicomnode.net.holdings import instances_held
from dicomnode.net.query import FIND_CONTEXTS
from dicomnode.net.scu import Association, Opening, PeerAddress
from dicomnode.net.status import interpret
from dicomnode.store.database import Database
from dicomnode.store.index import proofs
from dicomnode.store.index.proofs import Case, Confirmed
from dicomnode.store.schema import Commitment
from dicomnode.telemetry import event

INQUIRY_CONTEXTS: Final = (*COMMITMENT_CONTEXTS, *FIND_CONTEXTS)
_FIND_CLASSES: Final = frozenset(context.abstract_syntax for context in FIND_CONTEXTS)


@dataclass(frozen=True)
class ProofRoute:
    """One destination as it is asked: where it is, our name for it and for ourselves there, and how patient we are."""

    name: str
    peer: str
    address: PeerAddress
    calling_ae: str
    policy: ProofPolicy
    opening: Opening = field(default_factory=Opening)

    @property
    def sender(self) -> Sender:
        """Who reports on an association of ours."""
        return Sender(self.peer, self.calling_ae, self.address.called_ae, self.address.host, 0.0)


@dataclass(frozen=True, slots=True)
class ProofRooms:
    """Where questions and answers are kept, what time it is, and whether we are to stop."""

    database: Database
    notifications: Notifications
    now: Callable[[], float]
    stopping: threading.Event


class Inquiry:
    """The questions on one association: about each series, and then the wait for the reports that may come on it."""

    def __init__(self, rooms: ProofRooms, route: ProofRoute, association: Association) -> None:
        self._rooms = rooms
        self._route = route
        self._association = association
        self._offered = _offered(association)
        self._user = CommitmentUser(association, rooms.notifications, route.sender)
        self._awaited: list[str] = []

    def ask_about(self, case: Case) -> None:
        """Ask about one series, by the best that is wanted and offered. Raises PeerError."""
        now = self._rooms.now()
        match method_for(self._route.policy, case.sight, self._offered):
            case Method.COMMITMENT:
                self._ask_commitment(case, now)
            case Method.FIND:
                self._ask_find(case, now)
            case Method.RECEIPTS:
                confirm(self._rooms.database, case, Method.RECEIPTS, now)
            case None:
                self._unoffered(case, now)

    def await_reports(self) -> None:
        """Serve the reports that come on this association; others come when they come."""
        if not self._awaited:
            return

        def is_done() -> bool:
            if self._rooms.stopping.is_set():
                return True
            with self._rooms.database.read() as session:
                return proofs.all_answered(session, self._awaited)

        try:
            self._user.serve_reports(self._route.policy.report_s, is_done, self._rooms.stopping.wait)
        except AssociationLostError:  # it need not wait with us
            return

    def _ask_commitment(self, case: Case, now: float) -> None:
        attempt = asks_of(case.sight, Method.COMMITMENT)
        asks = _transactions(case, self._route.peer, attempt, now)
        with self._rooms.database.write() as session:
            proofs.asked(session, case, Method.COMMITMENT, attempt, now)
            for ask in asks:
                proofs.commitment_asked(session, ask)
        _tell_asked(case, Method.COMMITMENT)
        classes = {each.sop_instance_uid: each.sop_class_uid for each in case.unproved}
        for ask in asks:
            response = self._user.ask(ask.transaction_uid, [(classes[uid], uid) for uid in ask.sop_instance_uids])
            if response.status != 0:
                meaning = interpret(response.status, response.error_comment)
                self._answered(case, attempt, {}, (f"asked for commitment: {meaning.meaning}", meaning.hint))
                return
        with self._rooms.database.write() as session:
            proofs.put_off(session, case, now + self._route.policy.answer_s)
        self._awaited += [ask.transaction_uid for ask in asks]

    def _ask_find(self, case: Case, now: float) -> None:
        attempt = asks_of(case.sight, Method.FIND)
        with self._rooms.database.write() as session:
            proofs.asked(session, case, Method.FIND, attempt, now)
        _tell_asked(case, Method.FIND)
        try:
            held = instances_held(self._association, case.study_instance_uid, case.series_instance_uid)
        except RequestFailedError as error:
            self._answered(case, attempt, {}, (f"C-FIND failed: {error}", error.hint))
            return
        found = [each.outbox_row for each in case.unproved if each.sop_instance_uid in held]
        missing = {
            each.sop_instance_uid: NO_SUCH_INSTANCE for each in case.unproved if each.sop_instance_uid not in held
        }
        confirm(self._rooms.database, case, Method.FIND, self._rooms.now(), found)
        if missing:
            count = len(missing)
            told = (
                f"{count} not found there by C-FIND",
                "it may index late; it is asked again, then they are sent again",
            )
            self._answered(case, attempt, missing, told)

    def _answered(self, case: Case, attempt: int, failures: dict[str, int], told: tuple[str, str]) -> None:
        now = self._rooms.now()
        with self._rooms.database.write() as session:
            proofs.answered(session, case, failures, told, now)
            proofs.put_off(session, case, now + self._route.policy.pause_s(attempt))

    def _unoffered(self, case: Case, now: float) -> None:
        """It offers nothing of what it has to prove by."""
        wanted = self._route.policy.kind
        told = (f"it offers no proof by {wanted}", "allow our AE title to ask for it there, or change proof")
        attempt = asks_of(case.sight, Method.RECEIPTS)
        with self._rooms.database.write() as session:
            proofs.asked(session, case, Method.RECEIPTS, attempt, now)
        self._answered(case, attempt, {}, told)


def confirm(
    database: Database, case: Case, method: Method, now: float, outbox_rows: Sequence[int] | None = None
) -> None:
    """Note that a series is proved to be there; with `outbox_rows`, so much of it."""
    rows = [each.outbox_row for each in case.unproved] if outbox_rows is None else outbox_rows
    with database.write() as session:
        count = proofs.confirm(session, rows, method, now)
        proofs.put_off(session, case, None if count == len(case.unproved) else now)
    proofs.tell(Confirmed(case.destination, case.series_instance_uid, method, count))


def _tell_asked(case: Case, method: Method) -> None:
    event(
        "proof_asked",
        destination=case.destination,
        series_instance_uid=case.series_instance_uid,
        proof=method.value,
        instances=len(case.unproved),
    )


def _offered(association: Association) -> frozenset[Method]:
    """What the destination can be asked by."""
    classes = {kind.sop_class_uid for kind in association.accepted}
    by_class = ((Method.COMMITMENT, frozenset({STORAGE_COMMITMENT})), (Method.FIND, _FIND_CLASSES))
    return frozenset(method for method, wanted in by_class if wanted & classes)


def _transactions(case: Case, peer: str, attempt: int, now: float) -> list[Commitment]:
    """The requests for one series: so many instances each."""
    found = []
    members = list(dict.fromkeys((each.sop_instance_uid, each.outbox_row) for each in case.unproved))
    for start in range(0, len(members), LARGEST_TRANSACTION):
        uids = [uid for uid, _ in members[start : start + LARGEST_TRANSACTION]]
        found.append(
            Commitment(
                transaction_uid=transaction_uid(case.destination, uids, case.sight.began_at, attempt),
                proof_row=case.proof_row,
                peer=peer,
                outbox_rows=[row for _, row in members[start : start + LARGEST_TRANSACTION]],
                sop_instance_uids=uids,
                asked_at=now,
                answered_at=None,
            )
        )
    return found
