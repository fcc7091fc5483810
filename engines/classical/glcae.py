"""contrast-glcae: global and local contrast, fused (Tian & Cohen, ICCV Workshops 2017), for the eye only.

As in Desai's CLAHE enhancer for CT lesions, but with fixed parameters and without its 8-bit steps: the image is
windowed first; its global version is a histogram mapping blended with the identity so that tones are not lost; its
local version is CLAHE; a Laplacian pyramid of the two is blended with a Gaussian pyramid of weights (Mertens, Kautz &
Van Reeth, 2007). For grey images the paper's hue preservation is the identity and is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.base import Value, volume_input
from engines.card import EngineCard, Envelope, Limits, Port, Setting, SettingValue
from engines.classical import clahe
from engines.errors import EngineInputError, SettingError
from engines.quality import Pixels, Places, measured_places
from engines.volume import ARBITRARY, HU, PRESENTATION_MAXIMUM, Volume

WINDOWS_HU: Final[Mapping[str, tuple[float, float]]] = {
    "soft": (40.0, 400.0),
    "lung": (-600.0, 1500.0),
    "bone": (500.0, 2000.0),
}
"""Presets: (centre, width) in HU."""

_BLENDS: Final = np.linspace(0.0, 2.0, 41)
_ROBUST_PERCENT: Final = (0.5, 99.5)
_EXPOSED: Final = (0.5, 0.2)
_LEAST_WEIGHT: Final = 1e-5
_SMALLEST_PX: Final = 16
_SAMPLED: Final = 4_000_000


class ContrastGlcae:
    """More visible contrast. The output is a presentation image of 0...4095 as float, no longer HU or any unit.

    `window` says which values are shown: "source" takes the window that the image asks for, else the soft tissue
    preset (HU) or the 0.5th to the 99.5th percentile of the volume (other units); "custom" takes `window_center` and
    `window_width`. Brightness must increase with the values: MONOCHROME1 is inverted before.
    """

    card: Final = EngineCard(
        name="contrast-glcae",
        version="1.0.0",
        task="contrast",
        operation="contrast",
        intended_use="More visible contrast beside the original; not for measurement. Research use only.",
        influence="volume",
        inputs={"image": Port()},
        outputs={"image": Port(unit=ARBITRARY, presentation=True)},
        envelope=Envelope(modalities=("CT", "CR", "DX", "MR"), rows_columns=(64, 16384)),
        limits=Limits(bias_hu=None, clipped_fraction=None),
        settings={
            "window": Setting("source", "values to show", choices=("source", "soft", "lung", "bone", "custom")),
            "window_center": Setting(40.0, "centre of the custom window, in the image's unit", -32768.0, 65535.0),
            "window_width": Setting(400.0, "width of the custom window, in the image's unit", 1.0, 65535.0),
            "clip": Setting(2.0, "largest local gain of contrast", 1.0, 8.0),
            "grid": Setting(8, "tiles along each side of the image", 2, 16),
        },
        runtime=f"opencv-{'.'.join(cv2.__version__.split('.')[:2])}/float32",
        source="Tian & Cohen, Global and local contrast adaptive enhancement for non-uniform illumination, ICCVW 2017",
    )

    def run(self, inputs: Mapping[str, Value], settings: Mapping[str, SettingValue]) -> Mapping[str, Value]:
        """`{"image": Volume}` -> the same grid, 0...4095, padding 0; raises EngineInputError where nothing varies."""
        return {"image": enhanced(volume_input(self.card, inputs), settings)}


def enhanced(volume: Volume, settings: Mapping[str, SettingValue]) -> Volume:
    """Global and local contrast, fused. `settings` are those of `ContrastGlcae`, resolved."""
    tones = tone_curve(_volume_histogram(volume, *window_of(volume, settings)))

    def fused(shown: Pixels, measured: Places) -> Pixels:
        overall = np.interp(shown, np.linspace(0, 1, len(tones)), tones).astype(np.float32)
        return fuse(overall, _equalised(shown, measured, settings))

    return _presented(volume, settings, fused)


def equalised(volume: Volume, settings: Mapping[str, SettingValue]) -> Volume:
    """Local contrast alone (CLAHE), with the same settings."""
    return _presented(volume, settings, lambda shown, measured: _equalised(shown, measured, settings))


def _equalised(shown: Pixels, measured: Places, settings: Mapping[str, SettingValue]) -> Pixels:
    return clahe.equalise(shown, measured, float(settings["clip"]), int(settings["grid"]))


def _presented(
    volume: Volume, settings: Mapping[str, SettingValue], change: Callable[[Pixels, Places], Pixels]
) -> Volume:
    """Each slice's window as 0...1, changed, as a presentation image of 0...4095; padding is 0."""
    center, width = window_of(volume, settings)
    out = np.zeros(volume.shape, dtype=np.float32)
    for index in range(volume.shape[0]):
        measured = measured_places(volume, index)
        shown = windowed(volume.voxels[index], center, width)
        shown[~measured] = 0.0
        out[index] = np.where(measured, change(shown, measured), 0.0) * PRESENTATION_MAXIMUM
    window = (PRESENTATION_MAXIMUM / 2, PRESENTATION_MAXIMUM)
    return Volume(out, volume.affine, ARBITRARY, volume.valid, window)


