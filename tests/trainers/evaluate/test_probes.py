"""What a filter finds where no nodule was planted."""

from __future__ import annotations

import numpy as np
import pytest

from engines.quality.slices import blurred
from tests.trainers.evaluate.bodies import body, case, views
from trainers.evaluate.denoisers import LOW_DOSE, Denoiser, Pixels
from trainers.evaluate.measures import change_figures
from trainers.evaluate.nodules import LESIONS, Lesion, planted_in, site_of, size_of
from trainers.evaluate.probes import SOUGHT, Changed, changed, probes_of
from trainers.evaluate.texture import Slices

_CASE = case()
_PLACE = (128, 60)
_OTHER = (100, 60)


def _found(run: object, dose: float = 0.5) -> dict[str, float]:
    return change_figures([views(_CASE, Denoiser("one", run), dose=dose)])  # type: ignore[arg-type]


def _area() -> float:
    """Of what is asked, in cm^2: pixels are of 1 mm."""
    (probe,) = (one for one in probes_of(_CASE) if one.size == "6 mm")
    return float(np.count_nonzero(probe.inner)) / 100


def test_a_probe_responds_as_the_planted_places_do() -> None:
    image = planted_in(_CASE).planted
    for probe in probes_of(_CASE):
        responses = probe.responses(image)
        for site in planted_in(_CASE).sites:
            reach = probe.filter.shape[0] // 2
            middle = [one.start + reach for one in site.box]
            if size_of(site.lesion) == probe.size:
                row, column = (at - part.start - reach for at, part in zip(middle, probe.part, strict=True))
                sign = np.sign(site.lesion.contrast_hu)
                assert probe.places[row, column]
                assert responses[row, column] == pytest.approx(sign * site.response(image), abs=0.05)


def test_one_who_invents_is_caught_and_a_good_filter_is_not() -> None:
    """Of either sign, once each: what is too bright does not make up for what is too dark."""
    bright, dark = (site_of(_CASE, Lesion(6.0, hu), at).added for hu, at in ((40.0, _PLACE), (-40.0, _OTHER)))

    def good(low: Pixels) -> Pixels:
        return 0.1 * low + 0.9 * body()

    noisy, clean, inventing = (_found(run) for run in (LOW_DOSE.run, good, lambda low: good(low) + bright + dark))
    assert clean == {"asked cm2": pytest.approx(_area()), "invented": 0.0, "erased": 0.0, "drawn": 0.0}
    assert inventing["invented"] == 2 and inventing["erased"] == 0.0
    assert _found(LOW_DOSE.run, 1.0) == clean
    assert _found(LOW_DOSE.run, 0.05)["invented"] > noisy["invented"]  # noise alone invents: it is what to compare with


def test_what_is_drawn_is_told_from_noise() -> None:
    """At a tenth of the dose noise alone makes many such spots; only who goes beyond it is caught."""
    bright, dark = (site_of(_CASE, Lesion(6.0, hu), at).added for hu, at in ((80.0, _PLACE), (-80.0, _OTHER)))

    def good(low: Pixels) -> Pixels:
        return 0.5 * low + 0.5 * body()

    noisy, clean, drawing = (_found(run, 0.1) for run in (LOW_DOSE.run, good, lambda low: good(low) + bright + dark))
    assert noisy["invented"] > 5 and noisy["drawn"] == clean["drawn"] == 0.0
    assert drawing["invented"] < noisy["invented"] and drawing["drawn"] == 2


def test_what_the_full_dose_has_and_a_blur_takes_away_is_erased() -> None:
    (probe,) = (one for one in probes_of(_CASE, (SOUGHT,)))
    there = _CASE.full + site_of(_CASE, SOUGHT, _PLACE).added
    found = changed(probe, Slices(there, there, blurred(_CASE.full, 2.0)), 1.0)
    assert found.erased == 1 and found.invented == found.drawn == 0  # what both have and is taken away is not drawn
    assert changed(probe, Slices(there, there, there), 1.0) == Changed(found.asked_cm2, 0, 0, 0)


def test_without_room_nothing_is_asked() -> None:
    assert not probes_of(_CASE, (Lesion(120.0, 50.0),))
    assert len(probes_of(_CASE)) == len({probe.size for probe in probes_of(_CASE, LESIONS)})
