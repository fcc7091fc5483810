"""The provers of all destinations."""

from __future__ import annotations

from collections.abc import Iterable

from dicomnode.core.ports import Notifications
from dicomnode.flow.inquiring import ProofRoute
from dicomnode.flow.proving import Prover
from dicomnode.store.database import Database


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
