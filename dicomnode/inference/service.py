"""The engine worker: runs a chain of engines on a volume, each between its two gates.

`operations()` is what `dicomnode.workers` serves in a process of its own; a command that works on files calls
`run_chain` and `describe` in its own process. Arguments and results are JSON values; volumes travel as folders.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2

from dicomnode.core import guards
from dicomnode.core.guards import GateReport
from dicomnode.core.types import Header
from dicomnode.workers import Operation
from engines.base import Engine
from engines.card import SettingValue
from engines.errors import EngineInputError
from engines.registry import default_registry
from engines.volume import Volume, load_volume, save_volume

_OUTPUT = "image"


@dataclass(frozen=True)
class _Stage:
    """One engine of a chain, with its settings resolved."""

    index: int
    engine: Engine
    settings: Mapping[str, SettingValue]


@dataclass(frozen=True)
class _Ran:
    """What became of one stage; `output` is None where there is none, or none that anybody could release."""

    before: GateReport
    after: GateReport | None
    output: Volume | None
    seconds: float

    @property
    def state(self) -> str:
        if self.after is None:
            return "refused"
        return "done" if self.after.passed else "withheld"

    @property
    def reasons(self) -> tuple[str, ...]:
        return (self.before if self.after is None else self.after).reasons


def operations() -> Mapping[str, Operation]:
    """What the worker process serves. One thread for each process: how many run is the node's to decide."""
    cv2.setNumThreads(1)
    return {"run_chain": run_chain, "describe": describe}


def describe(engine: str) -> dict[str, Any]:
    """The card of an engine (`name` or `name@version`) as JSON, with its digest; raises EngineNotFoundError."""
    card = default_registry().get(engine).card
    return {**asdict(card), "digest": card.digest}


def run_chain(
    chain: Sequence[Mapping[str, Any]],
    volume: str,
    header: Mapping[str, Sequence[str]],
    out: str,
    released: bool = False,
) -> dict[str, Any]:
    """Run engines one after another; the "image" of each feeds the next. A gate that does not pass ends the chain.

    chain   [{"engine": reference, "settings": {name: value}}]
    volume  folder written by `save_volume`; not altered
    header  attributes of the first slice by keyword, for the gates
    out     existing, empty folder; the output of stage i is written to `<i>-<engine>-image` in it
    released  a person has looked at what a gate withheld: figures out of bounds stop the chain no more
    Gives {"stages": [...], "state": done | refused | withheld, "reasons": [sentences]}. What is withheld for its
    figures is written too, to be looked at; what has another grid, or values that are no numbers, never is. Raises
    EngineNotFoundError and SettingError before anything runs.
    """
    stages = [_stage(index, entry) for index, entry in enumerate(chain)]
    if not stages:
        raise EngineInputError("the chain has no engine", "name at least one engine")
    attributes: Header = {keyword: tuple(values) for keyword, values in header.items()}
    current = load_volume(Path(volume))
    told: list[dict[str, Any]] = []
    reasons: list[str] = []
    for stage in stages:
        ran = _run(stage, attributes, current)
        told.append(_told(stage, ran, Path(out)))
        reasons.extend(ran.reasons)
        if ran.output is None or (ran.state == "withheld" and not released):
            return {"stages": told, "state": ran.state, "reasons": reasons}
        current = ran.output
    return {"stages": told, "state": "done", "reasons": reasons}


def _stage(index: int, entry: Mapping[str, Any]) -> _Stage:
    engine = default_registry().get(entry["engine"])
    return _Stage(index, engine, engine.card.resolve(entry.get("settings", {})))


def _run(stage: _Stage, header: Header, volume: Volume) -> _Ran:
    card = stage.engine.card
    before = guards.before(card, header, volume)
    if not before.passed:
        return _Ran(before, None, None, 0.0)
    began = time.monotonic()
    output = stage.engine.run({"image": volume}, stage.settings)[_OUTPUT]
    seconds = time.monotonic() - began
    if not isinstance(output, Volume):
        raise EngineInputError(f"{card.reference} gave no volume as {_OUTPUT!r}", "its card declares one")
    after = guards.after(card, volume, output)
    return _Ran(before, after, output if after.passed or after.is_reviewable else None, seconds)


def _told(stage: _Stage, ran: _Ran, out: Path) -> dict[str, Any]:
    """The stage as JSON; saves its output where there is one."""
    card = stage.engine.card
    port = card.outputs[_OUTPUT]
    folder = None
    if ran.output is not None:
        folder = f"{stage.index}-{card.name}-{_OUTPUT}"
        (out / folder).mkdir()
        save_volume(ran.output, out / folder)
    measured = ran.after.quality if ran.after else None
    return {
        "engine": card.name,
        "version": card.version,
        "card_digest": card.digest,
        "runtime": card.runtime,
        "operation": card.operation,
        "influence": card.influence,
        "settings": dict(stage.settings),
        "output": _OUTPUT,
        "presentation": port.presentation,
        "unit": ran.output.unit if ran.output else port.unit,
        "folder": folder,
        "before": ran.before.as_json(),
        "after": ran.after.as_json() if ran.after else None,
        "quality": measured.as_json() if measured else {},
        "seconds": round(ran.seconds, 3),
    }
