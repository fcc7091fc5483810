"""Proving deliveries: a thread for each destination that asks whether it holds what it was sent.

What is asked and what follows from the answers is decided by `dicomnode.core.proof`; here it is done. A question is in
the index before it is put: its result may come to another process, on an association that the destination opens, or
after we were killed.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from dicomnode import metrics
from dicomnode.core.notification import STORAGE_COMMITMENT
from dicomnode.core.ports import Notifications
from dicomnode.core.proof import (
    LARGEST_TRANSACTION,
    NO_SUCH_INSTANCE,
    Action,
    Method,
    ProofPolicy,
    Step,
    asks_of,
    method_for,
    next_step,
    transaction_uid,
)
from dicomnode.core.types import Sender
from dicomnode.errors import AssociationLostError, PeerError, RequestFailedError
from dicomnode.net.commitment import COMMITMENT_CONTEXTS, CommitmentUser
from dicomnode.net.holdings import instances_held
from dicomnode.net.query import FIND_CONTEXTS
from dicomnode.net.scu import Association, Interruption, Opening, PeerAddress, associate
from dicomnode.net.status import interpret
from dicomnode.store.database import Database
from dicomnode.store.index import health, proofs
from dicomnode.store.index.proofs import Case, Confirmed
from dicomnode.store.reach import enduring
from dicomnode.store.schema import Commitment
from dicomnode.telemetry import event

_POLL_S: Final = 1.0
_TOGETHER: Final = 8
"""Series that are asked about on one association."""

_CLAIM_S: Final = 900.0
"""How long a series is ours once we look at it: longer than any question takes."""

_BREAKS_BELIEVED: Final = 2
"""So often an association may break off at a question by chance."""

_BREAKS_HINT: Final = "look at the destination's log, or set its proof to what it can do"
_FORGET_EVERY_S: Final = 3600.0
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


class Prover:
    """Asks one destination until it is stopped."""

    def __init__(
        self,
        database: Database,
        notifications: Notifications,
        route: ProofRoute,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._notifications = notifications
        self.route = route
        self._now = now
        self._interruption = Interruption()
        self._opening = replace(route.opening, interruption=self._interruption)
        self._failures = 0
        self._down_until = 0.0
        self._forget_at = 0.0
        self._broken: Counter[int] = Counter()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"prove {route.name}")

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def ask_stop(self) -> None:
        """What is being asked is broken off: the index knows it."""
        self._stopping.set()
        self._interruption.interrupt()

    def stop(self) -> None:
        self.ask_stop()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(_POLL_S):
            with enduring():
                while self.prove() and not self._stopping.is_set():
                    pass

    def prove(self) -> bool:
        """Look at what is due; whether there was anything."""
        now = self._now()
        if now < self._down_until:
            return False
        with self._database.read() as session:
            if not proofs.is_due(session, self.route.name, now) or health.paused(session, self.route.name) is not None:
                return False
        with self._database.write() as session:
            cases = proofs.claim(session, self.route.name, now, now + _CLAIM_S, _TOGETHER)
            if now >= self._forget_at:
                proofs.forget_commitments(session, now)
                self._forget_at = now + _FORGET_EVERY_S
        to_ask = [case for case in cases if self._decide(case, now)]
        if to_ask:
            self._ask(to_ask)
        return bool(cases)

    def _decide(self, case: Case, now: float) -> bool:
        """Do what needs no call; whether the destination is to be asked."""
        step = next_step(self.route.policy, case.sight, now)
        match step.action:
            case Action.ASK:
                return True
            case Action.CONFIRM:
                self._confirm(case, Method.RECEIPTS, [each.outbox_row for each in case.unproved], now)
            case Action.SEND_AGAIN:
                self._send_again(case, step, now)
            case Action.GIVE_UP:
                self._give_up(case, step)
            case Action.NOTHING | Action.WAIT:
                with self._database.write() as session:
                    proofs.put_off(session, case, step.until if step.action is Action.WAIT else None)
        return False

    def _confirm(self, case: Case, method: Method, outbox_rows: Sequence[int], now: float) -> None:
        with self._database.write() as session:
            count = proofs.confirm(session, outbox_rows, method, now)
            proofs.put_off(session, case, None if count == len(case.unproved) else now)
        proofs.tell(Confirmed(case.destination, case.series_instance_uid, method, count))

    def _send_again(self, case: Case, step: Step, now: float) -> None:
        with self._database.write() as session:
            count = proofs.send_again(session, case, step, now)
            proofs.put_off(session, case, now + self.route.policy.again_s)
        self._tell_missing(case, step, count)

    def _give_up(self, case: Case, step: Step) -> None:
        with self._database.write() as session:
            proofs.give_up(session, case, step)
        event(
            "proof_given_up",
            destination=case.destination,
            series_instance_uid=case.series_instance_uid,
            proof=case.sight.method,
            instances=len(step.sop_instance_uids or case.unproved),
            reason=step.meaning,
            hint=step.hint,
        )

    def _tell_missing(self, case: Case, step: Step, count: int) -> None:
        metrics.count("dicomnode_missing_total", count, destination=case.destination)
        event(
            "proof_missing",
            destination=case.destination,
            series_instance_uid=case.series_instance_uid,
            proof=case.sight.method,
            instances=count,
            attempt=case.sight.resends + 1,
            reason=step.meaning,
            hint=step.hint,
        )

    def _ask(self, cases: Sequence[Case]) -> None:
        """Call the destination, and ask about each series by what it offers."""
        left = list(cases)
        waiting: list[str] = []
        is_there = False
        try:
            contexts = (*COMMITMENT_CONTEXTS, *FIND_CONTEXTS)
            with associate(self.route.address, self.route.calling_ae, contexts, self._opening) as association:
                is_there, self._failures = True, 0
                offered = _offered(association)
                while left:
                    waiting += self._ask_about(left[0], association, offered)
                    self._broken.pop(left[0].proof_row, None)
                    del left[0]
                self._await_reports(association, waiting)
        except PeerError as error:
            if not self._stopping.is_set():
                self._postpone(left, error, broken=left[0] if left and is_there else None)

    def _ask_about(self, case: Case, association: Association, offered: frozenset[Method]) -> list[str]:
        """Ask about one series; Transaction UIDs of commitments whose results are to come."""
        now = self._now()
        method = method_for(self.route.policy, case.sight, offered)
        match method:
            case Method.COMMITMENT:
                return self._ask_commitment(case, association, now)
            case Method.FIND:
                self._ask_find(case, association, now)
            case Method.RECEIPTS:
                self._confirm(case, Method.RECEIPTS, [each.outbox_row for each in case.unproved], now)
            case None:
                self._unoffered(case, now)
        return []

    def _ask_commitment(self, case: Case, association: Association, now: float) -> list[str]:
        attempt = asks_of(case.sight, Method.COMMITMENT)
        asks = _transactions(case, self.route.peer, attempt, now)
        with self._database.write() as session:
            proofs.asked(session, case, Method.COMMITMENT, attempt, now)
            for ask in asks:
                proofs.commitment_asked(session, ask)
        self._tell_asked(case, Method.COMMITMENT)
        user = CommitmentUser(association, self._notifications, self.route.sender)
        classes = {each.sop_instance_uid: each.sop_class_uid for each in case.unproved}
        for ask in asks:
            response = user.ask(ask.transaction_uid, [(classes[uid], uid) for uid in ask.sop_instance_uids])
            if response.status != 0:
                meaning = interpret(response.status, response.error_comment)
                self._answered(case, attempt, {}, (f"asked for commitment: {meaning.meaning}", meaning.hint))
                return []
        with self._database.write() as session:
            proofs.put_off(session, case, now + self.route.policy.answer_s)
        return [ask.transaction_uid for ask in asks]

    def _await_reports(self, association: Association, transaction_uids: Sequence[str]) -> None:
        """Serve the reports that come on this association; others come when they come."""
        if not transaction_uids:
            return

        def is_done() -> bool:
            if self._stopping.is_set():
                return True
            with self._database.read() as session:
                return proofs.all_answered(session, transaction_uids)

        user = CommitmentUser(association, self._notifications, self.route.sender)
        try:
            user.serve_reports(self.route.policy.report_s, is_done, self._stopping.wait)
        except AssociationLostError:  # it need not wait with us
            return

    def _ask_find(self, case: Case, association: Association, now: float) -> None:
        attempt = asks_of(case.sight, Method.FIND)
        with self._database.write() as session:
            proofs.asked(session, case, Method.FIND, attempt, now)
        self._tell_asked(case, Method.FIND)
        try:
            held = instances_held(association, case.study_instance_uid, case.series_instance_uid)
        except RequestFailedError as error:
            self._answered(case, attempt, {}, (f"C-FIND failed: {error}", error.hint))
            return
        found = [each.outbox_row for each in case.unproved if each.sop_instance_uid in held]
        missing = {
            each.sop_instance_uid: NO_SUCH_INSTANCE for each in case.unproved if each.sop_instance_uid not in held
        }
        self._confirm(case, Method.FIND, found, self._now())
        if missing:
            count = len(missing)
            told = (
                f"{count} not found there by C-FIND",
                "it may index late; it is asked again, then they are sent again",
            )
            self._answered(case, attempt, missing, told)

    def _answered(self, case: Case, attempt: int, failures: dict[str, int], told: tuple[str, str]) -> None:
        now = self._now()
        with self._database.write() as session:
            proofs.answered(session, case, failures, told, now)
            proofs.put_off(session, case, now + self.route.policy.pause_s(attempt))

    def _unoffered(self, case: Case, now: float) -> None:
        """It offers nothing of what it has to prove by."""
        wanted = self.route.policy.kind
        told = (f"it offers no proof by {wanted}", "allow our AE title to ask for it there, or change proof")
        attempt = asks_of(case.sight, Method.RECEIPTS)
        with self._database.write() as session:
            proofs.asked(session, case, Method.RECEIPTS, attempt, now)
        self._answered(case, attempt, {}, told)

    def _postpone(self, cases: Sequence[Case], error: PeerError, broken: Case | None) -> None:
        """The destination is out of reach: whatever was not asked waits, and so do all others. The one at which the
        association broke off goes last then, so that it stops no other; where it does so each time, that is taken for
        an answer."""
        self._failures += 1
        now = self._now()
        pause_s = self.route.policy.pause_s(self._failures)
        self._down_until = now + pause_s
        if broken is not None:
            self._broken[broken.proof_row] += 1
        with self._database.write() as session:
            for case in cases:
                if self._broken[case.proof_row] > _BREAKS_BELIEVED:
                    proofs.answered(session, case, {}, ("it breaks off when it is asked", _BREAKS_HINT), now)
                else:
                    proofs.not_asked(session, case)
                proofs.put_off(session, case, now if broken not in (None, case) else self._down_until)
        event(
            "proof_unavailable",
            destination=self.route.name,
            address=str(self.route.address),
            retry_s=pause_s,
            error=type(error).__name__,
            reason=str(error),
            hint=error.hint,
        )

    def _tell_asked(self, case: Case, method: Method) -> None:
        event(
            "proof_asked",
            destination=case.destination,
            series_instance_uid=case.series_instance_uid,
            proof=method.value,
            instances=len(case.unproved),
        )


class Provers:
    """The provers of all destinations; `follow` goes along with a changed configuration."""

    def __init__(self, database: Database, notifications: Notifications) -> None:
        self._database = database
        self._notifications = notifications
        self.running: tuple[Prover, ...] = ()

    @property
    def are_alive(self) -> bool:
        return all(prover.is_alive for prover in self.running)

    def follow(self, routes: Iterable[ProofRoute]) -> None:
        """Have one prover for each route. Those whose route is as before go on undisturbed."""
        wanted = {route.name: route for route in routes}
        kept = tuple(prover for prover in self.running if wanted.get(prover.route.name) == prover.route)
        _stop(prover for prover in self.running if prover not in kept)
        names = {prover.route.name for prover in kept}
        added = tuple(
            Prover(self._database, self._notifications, route) for name, route in wanted.items() if name not in names
        )
        self.running = (*kept, *added)
        for prover in added:
            prover.start()

    def stop(self) -> None:
        _stop(self.running)
        self.running = ()


def _stop(provers: Iterable[Prover]) -> None:
    """All are asked before any is waited for."""
    stopping = tuple(provers)
    for prover in stopping:
        prover.ask_stop()
    for prover in stopping:
        prover.stop()


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
