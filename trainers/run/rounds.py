"""Rounds of a stage that takes slices of CT into training in growing numbers, as they lie in its folder:

<stage>/round-1/chosen.json    the slices that the round took in beside those before: (series, slice) of the material
"""

from __future__ import annotations

import json
from itertools import accumulate, count, takewhile
from pathlib import Path

from trainers.errors import TrainerError

Place = tuple[int, int]
"""A series of the material, and a slice of it."""


def chosen_in(folder: Path, number: int) -> Path:
    """Where a round of a stage's folder, counted from 1, keeps its choice."""
    return folder / f"round-{number}" / "chosen.json"


def read_chosen(path: Path) -> list[Place]:
    """What a round took in."""
    return [(int(series), int(at)) for series, at in json.loads(path.read_text())]


def rounds_in(folder: Path) -> tuple[int, ...] | None:
    """How many slices each round of a stage's folder was trained on; None where nobody chose any yet."""
    if not chosen_in(folder, 1).exists():
        return None
    paths = takewhile(Path.exists, (chosen_in(folder, number) for number in count(1)))
    return tuple(accumulate(takewhile(bool, (len(read_chosen(path)) for path in paths))))


def require_growth(name: str, folder: Path) -> None:
    """Raises TrainerError where the stage `name` chose among slices of CT, and none was good enough to train on."""
    if rounds_in(folder) == ():
        raise TrainerError(
            f"{name}: no slice of CT got better by the net that it starts from, so it would be trained on none",
            f"begin a new run: train that net for longer (a larger --share), or ask for less (--set {name}.growth...)",
        )
