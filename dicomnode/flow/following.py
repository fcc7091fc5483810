"""A thread for each destination of one kind (its prover, its checker), as the configuration has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar


class Route(Protocol):
    """One destination as a thread of its own sees it."""

    @property
    def name(self) -> str: ...


RouteT = TypeVar("RouteT", bound=Route)


class Attendant(Protocol[RouteT]):
    """The thread of one destination."""

    route: RouteT

    @property
    def is_alive(self) -> bool: ...

    def start(self) -> None: ...

    def ask_stop(self) -> None:
        """Returns at once."""
        ...

    def stop(self) -> None:
        """Wait until it has ended."""
        ...


class Following(Generic[RouteT]):
    """Those of all destinations; `follow` goes along with a changed configuration.

    make  gives the one of a route, not yet started
    """

    def __init__(self, make: Callable[[RouteT], Attendant[RouteT]]) -> None:
        self._make = make
        self.running: tuple[Attendant[RouteT], ...] = ()

    @property
    def are_alive(self) -> bool:
        return all(each.is_alive for each in self.running)

    def follow(self, routes: Iterable[RouteT]) -> None:
        """Have one for each route. Those whose route is as before go on undisturbed."""
        wanted = {route.name: route for route in routes}
        kept = tuple(each for each in self.running if wanted.get(each.route.name) == each.route)
        _stop(each for each in self.running if each not in kept)
        names = {each.route.name for each in kept}
        added = tuple(self._make(route) for name, route in wanted.items() if name not in names)
        self.running = (*kept, *added)
        for each in added:
            each.start()

    def stop(self) -> None:
        _stop(self.running)
        self.running = ()


def _stop(attendants: Iterable[Attendant[RouteT]]) -> None:
    """All are asked before any is waited for."""
    stopping = tuple(attendants)
    for each in stopping:
        each.ask_stop()
    for each in stopping:
        each.stop()
