"""The drainers of all destinations, and who wakes them: one cheap question for all, whenever the bell rings and now and
then besides, for other machines' bells are not heard here."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Final

from dicomnode.bell import Bell
from dicomnode.flow.delivering import Drainer, Route
from dicomnode.flow.leasing import Leases
from dicomnode.flow.repeating import Repeating
from dicomnode.store.database import Database
from dicomnode.store.files import FileStore
from dicomnode.store.index import health, processes
from dicomnode.store.index.health import Situation
from dicomnode.store.reach import enduring

_LOOK_S: Final = 0.25
"""How late what another machine received is noticed here; and a pause, which is to hold within a second."""

_BETWEEN_S: Final = 0.02
_BETWEEN_WHILE_BUSY_S: Final = 0.1
"""The bell rings with every commit of a receiver. Drainers that have work look for more by themselves."""

_TEND_S: Final = 1.0
_FINISH_S: Final = 10.0
"""How long an instance that is being sent may take once a stop was asked for."""


class Drainers:
    """The drainers of all destinations; `follow` goes along with a changed configuration."""

    def __init__(self, database: Database, files: FileStore, owner: str, bell: Bell) -> None:
        """`owner` names this process among all that share the index (`dicomnode.store.index.leases.owner_on`)."""
        self._database = database
        self._files = files
        self._owner = owner
        self._bell = bell
        self._leases = Leases(database, owner)
        self._tending = Repeating("leases", _TEND_S, self._tend)
        self._stopping = threading.Event()
        self._looking = threading.Thread(target=self._look_out, name="lookout")
        self.running: tuple[Drainer, ...] = ()

    @property
    def are_alive(self) -> bool:
        return self._looking.is_alive() and self._tending.is_alive and all(drainer.is_alive for drainer in self.running)

    def start(self) -> None:
        self._tending.start()
        self._looking.start()

    def follow(self, routes: Iterable[Route]) -> None:
        """Have one drainer for each route. Those whose route is as before go on undisturbed."""
        wanted = {route.name: route for route in routes}
        kept = tuple(drainer for drainer in self.running if wanted.get(drainer.route.name) == drainer.route)
        leaving = [drainer for drainer in self.running if drainer not in kept]
        self.running = kept
        _stop(leaving)
        names = {drainer.route.name for drainer in kept}
        added = tuple(
            Drainer(self._database, self._files, route, self._leases)
            for name, route in wanted.items()
            if name not in names
        )
        self._leases.know([drainer.route.name for drainer in added])
        for drainer in added:
            drainer.start()
        self.running = (*kept, *added)
        self._bell.ring()

    def stop(self) -> None:
        self._stopping.set()
        self._bell.ring()
        if self._looking.ident is not None:
            self._looking.join()
        _stop(self.running)
        self.running = ()
        if self._tending.is_alive:
            self._tending.stop()

    def look(self, now: float) -> None:
        """Wake those that have something to send, and halt those that may not send any more."""
        running = self.running
        with self._database.read() as session:
            found = health.situations(session, [drainer.route.name for drainer in running], now)
            leases_at = processes.clock(session) if self._database.is_shared else now
        for drainer in running:
            situation = found[drainer.route.name]
            if drainer.is_busy:
                if situation.paused or (drainer.sends_all and not drainer.route.opening.hours.is_open(now)):
                    drainer.halt()
            elif self._may_send(drainer.route, situation, now, leases_at):
                drainer.wake()

    def _may_send(self, route: Route, situation: Situation, now: float, leases_at: float) -> bool:
        if situation.paused or situation.is_parked(now) or situation.is_anothers(self._owner, leases_at):
            return False
        if situation.down_until is not None and route.opening.hours.is_open(now):
            return True  # it is to be found out whether it is there again
        return situation.normal or situation.urgent if route.opening.hours.is_open(now) else situation.urgent

    def _look_out(self) -> None:
        while not self._stopping.is_set():
            self._bell.wait(_LOOK_S)
            if self._stopping.is_set():
                return
            with enduring():
                self.look(time.time())
            is_busy = any(drainer.is_busy for drainer in self.running)
            self._stopping.wait(_BETWEEN_WHILE_BUSY_S if is_busy else _BETWEEN_S)

    def _tend(self, _now: float) -> None:
        """Keep the leases, and have nobody send without one."""
        self._leases.keep()
        running = self.running
        for drainer in running:
            if drainer.is_sending and not self._leases.is_good(drainer.route.name):
                if self._leases.is_over(drainer.route.name):
                    drainer.cut()
                else:
                    drainer.halt()
        self._leases.balance([drainer.route.name for drainer in running if drainer.is_busy])


def _stop(drainers: Iterable[Drainer]) -> None:
    """All are asked before any is waited for: those that hang cost their time once, not each its own."""
    stopping = tuple(drainers)
    for drainer in stopping:
        drainer.ask_stop()
    until = time.monotonic() + _FINISH_S
    for drainer in stopping:
        drainer.stop(until)
