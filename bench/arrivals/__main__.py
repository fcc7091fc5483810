"""`python -m bench.arrivals`: the figures and the plot of docs/completeness.md, on the seeds held out from development.

`--development` takes the seeds that the learner was made with, and writes no file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from bench.arrivals.figures import (
    FIXED_S,
    SETTINGS,
    Point,
    Setting,
    configured_point,
    fixed_point,
    learned_point,
    traces,
)
from bench.arrivals.plot import svg
from bench.arrivals.traces import DEVELOPMENT_SEEDS, HELD_OUT_SEEDS

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "completeness.md"
PICTURE: Final = DOCUMENT.with_suffix(".svg")
BEGIN: Final = "<!-- figures: make arrivals -->"
END: Final = "<!-- end of figures -->"


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 where a fixed time is better than every setting of ours."""
    parser = argparse.ArgumentParser(prog="python -m bench.arrivals", description=__doc__)
    parser.add_argument("--development", action="store_true", help="the other seeds; writes nothing")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args(arguments)
    seeds = DEVELOPMENT_SEEDS if asked.development else HELD_OUT_SEEDS
    points = measured(seeds, asked.processes)
    told = "\n".join(table(points))
    print(told)
    if not asked.development:
        PICTURE.write_text(svg(points), encoding="utf-8")
        DOCUMENT.write_text(_replaced(DOCUMENT.read_text(encoding="utf-8"), told), encoding="utf-8")
    return 0 if all(answers(points).values()) else 1


def measured(seeds: Sequence[int], processes: int) -> list[Point]:
    """Every way of closing over the traces of the seeds."""
    wanted = [None, *FIXED_S, *SETTINGS]
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(partial(_measure, tuple(seeds)), wanted))


def answers(points: Sequence[Point]) -> dict[str, Point | None]:
    """For each fixed time the soonest of our settings that cuts no more series and waits no longer."""
    ours = sorted((point for point in points if point.kind == "learned"), key=lambda point: point.median_s)
    fixed = [point for point in points if point.kind == "fixed"]
    return {one.setting: next((our for our in ours if our.is_no_worse_than(one)), None) for one in fixed}


def table(points: Sequence[Point]) -> list[str]:
    """The figures in Markdown."""
    better = answers(points)
    return [
        "| way of closing | series cut | of known senders | median delay | mean | longest tenth | |",
        "|---|---|---|---|---|---|---|",
        *(_row(point, better.get(point.setting)) for point in points),
    ]


def _row(point: Point, by: Point | None) -> str:
    return (
        f"| {_name(point)} | {_share(point.premature, point.series)} | {_share(point.known, point.known_series)} "
        f"| {point.median_s:.1f} s | {point.mean_s:.1f} s | {point.longest_tenth_s:.1f} s "
        f"| {_beaten(by) if point.kind == 'fixed' else ''} |"
    )


def _measure(seeds: Sequence[int], wanted: float | Setting | None) -> Point:
    """One way of closing: as configured (None), by a fixed time, or by a setting of the learner."""
    if wanted is None:
        return configured_point(traces(seeds))
    if isinstance(wanted, Setting):
        return learned_point(traces(seeds), wanted)
    return fixed_point(traces(seeds), wanted)


def _name(point: Point) -> str:
    if point.kind == "configured":
        return "associations and silence as configured, nothing learned"
    return f"{point.kind}: {point.setting}"


def _share(number: int, of: int) -> str:
    return f"{100 * number / of:.3f} % ({number} of {of})"


def _beaten(by: Point | None) -> str:
    return "not beaten" if by is None else f"learned is no worse in either: {by.median_s:.1f} s, {100 * by.share:.3f} %"


def _replaced(document: str, figures: str) -> str:
    head, _, rest = document.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{figures}\n{END}{tail}"


if __name__ == "__main__":
    raise SystemExit(main())
