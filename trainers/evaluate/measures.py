"""Figures of one denoiser on one patient at one dose."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Final

import cv2
import numpy as np

from engines.quality.edges import edge_response
from engines.quality.flat import FEWEST
from engines.quality.residual import BlobSearch, EdgeCorrelation
from engines.quality.slices import Pair, Places, blurred, slope_of
from engines.quality.tissue import BANDS_HU, Bias
from engines.volume import HU
from trainers.evaluate.cases import Case
from trainers.evaluate.denoisers import Seen
from trainers.evaluate.nodules import Planted
from trainers.evaluate.probes import Changed, Probe, changed, variance
from trainers.evaluate.texture import Slices, noise_figures
from trainers.evaluate.windows import WINDOWS, Pixels, psnr_db, ssim

EDGES_HU: Final[Mapping[str, tuple[float, float]]] = {"strong": (300.0, 1e9), "moderate": (60.0, 300.0)}
"""Heights of edges: bone and lung to soft tissue; organs, vessels and fat."""

_LOCAL_PX: Final = 3.0
_BODY_HU: Final = -900.0
_SKIN_HU: Final = -400.0
_AROUND_PX: Final = 21  # edges look 9 px to either side: the skin itself is an edge of the body
_FAR_APART_MM: Final = 100.0  # slices of a case are no neighbours

Figures = Mapping[str, float]


@dataclass(frozen=True, eq=False)
class View:
    """A slice at one realisation of a dose, as it is, with nodules planted, and with these removed again.

    planted, removed  None where no place was found for a nodule, or none was asked for
    probes            where the slice has room for nodules
    """

    case: Case
    nodules: Planted
    plain: Seen
    planted: Seen | None = None
    removed: Seen | None = None
    probes: tuple[Probe, ...] = ()

    @property
    def slices(self) -> Slices:
        """As it is: at full dose, at a lower one, and what was made of that."""
        return Slices(self.case.full, self.plain.low, self.plain.made)

    def at(self, strength: float) -> View:
        """The same with a share of what was taken away."""
        planted, removed = (None if one is None else one.at(strength) for one in (self.planted, self.removed))
        return View(self.case, self.nodules, self.plain.at(strength), planted, removed, self.probes)


def figures(slices: Sequence[Sequence[View]]) -> dict[str, float]:
    """All figures of a patient; what cannot be measured is not among them.

    slices  for each slice its realisations; the first alone is looked at where nodules do not matter
    """
    first = [views[0] for views in slices]
    found = dict(fidelity(first))
    found |= noise_figures([view.slices for view in first], first[0].case.noisy.series.pixel_mm)
    found |= sharpness(first)
    found |= residual_figures(first)
    found |= lesion_figures(slices)
    found |= change_figures(slices)
    found["seconds"] = float(np.median([view.plain.seconds for views in slices for view in views]))
    return {name: value for name, value in found.items() if math.isfinite(value)}


def fidelity(views: Sequence[View]) -> Iterator[tuple[str, float]]:
    """PSNR and SSIM against the full dose in each window."""
    for window in WINDOWS:
        pairs = [(view.case.full, view.plain.made) for view in views]
        yield f"psnr {window.name}", float(np.mean([psnr_db(full, made, window) for full, made in pairs]))
        yield f"ssim {window.name}", float(np.mean([ssim(full, made, window) for full, made in pairs]))


def sharpness(views: Sequence[View]) -> dict[str, float]:
    """Width and modulation of edges, before and after the denoiser. They are found on the full dose, in the body."""
    found: dict[str, float] = {}
    bodies = [body_places(view.case.full) for view in views]
    for name, heights in EDGES_HU.items():
        given, made = (
            edge_response(
                ((view.case.full, getattr(view.plain, which), body) for view, body in zip(views, bodies, strict=True)),
                heights,
            )
            for which in ("low", "made")
        )
        if given is not None and made is not None:
            found[f"{name} edges before"] = given.width_after_px
            found[f"{name} edges after"] = made.width_after_px
            found[f"{name} edges modulation"] = made.modulation / given.modulation if given.modulation else math.nan
    return found


def body_places(full: Pixels) -> Places:
    """The patient with all that is inside, and 10 px around: not the table, nor clothes in the air, whose noise is cut
    off at -1024 HU."""
    tissue = (blurred(full, 2.0) > _SKIN_HU).astype(np.uint8)
    outlines, _ = cv2.findContours(tissue, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    body = np.zeros(full.shape, dtype=np.uint8)
    if outlines:
        cv2.drawContours(body, [max(outlines, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return cv2.dilate(body, np.ones((_AROUND_PX, _AROUND_PX), np.uint8)) > 0


def residual_figures(views: Sequence[View]) -> dict[str, float]:
    """How tissue was moved, and whether what was taken away knows of anatomy."""
    bias, correlation = Bias(), EdgeCorrelation()
    blobs = BlobSearch((*views[0].case.noisy.series.pixel_mm, _FAR_APART_MM))
    for at, view in enumerate(views):
        full, seen = view.case.full, view.plain
        bias.add(_pair(at, full, full + (seen.made - seen.low)))  # cores are those of the full dose
        correlation.add(_pair(at, seen.low, seen.made))
        blobs.add(_pair(at, seen.low, seen.made))
    blobs.finish()
    found = {f"bias {band}": value for band, value in bias.mean.items() if band in BANDS_HU}
    removed = [removed_by_slope(view.case.full, view.plain.low - view.plain.made) for view in views]
    found["removed by slope"] = float(np.mean(removed))
    found["removed"] = float(np.mean([_rms_in_body(view) for view in views]))
    if correlation.worst is not None:
        found["residual at edges"] = correlation.worst
    if blobs.strongest is not None:
        found["residual blob"] = blobs.strongest.strength
    return found


def removed_by_slope(full: Pixels, removed: Pixels) -> float:
    """Correlation (Pearson's) of the magnitude of the removed local mean (Gaussian of 3 px) with the gradient of the
    smoothed full dose, in the body; NaN where nothing was removed. Noise has none; what blurs or flattens has."""
    smooth = blurred(full, 2.0)
    body = smooth > _BODY_HU
    magnitude, slope = np.abs(blurred(removed, _LOCAL_PX))[body], slope_of(smooth)[body]
    if magnitude.size < FEWEST or magnitude.std() == 0 or slope.std() == 0:
        return math.nan
    return float(np.corrcoef(magnitude, slope)[0, 1])


def lesion_figures(slices: Sequence[Sequence[View]]) -> dict[str, float]:
    """Of each kind of planted nodule its mean response; of each size the variance of the response to noise alone, at
    all places where it has room; and over all what is left of removed ones that the input has not."""
    found: dict[str, list[float]] = {}
    for views in slices:
        for at, site in enumerate(views[0].nodules.sites):
            kept, left = (np.mean([one(view, at) for view in views]) for one in (_response, _left))
            found.setdefault(f"{site.lesion} response", []).append(float(kept))
            found.setdefault("left of removed nodules", []).append(float(left))
        for probe in views[0].probes if len(views) > 1 else ():
            alone = variance(probe, [view.plain.made for view in views])
            found.setdefault(f"{probe.size} variance", []).append(alone)
    return {name: float(np.mean(values)) for name, values in found.items()}


def change_figures(slices: Sequence[Sequence[View]]) -> dict[str, float]:
    """What looks like a nodule and is not in the full dose, and what no longer does; mean over slices."""
    found = [
        [astuple(changed(probe, view.slices, view.case.imaging.pixel_mm)) for view in views]
        for views in slices
        for probe in views[0].probes
        if probe.finds_sought
    ]
    if not found:
        return {}
    means = np.mean([np.mean(each, axis=0) for each in found], axis=0)
    return dict(zip((one.name.replace("_", " ") for one in fields(Changed)), means.tolist(), strict=True))


def _response(view: View, at: int) -> float:
    """What a planted nodule adds to the output: the same noise is in both images, and falls out."""
    assert view.planted is not None
    return view.nodules.sites[at].response(view.planted.made - view.plain.made)


def _left(view: View, at: int) -> float:
    """How much of a removed nodule is in the output and not in the input, as a share of its contrast."""
    assert view.removed is not None
    site, gone, never = view.nodules.sites[at], view.removed, view.plain
    made, given = (site.response(one) for one in (gone.made - never.made, gone.low - never.low))
    return (made - given) / abs(site.lesion.contrast_hu)


def _rms_in_body(view: View) -> float:
    body = view.case.full > _BODY_HU
    return float(np.sqrt(np.square(view.plain.low - view.plain.made)[body].mean())) if body.any() else math.nan


def _pair(at: int, old: Pixels, new: Pixels) -> Pair:
    return Pair(at, old, new, None, HU)
