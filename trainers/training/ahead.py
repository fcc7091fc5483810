"""Patches drawn while the step before is computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final, TypeVar

T = TypeVar("T")

_THREADS: Final = 2
_AHEAD: Final = 4


def drawn_ahead(draw: Callable[[int], T], numbers: Iterable[int]) -> Generator[T, None, None]:
    """What `draw` gives of each number, in their order; some of them are begun before they are asked for."""
    left = iter(numbers)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="draw") as pool:
        waiting: deque[Future[T]] = deque(pool.submit(draw, number) for number in islice(left, _AHEAD))
        try:
            while waiting:
                drawn = waiting.popleft().result()
                waiting.extend(pool.submit(draw, number) for number in islice(left, 1))
                yield drawn
        finally:
            for future in waiting:
                future.cancel()
