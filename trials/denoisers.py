"""Engines whose outputs faults are planted into. All are good ones: an alarm at what they do alone is a false one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from dicomnode.testing.bundles import opened
from engines import quality
from engines.base import Engine
from engines.card import EngineCard
from engines.classical.nlm import CtNlm
from engines.padding import fill_padding
from engines.quality import Pixels
from engines.registry import default_registry
from engines.volume import HU, Volume

_NLM: Final = CtNlm()
_TRAINED: Final = "ct-denoise"
_HIGH_PASS_PX: Final = 2.0
_SMOOTHED: Final = 0.4
_KEPT: Final = 0.4
_TOUCHED: Final = 0.9


@dataclass(frozen=True, eq=False)
class Taken:
    """One slab at one dose.

    source  what an engine is given
    full    the same at full dose
    dose    share of the dose
    """

    source: Volume
    full: Volume
    dose: float


Denoiser = Callable[[Taken], Volume]


def card_of(name: str) -> EngineCard:
    """An engine's own card; of a made denoiser that of ct-nlm, under another name."""
    return _trained().card if name == _TRAINED else replace(_NLM.card, name=name)


def nlm(taken: Taken) -> Volume:
    """ct-nlm as it is shipped."""
    return _run(_NLM, taken.source)


def trained(taken: Taken) -> Volume:
    """ct-denoise as it is shipped."""
    return _run(_trained(), taken.source)


def _run(engine: Engine, source: Volume) -> Volume:
    output = engine.run({"image": source}, engine.card.resolve({}))["image"]
    assert isinstance(output, Volume)
    return output


@cache
def _trained() -> Engine:
    return default_registry(opener=opened).get(_TRAINED)


def guided(taken: Taken) -> Volume:
    """A guided filter (He et al., ECCV 2010), guided by the image itself: flat places are smoothed, edges stay."""
    return _slice_wise(taken.source, _guided_slice)


def network(taken: Taken) -> Volume:
    """What a trained network comes near to: six tenths of the noise that was added go, and with them a little of all
    that is fine (a tenth of what ct-nlm takes), as networks do."""
    inserted = taken.source.voxels - taken.full.voxels
    fine = taken.source.voxels - guided(taken).voxels
    removed = np.float32(1.0 - _KEPT) * (np.float32(_TOUCHED) * inserted + np.float32(1.0 - _TOUCHED) * fine)
    cleaned = taken.source.voxels - np.stack([_high_pass(each) for each in removed])
    valid = taken.source.valid
    return taken.source.with_voxels(cleaned if valid is None else np.where(valid, cleaned, taken.source.voxels))


DENOISERS: Final[Mapping[str, Denoiser]] = {
    "ct-nlm": nlm,
    _TRAINED: trained,
    "guided": guided,
    "network": network,
}


def _slice_wise(volume: Volume, denoise: Callable[[Pixels, float], Pixels]) -> Volume:
    made: NDArray[np.float32] = np.empty(volume.shape, np.float32)
    for index in range(len(made)):
        pixels, measured = np.ascontiguousarray(volume.voxels[index]), quality.measured_places(volume, index)
        noise = quality.noise(pixels, quality.flat_places(pixels, measured, HU))
        filled = fill_padding(pixels, measured)
        made[index] = np.where(measured, pixels - _high_pass(filled - denoise(filled, noise)), pixels)
    return volume.with_voxels(made)


def _high_pass(removed: Pixels) -> Pixels:
    """Without its local mean: tissue stays at its HU, as in ct-nlm."""
    return removed - np.asarray(cv2.GaussianBlur(removed, (0, 0), _HIGH_PASS_PX), dtype=np.float32)


def _guided_slice(pixels: Pixels, noise: float) -> Pixels:
    """a * image + b, with a near 0 where the variance is the noise's and near 1 where it is an edge's."""
    mean, square = (cv2.boxFilter(values, -1, (7, 7)) for values in (pixels, pixels * pixels))
    variance = np.maximum(square - mean * mean, 0.0)
    share = variance / (variance + np.float32(_SMOOTHED * noise**2 + 1e-6))
    smoothed: Pixels = cv2.boxFilter(share, -1, (7, 7)) * pixels + cv2.boxFilter((1.0 - share) * mean, -1, (7, 7))
    return smoothed
