"""The map of the noise, measured on made slices whose noise is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import pixel_unshuffle

from dicomnode.core.phantom import phantom_study
from tests.engines.phantoms import body, noisy
from trainers.nets.noise_map import NoiseMap
from trainers.nets.plain import PlainNet

Pixels = NDArray[np.float32]


def _level_hu(pixels: Pixels) -> Pixels:
    """The map, at half the rows and columns."""
    level, _, _ = NoiseMap()(pixel_unshuffle(torch.from_numpy(pixels[None, None] / 1000), 2))
    return 1000 * level[0, 0].numpy()


@pytest.mark.parametrize("sigma_hu", [5.0, 20.0, 80.0])
@pytest.mark.parametrize("grain_px", [0.0, 0.7])
def test_it_finds_the_noise_of_a_flat_slice(sigma_hu: float, grain_px: float) -> None:
    flat = np.full((256, 256), 40.0, np.float32)
    found = _level_hu(noisy(flat, sigma_hu, grain_px=grain_px))
    assert np.median(found) == pytest.approx(sigma_hu, rel=0.15)  # of grain a part is coarser than both bands


def test_structure_is_not_noise() -> None:
    clean = body(256)
    found = _level_hu(noisy(clean, 20.0))
    inside = clean[::2, ::2] > -150
    assert np.median(found[inside]) == pytest.approx(20.0, rel=0.15)
    assert np.quantile(found[inside], 0.95) < 1.5 * 20.0


def test_it_varies_over_the_slice_as_the_noise_does() -> None:
    rng = np.random.default_rng(3)
    sigma = np.linspace(10, 60, 384, dtype=np.float32)
    found = _level_hu(40 + sigma * rng.standard_normal((384, 384), dtype=np.float32))
    columns = np.median(found, axis=0)[::24]
    assert np.corrcoef(columns, sigma[::48])[0, 1] > 0.98
    assert columns[-1] > 3 * columns[0]


def test_padding_has_no_say_and_no_noise() -> None:
    padded = noisy(np.full((256, 256), 40.0, np.float32), 20.0)
    padded[:, :61] = -1024  # blocks of 8 px are padded in part
    found = _level_hu(padded)
    assert np.median(found[:, 48:]) == pytest.approx(20.0, rel=0.15)


def test_fine_and_coarse_noise_are_told_apart() -> None:
    flat = np.full((128, 128), 40.0, np.float32)
    images = [noisy(flat, 20.0, grain_px=grain) for grain in (0.0, 1.2)]
    shares = [NoiseMap()(pixel_unshuffle(torch.from_numpy(one[None, None] / 1000), 2))[1].mean() for one in images]
    assert shares[0] > 1.3 * shares[1]


def test_less_strength_takes_less_away() -> None:
    torch.manual_seed(0)
    whole, half = PlainNet(8, 1), PlainNet(8, 1, strength=0.5)
    half.load_state_dict(whole.state_dict())
    image = torch.from_numpy(noisy(np.zeros((64, 64), np.float32), 30.0)[None, None] / 1000)
    with torch.no_grad():
        assert half(image).square().mean() < whole(image).square().mean()


def test_a_highpassed_residual_moves_no_mean() -> None:
    torch.manual_seed(0)
    image = torch.from_numpy(noisy(np.zeros((128, 128), np.float32), 30.0)[None, None] / 1000)
    blind, highpassed = PlainNet(8, 1), PlainNet(8, 1, highpass_px=3.0)
    highpassed.load_state_dict(blind.state_dict(), strict=False)
    with torch.no_grad():
        means = [abs(float(net(image)[..., 32:96, 32:96].mean())) for net in (blind, highpassed)]
    assert means[1] < 0.05 * means[0]


def test_the_net_scales_with_the_noise_of_a_phantom() -> None:
    quiet, loud = (
        np.frombuffer(phantom_study(np.random.default_rng(1), 1, 256, noise_hu)[0].PixelData, "<i2").reshape(256, 256)
        - np.float32(1024)
        for noise_hu in (10.0, 40.0)
    )
    middle = (slice(40, 88), slice(40, 88))
    ratio = np.median(_level_hu(loud.astype(np.float32))[middle]) / np.median(
        _level_hu(quiet.astype(np.float32))[middle]
    )
    assert ratio == pytest.approx(4.0, rel=0.15)
