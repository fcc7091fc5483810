"""What the figures are held to, as ratios of medians of one run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bench import enhance, idle, sending
from bench.receive import COMMIT_FLOOR, FILES_FLOOR, PART, SINGLES
from bench.results import Case, Results, aligned
from bench.servers import STOCK


@dataclass(frozen=True, slots=True)
class Aim:
    """`subject` is to be at least `least` times as fast as `other`; None only shows the ratio."""

    part: str
    subject: str
    other: str
    least: float | None
    where: str = ""
    associations: tuple[int, ...] = (1, 4)


AIMS: Final = (
    Aim(PART, "dicomnode, none", "storescp", 1.5),
    Aim(PART, "dicomnode, none", "storescp --fork", None, associations=(1, 4, 16)),
    Aim(PART, "dicomnode, none", "storescp --fork +B", 1.0),
    Aim(PART, "dicomnode, none", "Orthanc, sync off", 5.0),
    Aim(PART, "dicomnode, power", COMMIT_FLOOR, 0.8),
    Aim(PART, "dicomnode, power", FILES_FLOOR, None),
    Aim(PART, "dicomnode, power", "Orthanc, sync on", 2.0, associations=(4,)),
    Aim(SINGLES, "dicomnode, none", STOCK.name, 10.0, associations=(1,)),
    Aim(SINGLES, "dicomnode, none", STOCK.name, None, associations=(4,)),
    Aim(sending.PART, sending.OURS, "storescu", 1.0, sending.TUNED),
    Aim(sending.PART, sending.OURS, "dcmsend", None, sending.TUNED),
    Aim(sending.PART, sending.OURS, "storescu", 20.0, sending.INSTALLED, (1,)),
    Aim(sending.PART, sending.OURS, "storescu", None, sending.INSTALLED, (4,)),
)

LIMITS: Final = {idle.ECHO_MEDIAN: 100.0, idle.LARGEST: 150.0, **enhance.LIMITS}
"""Facts, and what they are to stay below."""


def ratios(results: Results) -> str:
    """A Markdown table of every ratio that was measured, and whether it reaches its aim."""
    rows = [row for aim in AIMS for row in _rows(results, aim)]
    rows += [
        [f"{name}", "", "", f"{results.facts[name]:.2f}", f"< {limit:g}", _verdict(results.facts[name] < limit)]
        for name, limit in LIMITS.items()
        if name in results.facts
    ]
    return aligned([["", "images", "associations", "measured", "aim", ""], *rows]) if rows else ""


def _rows(results: Results, aim: Aim) -> Iterator[list[str]]:
    for case in sorted(results.visits, key=lambda each: (each.where, each.kind, each.associations)):
        if (case.part, case.subject) != (aim.part, aim.subject) or case.associations not in aim.associations:
            continue
        if not case.where.startswith(aim.where):
            continue
        ours = results.median(case)
        theirs = results.median(Case(case.part, aim.other, case.where, case.kind, case.associations))
        if ours is None or theirs is None:
            continue
        name = f"{aim.part}: {aim.subject} / {aim.other}{', ' * bool(aim.where)}{aim.where}"
        wanted = "" if aim.least is None else f">= {aim.least:g}"
        reached = "" if aim.least is None else _verdict(ours / theirs >= aim.least)
        yield [name, case.kind, str(case.associations), f"{ours / theirs:.2f}", wanted, reached]


def _verdict(reached: bool) -> str:
    return "reached" if reached else "MISSED"
