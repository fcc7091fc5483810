"""Proving deliveries: a thread for each destination that asks whether it holds what it was sent.

What is asked and what follows from the answers is decided by `dicomnode.core.proof`, and asked in
`dicomnode.flow.inquiring`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from dicomnode import metrics
from dicomnode.core.ports import Notifications
from dicomnode.core.proof import Action, Method, Step, next_step
from dicomnode.errors import PeerError
from dicomnode.flow.inquiring import INQUIRY_CONTEXTS, Inquiry, ProofRooms, ProofRoute, confirm
from dicomnode.net.scu import Interruption, associate
from dicomnode.store.database import Database
from dicomnode.store.index import health, proofs
from dicomnode.store.index.proofs import Case
from dicomnode.store.reach import enduring
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
        self.route = route
        self._now = now
        self._interruption = Interruption()
        self._opening = replace(route.opening, interruption=self._interruption)
        self._failures = 0
        self._down_until = 0.0
        self._forget_at = 0.0
        self._broken: Counter[int] = Counter()
        self._stopping = threading.Event()
        self._rooms = ProofRooms(database, notifications, now, self._stopping)
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
                confirm(self._database, case, Method.RECEIPTS, now)
            case Action.SEND_AGAIN:
                self._send_again(case, step, now)
            case Action.GIVE_UP:
                self._give_up(case, step)
            case Action.NOTHING | Action.WAIT:
                with self._database.write() as session:
                    proofs.put_off(session, case, step.until if step.action is Action.WAIT else None)
        return False

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
        is_there = False
        try:
            with associate(self.route.address, self.route.calling_ae, INQUIRY_CONTEXTS, self._opening) as association:
                is_there, self._failures = True, 0
                inquiry = Inquiry(self._rooms, self.route, association)
                while left:
                    inquiry.ask_about(left[0])
                    self._broken.pop(left[0].proof_row, None)
                    del left[0]
                inquiry.await_reports()
        except PeerError as error:
            if not self._stopping.is_set():
                self._postpone(left, error, broken=left[0] if left and is_there else None)

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
