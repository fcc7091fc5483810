"""`python -m bench`: measures on this machine, beside peers in one run, and writes what it found to a folder."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench import engines, enhance, flow, idle, quality, receive, sending, training
from bench.aims import ratios
from bench.load import NO_COMPILER, compiler
from bench.plot import svg
from bench.results import Results, tables
from bench.rounds import FlowExtent, Surroundings, memory_folder
from bench.studies import CT, MR

PARTS: Final[dict[str, Callable[[Surroundings, Results], None]]] = {
    "receive": receive.run,
    "singles": receive.run_singles,
    "idle": idle.run,
    "send": sending.run,
    "engines": engines.run,
    "quality": quality.run,
    "training": training.run,
    "flow": flow.run,
    "enhance": enhance.run,
}
STORED: Final = (1_000, 100_000)
STORED_FULL: Final = (*STORED, 1_000_000)
"""How many series are stored before the flow is measured."""

RESULTS: Final = Path(__file__).parents[1] / "out" / "bench"


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where all that was asked for was measured, 1 where something could not be."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: leave no server running
    asked = _asked(arguments)
    folder = asked.results / time.strftime("%Y-%m-%dT%H%M%S")
    folder.mkdir(parents=True)
    disk = Path(tempfile.mkdtemp(prefix="work-", dir=asked.results))
    memory = memory_folder(disk)
    results = Results()
    try:
        surroundings = Surroundings(
            disk=disk,
            memory=memory,
            rounds=asked.rounds,
            instances=asked.instances,
            kinds=(CT, MR) if asked.full else (CT,),
            associations=(1, 4, 16) if asked.full else (1, 4),
            flow=FlowExtent(asked.stored or (STORED_FULL if asked.full else STORED), asked.series, 2 * asked.series),
            slices=asked.slices,
            cases=asked.networks or tuple(enhance.CASES),
        )
        for part in asked.only:
            print(f"{part} ...", file=sys.stderr, flush=True)
            PARTS[part](surroundings, results)
    finally:
        for work in (memory, disk):
            shutil.rmtree(work, ignore_errors=True)
    _write(folder, results, asked)
    return 1 if results.failures else 0


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--full", action="store_true", help="CT and MR, 1, 4 and 16 associations; 1,000,000 series")
    parser.add_argument("--only", type=_parts, default=tuple(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=5, help="how often each case is visited")
    parser.add_argument("--instances", type=int, default=640, help="of one visit, in images of CT size")
    parser.add_argument(
        "--series", type=int, default=24, help="of each case of the flow, one by one; at once twice that"
    )
    parser.add_argument("--stored", type=int, action="append", help="series stored before; may be repeated")
    parser.add_argument("--slices", type=int, default=300, help="of the series that is enhanced")
    parser.add_argument(
        "--networks", action="append", choices=enhance.CASES, help="that enhance it: GFLOP a slice, and precision"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to, on the disk to measure")
    return parser.parse_args(arguments)


def _parts(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in PARTS:
            raise argparse.ArgumentTypeError(f"there is no part {name!r}: parts are {', '.join(PARTS)}")
    return names


def _write(folder: Path, results: Results, asked: argparse.Namespace) -> None:
    report = "\n\n".join(
        part for part in (_head(results, asked), ratios(results), _facts(results), tables(results)) if part
    )
    print(f"\n{report}\n\n{folder}")
    (folder / "report.md").write_text(f"{report}\n")
    machine = {"cores": os.cpu_count(), "processor": platform.processor(), "system": platform.platform()}
    options = {key: str(value) for key, value in vars(asked).items()}
    content = {"machine": machine, "options": options, **results.to_json()}
    (folder / "results.json").write_text(json.dumps(content, indent=1))
    if results.visits:
        (folder / "results.svg").write_text(svg(results))


def _head(results: Results, asked: argparse.Namespace) -> str:
    lines = [
        f"{os.cpu_count()} cores; medians of {asked.rounds} interleaved rounds; "
        f"others kept {results.other_cores():.2f} cores busy."
    ]
    if compiler() is None:
        lines.append(f"Note: {NO_COMPILER}.")
    lines += [f"Not measured: {failure}" for failure in results.failures]
    return "\n".join(lines)


def _facts(results: Results) -> str:
    return "\n".join(f"- {name}: {value:.3g}" for name, value in results.facts.items())


if __name__ == "__main__":
    sys.exit(main())
