"""The gates around an engine, judged in a process of their own (see `dicomnode.workers`) or in the caller's.

What an engine makes is measured slab by slab, while it computes the next: `follow` takes in what is there by now, and
`after` judges the whole. Arguments and results are JSON values; volumes are folders; a card travels as the TOML that it
is written as.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2

from dicomnode.core import guards
from dicomnode.core.guards import GateReport
from dicomnode.core.types import Header
from dicomnode.inference.slabs import loaded
from dicomnode.inference.stages import Verdict
from dicomnode.workers import Operation
from engines.base import Value
from engines.bundle.tables import as_table, read_table, write_toml
from engines.card import EngineCard
from engines.chaining import IMAGE, main_input
from engines.errors import EngineInputError
from engines.findings import Finding, Findings
from engines.quality import Measuring
from engines.volume import load_volume


def operations() -> Mapping[str, Operation]:
    """What a gate process serves. One thread for each process: how many run is the node's to decide."""
    cv2.setNumThreads(1)
    gates = Gates()
    return {"before": before, "follow": gates.follow, "after": gates.after, "forget": gates.forget}


def card_text(card: EngineCard) -> str:
    """A card as the gates take it."""
    return write_toml(as_table(card))


def before(card: str, headers: Mapping[str, Mapping[str, Sequence[str]]], inputs: Mapping[str, str]) -> dict[str, Any]:
    """Whether the inputs lie within the card's envelope: a `Verdict` as JSON.

    headers  of each series by the input that it is; "image" stands for what no other says
    """
    judged = _card(card)
    main = main_input({name: port.kind for name, port in judged.inputs.items()})
    others = [name for name, port in judged.inputs.items() if port.kind == "volume" and name != main]
    attributes: dict[str, Header] = {
        name: {keyword: tuple(values) for keyword, values in headers.get(name, headers[IMAGE]).items()}
        for name in (main, *others)
    }
    volumes = {name: load_volume(Path(inputs[name])) for name in attributes}
    return _verdict(guards.before_each(judged, attributes, volumes))


class Gates:
    """The gate after an engine, and what it has measured of outputs that are not whole yet."""

    def __init__(self) -> None:
        self._measured: dict[str, Measuring] = {}

    def follow(self, card: str, name: str, source: str, output: str, slices: int) -> dict[str, Any]:
        """Measure what follows of the first `slices` slices of an output: {"slices": how many were measured}."""
        if not guards.is_measurable(_card(card), name):
            return {"slices": 0}
        made, volume = load_volume(Path(output)), load_volume(Path(source))
        if made.shape != volume.shape:  # `after` says so
            return {"slices": 0}
        if output not in self._measured:
            self._measured[output] = Measuring(volume)
        self._measured[output].add(made, slices)
        return {"slices": slices}

    def after(
        self, card: str, name: str, source: str, output: str, findings: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Whether what the engine made of `source` as its output `name` may leave: a `Verdict` as JSON."""
        judged = _card(card)
        made: Value = _findings(findings) if judged.outputs[name].kind == "findings" else _made(judged, name, output)
        measuring = self._measured.pop(output, None)
        return _verdict(guards.after(judged, load_volume(Path(source)), made, name, measuring))

    def forget(self, outputs: Sequence[str]) -> dict[str, Any]:
        """Give back what was measured of outputs that nobody will ask about, and their sources."""
        for output in outputs:
            self._measured.pop(output, None)
        return {}


def _card(text: str) -> EngineCard:
    return read_table(EngineCard, tomllib.loads(text), "the card")


def _made(card: EngineCard, name: str, folder: str) -> Value:
    if not Path(folder).is_dir():
        raise EngineInputError(f"{card.reference} gave no {name!r}", "its card declares one")
    return loaded(Path(folder))


def _findings(told: Sequence[Mapping[str, Any]]) -> Findings:
    return Findings(tuple(Finding(one["slice_index"], tuple(one["box"]), one["label"], one["score"]) for one in told))


def _verdict(report: GateReport) -> dict[str, Any]:
    quality = report.quality.as_json() if report.quality is not None else None
    verdict = Verdict(report.as_json(), report.passed, report.reasons, report.is_reviewable, quality)
    return asdict(verdict) | {"reasons": list(verdict.reasons)}


def verdict_of(told: Mapping[str, Any]) -> Verdict:
    """A verdict as the operations tell it."""
    return Verdict(**{**told, "reasons": tuple(told["reasons"])})
