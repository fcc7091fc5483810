"""Whether voxels can be what they are said to be: numbers, and in HU those of a patient in air."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dicomnode.core.guards.findings import GateFinding, named
from dicomnode.core.types import Header
from dicomnode.core.volumes import declared_padding
from engines import quality
from engines.card import Port
from engines.volume import HU, Volume

_IMPOSSIBLE_HU: Final = -1500.0
"""No noise of a CT goes below this; what does, and is no padding, was rescaled wrongly."""

_MOST_IMPOSSIBLE: Final = 0.001
_AIR_HU: Final = (-1300.0, -800.0)
"""The darkest hundredth of an image with air or lung in it: noise on one side, a lung without air on the other."""

_HOLLOW_HU: Final = -600.0
_LEAST_HOLLOW: Final = 0.05
_DARK_HU: Final = -20.0
_LEAST_DARK: Final = 0.001
_EVERY: Final = 4
"""Of rows and columns: HU need no more to be told plausible."""


def judge_values(port: Port, header: Header, volume: Volume) -> Iterator[GateFinding]:
    """Unit, finite numbers, variation; in HU also padding and air. `header` is that of the first slice."""
    fits = port.unit in ("as-input", volume.unit)
    sentence = f"values are in {named(volume.unit)}" + ("" if fits else f", {named(port.unit)} is wanted")
    yield GateFinding("unit", volume.unit, (port.unit,), fits, sentence)
    finite = is_finite(volume)
    yield finite
    low, high = quality.measured_range(volume)
    sentence = "values vary" if high > low else "every measured value is the same, or none is measured"
    yield GateFinding("variation", high - low if np.isfinite(high - low) else None, None, high > low, sentence)
    if finite.passed and high > low and volume.unit == HU:
        yield from _undeclared(header, volume)
        yield from _plausible(_some(volume))


def is_finite(volume: Volume) -> GateFinding:
    """Whether every voxel is a number."""
    broken = [index for index, pixels in enumerate(volume.voxels) if not np.isfinite(pixels).all()]
    where = f", in {len(broken)} of {len(volume.voxels)} slices" if broken else ""
    sentence = f"some values are not finite numbers{where}" if broken else "every value is a finite number"
    return GateFinding("finite", None, None, not broken, sentence)


def _undeclared(header: Header, volume: Volume) -> Iterator[GateFinding]:
    """Padding that was found and not declared. It harms nothing: no engine sees it, and it stays as it was."""
    if volume.valid is None:
        return
    padded = volume.voxels[:, ::_EVERY, ::_EVERY][~volume.valid[:, ::_EVERY, ::_EVERY]]
    low, high = declared_padding(header) or (np.inf, -np.inf)
    found = padded[(padded < low) | (padded > high)]
    if len(found):
        share = len(found) / volume.voxels[:, ::_EVERY, ::_EVERY].size
        sentence = (
            f"{share:.1%} of the voxels, about {np.median(found):.0f} HU, are padding that the images do not declare: "
            "they are left as they are"
        )
        yield GateFinding("undeclared padding", share, None, True, sentence)


def _some(volume: Volume) -> NDArray[np.float32]:
    """Measured values of every fourth row and column."""
    seen = volume.voxels[:, ::_EVERY, ::_EVERY]
    return seen.ravel() if volume.valid is None else seen[volume.valid[:, ::_EVERY, ::_EVERY]]


def _plausible(values: NDArray[np.float32]) -> Iterator[GateFinding]:
    """HU of a patient: nothing far below air; something darker than water; and what is darkest is air."""
    if not len(values):
        return
    impossible = float(np.mean(values < _IMPOSSIBLE_HU))
    sentence = f"{impossible:.1%} of the values are below {_IMPOSSIBLE_HU:g} HU, at most {_MOST_IMPOSSIBLE:.1%} may be"
    passed = impossible <= _MOST_IMPOSSIBLE
    hint = "" if passed else ": a wrong rescale, or padding that fills no corner of its image"
    yield GateFinding("padding", impossible, _MOST_IMPOSSIBLE, passed, sentence + hint)
    others = values[values > values.min()]  # one value alone may be padding that a wrong rescale makes look like air
    dark = float(np.mean(others < _DARK_HU)) if len(others) else 0.0
    sentence = f"{dark:.1%} of the values are darker than {_DARK_HU:g} HU, at least {_LEAST_DARK:.1%} is wanted"
    yield GateFinding("dark", dark, _LEAST_DARK, dark >= _LEAST_DARK, sentence)
    if passed and np.mean(values < _HOLLOW_HU) >= _LEAST_HOLLOW:
        air = float(np.quantile(values, 0.01))
        low, high = _AIR_HU
        sentence = f"the darkest values are {air:.0f} HU, with air in the image {low:g} to {high:g} is wanted"
        yield GateFinding("air", air, _AIR_HU, low <= air <= high, sentence)
