"""Methods without weights that nets are compared with. Each measures the noise in the slice that it is given.

BM3D's licence allows non-commercial use only: it comes with the extra `evaluate`, as do total variation and wavelets
(scikit-image).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.bundle.tables import nearest
from engines.classical.nlm import denoise_slice
from trainers.errors import TrainerError
from trainers.evaluate.denoisers import Denoiser, Pixels
from trainers.physics.noise import Even, covariance_at, even_places, flat_noise, removed, taper

_TV_WEIGHT: Final = 0.9  # times `flat_noise`: the best of 0.5 to 1.1 on two training patients
_NLM_STRENGTH: Final = 1.2  # likewise, of 0.6 to 1.2
_HIGH_PASS_PX: Final = 4.0
_MEASURED_PX: Final = 2.0  # of the Gaussian whose rest `flat_noise` measures


def peers(names: tuple[str, ...]) -> tuple[Denoiser, ...]:
    """The peers of these names. Raises TrainerError where there is none of that name, or it is not installed."""
    for name in names:
        if name not in PEERS:
            raise TrainerError(f"there is no peer {name[:40]!r}", nearest(name, PEERS))
        for module in _EXTRAS.get(name, ()):
            _extra(module)
    return tuple(Denoiser(name, PEERS[name]) for name in names)


def nlm(low: Pixels) -> Pixels:
    """Non-local means: the node's own `ct-nlm`, wider than the node would let it be."""
    return denoise_slice(low, np.ones(low.shape, dtype=np.bool_), _NLM_STRENGTH)


def total_variation(low: Pixels) -> Pixels:
    """Chambolle 2004."""
    made = _extra("skimage.restoration").denoise_tv_chambolle(low, weight=_TV_WEIGHT * flat_noise(low).noise_hu)
    return np.asarray(made, dtype=np.float32)


def wavelet(low: Pixels) -> Pixels:
    """Soft thresholds by BayesShrink (Chang, Yu and Vetterli 2000)."""
    restoration = _extra("skimage.restoration")
    made = restoration.denoise_wavelet(low, sigma=whole_noise_hu(low), method="BayesShrink", mode="soft")
    return np.asarray(made, dtype=np.float32)


def bm3d_white(low: Pixels) -> Pixels:
    """BM3D (Dabov et al. 2007), told one standard deviation."""
    made: Pixels = np.asarray(_extra("bm3d").bm3d(low, whole_noise_hu(low)), dtype=np.float32)
    return made


def bm3d_spectrum(low: Pixels) -> Pixels:
    """BM3D for correlated noise (Mäkinen et al. 2020), told the spectrum that the slice's flat places have."""
    spectrum = noise_spectrum(low)
    if spectrum is None:
        return bm3d_white(low)
    bm3d = _extra("bm3d")
    has_no_trapz = not hasattr(np, "trapz")  # gone in numpy 2.4; bm3d 4.0.3 calls it for spectra
    if has_no_trapz:
        vars(np)["trapz"] = np.trapezoid
    try:
        return np.asarray(bm3d.bm3d(low, spectrum), dtype=np.float32)
    finally:
        if has_no_trapz:
            del vars(np)["trapz"]


PEERS: Final[Mapping[str, Callable[[Pixels], Pixels]]] = {
    "nlm": nlm,
    "tv": total_variation,
    "wavelet": wavelet,
    "bm3d": bm3d_white,
    "bm3d-spectrum": bm3d_spectrum,
}
_EXTRAS: Final[Mapping[str, tuple[str, ...]]] = {
    "tv": ("skimage.restoration",),
    "wavelet": ("skimage.restoration", "pywt"),
    "bm3d": ("bm3d",),
    "bm3d-spectrum": ("bm3d",),
}
"""What they are computed by."""


def noise_spectrum(low: Pixels) -> NDArray[np.float64] | None:
    """Power of a slice's noise at each frequency of its transform, (rows, columns): variance times pixels in the mean.

    The transform of the covariance of what a Gaussian leaves of flat places. It is scaled to the noise that is measured
    there robustly: edges swell a variance. None where too little is flat.
    """
    noise_hu = flat_noise(low).noise_hu
    if not noise_hu:
        return None
    found = covariance_at([Even(low, even_places(low), noise_hu)], _HIGH_PASS_PX)
    assert found is not None
    power = np.fft.fft2(found * np.multiply.outer(*map(taper, low.shape))).real.clip(0.0)
    rows, columns = low.shape
    left = removed(np.fft.fftfreq(rows), np.fft.fftfreq(columns), _MEASURED_PX)
    measured = float((power * left**2).mean())
    return np.asarray(power * (noise_hu**2 / measured * low.size), dtype=np.float64)


def whole_noise_hu(low: Pixels) -> float:
    """Standard deviation of a slice's noise, from its spectrum; 0 where too little is flat.

    `flat_noise` is what a Gaussian of 2 px leaves of it, 0.6 to 0.9 of the noise of soft kernels; this is 0.8 and more:
    what is slower than a Gaussian of 4 px cannot be told from anatomy.
    """
    spectrum = noise_spectrum(low)
    return 0.0 if spectrum is None else math.sqrt(float(spectrum.mean()) / low.size)


def _extra(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise TrainerError(
            f"{module.split('.')[0]} is not installed",
            "in a clone: .venv/bin/pip install -e '.[evaluate]'",
        ) from None
