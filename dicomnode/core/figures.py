"""The figures that are kept of every run of an engine: a closed list, flat, each a number with a unit.

What they mean stands at `engines.quality.QualityReport`, from whose JSON they are taken. Tables, metrics and control
charts all show these, under these names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from engines.quality import BANDS_HU


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: how it is called for people, its unit ("" for none), its place in the report's JSON, and whether its
    trend is watched."""

    meaning: str
    unit: str
    path: tuple[str, ...]
    trended: bool = False


def _bands(prefix: str, key: str, meaning: str, *, trended: bool) -> dict[str, Figure]:
    return {
        f"{prefix}_{band.replace(' ', '_')}": Figure(f"{meaning}, {band}", "HU", (key, band), trended)
        for band in BANDS_HU
    }


FIGURES: Final[Mapping[str, Figure]] = MappingProxyType(
    {
        "noise_before": Figure("noise before", "", ("noise_before",), trended=True),
        "noise_after": Figure("noise after", "", ("noise_after",), trended=True),
        "noise_ratio": Figure("noise after / before", "", (), trended=True),
        "nps_mean_before": Figure("mean frequency of the noise before", "1/mm", ("nps", "mean_before_per_mm"), True),
        "nps_mean_after": Figure("mean frequency of the noise after", "1/mm", ("nps", "mean_after_per_mm"), True),
        "nps_excess": Figure("noise power added at one frequency", "", ("nps", "excess")),
        "edge_width_before": Figure("width of edges before", "px", ("edge_width_before_px",), trended=True),
        "edge_width_after": Figure("width of edges after", "px", ("edge_width_after_px",), trended=True),
        "edge_modulation": Figure("modulation left at edges", "", ("edge_modulation",), trended=True),
        "edge_correlation": Figure("edges in the residual", "", ("edge_correlation",), trended=True),
        "blob": Figure("largest blob in the residual", "", ("blob", "strength")),
        "slice_fit": Figure("misfit to the own slice", "", ("slice_fit",)),
        "clipped_fraction": Figure("newly clipped voxels", "", ("clipped_fraction",)),
        "clipped_bone": Figure("bone cut off flat", "", ("clipped_bone",)),
        **_bands("bias", "bias_hu", "mean change", trended=True),
        **_bands("slice_bias", "slice_bias_hu", "largest mean change of a slice", trended=False),
        # of a phantom, measured without an engine
        "water": Figure("CT number of water", "HU", ("water_hu",), trended=True),
        "noise": Figure("noise in the middle of the phantom", "HU", ("noise_hu",), trended=True),
        "uniformity": Figure("largest difference between the rim and the middle", "HU", ("uniformity_hu",), True),
        "nps_mean": Figure("mean frequency of the noise", "1/mm", ("nps_mean_per_mm",), trended=True),
        "nps_peak": Figure("peak frequency of the noise", "1/mm", ("nps_peak_per_mm",)),
    }
)

IN_UNIT_OF_THE_IMAGE: Final = ("noise_before", "noise_after")
"""Figures whose unit is that of the image's values."""

TRENDED: Final = tuple(name for name, figure in FIGURES.items() if figure.trended)
"""Figures that have a control chart."""


def figures_of(report: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a report's JSON, in the order of `FIGURES`; what it lacks, or has as no number, is absent."""
    before, after = _number(report, ("noise_before",)), _number(report, ("noise_after",))
    ratio = after / before if before and after is not None else None
    found = {name: ratio if name == "noise_ratio" else _number(report, figure.path) for name, figure in FIGURES.items()}
    return {name: value for name, value in found.items() if value is not None}


def shown(name: str, value: float) -> str:
    """A figure with its unit, in four digits: `edge width 1.234 px`."""
    return f"{FIGURES[name].meaning} {value:.4g} {FIGURES[name].unit}".rstrip()


def _number(report: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    value: Any = report
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if value == value and abs(value) != float("inf") else None
