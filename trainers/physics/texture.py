"""Noise of a texture that a slice's own kernel does not have: of other kernels, and of iterative reconstructions, which
soften noise more than edges."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from engines.quality.slices import blurred
from trainers.physics.filtered import Kernel

_NEAR_PX: Final = 12.0

Pixels = NDArray[np.float32]


def retextured(noise: Pixels, kernel: Kernel, rng: np.random.Generator) -> Pixels:
    """Fresh noise, (rows, columns) in HU, at each place as strong as `noise` is around it, of the texture that `kernel`
    gives readings as far apart as the pixels.

    A reconstruction leaves the ramp's first power and the kernel's square in the noise's spectrum (Riederer, Pelc and
    Chesler, Phys Med Biol 1978; 23:446).
    """
    amplitude = _amplitude(noise.shape, kernel)
    white = rng.standard_normal(noise.shape, dtype=np.float32)
    fresh = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=noise.shape).astype(np.float32)
    strength = np.sqrt(blurred(np.square(noise), _NEAR_PX))
    return np.asarray(strength * (fresh / max(float(fresh.std()), 1e-6)), dtype=np.float32)


def _amplitude(shape: tuple[int, ...], kernel: Kernel) -> NDArray[Any]:
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    window = kernel.response(torch.from_numpy((2.0 * frequency).clip(max=1.0))).numpy()
    return np.asarray(np.sqrt(frequency) * np.where(frequency <= 0.5, window, 0.0))
