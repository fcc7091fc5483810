"""`python -m bench.soak --minutes 60`: exit code 0 where nothing was lost and nothing leaked."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.measures import processes
from bench.results import aligned
from bench.servers import BenchStoreScp
from bench.soak import check
from bench.soak.senders import PEERS, STRANGER, Senders
from bench.soak.watch import Judged, Watch, judged
from dicomnode.testing.node import NODE_AE, Node, settings

RESULTS: Final = Path(__file__).parents[2] / "out" / "soak"
_WARM_SHARE: Final = 0.15
_LONGEST_WARM_S: Final = 120.0
_REST_S: Final = 25.0  # idle associations to a destination are kept for 20 s
_OUTAGES: Final = 6
_TOLD_EVERY_S: Final = 60.0
_IDLE_TIMEOUT_S: Final = 300.0
"""Time to work off what waits, besides as long again as the load took."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a soak found."""

    instances: int
    cuts: int
    statuses: str
    processes: Sequence[tuple[str, Judged]]
    problems: Sequence[str]

    def lines(self) -> list[str]:
        rows = [
            [
                name,
                f"{each.first.descriptors} -> {each.last.descriptors}",
                f"{each.first.threads} -> {each.last.threads}",
                f"{each.first.resident_bytes / 1e6:.0f} -> {each.last.resident_bytes / 1e6:.0f}",
                "" if each.growth_mb is None else f"{each.growth_mb:+.1f}",
            ]
            for name, each in self.processes
        ]
        head = ["process", "descriptors", "threads", "memory MB", "growth over the second half, MB"]
        verdict = "passed: nothing lost, nothing leaked" if not self.problems else "FAILED:"
        return [
            f"{self.instances} instances acknowledged, {self.cuts} associations cut; answers: {self.statuses}",
            "",
            aligned([head, *rows]),
            "",
            verdict,
            *(f"- {problem}" for problem in self.problems),
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where it passed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: leave no server running
    asked = _asked(arguments)
    asked.results.mkdir(parents=True, exist_ok=True)
    kept = asked.results / time.strftime("%Y-%m-%dT%H%M%S")
    kept.mkdir()
    with tempfile.TemporaryDirectory(prefix="work-", dir=asked.results, ignore_cleanup_errors=True) as made:
        folder = Path(made)
        destination = BenchStoreScp(folder / "destination", "ARCHIVE")
        node = Node(folder / "node", _configuration(destination))
        try:
            with destination, node:
                outcome = _soak(node, destination, asked)
        finally:
            shutil.copy(node.output, kept / "node.log")
        report = "\n".join([f"soak of {asked.minutes:g} minutes, {4 * asked.rate:g} instances/s", *outcome.lines()])
        (kept / "report.md").write_text(f"{report}\n")  # before anything is cleared away: that may fail
    print(f"{report}\n\n{kept}")
    return 1 if outcome.problems else 0


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="of load")
    parser.add_argument("--rate", type=float, default=10.0, help="instances a second, of each of the four peers")
    parser.add_argument("--rest", type=float, default=_REST_S, help="seconds of rest before processes are looked at")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to work in and write to")
    return parser.parse_args(arguments)


def _configuration(destination: BenchStoreScp) -> dict[str, object]:
    peers = {name: {"ae_title": name.upper()} for name in PEERS}
    good = [name for name in PEERS if name != STRANGER]  # a destination may refuse for good what strangers send
    rules = [{"name": "good", "match": {"peer": good}, "send": ["archive"]}]
    return settings({"archive": destination}, rules, peer=peers, log={"level": "warning"})


def _soak(node: Node, destination: BenchStoreScp, asked: argparse.Namespace) -> Outcome:
    """Warm up, rest, load for the rest of the time with outages of the destination, rest, and look."""
    load_s = asked.minutes * 60
    warm_s = min(_WARM_SHARE * load_s, _LONGEST_WARM_S)
    senders, stuck = Senders(node.port, NODE_AE, asked.rate), []
    _load(senders, warm_s)
    stuck += _rest(node, warm_s, asked.rest)
    first = processes(node.pid)
    with Watch(node.pid) as watch, _outages(destination, load_s - warm_s):
        _load(senders, load_s - warm_s)
    stuck += _rest(node, load_s, asked.rest)
    last, names = processes(node.pid), _names(node)
    lived = [(names.get(each.first.pid, each.first.name), each) for each in judged(first, last, watch.samples)]
    problems = [
        *stuck,
        *check.problems(node, destination, senders.acknowledged),
        *(problem for name, each in lived for problem in each.problems(name)),
        *(f"an association that should have held broke: {error}" for error in senders.errors),
    ]
    statuses = ", ".join(f"{status} {count}" for status, count in senders.acknowledged.statuses.most_common())
    acknowledged = len(senders.acknowledged.good) + len(senders.acknowledged.odd)
    return Outcome(acknowledged, senders.acknowledged.cuts, statuses, lived, problems)


def _load(senders: Senders, seconds: float) -> None:
    senders.start()
    deadline = time.monotonic() + seconds
    try:
        while (left_s := deadline - time.monotonic()) > 0:
            count = len(senders.acknowledged.good) + len(senders.acknowledged.odd)
            print(f"  {count} instances acknowledged, {left_s:.0f} s of load left", file=sys.stderr, flush=True)
            time.sleep(min(left_s, _TOLD_EVERY_S))
    finally:
        senders.stop()


def _rest(node: Node, load_s: float, rest_s: float) -> list[str]:
    """Wait until there is nothing to do, and a little longer; a sentence where that never came."""
    found = []
    try:
        node.wait_until_idle(_IDLE_TIMEOUT_S + load_s)
    except TimeoutError:
        found.append(
            f"after {_IDLE_TIMEOUT_S + load_s:.0f} s without load, {node.unfinished()} things were still to be done"
        )
    time.sleep(rest_s)
    return found


@contextlib.contextmanager
def _outages(destination: BenchStoreScp, seconds: float) -> Iterator[None]:
    """The destination is killed and started again, at the end started for good."""
    over = threading.Event()

    def break_and_mend() -> None:
        period_s = seconds / _OUTAGES
        while not over.wait(period_s * 2 / 3):
            destination.stop()
            over.wait(period_s / 3)
            destination.start()

    thread = threading.Thread(target=break_and_mend)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _names(node: Node) -> dict[int, str]:
    """What the node calls its processes, by process id."""
    address = f"{(node.data / 'node.sqlite').as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True)) as index:
        return {pid: role for role, pid in index.execute("SELECT role, pid FROM process")}


if __name__ == "__main__":
    sys.exit(main())
