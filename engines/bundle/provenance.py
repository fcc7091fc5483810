"""Where a bundle comes from: who trained it, on which data under which licence, and how well it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["training", "validation", "test"]
"""What images were for: to learn from, to decide by, to judge by."""


@dataclass(frozen=True)
class Training:
    """The run that made the weights; texts in the maker's words.

    run     identity of the run, such as a commit with a digest of its recipe
    recipe  what was trained, with which loss and for how long
    date    when it ended, as ISO 8601
    """

    run: str
    recipe: str = ""
    date: str = ""


@dataclass(frozen=True)
class Dataset:
    """Images that a bundle was made or judged with. `attribution` is what the licence asks to be said."""

    name: str
    licence: str
    attribution: str = ""
    role: Role = "training"
    patients: int = 0
    source: str = ""


@dataclass(frozen=True)
class Metric:
    """One measured figure. `subgroup` names whom it was measured on ("all", "10 % dose", "kernel B70f").

    interval  95 % interval of `value`
    baseline  the same figure for the input itself, or for a plain method
    """

    name: str
    value: float
    unit: str = ""
    subgroup: str = "all"
    patients: int = 0
    interval: tuple[float, float] | None = None
    baseline: float | None = None


@dataclass(frozen=True)
class Provenance:
    """What a bundle says of itself beside what the node holds it to.

    licence      of the weights
    limitations  what it is known to do badly, a sentence each
    """

    maker: str
    licence: str
    training: Training
    data: tuple[Dataset, ...] = ()
    metrics: tuple[Metric, ...] = ()
    limitations: tuple[str, ...] = ()
