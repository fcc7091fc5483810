"""What a network takes, and the check of what it is given: the same for every runtime."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engines.errors import EngineInputError
from engines.runtimes.base import Tensors

Shape = tuple[int | None, ...]
"""Lengths of the axes; None where any length is taken."""


def check_tensors(wanted: Mapping[str, Shape], tensors: Tensors) -> None:
    """Raises EngineInputError unless `tensors` are what the network wants: its names, float32, its axes, not empty."""
    if set(tensors) != set(wanted):
        given = ", ".join(sorted(tensors)) or "nothing"
        raise EngineInputError(f"the network was given {given}", f"it takes: {', '.join(sorted(wanted))}")
    for name, shape in wanted.items():
        values = tensors[name]
        if values.dtype != np.float32:
            raise EngineInputError(f"{name} is {values.dtype}", "give float32, whatever the network computes in")
        if not _fits(values.shape, shape):
            raise EngineInputError(f"{name} is {_written(values.shape)}", f"the network takes {_written(shape)}")


def _fits(given: tuple[int, ...], wanted: Shape) -> bool:
    return len(given) == len(wanted) and all(
        length > 0 and length == (length if expected is None else expected)
        for length, expected in zip(given, wanted, strict=True)
    )


def _written(shape: Shape) -> str:
    return " x ".join("any" if length is None else str(length) for length in shape)
