"""The leases of one process: which destinations it may send to, among all machines.

A lease lasts half a minute and is renewed long before, by a thread of its own, however long an instance takes. Who
could not renew it stops before it ends, by the clock of the machine: no two send to one destination.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Final

from dicomnode.core.fairness import surplus
from dicomnode.store.database import Database
from dicomnode.store.index import leases, processes
from dicomnode.store.index.leases import Clock
from dicomnode.store.reach import enduring

LEASE_S: Final = 30.0
"""So long a destination waits at most for the machine that drained it and died."""

SEND_S: Final = 20.0
"""So long we send without having renewed it; the rest is for what is on its way."""

_RENEW_S: Final = 8.0
_BALANCE_S: Final = 5.0
_IDLE_S: Final = 30.0
"""A lease that nobody used for so long is left to whoever has work for it."""

_REST_S: Final = 4.0
"""So long we leave alone what we gave up for others."""


class Leases:
    """What one owner holds; for any thread.

    clock    the database's, which leases are measured by
    elapsed  this machine's, never put back
    """

    def __init__(
        self,
        database: Database,
        owner: str,
        clock: Clock = processes.clock,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._owner = owner
        self._clock = clock
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._renewed: dict[str, float] = {}
        self._used: dict[str, float] = {}
        self._resting: dict[str, float] = {}
        self._known: set[str] = set()
        self._leaving: set[str] = set()
        self._kept_at = self._balanced_at = elapsed()

    def know(self, names: Collection[str]) -> None:
        """Have a row for each destination."""
        with self._database.write() as session:
            leases.know(session, names)
        self._known |= set(names)

    def hold(self, name: str) -> bool:
        """Whether we may begin to send to a destination; its lease is taken where it is free."""
        now = self._elapsed()
        if name in self._leaving:
            self.let_go([name])
        with self._lock:
            if self._is_good(name):
                self._used[name] = now
                return True
            if self._resting.get(name, 0.0) > now:
                return False
        if name not in self._known:
            self.know([name])
        with self._database.write(alone=False) as session:
            at = self._clock(session)
            taken = leases.take(session, name, self._owner, at, at + LEASE_S)
        with self._lock:
            if taken:
                self._renewed[name] = self._used[name] = now
        return taken

    def is_good(self, name: str) -> bool:
        """Whether we hold it, and long enough to begin something."""
        with self._lock:
            return self._is_good(name)

    def is_over(self, name: str) -> bool:
        """Whether another may hold it by now."""
        with self._lock:
            return not self._lasts(name, LEASE_S)

    def keep(self) -> None:
        """Renew what is held, where it is time to."""
        now = self._elapsed()
        with self._lock:
            held = set(self._renewed)
        if now - self._kept_at < _RENEW_S or not held:
            return
        with enduring():
            with self._database.write(alone=False) as session:
                at = self._clock(session)
                kept = leases.renew(session, self._owner, at, at + LEASE_S)
            self._kept_at = now
            with self._lock:
                for name in held & self._renewed.keys():  # what was taken meanwhile is good without this
                    if name in kept:
                        self._renewed[name] = now
                    else:
                        del self._renewed[name]

    def balance(self, busy: Collection[str]) -> None:
        """Leave to other machines what we do not use, and what is more than our share. A busy one when it is next asked
        for, between two batches."""
        now = self._elapsed()
        if not self._database.is_shared or now - self._balanced_at < _BALANCE_S:
            return
        self._balanced_at = now
        known = None
        with enduring(), self._database.read() as session:
            at = self._clock(session)
            known = leases.holders(session, at), leases.machines(session, at)
        if known is None:
            return
        held, machines = known
        with self._lock:
            mine = sorted(self._renewed, key=lambda name: (name in busy, self._used.get(name, 0.0)))
            idle = [name for name in mine if name not in busy and now - self._used.get(name, 0.0) > _IDLE_S]
            used = [name for name in mine if name not in idle]
            self._leaving = set(used[: surplus(len(used), len(held) - len(idle), machines)])
        self.let_go([*idle, *(name for name in self._leaving if name not in busy)])

    def let_go(self, names: Collection[str]) -> None:
        """Give leases up, and leave them to others for a while."""
        if not names:
            return
        until = self._elapsed() + _REST_S
        with self._lock:
            for name in names:
                self._renewed.pop(name, None)
                self._leaving.discard(name)
                self._resting[name] = until if self._database.is_shared else 0.0
        with enduring(), self._database.write(alone=False) as session:  # else they end by themselves
            leases.release(session, self._owner, names)

    def _is_good(self, name: str) -> bool:
        return self._lasts(name, SEND_S)

    def _lasts(self, name: str, span_s: float) -> bool:
        renewed = self._renewed.get(name)
        return renewed is not None and self._elapsed() - renewed < span_s
