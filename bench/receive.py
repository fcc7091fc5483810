"""Receiving: our node beside DCMTK's storescp and Orthanc, on tmpfs and on the disk, and the floors under `power`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from bench import floors
from bench.load import Load, Sending
from bench.results import Case, Figures, Results
from bench.rounds import Surroundings, alone, attempt, fresh, noted, shuffled, visit, warm
from bench.servers import STOCK, STORESCP, Receiver, node, orthanc, storescp
from bench.studies import Kind

PART: Final = "receive"
SINGLES: Final = "an association an image"

IN_MEMORY: Final = (node("none"), *STORESCP, orthanc(sync=False))
ON_DISK: Final = (node("power"), node("process"), storescp("--fork", "+B"), orthanc(sync=True))
ONE_EACH: Final = (node("none"), storescp("--fork"), STOCK)

FILES_FLOOR: Final = "floor: files"
COMMIT_FLOOR: Final = "floor: files and rows"
FLOORS: Final[dict[str, Callable[[Path, Load], Sending]]] = {
    FILES_FLOOR: floors.files_only,
    COMMIT_FLOOR: floors.files_and_commit,
}

_SINGLES: Final = 128
"""Enough, and stock pynetdicom takes some 24 a second."""


@dataclass(frozen=True, slots=True)
class _Subject:
    """A receiver, or a floor, and the folder it works in."""

    receiver: Receiver | str
    folder: Path


def run(surroundings: Surroundings, results: Results) -> None:
    """Every receiver is started afresh in every round, in shuffled order, and visited once for each case."""
    subjects = [
        *(_Subject(receiver, surroundings.memory) for receiver in IN_MEMORY),
        *(_Subject(receiver, surroundings.disk) for receiver in ON_DISK),
        *(_Subject(floor, surroundings.disk) for floor in FLOORS),
    ]
    for number in range(surroundings.rounds):
        for subject in shuffled(subjects, (PART, number)):
            _round(surroundings, results, subject, number)


def run_singles(surroundings: Surroundings, results: Results) -> None:
    """One association an image, as many scanners send."""
    for number in range(surroundings.rounds):
        for receiver in shuffled(ONE_EACH, (SINGLES, number)):
            kind, where = surroundings.kinds[0], surroundings.where(surroundings.memory)
            loads = [
                (Case(SINGLES, receiver.name, where, kind.name, associations), replace(load, ending="each"))
                for associations in (1, 4)
                for load in [surroundings.load(kind, associations, min(_SINGLES, surroundings.instances))]
            ]
            _visits(receiver, surroundings.memory, loads, results)


def _round(surroundings: Surroundings, results: Results, subject: _Subject, number: int) -> None:
    name = subject.receiver if isinstance(subject.receiver, str) else subject.receiver.name
    where = surroundings.where(subject.folder)
    cases = [(kind, count) for kind in surroundings.kinds for count in surroundings.associations]
    loads = [
        (Case(PART, name, where, kind.name, count), surroundings.load(kind, count, _instances(surroundings, kind)))
        for kind, count in shuffled(cases, (name, number))
    ]
    if isinstance(subject.receiver, Receiver):
        _visits(subject.receiver, subject.folder, loads, results)
        return
    for case, load in loads:
        with fresh(subject.folder) as folder:
            attempt(results, case, partial(_floor, name, folder, load))


def _floor(name: str, folder: Path, load: Load) -> Figures:
    os.sync()  # as before a visit
    return alone(FLOORS[name](folder, load))


def _instances(surroundings: Surroundings, kind: Kind) -> int:
    return surroundings.instances * (3 if kind.size < 512 else 1)


def _visits(receiver: Receiver, above: Path, loads: Sequence[tuple[Case, Load]], results: Results) -> None:
    with noted(results, receiver.name), fresh(above) as folder, receiver.make(folder) as server:
        warm(server, loads[0][1])
        for case, load in loads:
            ending = "released" if receiver.one_at_a_time else load.ending
            attempt(results, case, partial(visit, server, replace(load, ending=ending)))
