"""Whether what an engine is given is what its card declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from engines.base import Value
from engines.card import EngineCard, Port
from engines.errors import EngineInputError
from engines.findings import Findings
from engines.prompt import Prompt, region_of_interest
from engines.volume import Mask, Volume

_KINDS: Final = {"volume": Volume, "mask": Mask, "findings": Findings, "prompt": Prompt}
ONE_GRID_MM: Final = 0.01
"""How far voxels of two inputs may be apart: rounding of positions, not a patient who moved."""


def check_inputs(card: EngineCard, inputs: Mapping[str, Value]) -> Volume:
    """The volume that gives the grid: the card's first. Raises EngineInputError on a missing or superfluous input,
    another kind or unit, volumes of different grids, and marks outside of the volume."""
    if set(inputs) != set(card.inputs):
        given = ", ".join(sorted(inputs)) or "nothing"
        raise EngineInputError(f"{card.name} was given {given}", f"it takes: {', '.join(sorted(card.inputs))}")
    for name, port in card.inputs.items():
        _check(card, name, port, inputs[name])
    grid = inputs[first_volume(card)]
    assert isinstance(grid, Volume)
    if not grid.voxels.size:
        raise EngineInputError(f"{card.name} was given a volume without voxels", "give at least one slice")
    for name, value in inputs.items():
        _check_place(card, name, value, grid)
    return grid


def first_volume(card: EngineCard) -> str:
    """Name of the input that gives the grid; raises EngineInputError where the card has none."""
    for name, port in card.inputs.items():
        if port.kind == "volume":
            return name
    raise EngineInputError(f"{card.name} takes no volume", "one input of a card must be a volume: it gives the grid")


def apart_mm(value: Volume | Mask, grid: Volume) -> float:
    """How far the corners of two volumes of as many voxels are apart, along one axis of the patient, at most."""
    last = np.array(grid.shape[::-1]) - 1
    corners = np.array([(*np.where(bits, last, 0), 1) for bits in np.ndindex(2, 2, 2)])
    return float(np.abs(corners @ (value.affine - grid.affine).T).max())


def prompt_of(inputs: Mapping[str, Value]) -> Prompt | None:
    """The marks among the inputs."""
    return next((value for value in inputs.values() if isinstance(value, Prompt)), None)


def _check(card: EngineCard, name: str, port: Port, value: Value) -> None:
    if not isinstance(value, _KINDS[port.kind]):
        kind = type(value).__name__.lower()
        raise EngineInputError(f"{card.name} was given a {kind} as {name!r}", f"it takes a {port.kind} there")
    if isinstance(value, Volume) and port.unit not in ("as-input", value.unit):
        raise EngineInputError(
            f"{card.name} takes {port.unit}, the volume {name!r} is in {value.unit}", "let it stand first in the chain"
        )


def _check_place(card: EngineCard, name: str, value: Value, grid: Volume) -> None:
    if isinstance(value, (Volume, Mask)):
        shape = value.shape if isinstance(value, Volume) else value.labels.shape
        if shape != grid.shape or not apart_mm(value, grid) <= ONE_GRID_MM:
            raise EngineInputError(
                f"{card.name}: {name!r} has another grid than {first_volume(card)!r}",
                "its inputs must have the same slices, rows and columns, at the same place in the patient",
            )
    if isinstance(value, Prompt):
        slices = [mark.slice_index for mark in value.marks]
        if min(slices) < 0 or max(slices) >= grid.shape[0]:
            raise EngineInputError(
                f"{card.name}: a mark is on a slice that the volume does not have", "draw it on this series"
            )
        for mark in value.marks:
            region_of_interest(mark, *grid.shape[1:])
