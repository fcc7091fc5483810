"""A chain of engines as a report tells it: what ran, between which gates, and what became of its outputs.

`run_stages` decides the order of things; a `Station` does them: in the caller's process (`service.run_chain`) or in
resident processes, slab by slab (`service.EngineService`). The report is the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from engines.chaining import IMAGE, ORIGINAL, Link, check_links, first_output, main_input
from engines.volume_files import read_grid

Report = dict[str, Any]


@dataclass(frozen=True)
class Prepared:
    """One engine of a chain, opened, with its settings resolved: what `EngineProcess.prepare` tells.

    leaving  outputs of which objects are to be made, as in `engines.chaining.Link`
    """

    index: int
    engine: str
    card: Mapping[str, Any]
    text: str
    settings: Mapping[str, Any]
    halo: int | None
    joinable: bool
    leaving: tuple[str, ...] = ()

    @property
    def primary(self) -> str:
        """The output that the next engine takes, and that is told first."""
        return first_output(self.card["outputs"])

    @property
    def main_input(self) -> str:
        """The input whose grid all have, and that outputs are compared with."""
        return main_input(self.kinds("inputs"))

    @property
    def link(self) -> Link:
        reference = f"{self.card['name']}@{self.card['version']}"
        return Link(reference, self.kinds("inputs"), self.kinds("outputs"), self.leaving)

    def kinds(self, side: str) -> dict[str, str]:
        """The kind of each of its "inputs" or "outputs"."""
        return {name: port["kind"] for name, port in self.card[side].items()}

    def folders(self, out: Path) -> dict[str, str]:
        """Where each output goes."""
        return {name: str(out / f"{self.index}-{self.card['name']}-{name}") for name in self.card["outputs"]}


@dataclass(frozen=True)
class Verdict:
    """What a gate says, as JSON: `reviewable` and `quality` of the gate after an engine alone."""

    report: Mapping[str, Any]
    passed: bool
    reasons: tuple[str, ...]
    reviewable: bool = True
    quality: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Ran:
    """What became of one stage.

    after     by output; empty where the stage was refused
    findings  by output, of those that are findings
    """

    before: Verdict
    after: Mapping[str, Verdict]
    findings: Mapping[str, Sequence[Mapping[str, Any]]]
    seconds: float

    @property
    def state(self) -> str:
        if not self.before.passed:
            return "refused"
        return "done" if all(verdict.passed for verdict in self.after.values()) else "withheld"

    @property
    def reasons(self) -> tuple[str, ...]:
        if not self.before.passed:
            return self.before.reasons
        return tuple(reason for verdict in self.after.values() for reason in verdict.reasons)

    @property
    def is_reviewable(self) -> bool:
        """Whether what it made may be kept for a person to look at."""
        return self.before.passed and all(verdict.passed or verdict.reviewable for verdict in self.after.values())


class Station(Protocol):
    """Where engines run."""

    def prepare(self, index: int, engine: str, settings: Mapping[str, Any]) -> Prepared:
        """Raises EngineNotFoundError, SettingError."""
        ...

    def run(self, stage: Prepared, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Ran:
        """Run one stage between its gates: folders in, folders out."""
        ...


def run_stages(
    station: Station, stages: Sequence[Prepared], inputs: Mapping[str, str], out: Path, *, released: bool
) -> Report:
    """Run engines one after another. A gate that does not pass ends the chain.

    inputs    folder of each series by its name: first, as "image", the one that is enhanced. An engine takes what was
              made before it under the name of its input, else the series of that name. "original" stays the first one
    out       existing, empty folder; output NAME of stage i goes to `<i>-<engine>-NAME` in it
    released  a person has looked at what a gate withheld: figures out of bounds stop the chain no more
    Raises EngineInputError before anything runs where an engine takes what nothing gives, or gives no image to leave.
    """
    check_links([stage.link for stage in stages], list(inputs))
    told: list[Report] = []
    reasons: list[str] = []
    available = {ORIGINAL: inputs[IMAGE], **inputs}
    for stage in stages:
        outputs = stage.folders(out)
        ran = station.run(stage, _taken(stage, available), outputs)
        if not ran.is_reviewable:
            for folder in outputs.values():
                shutil.rmtree(folder, ignore_errors=True)
        told.append(_told(stage, ran, outputs))
        reasons.extend(ran.reasons)
        if not ran.is_reviewable or (ran.state == "withheld" and not released):
            return {"stages": told, "state": ran.state, "reasons": reasons}
        available |= outputs
        if stage.kinds("outputs")[stage.primary] == "volume":
            available[IMAGE] = outputs[stage.primary]
    return {"stages": told, "state": "done", "reasons": reasons}


def _taken(stage: Prepared, available: Mapping[str, str]) -> dict[str, str]:
    """What goes in by each input, the main one first."""
    main = stage.main_input
    taken = {name: available[name] for name in stage.card["inputs"] if name != main}
    return {main: available.get(main, available[IMAGE]), **taken}


def _told(stage: Prepared, ran: Ran, outputs: Mapping[str, str]) -> Report:
    """The stage as JSON. What is told of its primary output stands beside `outputs`, which tells of all."""
    card = stage.card
    each = {name: _told_output(card["outputs"][name], ran, name, folder) for name, folder in outputs.items()}
    return {
        "engine": card["name"],
        "version": card["version"],
        "card_digest": card["digest"],
        "bundle": card["bundle"],
        "runtime": card["runtime"],
        "operation": card["operation"],
        "influence": card["influence"],
        "settings": dict(stage.settings),
        "inputs": list(stage.card["inputs"]),
        "output": stage.primary,
        **each[stage.primary],
        "outputs": each,
        "before": dict(ran.before.report),
        "seconds": round(ran.seconds, 3),
    }


def _told_output(port: Mapping[str, Any], ran: Ran, name: str, folder: str) -> Report:
    verdict = ran.after.get(name)
    is_kept = ran.is_reviewable and Path(folder).is_dir()
    return {
        "kind": port["kind"],
        "presentation": port["presentation"],
        "unit": read_grid(Path(folder)).unit if is_kept and port["kind"] == "volume" else port["unit"],
        "folder": Path(folder).name if is_kept else None,
        "findings": list(ran.findings.get(name, ())),
        "after": dict(verdict.report) if verdict else None,
        "quality": dict(verdict.quality or {}) if verdict else {},
    }
