"""What was measured, by case and round, and what is said of it: medians, tables, JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Case:
    """What is compared: `subject` does something of `part` with images of `kind`, `where` files or a peer are."""

    part: str
    subject: str
    where: str
    kind: str
    associations: int

    @property
    def group(self) -> tuple[str, str, str, int]:
        """Cases of one group are compared with each other."""
        return self.part, self.where, self.kind, self.associations


@dataclass(frozen=True, slots=True)
class Figures:
    """One visit to a case; None where nothing can be measured.

    cpu_ms       user and system time an instance, of all processes of the subject
    peak_mb      most memory resident, all processes of the subject; largest_mb the largest of them
    other_cores  processors that others kept busy meanwhile: where it is not near 0, trust ratios at most
    """

    instances_s: float
    mb_s: float
    cpu_ms: float | None = None
    peak_mb: float | None = None
    largest_mb: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    other_cores: float = 0.0


_COLUMNS: Final = {
    "instances_s": "inst/s",
    "mb_s": "MB/s",
    "cpu_ms": "CPU ms/inst",
    "peak_mb": "peak MB",
    "largest_mb": "largest process MB",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
}


@dataclass
class Results:
    """Everything of one run. `facts` are single figures; `rows` those of parts with a table of their own; `failures`
    what could not be measured, and why."""

    visits: dict[Case, list[Figures]] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)
    rows: dict[str, list[dict[str, str | float]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, case: Case, figures: Figures) -> None:
        self.visits.setdefault(case, []).append(figures)

    def median(self, case: Case, column: str = "instances_s") -> float | None:
        """The median over the rounds; None for what was not measured."""
        values = [getattr(figures, column) for figures in self.visits.get(case, ())]
        return None if not values or None in values else statistics.median(values)

    def groups(self) -> list[list[Case]]:
        """Cases that are compared with each other, in the order in which they were declared."""
        found: dict[tuple[str, str, str, int], list[Case]] = {}
        for case in sorted(self.visits, key=lambda each: (*each.group, each.subject)):
            found.setdefault(case.group, []).append(case)
        return list(found.values())

    def other_cores(self) -> float:
        """The median of what others used."""
        values = [figures.other_cores for visits in self.visits.values() for figures in visits]
        return statistics.median(values) if values else 0.0

    def to_json(self) -> dict[str, Any]:
        medians = [{column.name: self.median(case, column.name) for column in fields(Figures)} for case in self.visits]
        cases = [
            {**asdict(case), "median": median, "rounds": [asdict(each) for each in rounds]}
            for (case, rounds), median in zip(self.visits.items(), medians, strict=True)
        ]
        return {"cases": cases, "facts": self.facts, "rows": self.rows, "failures": self.failures}


def tables(results: Results) -> str:
    """A Markdown table for each group of cases, and for each part that has one of its own."""
    own = (f"**{part}**\n\n" + aligned([list(rows[0]), *map(_cells, rows)]) for part, rows in results.rows.items())
    return "\n\n".join([*(_table(results, cases) for cases in results.groups()), *own])


def _cells(row: Mapping[str, str | float]) -> list[str]:
    return [_number(value) if isinstance(value, float) else str(value) for value in row.values()]


def _table(results: Results, cases: Sequence[Case]) -> str:
    first = cases[0]
    plural = "s" if first.associations > 1 else ""
    title = f"{first.part}: {first.kind}, {first.associations} association{plural}, {first.where}"
    head = ["", *_COLUMNS.values(), "inst/s least - most", "rounds"]
    rows = [_row(results, case) for case in sorted(cases, key=lambda each: -(results.median(each) or 0))]
    return f"**{title}**\n\n" + aligned([head, *rows])


def _row(results: Results, case: Case) -> list[str]:
    rates = [figures.instances_s for figures in results.visits[case]]
    medians = [_number(results.median(case, column)) for column in _COLUMNS]
    return [case.subject, *medians, f"{_number(min(rates))} - {_number(max(rates))}", str(len(rates))]


def _number(value: float | None) -> str:
    """Three digits or more: enough for what is measured so."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table that is also one in a terminal; the first row is its head, the first column text."""
    cells = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [
        "| "
        + " | ".join(_padded(cell, width, column) for column, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    ]
    rule = "|" + "|".join("-" * (width + 1) + ("-" if column == 0 else ":") for column, width in enumerate(widths))
    return "\n".join(f"{line} |" if line is not rule else f"{line}|" for line in (lines[0], rule, *lines[1:]))


def _padded(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column == 0 else cell.rjust(width)
