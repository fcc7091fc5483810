"""From slices and denoisers to a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from trainers.evaluate.cases import Case, Extent, by_patient
from trainers.evaluate.denoisers import LOW_DOSE, Denoiser, Kind, seen
from trainers.evaluate.measures import View, figures
from trainers.evaluate.nodules import Planted, planted_in
from trainers.evaluate.probes import Probe, probes_of
from trainers.evaluate.table import Row, Table
from trainers.evaluate.windows import WINDOWS

NOTES: Final = (
    "Low dose is simulated: noise added to full-dose slices of held-out patients.",
    "Against the full dose as it came, with its own noise: a perfect denoiser does not reach infinity.",
    "Nodules are simulated lesions, planted in soft tissue; d' is of a matched filter that knows shape and place.",
    "Training may plant nodules by the same simulator, so figures of 6 and 10 mm show what was trained for; tubes (3 "
    "by 10 mm) are planted by no training and show whether that generalises.",
    "The noise of d' is what the lower dose adds: only that is drawn anew, the slice's own falls out. So d' is too "
    "high, for the low dose itself 1.41 times at half dose, 1.15 at a quarter, 1.05 at a tenth.",
    "d' is the geometric mean of the patients'; its ratio to that of the low dose is the geometric mean of each "
    "patient's own. Single ratios scatter by some per cent, so a fall in one patient may be chance.",
    "Invented and erased: spots of soft tissue where a filter of 6 mm finds 25 HU more, or less, than in the full dose "
    "itself; noise alone does that too, as the low dose shows. Drawn: beyond the low dose too, so not by its noise.",
    "An aim is unsure where its bound lies within the interval.",
    "Intervals are 95 %, by bootstrap over patients; differences are paired by patient; the worst patient has none.",
    "n: of so many patients, where others have no place for that figure. Places are sought on the full dose, the "
    "same at each dose for every denoiser.",
    "Bias is the mean change in tissue cores of the smoothed full dose, eroded.",
    "Windows: " + "; ".join(f"{one.name} level {one.level_hu:g} width {one.width_hu:g} HU" for one in WINDOWS) + ".",
    "Seconds are of the processor, a slice, all cores together.",
)


def judge(cases: Sequence[Case], denoisers: Sequence[Denoiser], extent: Extent, say: Callable[[str], None]) -> Table:
    """The table of these denoisers, beside the input itself, on all patients of `cases`."""
    everyone = (LOW_DOSE, *denoisers)
    rows: list[Row] = []
    patients = by_patient(cases)
    for number, own in enumerate(patients):
        sights = [_sight(case, extent.realisations) for case in own]
        for dose in extent.doses:
            for denoiser in everyone:
                rows += _rows(sights, denoiser, (number, dose, extent.realisations))
        say(f"patient {number + 1} of {len(patients)}")
    kinds: dict[str, Kind] = {
        name: denoiser.kind if strength == denoiser.shipped else "partial"
        for denoiser in everyone
        for strength, name in denoiser.rows.items()
    }
    return Table(tuple(rows), kinds, NOTES)


@dataclass(frozen=True, eq=False)
class _Sight:
    """A slice, what is planted in it, and where it is asked for more."""

    case: Case
    nodules: Planted
    probes: tuple[Probe, ...]


def _sight(case: Case, realisations: int) -> _Sight:
    if not realisations:
        return _Sight(case, Planted((), case.full, case.full), probes_of(case))
    return _Sight(case, planted_in(case), probes_of(case))


def _rows(sights: Sequence[_Sight], denoiser: Denoiser, at: tuple[int, float, int]) -> Iterator[Row]:
    number, dose, realisations = at
    looked = [
        [_view(sight, denoiser, (dose, field)) for field in _fields(sight.case, dose, realisations)] for sight in sights
    ]
    for strength, name in denoiser.rows.items():
        views = [[view.at(strength) for view in each] for each in looked]
        yield Row(name, dose, number, figures(views))


def _fields(case: Case, dose: float, realisations: int) -> range:
    """At full dose nothing is added: there is one."""
    return range(1 if dose == 1 else max(1, min(realisations, case.realisations)))


def _view(sight: _Sight, denoiser: Denoiser, at: tuple[float, int]) -> View:
    case, nodules = sight.case, sight.nodules
    plain = seen(denoiser, case.low(case.full, *at))
    if not nodules.sites:
        return View(case, nodules, plain, probes=sight.probes)
    planted, removed = (seen(denoiser, case.low(hu, *at)) for hu in (nodules.planted, nodules.removed))
    return View(case, nodules, plain, planted, removed, sight.probes)
