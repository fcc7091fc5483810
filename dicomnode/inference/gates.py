"""The gates around an engine, judged in a process of their own (see `dicomnode.workers`) or in the caller's.

Arguments and results are JSON values; volumes are folders; a card travels as the TOML that it is written as.
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
from dicomnode.inference.stages import IMAGE, Verdict
from dicomnode.workers import Operation
from engines.card import EngineCard
from engines.errors import EngineInputError
from engines.tables import as_table, read_table, write_toml
from engines.volume import load_volume
from engines.volume_files import VOXELS


def operations() -> Mapping[str, Operation]:
    """What a gate process serves. One thread for each process: how many run is the node's to decide."""
    cv2.setNumThreads(1)
    return {"before": before, "after": after}


def card_text(card: EngineCard) -> str:
    """A card as the gates take it."""
    return write_toml(as_table(card))


def before(card: str, header: Mapping[str, Sequence[str]], inputs: Mapping[str, str]) -> dict[str, Any]:
    """Whether the inputs lie within the card's envelope: a `Verdict` as JSON."""
    judged = read_table(EngineCard, tomllib.loads(card), "the card")
    attributes: Header = {keyword: tuple(values) for keyword, values in header.items()}
    name = IMAGE if IMAGE in judged.inputs else next(iter(judged.inputs))
    return _verdict(guards.before(judged, attributes, load_volume(Path(inputs[name]))))


def after(card: str, source: str, output: str) -> dict[str, Any]:
    """Whether what the engine made of `source` may leave: a `Verdict` as JSON."""
    judged = read_table(EngineCard, tomllib.loads(card), "the card")
    if not (Path(output) / VOXELS).exists():
        raise EngineInputError(f"{judged.reference} gave no volume as {IMAGE!r}", "its card declares one")
    return _verdict(guards.after(judged, load_volume(Path(source)), load_volume(Path(output))))


def _verdict(report: GateReport) -> dict[str, Any]:
    quality = report.quality.as_json() if report.quality is not None else None
    verdict = Verdict(report.as_json(), report.passed, report.reasons, report.is_reviewable, quality)
    return asdict(verdict) | {"reasons": list(verdict.reasons)}


def verdict_of(told: Mapping[str, Any]) -> Verdict:
    """A verdict as the operations tell it."""
    return Verdict(**{**told, "reasons": tuple(told["reasons"])})
