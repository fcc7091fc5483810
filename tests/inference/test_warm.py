"""Which engines stay open."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from dicomnode.inference.opening import Opened
from dicomnode.inference.warm import Keeping, WarmEngines, own_resident_bytes
from engines.classical.nlm import CtNlm
from engines.errors import EngineNotFoundError


@dataclass
class Machine:
    """A clock, and memory of which each open engine takes 10 bytes."""

    now: float = 0.0
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def resident_bytes(self) -> int:
        return 10 * (len(self.opened) - len(self.closed))

    def warm(self, memory_bytes: int = 1000, idle_s: float = 100.0) -> WarmEngines:
        return WarmEngines(self.open, Keeping(memory_bytes, idle_s), lambda: self.now, self.resident_bytes)

    def open(self, reference: str) -> Opened:
        if reference == "none":
            raise EngineNotFoundError("there is no such engine")
        self.opened.append(reference)
        return Opened(CtNlm(), lambda: self.closed.append(reference))


def test_an_engine_is_opened_once() -> None:
    machine = Machine()
    warm = machine.warm()
    assert warm.get("a") is warm.get("a")
    assert machine.opened == ["a"]


def test_the_least_recently_used_goes_where_memory_is_short() -> None:
    machine = Machine()
    warm = machine.warm(memory_bytes=20)
    for name in ("a", "b", "a", "c"):
        warm.get(name)
    warm.settle(used="c")
    assert (machine.closed, warm.names) == (["b"], ("a", "c"))


def test_the_one_in_use_stays_however_large_it_is() -> None:
    machine = Machine()
    warm = machine.warm(memory_bytes=5)
    warm.get("a")
    warm.settle(used="a")
    assert warm.names == ("a",)
    warm.get("b")
    assert (machine.closed, warm.names) == (["a"], ("b",))


def test_what_nobody_asks_for_is_closed() -> None:
    machine = Machine()
    warm = machine.warm()
    warm.get("a")
    machine.now = 60.0
    warm.get("b")
    machine.now = 100.0
    warm.settle(used="b")
    assert machine.closed == ["a"]
    warm.close()
    assert machine.closed == ["a", "b"]


def test_an_engine_that_cannot_be_opened_is_not_kept() -> None:
    warm = Machine().warm()
    with pytest.raises(EngineNotFoundError):
        warm.get("none")
    assert warm.names == ()


def test_memory_is_what_a_process_has_of_its_own() -> None:
    before = own_resident_bytes()
    held = bytearray(b"x" * (64 << 20))
    assert 60 << 20 < own_resident_bytes() - before < 100 << 20
    del held
