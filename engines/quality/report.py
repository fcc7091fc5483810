"""QualityReport: what an engine did to an image, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from engines.quality.clipping import Clipping
from engines.quality.edges import EdgeResponse, edge_response
from engines.quality.flat import noise_figures
from engines.quality.order import Fit
from engines.quality.residual import Blob, BlobSearch, EdgeCorrelation
from engines.quality.slices import Pair, measured_range, pairs, sample
from engines.quality.spectrum import NoisePower, noise_power
from engines.quality.tissue import Bias
from engines.volume import HU, Volume

SAMPLED_SLICES: Final = 4
"""Of a volume, for the dear figures: noise, its spectrum, and edges. All other figures see every slice."""

_SMALLEST_PX: Final = 32  # rows or columns below which nothing is searched for


@dataclass(frozen=True)
class QualityReport:
    """Figures of one run. None where the image has no place to measure it; HU figures are empty in other units.

    noise_before, noise_after  standard deviation of the noise in flat places (robust, of a high-pass)
    flat_sd_before, flat_sd_after  standard deviation in flat 8 x 8 px blocks
    bias_hu            mean change in the core of each tissue band that has one
    edge_width_before_px, edge_width_after_px  distance over which the middle 50 % of an edge's step is made
    clipped_fraction   share of voxels newly at the ends of the source's range
    slice_bias_hu      mean change of each tissue band in the slice where it is largest
    clipped_bone       largest share of a slice's bone voxels (250 HU and more) that lie flat at the output's maximum
    edge_modulation    modulation left at edges, at the frequency where the source's is a half: 1 where nothing is lost
    edge_half_per_px   that frequency, in cycles a px
    edge_correlation   correlation of the residual's magnitude with the source's gradient, in the slice where it is
                       highest: noise has none
    edge_correlation_slice  index of that slice
    blob               what stands out of the residual most, of a nodule's size
    slice_fit          misfit of an output slice to its own source slice, as a share of that to the next best (the slice
                       before, the slice after, itself flipped), where it is worst: 1 and more is another slice
    slice_fit_slice    index of that slice
    slices_alike       how many slices differ from those around them by noise alone: nothing tells their order
    nps                noise power spectra before and after
    """

    noise_before: float | None
    noise_after: float | None
    flat_sd_before: float | None
    flat_sd_after: float | None
    bias_hu: Mapping[str, float]
    edge_width_before_px: float | None
    edge_width_after_px: float | None
    clipped_fraction: float
    slice_bias_hu: Mapping[str, float] = field(default_factory=dict)
    clipped_bone: float | None = None
    edge_modulation: float | None = None
    edge_half_per_px: float | None = None
    edge_correlation: float | None = None
    edge_correlation_slice: int | None = None
    blob: Blob | None = None
    slice_fit: float | None = None
    slice_fit_slice: int | None = None
    slices_alike: int = 0
    nps: NoisePower | None = None

    def as_json(self) -> dict[str, Any]:
        """The figures as JSON values, rounded to what they mean: HU to 3 decimals, all else to 6."""
        figures: dict[str, Any] = _rounded(asdict(self), 6)
        for name in ("bias_hu", "slice_bias_hu"):
            figures[name] = _rounded(figures[name], 3)
        return figures


def measure(before: Volume, after: Volume) -> QualityReport:
    """Compare two volumes of one grid and one unit. Noise and edges are taken from at most 4 slices, evenly spread; all
    else from every slice, so that what is wrong with a single one is seen."""
    measuring = Measuring(before)
    measuring.add(after, before.shape[0])
    return measuring.report()


class Measuring:
    """As `measure`, for an output that comes slab by slab.

    before  all of the source: the ends of its range are known from the first slice on
    """

    def __init__(self, before: Volume) -> None:
        self._before = before
        self._done = 0
        self._sampled: list[Pair] = []
        self._wanted = set(sample(before.shape[0], SAMPLED_SLICES))
        self._unit = before.unit
        self._told = _Told(before)

    def add(self, after: Volume, slices: int) -> None:
        """Take in what follows of the first `slices` slices of the output, a volume of the source's grid."""
        self._unit = after.unit
        for pair in pairs(self._before, after, range(self._done, slices)):
            self._told.add(pair)
            if pair.index in self._wanted:
                self._sampled.append(Pair(pair.index, pair.old, pair.new, pair.measured, pair.unit))
        self._done = max(self._done, slices)

    def report(self) -> QualityReport:
        """The figures, once all slices were taken in."""
        told = self._told
        told.finish()
        edges = _edges(self._sampled)
        is_hu = self._before.unit == self._unit == HU
        return QualityReport(
            *_noise(self._sampled),
            bias_hu=told.bias.mean if is_hu else {},
            edge_width_before_px=edges.width_before_px if edges else None,
            edge_width_after_px=edges.width_after_px if edges else None,
            clipped_fraction=told.clipping.fraction,
            slice_bias_hu=told.bias.worst if is_hu else {},
            clipped_bone=told.clipping.bone if is_hu else None,
            edge_modulation=edges.modulation if edges else None,
            edge_half_per_px=edges.half_per_px if edges else None,
            edge_correlation=told.correlation.worst,
            edge_correlation_slice=told.correlation.index,
            blob=told.blobs.strongest,
            slice_fit=told.fit.worst,
            slice_fit_slice=told.fit.index,
            slices_alike=told.fit.alike,
            nps=noise_power(self._sampled, self._before.pixel_spacing_mm),
        )


class _Told:
    """All figures that see every slice."""

    def __init__(self, before: Volume) -> None:
        self.clipping = Clipping(*measured_range(before))
        self.bias = Bias()
        self.correlation = EdgeCorrelation()
        self.fit = Fit()
        step_mm = float(np.linalg.norm(before.affine[:3, 2]))
        self.blobs = BlobSearch((*before.pixel_spacing_mm, step_mm))
        self._searched = min(before.shape[1:]) >= _SMALLEST_PX

    def add(self, pair: Pair) -> None:
        self.clipping.add(pair)
        if self._searched:
            self.bias.add(pair)
            self.correlation.add(pair)
            self.fit.add(pair)
            self.blobs.add(pair)

    def finish(self) -> None:
        self.fit.finish()
        self.blobs.finish()


def _noise(sampled: list[Pair]) -> tuple[float | None, float | None, float | None, float | None]:
    rows = [noise_figures(pair.old, pair.new, pair.measured_places, pair.unit) for pair in sampled]
    known = np.array([row for row in rows if row is not None])
    if not len(known):
        return None, None, None, None
    before, after, sd_before, sd_after = np.median(known, axis=0).tolist()
    return before, after, sd_before, sd_after


def _edges(sampled: list[Pair]) -> EdgeResponse | None:
    return edge_response((pair.old, pair.new, pair.measured_places) for pair in sampled)


def _rounded(value: Any, digits: int) -> Any:
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, Mapping):
        return {name: _rounded(each, digits) for name, each in value.items()}
    return [_rounded(each, digits) for each in value] if isinstance(value, (list, tuple)) else value
