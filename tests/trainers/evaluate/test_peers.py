"""Peers: each takes noise away, and each is told no more than the slice."""

from __future__ import annotations

import numpy as np
import pytest

from engines.quality.slices import blurred
from tests.trainers.evaluate.bodies import ADDED_HU, body
from trainers.errors import TrainerError
from trainers.evaluate.peers import PEERS, noise_spectrum, peers, whole_noise_hu
from trainers.physics.filtered import Kernel
from trainers.physics.noise import expected_spectrum, flat_noise


def _noisy() -> np.ndarray:
    return (body() + np.random.default_rng(5).normal(0, ADDED_HU, body().shape)).astype(np.float32)


@pytest.mark.parametrize("name", PEERS)
def test_it_comes_nearer_to_what_is_there(name: str) -> None:
    needed = {"tv": "skimage", "wavelet": "pywt", "bm3d": "bm3d", "bm3d-spectrum": "bm3d"}
    if name in needed:
        pytest.importorskip(needed[name])
    (denoiser,) = peers((name,))
    low, clean = _noisy()[60:188, 30:158], body()[60:188, 30:158]
    made = denoiser.run(low)
    assert made.dtype == np.float32 and made.shape == low.shape and denoiser.kind == "peer"
    assert np.square(made - clean).mean() < 0.6 * np.square(low - clean).mean()
    assert not hasattr(np, "trapz") or np.__version__ < "2.4"  # what bm3d needed is gone again


def test_the_spectrum_holds_the_variance_and_the_colour() -> None:
    low = _noisy()
    found = noise_spectrum(low)
    assert found is not None and found.shape == low.shape
    assert found.mean() / low.size == pytest.approx(ADDED_HU**2, rel=0.1)
    soft = noise_spectrum((body() + 4 * blurred(low - body(), 1.5)).astype(np.float32))
    assert soft is not None and soft[0, 64] < 0.1 * soft[0, 16] and found[0, 64] > 0.5 * found[0, 16]
    assert noise_spectrum(np.full((64, 64), -1000, np.float32)) is None  # nothing is flat tissue: BM3D is told 0


@pytest.mark.parametrize(("cutoff", "seen", "told"), [(0.5, 0.65, 0.78), (0.72, 0.82, 0.9), (4.0, 1.0, 0.96)])
def test_the_deviation_is_that_of_all_frequencies(cutoff: float, seen: float, told: float) -> None:
    """Of a soft kernel's noise much lies below what the gate's measure looks at."""
    axis = np.fft.fftfreq(256, 0.7)
    spectrum = expected_spectrum(Kernel("hann", cutoff), 0.7, np.hypot(axis[:, None], axis))
    white = np.random.default_rng(3).standard_normal((256, 256))
    grain = np.fft.ifft2(np.fft.fft2(white) * np.sqrt(spectrum)).real
    low = (body() + ADDED_HU * grain / grain.std()).astype(np.float32)
    assert flat_noise(low).noise_hu < seen * ADDED_HU
    assert told * ADDED_HU < whole_noise_hu(low) < 1.05 * ADDED_HU
    assert whole_noise_hu(np.full((64, 64), -1000, np.float32)) == 0.0


@pytest.mark.parametrize("name", ["bm3d", "wavelet"])
def test_who_wants_a_deviation_is_told_all_of_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []

    class Library:
        @staticmethod
        def bm3d(low: np.ndarray, sigma: float) -> np.ndarray:
            told.append(sigma)
            return low

        @staticmethod
        def denoise_wavelet(low: np.ndarray, sigma: float, **how: str) -> np.ndarray:
            return Library.bm3d(low, sigma)

    monkeypatch.setattr("trainers.evaluate.peers._extra", lambda module: Library)
    low = blurred(_noisy(), 1.5)
    PEERS[name](low)
    assert told == [whole_noise_hu(low)]


def test_an_unknown_peer_is_refused_with_the_nearest() -> None:
    with pytest.raises(TrainerError) as caught:
        peers(("bm3",))
    assert "bm3d" in caught.value.hint
