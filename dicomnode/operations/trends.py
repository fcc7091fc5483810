"""`dicomnode quality trends`, `rebase` and `compare`: figures over time, and of two versions on the same series."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from dicomnode.config import Config
from dicomnode.core.comparing import Compared, compare
from dicomnode.core.drift import Chart, sentence
from dicomnode.core.figures import FIGURES
from dicomnode.core.scanners import Lineage
from dicomnode.errors import InputError, NotFoundError
from dicomnode.operations.index import reading, writing
from dicomnode.operations.terminal import printable_lines
from dicomnode.operations.wording import counted
from dicomnode.store.index import quality as index

_LISTED: Final = 200
_LONGEST_REASON: Final = 1000


@dataclass(frozen=True)
class Trend:
    """The control charts of one scanner, protocol and engine, by the figures' names; `reports` since its baseline."""

    lineage: Lineage
    reports: int
    charts: dict[str, Chart]

    @property
    def drifting(self) -> tuple[str, ...]:
        return tuple(
            sentence(FIGURES[name].meaning, FIGURES[name].unit, chart)
            for name, chart in self.charts.items()
            if chart.state == "drifting"
        )

    def lines(self) -> Sequence[str]:
        fewest = index.charting_of(self.lineage).fewest
        judged = f", judged from {fewest} on" if self.reports < fewest else ""
        return (
            f"{self.lineage.key}: {counted(self.reports, 'report')}{judged}",
            *(f"  {line}" for line in self.drifting),
            *(_chart_line(name, chart) for name, chart in self.charts.items() if chart.state == "steady"),
        )


@dataclass(frozen=True)
class Trends:
    """All that is charted, what was added to last first."""

    trends: tuple[Trend, ...]
    none: str = "nothing was measured yet"

    def to_json(self) -> dict[str, Any]:
        return {
            "trends": [
                {
                    "lineage": asdict(trend.lineage),
                    "key": trend.lineage.key,
                    "reports": trend.reports,
                    "charts": {name: asdict(chart) for name, chart in trend.charts.items()},
                }
                for trend in self.trends
            ]
        }

    def lines(self) -> Sequence[str]:
        return printable_lines([line for trend in self.trends for line in trend.lines()] or (self.none,))


@dataclass(frozen=True)
class Rebased:
    """A lineage whose baseline begins anew."""

    key: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        return (f"the baseline of {self.key} begins anew with its next report",)


@dataclass(frozen=True)
class Comparison:
    """Two versions on the same stacks. `old_passed` and `new_passed` count those that passed the gate."""

    old: str
    new: str
    stacks: int
    old_passed: int
    new_passed: int
    figures: tuple[Compared, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        return (
            f"{self.old} and {self.new} on the same {counted(self.stacks, 'stack')}",
            f"passed the gate: {self.old_passed} and {self.new_passed}",
            *(figure.line for figure in self.figures),
        )


def trends(config: Config, *, drifting_only: bool = False) -> Trends:
    """The control charts of every scanner, protocol and engine, at most 200 of them."""
    with reading(config) as session:
        lineages = [index.lineage_of(row) for row in index.latest_of_lineages(session, _LISTED)]
        found = [
            Trend(lineage, index.reports_charted(session, lineage), index.lineage_charts(session, lineage))
            for lineage in lineages
        ]
    if drifting_only and found:
        return Trends(tuple(trend for trend in found if trend.drifting), "nothing drifts")
    return Trends(tuple(found))


def rebase(config: Config, key: str, reason: str) -> Rebased:
    """Begin a lineage's baseline anew, as after a new tube. Raises NotFoundError where nothing has that key."""
    text = " ".join(reason.split())
    if not 1 <= len(text) <= _LONGEST_REASON:
        raise InputError("a reason is needed, of at most 1000 characters", 'add --reason "..."')
    with writing(config) as session:
        lineages = [index.lineage_of(row) for row in index.latest_of_lineages(session, _LISTED)]
        named = next((lineage for lineage in lineages if lineage.key == key), None)
        if named is None:
            raise NotFoundError("nothing is charted under that name", "see: dicomnode quality trends")
        index.rebase(session, named, text, time.time())
    return Rebased(key)


def compare_versions(config: Config, old: str, new: str, since: float = 0.0) -> Comparison:
    """Compare two versions (name@version) on the stacks that both have worked on since a time.

    Raises InputError where a version is not named, NotFoundError where there is no such stack.
    """
    for engine in (old, new):
        if "@" not in engine:
            raise InputError(f"{engine!r} names no version", "write it like ct-denoise@1.2.0: dicomnode engines list")
    with reading(config) as session:
        pairs = index.pairs(session, old, new, since)
    if not pairs:
        raise NotFoundError(
            "there is no series on which both have run",
            f'try one beside the other: shadow = "{new}" in a rule',
        )
    return Comparison(
        old,
        new,
        len(pairs),
        sum(pair.old_passed for pair in pairs),
        sum(pair.new_passed for pair in pairs),
        compare([dict(pair.old) for pair in pairs], [dict(pair.new) for pair in pairs]),
    )


def _chart_line(name: str, chart: Chart) -> str:
    figure = FIGURES[name]
    return (
        f"  {figure.meaning:<44} {chart.smoothed:.4g} {figure.unit}".rstrip()
        + f" (baseline {chart.centre:.4g}, alarm beyond {chart.limit:.3g})"
    )
