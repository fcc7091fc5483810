"""Signs of life of a process: given in a thread of their own, so that no work can hold them up."""

from __future__ import annotations

import math
import threading
import time
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from dicomnode import telemetry
from dicomnode.flow.takeover import Cadence
from dicomnode.store.claims import Claim
from dicomnode.store.database import Database
from dicomnode.store.index import processes
from dicomnode.store.index.processes import Sign

_STEADY_BEATS: Final = 2.5
"""Signs of life that come further apart than so many beats have a gap between them."""

_LOOK_S: Final = 0.2


class Heart:
    """Beats until it is stopped.

    It is lost where another process has our place by now, or our work was given to others: then we must end.
    """

    def __init__(self, database: Database, sign: Sign, claim: Claim, cadence: Cadence) -> None:
        self._database = database
        self._sign = sign
        self._claim = claim
        self._beat_s = cadence.beat_s
        self._stale_after_s = cadence.dead_after_s if database.is_shared else math.inf
        self._beaten = -math.inf  # monotonic
        self._steady_since = math.inf
        self._is_failing = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beat", daemon=True)
        self.is_lost = False

    @property
    def executor_id(self) -> str:
        return self._sign.executor_id

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def steady_s(self) -> float:
        """For how long it has beaten without a gap."""
        now = time.monotonic()
        return max(0.0, now - self._steady_since) if now - self._beaten < self._beat_s * _STEADY_BEATS else 0.0

    def start(self) -> None:
        """Give the first sign, before any work is begun. On one machine the work begins without it: on a full disk none
        can be given, and a receiver has to answer 0xA700."""
        while not self.beat() and self._database.is_shared and not self._stopping.wait(self._beat_s):
            pass
        self._thread.start()

    def stop(self) -> None:
        """Take leave: who ends in good order is not a dead one."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        try:
            with self._database.write(alone=False) as session:
                processes.leave(session, self.executor_id)
        except SQLAlchemyError:  # then it is found dead
            return

    def beat(self) -> bool:
        """Give one sign of life; whether it could be given."""
        try:
            with self._database.write(alone=False) as session:
                keeps_work = processes.beat(session, self._sign)
        except SQLAlchemyError as error:
            if not self._is_failing:
                telemetry.event("sign_of_life_failed", role=self._sign.role, error=type(error).__name__)
            self._is_failing = True
            return False
        self._is_failing = False
        now = time.monotonic()
        if now - self._beaten > self._beat_s * _STEADY_BEATS:
            self._steady_since = now
        self._beaten = now
        self.is_lost = self.is_lost or not keeps_work or not self._claim.holds()
        return True

    def await_sign(self) -> None:
        """Wait while our last sign of life is so old that others may take us for dead: no work may be begun then."""
        while self._is_stale() and not self.is_lost and not self._stopping.wait(_LOOK_S):
            pass

    def _is_stale(self) -> bool:
        return time.monotonic() - self._beaten > self._stale_after_s

    def _run(self) -> None:
        while not self._stopping.wait(self._beat_s):
            self.beat()
