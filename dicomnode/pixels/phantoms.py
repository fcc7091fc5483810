"""Measuring phantoms: done where big files are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engines.errors import EngineInputError
from engines.quality.constancy import measure_phantom as measure
from engines.volume import load_volume


def measure_phantom(volume: str) -> dict[str, Any]:
    """Measure the phantom of a decoded stack (`decode_stack`); arguments and result are JSON values.

    Returns {"report": the `ConstancyReport` as JSON}, or {"refused": [why, what to do]} where there is none to measure.
    """
    try:
        return {"report": measure(load_volume(Path(volume))).as_json()}
    except EngineInputError as error:
        return {"refused": [str(error), error.hint]}
