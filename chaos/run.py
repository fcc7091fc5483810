"""One run: series are sent while things break; then everything is mended, waited for, and counted."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from chaos import holdings
from chaos.faults import EVERYWHERE, Extent, Fault, Kind, drawn
from chaos.scanner import Scanner, Sending, generated, sendings
from chaos.site import ARCHIVE, MACHINES, PACS, Site, fill
from chaos.story import TIMES, TO_DO, Happened, Moment, explained, moments
from chaos.verdict import Verdict, judged

_SCANNERS: Final = 4
_SPAN_A_SERIES_S: Final = 2.0
_POLL_S: Final = 0.5
_QUIET_S: Final = 3.0


@dataclass
class Outcome:
    """What one run found. `problems` besides the verdicts; `delays` as `chaos.story` explains them."""

    seed: int
    series: int
    instances: int = 0
    seconds: float = 0.0
    settled_s: float = 0.0
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    skipped: str = ""
    problems: list[str] = field(default_factory=list)
    delays: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return sum(len(each.lost) for each in self.verdicts.values())

    @property
    def doubled(self) -> int:
        return sum(len(each.doubled) for each in self.verdicts.values())

    @property
    def sent_twice(self) -> int:
        return sum(each.sent_twice for each in self.verdicts.values())

    @property
    def passed(self) -> bool:
        return not (self.lost or self.doubled or self.problems)


class Run:
    """One seed in a folder of its own, which keeps logs and timeline.

    patience_s  how long after the last fault everything may take to arrive
    """

    def __init__(self, folder: Path, seed: int, series: int, patience_s: float) -> None:
        self._folder = folder
        self._patience_s = patience_s
        self._outcome = Outcome(seed, series)
        self._happened: list[Happened] = []
        self._said: list[Moment] = []
        self._left: list[str] = []
        self._lock = threading.Lock()

    def run(self) -> Outcome:
        """All of it."""
        began = time.monotonic()
        with Site(self._folder) as site:
            self._outcome.skipped = site.why_no_disk
            scanners = self._scanners(site.balancer.port)
            self._zero = time.time()
            self._break_things(site, scanners)
            mended = time.monotonic()
            self._await_everything(site, list(sendings(scanners)))
            self._outcome.settled_s = time.monotonic() - mended
            self._count(site, list(sendings(scanners)))
        self._write(began)
        return self._outcome

    def _scanners(self, port: int) -> list[Scanner]:
        series = generated(self._outcome.series, self._outcome.seed)
        span_s = self._span_s
        shares = [series[number::_SCANNERS] for number in range(_SCANNERS)]
        return [Scanner(port, share, span_s, self._outcome.seed + number) for number, share in enumerate(shares)]

    @property
    def _span_s(self) -> float:
        return self._outcome.series * _SPAN_A_SERIES_S

    def _break_things(self, site: Site, scanners: Sequence[Scanner]) -> None:
        """Send, and break what the seed says when it says so; back when all is mended and sent."""
        extent = Extent(MACHINES, (PACS, ARCHIVE), self._span_s, not site.why_no_disk)
        threads = [
            threading.Thread(target=self._suffer, args=(site, fault)) for fault in drawn(self._outcome.seed, extent)
        ]
        for thread in threads:
            thread.start()
        for scanner in scanners:
            scanner.start()
        for thread in threads:
            thread.join()
        for scanner in scanners:
            scanner.join()

    def _suffer(self, site: Site, fault: Fault) -> None:
        time.sleep(max(0.0, self._zero + fault.at_s - time.time()))
        began = time.time()
        self._say(fault.kind.value, target=fault.target)
        detail = _BREAK[fault.kind](site, fault)
        ended = None if fault.kind is Kind.MACHINE_LOST else time.time()
        if fault.for_s:
            self._say(f"{fault.kind.value}: mended", target=fault.target)
        with self._lock:
            self._happened.append(Happened(fault.kind, fault.target + detail, began, ended))

    def _say(self, what: str, **fields: object) -> None:
        with self._lock:
            self._said.append(Moment(time.time(), "harness", what, fields))

    def _await_everything(self, site: Site, sent: Sequence[Sending]) -> None:
        """Wait until both destinations have as much as is expected, and the node has nothing left to do."""
        expected = 2 * sum(len(each.series.instances) for each in sent)
        deadline = time.monotonic() + self._patience_s
        while time.monotonic() < deadline:
            there = int(site.pacs.statistics()["CountInstances"])
            if there >= expected and len(list(site.archive.files.iterdir())) >= expected and not site.unfinished():
                break
            time.sleep(_POLL_S)
        else:
            self._outcome.problems.append(
                f"{site.unfinished()} things were still to be done {self._patience_s:.0f} s after all was mended"
            )
        time.sleep(_QUIET_S)  # what comes now came too often

    def _count(self, site: Site, sent: Sequence[Sending]) -> None:
        outcome = self._outcome
        outcome.instances = sum(len(each.series.instances) for each in sent)
        unacknowledged = sum(each.acknowledged_at is None for each in sent)
        if unacknowledged:
            outcome.problems.append(f"{unacknowledged} series were never acknowledged")
        archived, in_pacs = holdings.archived(site.archive), holdings.in_pacs(site.pacs)
        outcome.verdicts[ARCHIVE] = judged(holdings.expected_by_bytes(sent), archived)
        outcome.verdicts[PACS] = judged(holdings.expected_by_pixels(sent), in_pacs)
        if differing := holdings.differing(archived, in_pacs):
            outcome.problems.append(f"{len(differing)} derived UIDs are at one destination only")
        self._happened.sort(key=lambda each: each.began_at)
        outcome.faults = [each.line(self._zero) for each in self._happened]
        self._left = [" ".join(map(str, row)) for row in site.rows(TO_DO)]
        outcome.delays = explained(sent, site.rows(TIMES), self._happened, self._zero)
        self._said += moments({name: machine.output for name, machine in site.machines.items()})

    def _write(self, began: float) -> None:
        outcome = self._outcome
        outcome.seconds = time.monotonic() - began
        lines = [moment.line(self._zero) for moment in sorted(self._said, key=lambda each: each.at)]
        (self._folder / "timeline.txt").write_text("\n".join(lines) + "\n")
        (self._folder / "to_do.txt").write_text("\n".join(self._left) + "\n")
        (self._folder / "delays.txt").write_text("\n".join(outcome.delays) + "\n")
        (self._folder / "outcome.json").write_text(json.dumps(_plain(outcome), indent=1))


def _plain(outcome: Outcome) -> dict[str, object]:
    counts = {"lost": outcome.lost, "doubled": outcome.doubled, "sent_twice": outcome.sent_twice}
    said = {name: {"lost": each.lost, "doubled": each.doubled} for name, each in outcome.verdicts.items()}
    return {
        "seed": outcome.seed, "series": outcome.series, "instances": outcome.instances, **counts,
        "seconds": outcome.seconds, "settled_s": outcome.settled_s, "skipped": outcome.skipped,
        "faults": outcome.faults, "problems": outcome.problems, "destinations": said,
    }  # fmt: skip


def forget(folder: Path) -> None:
    """Keep of a run's folder what tells of it: logs, timeline, outcome."""
    for path in folder.iterdir():
        if path.name in MACHINES:
            log = path / "node.log"
            if log.exists():
                log.replace(folder / f"{path.name}.log")
        if path.is_dir():
            shutil.rmtree(path)


