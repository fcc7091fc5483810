"""One slow action for all who wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Combined:
    """Runs an action so that each caller sees one that began after its call, and few are run.

    Whoever comes first runs it; those who come meanwhile wait, and the first of them runs it for all of them. So
    concurrent senders share one commit, and a single sender pays for no other thread. What the action raises goes to
    the caller that ran it; the others run it anew.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self._counting = threading.Lock()
        self._running = threading.Lock()
        self._asked = 0
        self._answered = 0

    def __call__(self) -> None:
        with self._counting:
            self._asked += 1
            ticket = self._asked
        with self._running:
            if self._answered >= ticket:
                return
            with self._counting:
                newest = self._asked
            self._action()
            self._answered = newest
