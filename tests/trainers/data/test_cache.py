"""The cache: memory-mapped, made once, and another one for whatever else it is made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from engines.quality.flat import noise
from tests.trainers.made import patient
from trainers.data import cache
from trainers.data.cache import Cache, Each, Simulation
from trainers.data.series import PairedSeries, Series
from trainers.errors import SourceError
from trainers.physics.noise import flat_noise, mean_frequency

SIMULATION = Simulation(fields=2, cutoff=0.8)


@pytest.fixture(name="series")
def _series() -> Series:
    return patient(1, slices=2).series


def test_noise_is_mapped_and_the_slices_own(series: Series, tmp_path: Path) -> None:
    noisy = Cache(tmp_path, SIMULATION).noisy(series)
    assert isinstance(noisy.noise, np.memmap)
    assert isinstance(noisy.series.hu, np.memmap)
    assert (noisy.noise.shape, noisy.noise.dtype) == ((2, 2, 96, 96), np.float16)
    assert np.array_equal(noisy.series.hu, series.hu)
    for at, hu in enumerate(series.hu):
        flat = flat_noise(hu.astype(np.float32))
        assert noisy.noise_hu[at] == pytest.approx(flat.noise_hu)
        assert noise(noisy.noise[0, at].astype(np.float32), flat.places) == pytest.approx(flat.noise_hu, rel=0.01)
    assert not np.array_equal(noisy.noise[0, 0], noisy.noise[0, 1])


def test_it_is_made_once(series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Cache(tmp_path, SIMULATION).noisy(series)
    monkeypatch.setattr(cache, "unit_noise", None)  # another simulation would fail
    again = Cache(tmp_path, SIMULATION).noisy(replace(series, name="moved elsewhere"))
    assert np.array_equal(first.noise, again.noise)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("making-")] == []


@pytest.mark.parametrize("other", [{"seed": 1}, {"cutoff": 0.5}, {"exposure": 0.0}], ids=str)
def test_other_settings_make_another(series: Series, tmp_path: Path, other: dict[str, float]) -> None:
    one = replace(series, hu=series.hu[:1])
    first = Cache(tmp_path, SIMULATION).noisy(one)
    second = Cache(tmp_path, replace(SIMULATION, **other)).noisy(one)  # type: ignore[arg-type]
    assert len(list(tmp_path.iterdir())) == 2
    assert not np.array_equal(first.noise[0], second.noise[0])


def test_many_are_counted_before_any_noise_is_computed(series: Series, tmp_path: Path) -> None:
    Cache(tmp_path, SIMULATION).noisy(series)
    new = replace(patient(2).series, name="new")
    low = (new.hu + 5).astype(np.int16)
    counts: list[int] = []
    computed: list[int] = []

    def counted(slices: int) -> Each:
        counts.append(slices)
        return lambda: computed.append(1)

    found = Cache(tmp_path, SIMULATION).all_noisy([series, new, PairedSeries(new, low, 0.25)], counted)
    assert (counts, len(computed)) == ([2], 2)  # of the first the cache knows, of the pair nothing is simulated
    assert all(np.array_equal(one.series.hu, wanted.hu) for one, wanted in zip(found, (series, new, new), strict=True))
    assert np.array_equal(found[1].noise, Cache(tmp_path / "other", SIMULATION).noisy(new).noise)
    assert found[2].noise[0] == pytest.approx(5 / 3**0.5, abs=0.01)
    assert not list(tmp_path.glob("making-*"))


def test_a_failure_leaves_nothing_behind(series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> None:
        raise SourceError("interrupted")

    monkeypatch.setattr(cache, "unit_noise", fails)
    with pytest.raises(SourceError, match="interrupted"):
        Cache(tmp_path, SIMULATION).noisy(series)
    assert list(tmp_path.iterdir()) == []


def test_a_pair_gives_back_its_low_dose(series: Series, tmp_path: Path) -> None:
    low = (series.hu + np.random.default_rng(0).normal(0, 20, series.hu.shape)).astype(np.int16)
    noisy = Cache(tmp_path, SIMULATION).noisy(PairedSeries(series, low, 0.25))
    assert noisy.noise.shape == (1, *series.hu.shape)
    assert noisy.series.hu + 3**0.5 * noisy.noise[0].astype(np.float32) == pytest.approx(low, abs=0.1)


def test_the_matched_kernel_and_the_fan_make_noise_too(series: Series, tmp_path: Path) -> None:
    one = replace(series, hu=series.hu[:1])
    for simulation in (Simulation(fields=1), Simulation(fields=1, geometry="fan", cutoff=0.8)):
        assert float(Cache(tmp_path, simulation).noisy(one).noise.astype(np.float32).std()) > 1.0


@pytest.mark.parametrize("geometry", ["parallel", "fan"])
@pytest.mark.parametrize("pixel_mm", [0.5, 0.977])
def test_the_noise_has_the_series_own_texture_whatever_its_pixels(
    geometry: Literal["parallel", "fan"], pixel_mm: float, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    grain = gaussian_filter(rng.standard_normal((1, 160, 160)), (0, 0.9, 0.9))
    series = replace(patient(1).series, hu=np.rint(40 + 15 * grain / grain.std()).astype(np.int16),
                     spacing_mm=(2.0, pixel_mm, pixel_mm), z_mm=None)  # fmt: skip
    noise = Cache(tmp_path, Simulation(geometry, fields=2)).noisy(series).noise[:, 0].astype(np.float32)
    wanted, found = (mean_frequency(one, (pixel_mm, pixel_mm)) for one in (series.hu, 40 + noise))
    assert found == pytest.approx(wanted, rel=0.08)


def test_a_series_without_noise_is_refused(series: Series, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no noise"):
        Cache(tmp_path, SIMULATION).noisy(replace(series, hu=np.full_like(series.hu, -1000)))


def test_pixels_that_are_not_square_are_refused(series: Series, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not square"):
        Cache(tmp_path, SIMULATION).noisy(replace(series, spacing_mm=(1.0, 0.7, 0.8)))


@pytest.mark.parametrize("pixel_mm", [1e-30, 0.04, 5.1, 700.0, 1e30, float("inf")])
def test_pixels_of_no_size_that_ct_has_are_refused(series: Series, tmp_path: Path, pixel_mm: float) -> None:
    with pytest.raises(SourceError, match=r"phantom-1 are .* mm apart"):
        Cache(tmp_path, SIMULATION).noisy(replace(series, spacing_mm=(1.0, pixel_mm, pixel_mm)))


@pytest.mark.parametrize("beyond", [7e4, float("inf"), float("nan")])
def test_noise_without_bounds_is_refused_and_not_kept(
    series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beyond: float
) -> None:
    monkeypatch.setattr(cache, "unit_noise", lambda hu, *rest: np.full((2, *hu.shape), beyond, np.float32))
    with pytest.raises(SourceError, match="noise of phantom-1"):
        Cache(tmp_path, SIMULATION).noisy(series)
    assert list(tmp_path.iterdir()) == []
