"""Which runtime computes a card's networks on this machine, in which precision, and how cores are shared out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from engines.bundle.tables import nearest
from engines.card import EngineCard, Precision
from engines.errors import RuntimeFailedError
from engines.runtimes.base import Runtime
from engines.runtimes.devices import CPU
from engines.runtimes.onnxruntime import OnnxRuntime
from engines.runtimes.openvino import OpenVino
from engines.runtimes.processor import this_processor

AUTO: Final = "auto"

_FASTEST_FIRST: Final[tuple[Precision, ...]] = ("int8", "float16", "bfloat16", "float32")

_INT8_REFUSED: Final = (
    "int8 moves CT numbers by 3 to 4 HU (root mean square) and by hundreds at single pixels; it is for detectors only"
)


@dataclass(frozen=True)
class Wish:
    """What a site wants: a runtime and a precision by name, or "auto"; devices in the order they are to be tried."""

    runtime: str = AUTO
    precision: str = AUTO
    devices: tuple[str, ...] = (CPU,)


@dataclass(frozen=True)
class Choice:
    """What a card's networks are to be opened with, and why."""

    runtime: Runtime
    device: str
    precision: Precision
    reason: str


@dataclass(frozen=True)
class Share:
    """How cores are shared out: so many processes, each with a session of so many threads."""

    processes: int
    threads: int


def onnx_runtimes() -> tuple[Runtime, ...]:
    """Those that load a bundle's networks as they are. In float32 the first of them is the faster one on processors."""
    return OnnxRuntime(), OpenVino(this_processor())


def share(cores: int, most_processes: int) -> Share:
    """As many processes as may be, of one thread where there are enough: two sessions of one thread each give more
    slices a second than one of two. `most_processes` is what memory allows."""
    processes = max(1, min(cores, most_processes))
    return Share(processes, max(1, cores // processes))


def choose(card: EngineCard, wish: Wish, runtimes: Sequence[Runtime]) -> Choice:
    """The first of `choices`; raises as it does."""
    return next(choices(card, wish, runtimes))


def choices(card: EngineCard, wish: Wish, runtimes: Sequence[Runtime]) -> Iterator[Choice]:
    """All that may compute the card's networks, the best first: the wished devices in their order; on each the fastest
    precision that the card allows; of several runtimes that offer it, the first of `runtimes`.

    Raises RuntimeFailedError where there is none, which says what is in the way.
    """
    _check_wish(card, wish, runtimes)
    is_possible = False
    obstacles: list[str] = []
    for device in wish.devices:
        missing = {one: one.unavailable(device) for one in runtimes if wish.runtime in (AUTO, one.name)}
        obstacles += [f"{runtime.name} on {device}: {why}" for runtime, why in missing.items() if why]
        there = [runtime for runtime, why in missing.items() if not why]
        for precision, runtime in _offers(there, device):
            if precision in card.precisions and wish.precision in (AUTO, precision):
                is_possible = True
                yield Choice(runtime, device, precision, _reason(card, wish, precision, obstacles))
        obstacles += [f"{one.name} on {device} computes in {_listed(one.precisions(device))}" for one in there]
    if is_possible:
        return
    wanted = card.precisions if wish.precision == AUTO else (wish.precision,)
    raise RuntimeFailedError(f"nothing computes {card.reference} in {_listed(wanted)} here", "; ".join(obstacles))


def _check_wish(card: EngineCard, wish: Wish, runtimes: Sequence[Runtime]) -> None:
    names = [runtime.name for runtime in runtimes]
    if wish.runtime not in (AUTO, *names):
        raise RuntimeFailedError(f"there is no runtime {wish.runtime[:40]!r}", nearest(wish.runtime, [AUTO, *names]))
    if wish.precision == "int8" and card.task != "detect":
        raise RuntimeFailedError(f"{card.reference} is not computed in int8", _INT8_REFUSED)
    if wish.precision not in (AUTO, *card.precisions):
        hint = f"its card allows {_listed(card.precisions)}"
        raise RuntimeFailedError(f"{card.reference} is not computed in {wish.precision[:40]}", hint)


def _offers(runtimes: Sequence[Runtime], device: str) -> Iterator[tuple[Precision, Runtime]]:
    offered = [(runtime, runtime.precisions(device)) for runtime in runtimes]
    for precision in _FASTEST_FIRST:
        yield from ((precision, runtime) for runtime, precisions in offered if precision in precisions)


def _reason(card: EngineCard, wish: Wish, precision: Precision, obstacles: Sequence[str]) -> str:
    if wish.precision == AUTO:
        why = f"{precision} is the fastest that both its card ({_listed(card.precisions)}) and this machine allow"
    else:
        why = f"{precision} is what was asked for"
    return "; ".join((why, *obstacles))


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words) or "nothing"
