"""`python -m trials --data FOLDER`: faults planted into what engines make of real CT, and how many the gate catches.

FOLDER holds series of CT, each a folder of .dcm files, or an .npz of `hu` (slices, rows, columns), `z` and `spacing` in
mm. Choose limits on some patients (`--spread`), and report the figures of others.
Exit code 0 where every fault is caught at least as often, and false alarms are as rare, as asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Final

from trials.denoisers import DENOISERS, card_of
from trials.figures import alarms, caught, nodules, spread
from trials.run import CLEAN, Seen, Slab, Trial, run
from trials.series import find, read

_GRID_EVERY: Final = 3
"""Of the slabs, those on which nodules of all sizes and contrasts are tried."""

RESULTS: Final = Path(__file__).parents[1] / "out" / "gates"


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where the gate is as good as asked for."""
    asked = _asked(arguments)
    trials: list[Trial] = []
    seen: list[Seen] = []
    asked.results.mkdir(parents=True, exist_ok=True)
    report = ""
    with ProcessPoolExecutor(asked.processes, initializer=os.nice, initargs=(asked.nice,)) as pool:
        for found, grid in pool.map(run, _slabs(asked)):
            trials += found
            seen += grid
            where = f"{found[0].series} from slice {found[0].first + 1}"
            print(f"  {where}: {len(found)} trials", file=sys.stderr, flush=True)
            report = _report(trials, seen, with_spread=asked.spread)
            (asked.results / "report.md").write_text(f"{report}\n", encoding="utf-8")
            with (asked.results / "trials.jsonl").open("a", encoding="utf-8") as raw:
                raw.writelines(f"{json.dumps(asdict(one))}\n" for one in [*found, *grid])
    print(report)
    return 0 if _is_good(trials, asked.caught, asked.alarms) else 1


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trials", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of series")
    parser.add_argument("--patients", default="", help="names of series, with commas between them; default: all")
    parser.add_argument("--engines", default=",".join(DENOISERS), help="names, with commas between them; default: all")
    parser.add_argument("--spread", action="store_true", help="quantiles of all figures too, for choosing limits")
    parser.add_argument("--slabs", type=int, default=12, help="most of one series")
    parser.add_argument("--no-grid", action="store_true", help="without nodules of all sizes")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--nice", type=int, default=10)
    parser.add_argument("--caught", type=float, default=0.98, help="least share of each fault")
    parser.add_argument("--alarms", type=float, default=0.02, help="largest share of clean outputs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of report.md")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.engines.split(",")) - set(DENOISERS):
        parser.error(f"no engines here: {', '.join(sorted(unknown))}; there are {', '.join(DENOISERS)}")
    return asked


def _slabs(asked: argparse.Namespace) -> Iterator[Slab]:
    wanted = set(asked.patients.split(",")) if asked.patients else None
    for path in find(asked.data):
        if wanted is not None and path.stem not in wanted:
            continue
        series = read(path)
        if series is None:
            continue
        for number, (first, volume) in enumerate(series.slabs(asked.slabs)):
            grid = number % _GRID_EVERY == 0 and not asked.no_grid
            yield Slab(series.name, first, volume, grid=grid, engines=tuple(asked.engines.split(",")))


def _report(trials: Sequence[Trial], seen: Sequence[Seen], *, with_spread: bool) -> str:
    names = sorted({trial.series for trial in trials})
    said = [
        f"Series: {', '.join(names)}; {len({(one.series, one.first) for one in trials})} slabs of 8 slices; "
        f"{time.strftime('%Y-%m-%d')}.",
        "", *caught(trials), "", *alarms(trials),
    ]  # fmt: skip
    most = card_of("ct-nlm").limits.blob
    if seen and most is not None:
        for is_erased, what in ((True, "Erased"), (False, "Inserted")):
            chosen = [one for one in seen if one.is_erased == is_erased]
            said += ["", f"{what} nodules that stand out:", "", *nodules(chosen, most)]
    return "\n".join([*said, *(["", *spread(trials)] if with_spread else [])])


def _is_good(trials: Sequence[Trial], least: float, most: float) -> bool:
    """Every kind of fault is caught, and clean outputs pass, often enough."""
    for fault in {trial.fault for trial in trials}:
        group = [trial for trial in trials if trial.fault == fault]
        share = sum(bool(trial.reasons) for trial in group) / len(group)
        if (share > most) if fault == CLEAN else (share < least):
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