def window_of(volume: Volume, settings: Mapping[str, SettingValue]) -> tuple[float, float]:
    """(centre, width) of the values to show; raises SettingError for a HU preset on another unit."""
    choice = str(settings["window"])
    if choice == "custom":
        return float(settings["window_center"]), float(settings["window_width"])
    if choice in WINDOWS_HU:
        if volume.unit != HU:
            raise SettingError(
                f"contrast-glcae: window {choice!r} is in HU, the image is not", "choose 'source' or 'custom'"
            )
        return WINDOWS_HU[choice]
    if volume.window is not None and volume.window[1] > 0:
        return volume.window
    return WINDOWS_HU["soft"] if volume.unit == HU else _robust_window(volume)


def windowed(pixels: Pixels, center: float, width: float) -> Pixels:
    """Values of the window as 0...1, what lies outside at the ends (PS3.3 C.11.2.1.3.2, LINEAR_EXACT)."""
    shown: Pixels = np.clip((pixels - np.float32(center - width / 2)) / np.float32(width), 0.0, 1.0)
    return shown


def tone_distortion(curve: NDArray[np.float64], shares: NDArray[np.float64]) -> int:
    """How many tones apart two occupied input tones may be and still come out as one (Tian & Cohen, eq. 6).

    One pass: the mapping only increases, so tones that come out as one stand next to each other.
    """
    occupied = np.flatnonzero(shares)
    out = np.floor((len(shares) - 1) * curve[1:][occupied] + 0.5)
    begins = np.flatnonzero(np.diff(out, prepend=-1.0))
    ends = np.append(begins[1:], len(out)) - 1
    return int((occupied[ends] - occupied[begins]).max())


def tone_curve(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The global mapping at the bounds of the histogram's classes: cumulated (h + lambda u) / (1 + lambda).

    lambda is the smallest of 0...2 that loses fewest tones; u is uniform. The mapping is read as a continuous line:
    its 257 points decide no grey level of the image.
    """
    curves = [clahe.curve((shares + blend / len(shares)) / (1.0 + blend), len(shares)) for blend in _BLENDS]
    return min(curves, key=lambda curve: tone_distortion(curve, shares))


def fuse(first: Pixels, second: Pixels) -> Pixels:
    """Blend two versions of a slice (0...1): Laplacian pyramid of the images, Gaussian pyramid of their weights."""
    weight_first, weight_second = _weight(first), _weight(second)
    share = weight_first / (weight_first + weight_second)
    levels = max(1, int(np.log2(min(first.shape) / _SMALLEST_PX)) + 1)
    details = zip(_laplacian(first, levels), _laplacian(second, levels), _gaussian(share, levels), strict=True)
    blended = [part * one + (1.0 - part) * other for one, other, part in details]
    image = blended[-1]
    for detail in reversed(blended[:-1]):
        image = detail + _grown(image, detail)
    fused: Pixels = np.clip(image, 0.0, 1.0)
    return fused


def _weight(image: Pixels) -> Pixels:
    """The lesser of local contrast and well-exposedness: where a version is flat, dark or burnt, it counts little."""
    contrast = np.abs(cv2.Laplacian(image, cv2.CV_32F))
    contrast = contrast / max(float(contrast.max()), _LEAST_WEIGHT) + _LEAST_WEIGHT
    middle, spread = _EXPOSED
    weight: Pixels = np.minimum(contrast, np.exp(-((image - middle) ** 2) / (2 * spread**2)))
    return weight


def _gaussian(image: Pixels, levels: int) -> list[Pixels]:
    pyramid = [image]
    for _ in range(levels - 1):
        pyramid.append(np.asarray(cv2.pyrDown(pyramid[-1]), dtype=np.float32))
    return pyramid


def _laplacian(image: Pixels, levels: int) -> list[Pixels]:
    pyramid = _gaussian(image, levels)
    return [fine - _grown(coarse, fine) for fine, coarse in itertools.pairwise(pyramid)] + pyramid[-1:]


def _grown(coarse: Pixels, fine: Pixels) -> Pixels:
    rows, columns = fine.shape
    return np.asarray(cv2.pyrUp(coarse, dstsize=(columns, rows)), dtype=np.float32)


def _volume_histogram(volume: Volume, center: float, width: float) -> NDArray[np.float64]:
    """Shares of the tones in all measured voxels of the volume."""
    total, count = np.zeros(clahe.CLASSES), 0
    for index in range(volume.shape[0]):
        shown = windowed(volume.voxels[index], center, width)[measured_places(volume, index)]
        total += clahe.histogram(shown) * shown.size
        count += shown.size
    if not np.count_nonzero(total) > 1:
        raise EngineInputError("nothing varies within the window that is to be shown", "choose another window")
    shares: NDArray[np.float64] = total / count
    return shares


def _robust_window(volume: Volume) -> tuple[float, float]:
    """From the 0.5th to the 99.5th percentile of the measured voxels, of evenly taken ones where there are millions."""
    values = volume.voxels if volume.valid is None else volume.voxels[volume.valid]
    values = values.reshape(-1)[:: max(1, values.size // _SAMPLED)]
    low, high = (float(value) for value in np.percentile(values, _ROBUST_PERCENT))
    return (low + high) / 2, max(high - low, float(np.finfo(np.float32).eps))
