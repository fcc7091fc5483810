"""Patches a second of training: counted over the steps after the first ones."""

from __future__ import annotations

import pytest

from bench import training
from bench.training import PRECISIONS, patches_per_s


@pytest.mark.parametrize("precision", PRECISIONS)
def test_patches_are_counted_over_the_time_that_they_took(
    precision: training.Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = iter(range(0, 300, 3))  # three seconds a line
    monkeypatch.setattr("bench.training.time.perf_counter", lambda: float(next(marks)))
    monkeypatch.setattr(training, "_LINE_STEPS", 1)
    assert patches_per_s(precision, lines=2, size_px=128) == pytest.approx(2 * 8 / 6)
