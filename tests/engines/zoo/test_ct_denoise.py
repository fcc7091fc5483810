"""The denoiser that comes with the node, on bodies and noise that it was not trained on."""

from __future__ import annotations

import numpy as np
import pytest

from dicomnode.core.phantom import phantom_study, stored_hu
from dicomnode.testing.bundles import opened
from engines.base import Engine
from engines.registry import default_registry
from engines.volume import HU, Volume
from trainers.physics.filtered import Kernel
from trainers.physics.texture import retextured

SIZE_PX = 256
SOFT_TISSUE = np.s_[60:90, 100:150]
"""Of the made body: water, away from all edges."""


@pytest.fixture(name="engine", scope="module")
def _engine() -> Engine:
    return default_registry(opener=opened).get("ct-denoise")


def _body(noise_hu: float = 0.0) -> np.ndarray:
    return stored_hu(phantom_study(np.random.default_rng(1), 1, SIZE_PX, noise_hu))[0].astype(np.float32)


def _denoised(engine: Engine, hu: np.ndarray) -> np.ndarray:
    made = engine.run({"image": Volume(hu[None], np.diag([1.4, 1.4, 2.0, 1.0]), HU)}, engine.card.resolve({}))["image"]
    assert isinstance(made, Volume)
    return np.asarray(made.voxels[0])


@pytest.mark.parametrize("cutoff", [0.6, 0.8, 1.0, 1.4, 2.5])
def test_it_takes_noise_of_every_kernel_and_moves_no_tissue(engine: Engine, cutoff: float) -> None:
    even = np.random.default_rng(2).normal(0, 40.0, (SIZE_PX, SIZE_PX)).astype(np.float32)
    noise = retextured(even, Kernel("hann", cutoff), np.random.default_rng(3))
    body = _body()
    left = _denoised(engine, body + noise) - body
    assert left[SOFT_TISSUE].std() < 0.6 * noise[SOFT_TISSUE].std()
    assert abs(float((left - noise)[SOFT_TISSUE].mean())) < 1.0


def test_of_a_body_without_noise_it_takes_nothing(engine: Engine) -> None:
    body = _body()
    taken = body - _denoised(engine, body)
    assert np.abs(taken).mean() < 0.5
