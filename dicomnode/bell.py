"""A bell between processes: whoever made work rings it, and who does the work looks at once, not at its next look.

It carries nothing and promises nothing: one that is not heard costs a moment. Made before the processes are forked; a
killed one leaves nothing behind in it.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress


class Bell:
    """A counter of the kernel (eventfd(2)), shared by all who inherit it. Ringing costs a microsecond."""

    def __init__(self) -> None:
        self._counter = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._counter, select.POLLIN)

    def ring(self) -> None:
        """From any thread of any process; never waits."""
        with suppress(BlockingIOError):  # it is ringing all the time
            os.eventfd_write(self._counter, 1)

    def wait(self, timeout_s: float) -> bool:
        """Wait until it rings, for one listener; whether it did. All rings since the last time are one."""
        if not self._poll.poll(1000 * timeout_s):
            return False
        with suppress(BlockingIOError):  # another has listened
            os.eventfd_read(self._counter)
        return True

    def close(self) -> None:
        os.close(self._counter)
