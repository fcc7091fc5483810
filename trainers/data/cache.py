"""What is drawn from at every step lies in memory-mapped files: HU as they came, and unit noise computed once.

A folder of the cache holds one series, and is named by the digest of what it was made of: its HU, its pixel spacing,
and how noise was simulated. Made again, it is found; made differently, it is another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from trainers.data.making import clear_abandoned, filled_at_once, workplace
from trainers.data.patches import Noisy
from trainers.data.series import PairedSeries, Picture, Series, Stored
from trainers.errors import SourceError
from trainers.physics.beam import Beam
from trainers.physics.dose import Scan, noise_factor, unit_noise
from trainers.physics.filtered import Kernel
from trainers.physics.geometry import Fan
from trainers.physics.noise import Flat, edge_blur_px, filled, flat_noise, matched_kernel, mean_frequency

_VERSION: Final = 2
"""Raised whenever the same settings give another noise."""
_FAN_VERSION: Final = 2
"""Likewise, of a fan alone."""
_HU, _NOISE, _FIGURES, _GREY = "hu.npy", "noise.npy", "figures.npy", "grey.npy"
_SQUARE: Final = 0.01
_FINEST_MM, _COARSEST_MM = 0.05, 5.0
"""Between pixels: clinical CT has 0.1 (a temporal bone) to 1.4 (700 mm in 512), phantoms some more. Beyond lies what is
in another unit, whose rays would go through metres or nothing."""

Each = Callable[[], None]
"""Called after each slice whose noise was computed."""


@dataclass(frozen=True)
class Simulation:
    """How unit noise is made; a table of a recipe.

    geometry  "parallel", or "fan": that of the Mayo scanners, several times as slow
    fields    independent fields of noise for each slice
    seed      other noise, all else the same
    cutoff    of the Hann window (see `Kernel`); 0: matched to the noise that the series has
    photons, bow_tie, electronic, exposure   see `Beam`
    """

    geometry: Literal["parallel", "fan"] = "parallel"
    fields: int = 2
    seed: int = 0
    cutoff: float = 0.0
    photons: float = 2.25e5
    bow_tie: float = 2.5
    electronic: float = 10.0
    exposure: float = 0.3

    @property
    def beam(self) -> Beam:
        """At full dose."""
        return Beam(self.photons, bow_tie=self.bow_tie, electronic=self.electronic, exposure=self.exposure)


class Cache:
    """Noisy series in a folder, each made when it is first asked for. What killed processes left there is removed."""

    def __init__(self, folder: Path, simulation: Simulation) -> None:
        self._folder = folder
        self._simulation = simulation
        clear_abandoned(folder)

    def noisy(self, series: Series | PairedSeries) -> Noisy:
        """A series with its noise: simulated, or for a pair the difference between its doses. Raises SourceError where
        its pixels are not square or of no size that CT has, or no noise of it can be measured or kept."""
        return self._noisy(series, self._place(series), lambda: None)

    def all_noisy(self, many: Iterable[Series | PairedSeries], counted: Callable[[int], Each]) -> list[Noisy]:
        """The same of many, one at a time in memory. All are read before any noise is computed, so that it is known how
        much there is to do.

        counted  is given the number of slices whose noise has to be simulated
        """
        with workplace(self._folder) as waiting:
            read = []
            for at, series in enumerate(many):
                place = self._place(series)
                read.append((_set_aside(series, waiting / str(at), place.is_dir()), place))
            each = counted(sum(one.slices for one, place in read if isinstance(one, Series) and not place.is_dir()))
            return [self._noisy(series, place, each) for series, place in read]

    def picture(self, picture: Picture) -> Picture:
        """A photograph on the disk, not in memory."""
        digest = hashlib.sha256(f"{picture.grey.shape} ".encode() + picture.grey.tobytes()).hexdigest()[:40]
        place = self._folder / digest
        if not place.is_dir():
            filled_at_once(place, lambda folder: np.save(folder / _GREY, picture.grey))
        return replace(picture, grey=np.load(place / _GREY, mmap_mode="r", allow_pickle=False), digest=digest)

    def _place(self, series: Series | PairedSeries) -> Path:
        full = series.full if isinstance(series, PairedSeries) else series
        rows_mm, columns_mm = full.pixel_mm
        if not min(rows_mm, columns_mm) > 0 or abs(rows_mm / columns_mm - 1.0) > _SQUARE:
            raise SourceError(f"the pixels of {full.name} are not square", "leave it out")
        if not _FINEST_MM <= rows_mm <= _COARSEST_MM:
            hint = f"give PixelSpacing in mm, {_FINEST_MM:g} to {_COARSEST_MM:g}, or leave it out"
            raise SourceError(f"the pixels of {full.name} are {rows_mm:g} mm apart", hint)
        return self._folder / self._digest(series)

    def _noisy(self, series: Series | PairedSeries, place: Path, each: Each) -> Noisy:
        full = series.full if isinstance(series, PairedSeries) else series
        if not place.is_dir():
            filled_at_once(place, lambda folder: self._fill(folder, series, each))
        figures = np.load(place / _FIGURES, allow_pickle=False)
        mapped = replace(full, hu=np.load(place / _HU, mmap_mode="r", allow_pickle=False))
        noise = np.load(place / _NOISE, mmap_mode="r", allow_pickle=False)
        return Noisy(mapped, noise, noise_hu=figures[0], edge_px=figures[1], digest=place.name)

    def _digest(self, series: Series | PairedSeries) -> str:
        full = series.full if isinstance(series, PairedSeries) else series
        made = {"version": _VERSION, "spacing_mm": full.spacing_mm, "shape": full.hu.shape}
        digest = hashlib.sha256()
        if isinstance(series, PairedSeries):
            made |= {"dose": series.dose}
            digest.update(np.ascontiguousarray(series.low_hu, "<i2").data)
        else:
            made |= asdict(self._simulation)
            made |= {"fan_version": _FAN_VERSION} if self._simulation.geometry == "fan" else {}
        digest.update(json.dumps(made, sort_keys=True).encode())
        digest.update(np.ascontiguousarray(full.hu, "<i2").data)
        return digest.hexdigest()[:40]

    def _fill(self, folder: Path, series: Series | PairedSeries, each: Each) -> None:
        full = series.full if isinstance(series, PairedSeries) else series
        np.save(folder / _HU, full.hu)
        flats = [flat_noise(hu.astype(np.float32)) for hu in full.hu]
        noise_hu = filled([flat.noise_hu for flat in flats])
        if not noise_hu.all():
            raise SourceError(f"no noise can be measured in {full.name}", "leave it out: nothing is known of its dose")
        edge_px = np.full(full.slices, edge_blur_px(full.hu), dtype=np.float32)
        np.save(folder / _FIGURES, np.stack([noise_hu, edge_px]))
        if isinstance(series, PairedSeries):
            np.save(folder / _NOISE, _kept(_measured_noise(series), full.name))
            return
        fields = self._simulation.fields
        noise = open_memmap(folder / _NOISE, mode="w+", dtype=np.float16, shape=(fields, *full.hu.shape))
        for at, found in enumerate(self._simulated(full, [flat.places for flat in flats], noise_hu)):
            noise[:, at] = _kept(found, full.name)
            each()
        noise.flush()

    def _simulated(
        self, series: Series, places: Iterable[NDArray[np.bool_]], noise_hu: NDArray[np.float32]
    ) -> Iterable[NDArray[np.float32]]:
        scan = self._scan(series)
        for at, flat in enumerate(places):
            hu = series.hu[at].astype(np.float32)
            seed = np.random.SeedSequence((self._simulation.seed, *hashlib.sha256(hu.tobytes()).digest()))
            drawn = int(seed.generate_state(1, np.uint64)[0] >> np.uint64(1))
            yield unit_noise(hu, Flat(flat, float(noise_hu[at])), scan, self._simulation.fields, drawn)

    def _scan(self, series: Series) -> Scan:
        settings, pixel_mm = self._simulation, series.spacing_mm[2]
        fan = Fan() if settings.geometry == "fan" else None
        if settings.cutoff:
            kernel = Kernel("hann", settings.cutoff)
        else:
            found = mean_frequency(series.hu, series.pixel_mm)
            kernel = Kernel() if found is None else matched_kernel(found, pixel_mm, fan.ray_mm if fan else None)
        return Scan(pixel_mm, kernel, settings.beam, fan)


def _set_aside(series: Series | PairedSeries, folder: Path, is_made: bool) -> Series | PairedSeries:
    """The same with its pixels on the disk, or without any where they will not be looked at again."""
    full = series.full if isinstance(series, PairedSeries) else series
    kept = replace(full, hu=full.hu[:0] if is_made else _on_disk(folder / _HU, full.hu))
    if isinstance(series, Series):
        return kept
    return PairedSeries(
        kept, series.low_hu[:0] if is_made else _on_disk(folder / "low.npy", series.low_hu), series.dose
    )


def _on_disk(path: Path, hu: Stored) -> Stored:
    path.parent.mkdir(exist_ok=True)
    np.save(path, hu)
    mapped: Stored = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def _measured_noise(series: PairedSeries) -> NDArray[np.float32]:
    """What the lower dose added, as unit noise: (1, slices, rows, columns). At its own dose it gives back the image."""
    added = series.low_hu.astype(np.float32) - series.full.hu
    return np.asarray(added[None] / np.float32(noise_factor(series.dose)), dtype=np.float32)


def _kept(noise: NDArray[np.float32], name: str) -> NDArray[np.float16]:
    """Noise of the series `name` as the cache holds it."""
    with np.errstate(over="ignore"):
        kept = noise.astype(np.float16)
    if not np.isfinite(kept).all():
        hint = "look for metal, or for a field wider than the scanner, or leave it out"
        raise SourceError(f"the noise of {name} has no bounds", hint)
    return kept
