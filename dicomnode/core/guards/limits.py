"""The figures of an output against the limits of its engine's card, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dicomnode.core.guards.findings import GateFinding
from engines.card import Limits
from engines.quality import Blob, QualityReport
from engines.volume import HU

_LEAST_NOISE: Final = 0.5  # HU: below this, rounding to whole numbers is all there is, and a ratio says nothing

_BIAS_OF_NOISE: Final = 0.02
"""Of the source's noise: a clean output of a sharp kernel at a tenth of the dose shifts its cores of tissue by 0.03
of it, where noise is 120 HU."""


def judge_figures(limits: Limits, unit: str, figures: QualityReport) -> Iterator[GateFinding]:
    """A finding for each limit that the card sets and whose figure could be measured."""
    yield from _bias(limits, figures)
    yield from _noise(limits, unit, figures)
    yield from _edges(limits, figures)
    if limits.blob is not None and figures.blob is not None:
        yield _blob(limits.blob, unit, figures.blob)
    yield from _order(limits, figures)
    yield from _clipping(limits, figures)


def _bias(limits: Limits, figures: QualityReport) -> Iterator[GateFinding]:
    """Cores of tissue are drawn on the source, and its noise decides a little of where they lie: so much of it is
    allowed on top."""
    of_noise_hu = _BIAS_OF_NOISE * (figures.noise_before or 0.0)
    for limit, bias, where in (
        (limits.bias_hu, figures.bias_hu, ""),
        (limits.slice_bias_hu, figures.slice_bias_hu, " in one slice"),
    ):
        for tissue, change in bias.items() if limit is not None else ():
            assert limit is not None
            most = limit + of_noise_hu
            sentence = f"{tissue} changes by {change:+.2f} HU on the mean{where}, at most {most:.3g} is allowed"
            name = f"bias{where}: {tissue}"
            yield GateFinding(name, change, most, abs(change) <= most, sentence)


def _noise(limits: Limits, unit: str, figures: QualityReport) -> Iterator[GateFinding]:
    if limits.noise_ratio is not None:
        yield _noise_ratio(limits.noise_ratio, unit, figures)
    if limits.nps_excess is not None and figures.nps is not None and figures.nps.excess is not None:
        added, most = figures.nps.excess, limits.nps_excess
        sentence = f"at one frequency {added:.0%} of the source's noise power are added, at most {most:.0%} is allowed"
        yield _at_most("noise pattern", added, most, sentence)


def _noise_ratio(bound: tuple[float, float], unit: str, figures: QualityReport) -> GateFinding:
    old, new = figures.noise_before, figures.noise_after
    least = _LEAST_NOISE if unit == HU else 0.0
    if old is None or new is None or old <= least:
        return GateFinding("noise", None, bound, True, "no noise to compare: no flat tissue, or none that is noisy")
    low, high = bound
    shown = f" {unit}" if unit == HU else ""
    sentence = f"noise goes from {old:.1f} to {new:.1f}{shown}, a ratio of {low:g} to {high:g} is allowed"
    return GateFinding("noise", new / old, bound, low <= new / old <= high, sentence)


def _edges(limits: Limits, figures: QualityReport) -> Iterator[GateFinding]:
    if limits.edge_modulation is not None and figures.edge_modulation is not None:
        low, high = limits.edge_modulation
        left = figures.edge_modulation
        sentence = f"edges keep {left:.0%} of their modulation, {low:.0%} to {high:.0%} is allowed"
        yield GateFinding("edges", left, limits.edge_modulation, low <= left <= high, sentence)
    if limits.edge_correlation is not None and figures.edge_correlation is not None:
        found, most = figures.edge_correlation, limits.edge_correlation
        where = "" if figures.edge_correlation_slice is None else f" in slice {figures.edge_correlation_slice + 1}"
        sentence = f"what was taken away follows the source's edges by {found:.2f}{where}, at most {most:g} is allowed"
        yield _at_most("residual at edges", found, most, sentence)


def _blob(most: float, unit: str, blob: Blob) -> GateFinding:
    what = "taken away as something bright, or added as something dark" if blob.contrast > 0 else (
        "added as something bright, or taken away as something dark"
    )  # fmt: skip
    height = f"{abs(blob.contrast):.0f} HU, " if unit == HU else ""
    sentence = (
        f"in slice {blob.slice_index + 1} about {blob.size_mm:g} mm were {what}: {height}{blob.strength:.1f} times "
        f"what noise makes there, at most {most:g} times is allowed"
    )
    return _at_most("blob", blob.strength, most, sentence)


def _order(limits: Limits, figures: QualityReport) -> Iterator[GateFinding]:
    if limits.slice_fit is None:
        return
    if figures.slices_alike:
        sentence = (
            f"the order of {figures.slices_alike} slices cannot be judged: by noise alone, or by nothing, they differ "
            "from those around them"
        )
        yield GateFinding("alike slices", float(figures.slices_alike), None, True, sentence)
    if figures.slice_fit is not None:
        where = "" if figures.slice_fit_slice is None else f" {figures.slice_fit_slice + 1}"
        sentence = (
            f"slice{where} of the output fits its own source slice worst: it is {figures.slice_fit:.0%} as far from it "
            f"as from the next best, at most {limits.slice_fit:.0%} is allowed"
        )
        yield _at_most("slice order", figures.slice_fit, limits.slice_fit, sentence)


def _clipping(limits: Limits, figures: QualityReport) -> Iterator[GateFinding]:
    if limits.clipped_fraction is not None:
        share, most = figures.clipped_fraction, limits.clipped_fraction
        sentence = f"{share:.4%} of the voxels are newly at an end of the range, at most {most:.4%} is allowed"
        yield _at_most("clipping", share, most, sentence)
    if limits.clipped_bone is not None and figures.clipped_bone is not None:
        share, most = figures.clipped_bone, limits.clipped_bone
        sentence = f"{share:.1%} of a slice's bone are cut off at one value, at most {most:.1%} is allowed"
        yield _at_most("clipped bone", share, most, sentence)


def _at_most(name: str, figure: float, most: float, sentence: str) -> GateFinding:
    return GateFinding(name, figure, most, figure <= most, sentence)
