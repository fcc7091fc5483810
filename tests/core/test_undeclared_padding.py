"""Padding that no header names is padding all the same; a wrong rescale is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread

from dicomnode.core import guards
from dicomnode.core.guards import HEADER_KEYWORDS, GateReport
from dicomnode.core.headers import header_of
from dicomnode.core.volumes import (
    SlicePixels,
    Stored,
    declared_padding,
    padding_ranges,
    slice_pixels,
    to_physical,
    to_stored,
    undeclared_padding,
    valid_mask,
)
from dicomnode.pixels.service import decode_stack
from engines.classical.nlm import CtNlm
from engines.volume import HU, Volume, load_volume
from tests.engines.phantoms import body, noisy, volume
from tests.shared import shared_data

GE = SlicePixels(1.0, -1024.0, HU, inverted=False, bits_stored=16, signed=True, padding=(-2000, -2000), window=None)
OUTSIDE = np.hypot(*(np.indices((128, 128)) - 63.5)) > 64


def stored_slice(padding: int, noise_hu: float = 15.0) -> Stored:
    """Stored values of a phantom in a circle, padded outside of it."""
    values = np.rint(noisy(body(), noise_hu)).astype(np.int32) + 1024
    values[OUTSIDE] = padding
    return values


def judged(stored: Stored, pixels: SlicePixels, header: dict[str, tuple[str, ...]]) -> GateReport:
    values, measured = to_physical(stored, pixels), valid_mask(stored, pixels)
    source = volume(values)
    source = source if measured is None else replace(source, valid=measured[None])
    return guards.before(CtNlm.card, {"Modality": ("CT",), **header}, source)


@pytest.mark.parametrize("padding", [-1024, -977, -3000, -2048])
def test_what_is_far_darker_than_air_in_the_corners_is_padding(padding: int) -> None:
    stored = stored_slice(padding)
    assert undeclared_padding(stored, GE) == (padding, padding)
    measured = valid_mask(stored, GE)
    assert measured is not None
    assert (~measured == OUTSIDE).all()


def test_it_is_written_back_as_it_was_and_nothing_becomes_it() -> None:
    stored = stored_slice(-1024)
    written = to_stored(np.full(stored.shape, -2048.0, np.float32), stored, GE)
    assert (written[OUTSIDE] == -1024).all()
    assert not np.isin(written[~OUTSIDE], [-1024, -2000]).any()


def test_declared_padding_that_lossy_compression_moved() -> None:
    draw = np.random.default_rng(1)
    stored = stored_slice(-2000)
    stored[OUTSIDE] += np.rint(draw.normal(0, 20, OUTSIDE.sum())).astype(np.int32)
    measured = valid_mask(stored, GE)
    assert measured is not None
    assert (~measured == OUTSIDE).all()
    ((low, high),) = padding_ranges(stored, GE)
    assert low < -2000 < high


def test_declared_padding_alone_stays_what_is_declared() -> None:
    assert padding_ranges(stored_slice(-2000), GE) == ((-2000, -2000),)


def test_streaks_beside_metal_hide_no_padding() -> None:
    stored = stored_slice(-1024)
    stored[60, 60:72] = np.arange(-800, -320, 40)
    assert undeclared_padding(stored, GE) is not None


@settings(deadline=None, max_examples=60)
@given(
    slope=st.sampled_from([1.0, 1.5, 1.8, 2.0, 2.5]),
    shift_hu=st.integers(-3000, 3000),
    noise_hu=st.sampled_from([0.0, 5.0, 40.0]),
    padded=st.booleans(),
)
def test_a_wrong_rescale_never_passes_as_padding(slope: float, shift_hu: int, noise_hu: float, padded: bool) -> None:
    """Whatever is far from what it should be is refused; where it is not, nothing that was measured is masked."""
    stored = stored_slice(-1024 if padded else 0, noise_hu)
    wrong = replace(GE, slope=slope, intercept=-1024.0 * slope + shift_hu)
    measured = valid_mask(stored, wrong)
    air_hu = -1000.0 * slope + shift_hu
    if air_hu < -1500:
        assert not judged(stored, wrong, {}).passed
    elif measured is not None:
        assert measured[~OUTSIDE].all()


def test_only_hu_have_padding_that_is_not_declared() -> None:
    assert undeclared_padding(stored_slice(-1024), replace(GE, unit="arbitrary")) is None
    assert undeclared_padding(np.empty((0, 0), np.int32), GE) is None


def test_dark_places_inside_are_no_padding() -> None:
    stored = stored_slice(0)
    stored[50:70, 50:70] = -2000 + 1
    assert undeclared_padding(stored, GE) is None


def test_padding_as_a_header_declares_it_in_hu() -> None:
    header = {"PixelPaddingValue": ("63536",), "PixelRepresentation": ("1",), "RescaleSlope": ("2",)}
    assert declared_padding({**header, "RescaleIntercept": ("-24",)}) == (-4024.0, -4024.0)
    assert declared_padding({}) is None


def real(name: str, folder: Path) -> tuple[dict[str, tuple[str, ...]], Volume, list[Path]]:
    """Header of the first slice, volume and files of three slices of a real series."""
    paths = sorted(shared_data(name).glob("*.dcm"))[:3]
    decode_stack([str(path) for path in paths], str(folder))
    header = header_of(dcmread(paths[0], stop_before_pixels=True), HEADER_KEYWORDS)
    return {key: tuple(values) for key, values in header.items()}, load_volume(folder), paths


def test_a_real_ge_chest_passes_and_the_report_names_its_padding(tmp_path: Path) -> None:
    """Pixel Padding Value is -2000, what stands outside of the circle is -1024: -2048 HU."""
    header, source, _ = real("ct/dicom/lidc0003", tmp_path)
    report = guards.before(CtNlm.card, header, source)
    assert report.passed, report.reasons
    (found,) = [finding for finding in report.findings if finding.name == "undeclared padding"]
    assert "about -2048 HU" in found.sentence
    assert isinstance(found.figure, float)
    assert found.figure == pytest.approx(1 - np.pi / 4, abs=0.005)


@pytest.mark.parametrize("series", ["head_ge", "kits00072", "lidc0002"])
def test_real_series_whose_padding_is_declared_or_absent(series: str, tmp_path: Path) -> None:
    header, source, _ = real(f"ct/dicom/{series}", tmp_path)
    report = guards.before(CtNlm.card, header, source)
    assert report.passed, report.reasons
    assert "undeclared padding" not in {finding.name for finding in report.findings}


@pytest.mark.parametrize(("slope", "shift_hu"), [(1.0, -1024), (1.0, -2048), (1.0, -3000), (1.0, 1024), (2.0, 0)])
@pytest.mark.parametrize("series", ["lidc0003", "lidc0002", "kits00072"])
def test_a_wrong_rescale_of_a_real_series_is_refused(series: str, slope: float, shift_hu: int, tmp_path: Path) -> None:
    paths = sorted(shared_data(f"ct/dicom/{series}").glob("*.dcm"))[:3]
    wrong = []
    for path in paths:
        slice_ = dcmread(path)
        slice_.RescaleSlope, slice_.RescaleIntercept = str(slope), str(slice_.RescaleIntercept * slope + shift_hu)
        wrong.append(tmp_path / path.name)
        slice_.save_as(wrong[-1])
    (out := tmp_path / "volume").mkdir()
    decode_stack([str(path) for path in wrong], str(out))
    header = header_of(dcmread(wrong[0], stop_before_pixels=True), HEADER_KEYWORDS)
    assert not guards.before(CtNlm.card, header, load_volume(out)).passed


def test_a_real_slice_comes_back_with_its_padding(tmp_path: Path) -> None:
    _, source, paths = real("ct/dicom/lidc0003", tmp_path)
    slice_ = dcmread(paths[0])
    stored = slice_.pixel_array.astype(np.int32)
    header = {key: tuple(values) for key, values in header_of(slice_, {*HEADER_KEYWORDS, "BitsStored"}).items()}
    pixels = slice_pixels(header)
    denoised = CtNlm().run({"image": source}, CtNlm.card.resolve({}))["image"]
    assert isinstance(denoised, Volume)
    written = to_stored(denoised.voxels[0], stored, pixels)
    padded = stored == -1024
    assert (written[padded] == -1024).all()
    assert (written[~padded] >= -24).all()  # nothing of the padding was drawn into what was measured
