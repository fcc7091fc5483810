"""The networks of random weights: what they cost, and that they are the same every time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest

from dicomnode.testing import networks
from dicomnode.testing.bundles import Shape, made
from engines.runtimes.cost import gflop


@pytest.mark.parametrize(
    ("network", "size", "costs"),
    [
        (networks.denoiser, (512, 512), 16.8),
        (networks.denoiser, (256, 512), 8.4),
        (networks.dilated_denoiser, (512, 512), 117.4),
        (networks.two_outputs, (100, 100), 2 * 2 * 9 * 8 * 1e-5),
    ],
)
def test_costs_are_those_of_the_layers(network: Callable[[], bytes], size: tuple[int, int], costs: float) -> None:
    assert gflop(network(), {networks.INPUT: (1, 1, *size)}) == pytest.approx(costs, rel=0.01)


@pytest.mark.parametrize("shape", get_args(Shape))
def test_networks_are_the_same_every_time_and_are_sound(shape: Shape) -> None:
    first, second = made(shape), made(shape)
    assert first == second
    assert set(first.networks) == {stage.file for stage in first.card.stages}
    for content in first.networks.values():
        onnx.checker.check_model(onnx.load_model_from_string(content), full_check=True)


def test_weights_are_of_the_seed() -> None:
    digests = {hashlib.sha256(networks.denoiser(8, 3, seed)).digest() for seed in (0, 1, 2)}
    assert len(digests) == 3


def test_the_residual_is_small_and_smooths() -> None:
    noise = np.random.default_rng(0).normal(0.0, 0.01, (1, 1, 64, 64)).astype(np.float32)
    (residual,) = onnxruntime.InferenceSession(networks.denoiser(8, 3)).run(None, {networks.INPUT: noise})
    assert np.abs(residual).max() < 0.03
    assert (noise - residual)[..., 8:-8, 8:-8].std() < 0.8 * noise[..., 8:-8, 8:-8].std()
