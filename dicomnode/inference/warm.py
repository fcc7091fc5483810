"""The engines that one process keeps open.

Opening an engine takes seconds: its networks are read, compiled, and given threads or a device. So an engine stays open
while it is used, until others need the memory (the least recently used goes first) or nobody has asked for it for long.
"""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomnode.inference.opening import Opened
from engines.base import Engine

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Keeping:
    """How long engines are kept open.

    memory_bytes  of this process, above which the least recently used are closed; the one that is asked for never is
    idle_s        after so long without a use one is closed
    """

    memory_bytes: int
    idle_s: float


class WarmEngines:
    """Open engines by what was asked for (`engines.registry.Registry.source`): another bundle under the same name and
    version is another engine.

    opener          opens one; what it raises is passed on
    resident_bytes  memory that this process has
    """

    def __init__(
        self,
        opener: Callable[[str], Opened],
        keeping: Keeping,
        clock: Callable[[], float] = time.monotonic,
        resident_bytes: Callable[[], int] | None = None,
    ) -> None:
        self._opener = opener
        self._keeping = keeping
        self._clock = clock
        self._resident_bytes = resident_bytes or own_resident_bytes
        self._open: OrderedDict[str, Opened] = OrderedDict()  # the last is the most recently used
        self._used_at: dict[str, float] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """What is open, the least recently used first."""
        return tuple(self._open)

    def get(self, reference: str) -> Engine:
        """The engine, opened where it is not."""
        if reference not in self._open:
            self._make_room(keep="")
            self._open[reference] = self._opener(reference)
        self._open.move_to_end(reference)
        self._used_at[reference] = self._clock()
        return self._open[reference].engine

    def settle(self, used: str = "") -> None:
        """After a use: close what nobody has asked for, and what there is no memory for; `used` stays."""
        now = self._clock()
        for reference in self.names:
            if reference != used and now - self._used_at[reference] >= self._keeping.idle_s:
                self._close(reference)
        self._make_room(keep=used)

    def close(self) -> None:
        for reference in self.names:
            self._close(reference)

    def _make_room(self, keep: str) -> None:
        for reference in self.names:
            if self._resident_bytes() <= self._keeping.memory_bytes:
                return
            if reference != keep:
                self._close(reference)

    def _close(self, reference: str) -> None:
        self._open.pop(reference).close()
        del self._used_at[reference]
        gc.collect()
        with suppress(OSError, AttributeError):  # another C library keeps what was freed, or gives it back by itself
            ctypes.CDLL(None).malloc_trim(0)


def own_resident_bytes() -> int:
    """Memory of this process that is its own: without the files that it has mapped (proc(5), statm)."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    return (int(resident) - int(shared)) * _PAGE_BYTES
