"""One batch as the lanes that send it share it: what waits, what was answered, and what ends it early."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from dicomnode.core.types import Outcome, Outgoing, Receipt
from dicomnode.errors import PeerError

_BROKEN_IN_A_ROW: Final = 3
"""Associations that break off one after the other before it is the destination's fault and no instance's."""


class Work:
    """A batch being sent; for any thread.

    size     of the batch
    granted  how many associations the destination had granted when it refused another; None where it refused none
    error    what ended it, if anything did
    """

    def __init__(self, batch: Sequence[Outgoing]) -> None:
        self._lock = threading.Lock()
        self._waiting = deque(batch)
        self._news: queue.SimpleQueue[Receipt | None] = queue.SimpleQueue()
        self._is_stopped = False
        self._connected = self._most_connected = 0
        self.size = len(batch)
        self.granted: int | None = None
        self._broken = 0
        self.error: PeerError | None = None

    @property
    def lanes(self) -> int:
        """How many have an association."""
        return self._connected

    @property
    def is_ending(self) -> bool:
        """Whether nothing further is to be begun, though something may wait."""
        return self._is_stopped or self.error is not None

    @property
    def waits(self) -> bool:
        """Whether anything is left that may be begun."""
        return bool(self._waiting) and not self.is_ending

    def stop(self) -> None:
        """Begin nothing further."""
        self._is_stopped = True

    def take(self) -> Outgoing | None:
        """The next to be sent, in the order of the batch; None where nothing further is to be begun."""
        with self._lock:
            return self._waiting.popleft() if self.waits else None

    def put_back(self, outgoing: Outgoing) -> None:
        """Let the next lane that is free send it."""
        with self._lock:
            self._waiting.appendleft(outgoing)

    def connected(self) -> None:
        """A lane has its association."""
        with self._lock:
            self._connected += 1
            self._most_connected = max(self._most_connected, self._connected)
        self.wake()

    def disconnected(self) -> None:
        """A lane has none any more, or needs it no more."""
        with self._lock:
            self._connected -= 1

    def refused(self, error: PeerError) -> None:
        """A lane could open none. Where no other has one either and something waits, that is the end of all."""
        with self._lock:
            if self._most_connected and (self._connected or not self._waiting):
                self.granted = self._most_connected
            else:
                self.error = self.error or error

    def broke_off(self, outgoing: Outgoing, error: PeerError) -> None:
        """An association broke off at an instance.

        The instance may be at fault itself (some destinations abort at what they cannot parse): it waits its own time.
        Where several break off in a row, it is the destination.
        """
        with self._lock:
            self._broken += 1
            if self._broken >= _BROKEN_IN_A_ROW:
                self.error = self.error or error
        self._news.put(Receipt(outgoing.outbox_id, Outcome.ABORTED, None, str(error), error.hint, transient=True))

    def tell(self, receipt: Receipt) -> None:
        """An instance has its receipt."""
        if receipt.status is not None:
            self._broken = 0
        self._news.put(receipt)

    def wake(self) -> None:
        """Let `receipts` return: something else than a receipt happened."""
        self._news.put(None)

    def receipts(self, timeout_s: float) -> tuple[Receipt, ...]:
        """Wait for what happens next: what was told since the last time, nothing after a `wake` or the time."""
        news: list[Receipt | None] = []
        try:
            news.append(self._news.get(timeout=timeout_s))
            while True:
                news.append(self._news.get_nowait())
        except queue.Empty:
            return tuple(receipt for receipt in news if receipt is not None)
