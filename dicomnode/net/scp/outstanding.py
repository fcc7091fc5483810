"""Operations of one association whose data is all there and whose answer is due."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from dicomnode.errors import AssociationLostError


class Outstanding:
    """Brings operations to their end: one after the other, or side by side where a window was agreed (PS3.7 D.3.3.3).

    With a window the next instance is received while the ones before wait for the disk, and they wait together.

    most     how many may be outstanding at once; one more is not read before another has ended
    give_up  ends the association, where an operation beside it fails by a mistake of ours
    """

    def __init__(self, most: int, give_up: Callable[[], None]) -> None:
        self._give_up = give_up
        self._free = threading.Semaphore(most)
        self._threads = ThreadPoolExecutor(most, "dicom-operation") if most > 1 else None

    def end(self, operation: Callable[[], None]) -> None:
        """Run the last part of an operation, which sends its response."""
        if self._threads is None:
            operation()
            return
        self._free.acquire()
        self._threads.submit(self._run, operation)

    def wait(self) -> None:
        """Wait until all have ended; none can be added."""
        if self._threads is not None:
            self._threads.shutdown()

    def _run(self, operation: Callable[[], None]) -> None:
        try:
            operation()
        except AssociationLostError:
            pass  # whoever reads finds out, and records it
        except Exception:  # noqa: BLE001  the sender must not wait for a response that nobody sends
            sys.excepthook(*sys.exc_info())
            self._give_up()
        finally:
            self._free.release()
