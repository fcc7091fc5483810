"""Open associations, counted over all processes that accept on one port.

The counts lie in memory that the processes inherit. Each writes into a part of its own, so there is no lock that one
which is killed could keep. Who wants a slot writes it down first and counts then: of two that want the last one, both
may be refused, but never are both let in.
"""

from __future__ import annotations

import hashlib
import heapq
import mmap
import threading
from collections.abc import Collection
from typing import Final, NamedTuple

MOST_ASSOCIATIONS: Final = 4096
"""Of one process: what `limits.associations` may ask for."""

_PROCESSES: Final = 64
_ACCEPTS, _CONNECTIONS, _REACHES, _HEADER = range(4)
"""Words of a part: whether its process accepts, how many connections it has, how many slots were in use at most."""

_WORDS: Final = _HEADER + 2 * MOST_ASSOCIATIONS
_WORD_BYTES: Final = 8


class Most(NamedTuple):
    """How many associations there may be: in all, from one address, and of one peer, whose own number is instead of the
    address's."""

    in_all: int
    from_address: int
    of_peer: int | None = None

    def allows(self, in_all: int, from_address: int, of_peer: int) -> bool:
        if in_all > self.in_all:
            return False
        return from_address <= self.from_address if self.of_peer is None else of_peer <= self.of_peer


class Slots:
    """The slots of all processes; made once, before they are forked."""

    def __init__(self) -> None:
        memory = mmap.mmap(-1, _PROCESSES * _WORDS * _WORD_BYTES)  # what is never written to takes no memory
        words = memoryview(memory).cast("Q")
        self._parts = tuple(words[start : start + _WORDS] for start in range(0, _PROCESSES * _WORDS, _WORDS))

    def of(self, process: int) -> OwnSlots:
        """The part of one process, counted from 0."""
        return OwnSlots(self._parts, process)

    def of_peers(self, peers: Collection[str]) -> dict[str, int]:
        """Open associations of each peer, and under "" those of callers that are none."""
        keys = [key for part in self._parts for key in _peers(part) if key]
        known = {peer: keys.count(_key(f"peer {peer}")) for peer in peers}
        return {**known, "": len(keys) - sum(known.values())}

    def connections(self) -> tuple[int, ...]:
        """Open connections of each process that accepts, in their order."""
        return tuple(part[_CONNECTIONS] for part in self._parts if part[_ACCEPTS])

    def free(self, process: int) -> None:
        """Free what a process held that is gone."""
        _clear(self._parts[process])


class OwnSlots:
    """The slots of this process, among those of all. `open` before connections are taken in."""

    def __init__(self, parts: tuple[memoryview[int], ...], process: int) -> None:
        self._parts = parts
        self._own = parts[process]
        self._addresses = self._own[_HEADER : _HEADER + MOST_ASSOCIATIONS]
        self._peers = self._own[_HEADER + MOST_ASSOCIATIONS :]
        self._lock = threading.Lock()
        self._unused = list(range(MOST_ASSOCIATIONS))

    def open(self) -> None:
        """Begin with none taken, whatever a former process of our place has left."""
        _clear(self._own)
        self._own[_ACCEPTS] = 1

    def close(self) -> None:
        """No more connections are taken in here."""
        self._own[_ACCEPTS] = 0

    def tell_connections(self, count: int) -> None:
        """Let the others know how many connections we have."""
        self._own[_CONNECTIONS] = count

    def others_are_idler(self) -> bool:
        """Whether another process that accepts has fewer connections: it should get the next."""
        ours = self._own[_CONNECTIONS]
        return any(part[_ACCEPTS] and part[_CONNECTIONS] < ours for part in self._parts)

    def take(self, address: str, peer: str, most: Most) -> int | None:
        """Take a slot for an association; None where there would be too many. `peer` is "" for a stranger."""
        key, peer_key = _key(address), _key(f"peer {peer}")
        with self._lock:
            if not self._unused:
                return None
            slot = heapq.heappop(self._unused)
            self._addresses[slot], self._peers[slot] = key, peer_key
            self._own[_REACHES] = max(self._own[_REACHES], slot + 1)
            if most.allows(*self._count(key, peer_key)):
                return slot
            self._give_back(slot)
            return None

    def give_back(self, slot: int) -> None:
        with self._lock:
            self._give_back(slot)

    def _give_back(self, slot: int) -> None:
        self._addresses[slot] = self._peers[slot] = 0
        heapq.heappush(self._unused, slot)

    def _count(self, address: int, peer: int) -> tuple[int, int, int]:
        """Associations in all, from an address, of a peer."""
        in_all = from_address = of_peer = 0
        for part in self._parts:
            reaches = part[_REACHES]
            addresses = part[_HEADER : _HEADER + reaches].tolist()
            in_all += reaches - addresses.count(0)
            from_address += addresses.count(address)
            of_peer += _peers(part).count(peer)
        return in_all, from_address, of_peer


def _peers(part: memoryview[int]) -> list[int]:
    start = _HEADER + MOST_ASSOCIATIONS
    return part[start : start + part[_REACHES]].tolist()


def _clear(part: memoryview[int]) -> None:
    part[:] = memoryview(bytes(len(part) * _WORD_BYTES)).cast("Q")


def _key(text: str) -> int:
    """A number that stands for an address or a peer; never 0."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=_WORD_BYTES).digest()) | 1
