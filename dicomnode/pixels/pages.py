"""The page of one quality report: what an engine did to a stack, or what a phantom is like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dicomnode.core.figures import FIGURES, IN_UNIT_OF_THE_IMAGE
from dicomnode.core.scanners import Lineage
from dicomnode.pixels.sheet import Curve, Picture, Plot, Sheet
from engines.volume import HU

_HU_WINDOW: Final = (40.0, 400.0)
_LEAST_RESIDUAL_WIDTH: Final = 4.0
_NOISES_SHOWN: Final = 6.0

Slice = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Shown:
    """The slice that is shown of a run: before and after the engine (None: there is no output, or of a phantom).

    index   of the slice in its stack, from 0
    unit    of its values
    window  (centre, width) that the source asks for, or None
    """

    index: int
    before: Slice
    after: Slice | None
    unit: str
    window: tuple[float, float] | None = None


@dataclass(frozen=True)
class Told:
    """A stored report: whose, what it measured, and what the gate said. No patient data.

    heading   such as the engine's reference          subjects  lines below it: series, scanner, protocol, time
    report    the QualityReport as JSON               figures   the flat ones
    notes     what the gate checked, with its limits, and sentences of the control charts
    """

    heading: str
    subjects: tuple[str, ...]
    report: Mapping[str, Any]
    figures: Mapping[str, float]
    notes: tuple[str, ...]


def subjects_of(
    series_instance_uid: str, lineage: Lineage, when: str, computed: Sequence[str], *, passed: bool
) -> tuple[str, ...]:
    """What a page is about: the measured series, its scanner, how it was computed, when, and what the gate said."""
    said = "passed" if passed else "DID NOT PASS"
    known = [f"settings {lineage.preset.replace('+', ', ')}" if lineage.preset else "", *computed]
    how = ", ".join(one for one in known if one)
    return (
        f"series {series_instance_uid}",
        f"from {lineage.peer or 'no configured peer'}, device {lineage.device}, protocol {lineage.protocol}",
        *((how,) if how else ()),
        f"{when}, {said}",
    )


def page_of(told: Told, shown: Shown | None) -> Sheet:
    """The page. `shown` is None where the images are not there any more: figures are kept longer."""
    unit = str(told.report.get("unit", ""))
    subtitles = told.subjects if shown is not None else (*told.subjects, "The images are not kept any more.")
    return Sheet(
        title=told.heading,
        subtitles=subtitles,
        pictures=() if shown is None else _pictures(shown, told.figures),
        plot=_plot(told.report.get("nps"), unit),
        table=tuple((FIGURES[name].meaning, _value(name, value, unit)) for name, value in told.figures.items()),
        notes=told.notes,
    )


def slice_to_show(report: Mapping[str, Any], count: int) -> int:
    """The slice that says most: where the residual follows edges most, else the middle one."""
    worst = report.get("edge_correlation_slice")
    return worst if isinstance(worst, int) and 0 <= worst < count else count // 2


def _pictures(shown: Shown, figures: Mapping[str, float]) -> tuple[Picture, ...]:
    centre, width = shown.window or _window_of(shown)
    place = f"slice {shown.index + 1}"
    if shown.after is None:
        return (Picture(place, shown.before, centre, width),)
    change = shown.after - shown.before
    noise = figures.get("noise_before", 0.0)
    return (
        Picture(f"before, {place}", shown.before, centre, width),
        Picture("after", shown.after, centre, width),
        Picture("after - before", change, 0.0, max(_LEAST_RESIDUAL_WIDTH, _NOISES_SHOWN * noise)),
    )


def _window_of(shown: Shown) -> tuple[float, float]:
    if shown.unit == HU:
        return _HU_WINDOW
    finite = shown.before[np.isfinite(shown.before)]
    low, high = np.percentile(finite, (1, 99)).tolist() if finite.size else (0.0, 1.0)
    return (low + high) / 2, max(high - low, 1e-6)


def _plot(spectrum: object, unit: str) -> Plot | None:
    if not isinstance(spectrum, Mapping):
        return None
    x = _numbers(spectrum.get("frequency_per_mm"))
    labels = {"before": "before", "after": "after"} if "after" in spectrum else {"before": "as scanned"}
    lines = [(label, _numbers(spectrum.get(name))) for name, label in labels.items()]
    curves = tuple(Curve(label, x, y) for label, y in lines if len(y) == len(x) > 1)
    return Plot(f"noise power spectrum, {unit or 'unit'}^2 mm^2", "cycles per mm", curves) if curves else None


def _numbers(values: object) -> tuple[float, ...]:
    return tuple(float(value) for value in values) if isinstance(values, Sequence) else ()


def _value(name: str, value: float, unit: str) -> str:
    return f"{value:.4g} {unit if name in IN_UNIT_OF_THE_IMAGE else FIGURES[name].unit}".rstrip()
