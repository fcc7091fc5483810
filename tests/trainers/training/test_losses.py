"""Each term against a value computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from trainers.recipes.recipe import Adversary, LossTerm, Optimiser
from trainers.training import losses
from trainers.training.losses import Sight, Terms


def _images(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(1, 1, 1, -1)


def test_mean_squared_and_absolute_error() -> None:
    made, wanted = _images(1.0, 2.0, 4.0), _images(1.0, 4.0, 1.0)
    assert losses.mse(made, wanted) == pytest.approx((0 + 4 + 9) / 3)
    assert losses.mae(made, wanted) == pytest.approx((0 + 2 + 3) / 3)
    assert losses.mse(made, wanted, 10.0) == pytest.approx(13 / 300)


def test_least_squares() -> None:
    real, made = torch.tensor([[0.8], [1.0]]), torch.tensor([[0.2], [-0.4]])
    assert losses.lsgan_critic(real, made) == pytest.approx(0.5 * (0.04 + 0) / 2 + 0.5 * (0.04 + 0.16) / 2)
    assert losses.lsgan_generator(made) == pytest.approx(0.5 * (0.64 + 1.96) / 2)


def test_cross_entropy_of_logits_smoothed_on_one_side() -> None:
    real, made = torch.tensor([[math.log(3)]]), torch.tensor([[-math.log(4)]])  # D = 3/4 and 1/5
    plain = -math.log(3 / 4) - math.log(4 / 5)
    assert losses.standard_critic(real, made) == pytest.approx(plain, rel=1e-6)
    smoothed = -0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4) - math.log(4 / 5)
    assert losses.standard_critic(real, made, 0.9) == pytest.approx(smoothed, rel=1e-6)
    assert losses.standard_generator(made, 0.9) == pytest.approx(-math.log(1 / 5), rel=1e-6)


def test_a_sure_critic_gives_finite_numbers() -> None:
    assert torch.isfinite(losses.standard_critic(torch.tensor([[300.0]]), torch.tensor([[300.0]])))


def test_similarity_of_flat_images_is_that_of_their_means() -> None:
    made, wanted = torch.full((1, 1, 16, 16), 0.5), torch.full((1, 1, 16, 16), 0.4)
    expected = (2 * 0.5 * 0.4 + 1e-4) / (0.25 + 0.16 + 1e-4)
    assert losses.ssim(made, wanted) == pytest.approx(expected, rel=1e-4)
    assert losses.ssim(made, made) == pytest.approx(1.0)


def test_similarity_of_one_window() -> None:
    """11 x 11: one place, whose weighted moments are counted here by themselves."""
    made, wanted = torch.rand(2, 1, 1, 11, 11, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    row = torch.exp(-((torch.arange(11.0, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    weights = torch.outer(row, row) / row.sum() ** 2
    one, other = (float((weights * image[0, 0]).sum()) for image in (made, wanted))
    spread = [float((weights * image[0, 0] ** 2).sum()) - mean**2 for image, mean in ((made, one), (wanted, other))]
    shared = float((weights * made[0, 0] * wanted[0, 0]).sum()) - one * other
    expected = (2 * one * other + 1e-4) * (2 * shared + 9e-4) / ((one**2 + other**2 + 1e-4) * (sum(spread) + 9e-4))
    assert losses.ssim(made, wanted) == pytest.approx(expected, rel=1e-9)


def test_similarity_is_as_exact_where_the_rest_is_computed_in_bfloat16() -> None:
    """Of flat tissue: its variance is a small difference of two squares."""
    noise = torch.randn(2, 1, 1, 24, 24, generator=torch.Generator().manual_seed(4))
    made, wanted = 0.5 + 0.01 * noise
    with torch.autocast("cpu", torch.bfloat16):
        rounded = losses.ssim(made, wanted)
    assert rounded == losses.ssim(made, wanted)


def test_features_are_summed_over_blocks() -> None:
    made, wanted = [_images(1.0, 3.0), _images(2.0)], [_images(0.0, 1.0), _images(5.0)]
    assert losses.features_apart(made, wanted) == pytest.approx((1 + 4) / 2 + 9)


def test_terms_weigh_and_scale() -> None:
    made, wanted = _images(100.0, 300.0), _images(0.0, 0.0)
    terms = Terms((LossTerm("mse", 2.0, unit_hu=100.0), LossTerm("mae", 0.5)))
    values = terms(Sight(made, wanted))
    assert {name: float(value) for name, value in values.items()} == pytest.approx({"mse": 2 * 5.0, "mae": 0.5 * 0.2})


def test_similarity_and_features_in_their_windows_weighed() -> None:
    made, wanted = (torch.full((1, 1, 16, 16), hu, dtype=torch.float64) for hu in (50.0, 40.0))
    similar = Terms((LossTerm("ssim", 3.0, window_hu=(0.0, 100.0)),))(Sight(made, wanted))["ssim"]
    assert similar == pytest.approx(3 * (1 - (2 * 0.5 * 0.4 + 1e-4) / (0.25 + 0.16 + 1e-4)))
    of_vgg = Terms((LossTerm("vgg", 0.5, window_hu=(0.0, 100.0)),), _Features())(Sight(made, wanted))["vgg"]
    assert of_vgg == pytest.approx(0.5 * (0.1**2 + 0.3**2))


class _Features(nn.Module):
    """Two blocks: the image, and three times the image."""

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [image, 3 * image]


def test_errors_in_units_of_the_noise() -> None:
    made = torch.tensor([10.0, 40.0]).reshape(2, 1, 1, 1)
    terms = Terms((LossTerm("mse", per_noise=True),))
    value = terms(Sight(made, torch.zeros_like(made), torch.tensor([10.0, 20.0])))["mse"]
    assert value == pytest.approx((1 + 4) / 2)


def test_places_of_planted_nodules_count_more() -> None:
    planted = _images(0.0, 0.5, 1.0)
    values = Terms((LossTerm("mse", unit_hu=1.0, planted=4.0),))(
        Sight(_images(1.0, 2.0, 3.0), _images(0, 0, 0), None, planted)
    )
    assert values["mse"] == pytest.approx((1 + 3 * 4 + 5 * 9) / 3)
    even = Terms((LossTerm("mse", unit_hu=1.0),))(Sight(_images(1.0, 2.0, 3.0), _images(0, 0, 0), None, planted))
    assert even["mse"] == pytest.approx(14 / 3)


def test_without_weights_the_feature_term_is_off_and_said_to_be() -> None:
    terms = Terms((LossTerm("mse"), LossTerm("vgg")))
    assert terms.off == ("vgg",)
    assert set(terms(Sight(_images(1.0), _images(0.0)))) == {"mse"}


def test_the_critic_sees_the_window_and_what_the_image_was_made_of() -> None:
    adversary = Adversary("lsgan", "patch", Optimiser(1e-4), conditioned=True, window_hu=(-160.0, 240.0))
    shown = losses.seen(adversary, _images(240.0), _images(-160.0))
    assert shown.shape == (1, 2, 1, 1)
    assert shown.flatten().tolist() == [1.0, 0.0]


def test_adversarial_terms_as_recipes_weigh_and_label_them() -> None:
    least = Adversary("lsgan", "patch", Optimiser(1e-4), weight=3.0, real_label=0.9)
    cross = Adversary("standard", "srgan", Optimiser(1e-4), weight=0.001, real_label=0.9)
    said = torch.tensor([[0.5]])
    assert losses.adversarial(least, said) == pytest.approx(3 * 0.5 * 0.25)
    assert losses.adversarial(cross, torch.tensor([[-math.log(4)]])) == pytest.approx(-0.001 * math.log(1 / 5))
    assert losses.critical(least, torch.tensor([[0.9]]), said) == pytest.approx(0.5 * 0.25)
    logit = torch.tensor([[math.log(3)]])
    smoothed = -0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4) - math.log(1 / 4)
    assert losses.critical(cross, logit, logit) == pytest.approx(smoothed, rel=1e-6)
