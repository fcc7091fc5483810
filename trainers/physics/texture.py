"""Noise of a texture that a slice's own kernel does not have: of other kernels, and of iterative reconstructions, which
soften noise more than edges."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.quality.slices import blurred
from trainers.physics.filtered import Kernel
from trainers.physics.noise import filtered_spectrum

_NEAR_PX: Final = 12.0

Pixels = NDArray[np.float32]


def retextured(noise: Pixels, kernel: Kernel, rng: np.random.Generator) -> Pixels:
    """Fresh noise, (rows, columns) in HU, at each place as strong as `noise` is around it, of the texture that `kernel`
    gives readings as far apart as the pixels (`filtered_spectrum`).
    """
    frequency = np.hypot(np.fft.fftfreq(noise.shape[0])[:, None], np.fft.rfftfreq(noise.shape[1]))
    amplitude = np.sqrt(filtered_spectrum(kernel, 1.0, frequency))
    white = rng.standard_normal(noise.shape, dtype=np.float32)
    fresh = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=noise.shape).astype(np.float32)
    strength = np.sqrt(blurred(np.square(noise), _NEAR_PX))
    return np.asarray(strength * (fresh / max(float(fresh.std()), 1e-6)), dtype=np.float32)