def _kill_process(site: Site, fault: Fault) -> str:
    machine = site.machines[fault.target]
    return f", {machine.kill_one(fault.draw) or 'which was down'}" if machine.is_wanted else ", which was down"


def _kill_machine(site: Site, fault: Fault) -> str:
    site.machines[fault.target].power_off()
    time.sleep(fault.for_s)
    site.machines[fault.target].power_on()
    return ""


def _lose_machine(site: Site, fault: Fault) -> str:
    site.machines[fault.target].power_off()
    return ""


def _restart_database(site: Site, fault: Fault) -> str:
    site.database.restart(fault.for_s)
    return ""


def _cut_off_database(site: Site, fault: Fault) -> str:
    """The connections that were cut go on afterwards, or are found to be gone."""
    cut = [line for name, line in site.lines.items() if fault.target in (name, EVERYWHERE)]
    for line in cut:
        line.cut()
    time.sleep(fault.for_s)
    for line in cut:
        line.mend(keep=fault.draw < 0.5)
    return ""


def _end_destination(site: Site, fault: Fault) -> str:
    destination = site.destination(fault.target)
    destination.kill()
    time.sleep(fault.for_s)
    destination.start()
    return ""


def _fill_disk(site: Site, fault: Fault) -> str:
    ballast = fill(site.files)
    time.sleep(fault.for_s)
    ballast.unlink()
    return ""


_BREAK: Final = {
    Kind.PROCESS_KILLED: _kill_process,
    Kind.MACHINE_KILLED: _kill_machine,
    Kind.MACHINE_LOST: _lose_machine,
    Kind.DATABASE_RESTARTED: _restart_database,
    Kind.DATABASE_CUT_OFF: _cut_off_database,
    Kind.DESTINATION_DOWN: _end_destination,
    Kind.DISK_FULL: _fill_disk,
}
"""What each fault does; back when it is mended, with what else is to be said of it."""
