"""Terms of losses, each a function of images that gives one number; what a paper does with them is in its recipe.

Images are (patches, channels, rows, columns). Which unit they are in is for the caller to say: `Terms` turns HU to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn
from torch.nn import functional

from trainers.recipes.recipe import SSIM_PX, Adversary, LossTerm

_SSIM_SIGMA: Final = 1.5
_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2
"""Wang 2004, for images of 0 to 1."""
_LEAST_NOISE_HU: Final = 3.0
"""A patch with next to no noise would outweigh all others."""

Images = torch.Tensor


def mse(made: Images, wanted: Images, unit: Images | float = 1.0, weight: Images | float = 1.0) -> torch.Tensor:
    """Mean of squared differences, in units of `unit`: one number, or one for each patch (patches, 1, 1, 1); each place
    counts `weight` times."""
    return (weight * ((made - wanted) / unit).square()).mean()


def mae(made: Images, wanted: Images, unit: Images | float = 1.0) -> torch.Tensor:
    """Mean of absolute differences, in units of `unit`."""
    return ((made - wanted) / unit).abs().mean()


def ssim(made: Images, wanted: Images) -> torch.Tensor:
    """Mean structural similarity (Wang 2004: Gaussian of 1.5 px in 11 x 11) of one-channel images of 0 to 1.

    In float32 whatever autocast says: a variance is a small difference of squares, of which eight bits leave nothing.
    """
    with torch.autocast(made.device.type, enabled=False):
        return _likeness(made, wanted)


def _likeness(made: Images, wanted: Images) -> torch.Tensor:
    window = _window(made)

    def local(values: Images) -> Images:
        return functional.conv2d(values, window)

    mean, mean_wanted = local(made), local(wanted)
    variance = local(made.square()) - mean.square()
    variance_wanted = local(wanted.square()) - mean_wanted.square()
    shared = local(made * wanted) - mean * mean_wanted
    likeness = (2 * mean * mean_wanted + _SSIM_C1) * (2 * shared + _SSIM_C2)
    size = (mean.square() + mean_wanted.square() + _SSIM_C1) * (variance + variance_wanted + _SSIM_C2)
    return (likeness / size).mean()


def features_apart(made: Sequence[Images], wanted: Sequence[Images]) -> torch.Tensor:
    """Sum over blocks of the mean squared difference of their feature maps (Ledig 2017; Yang 2018, eq. 2)."""
    return torch.stack([mse(one, other) for one, other in zip(made, wanted, strict=True)]).sum()


def lsgan_critic(real: torch.Tensor, made: torch.Tensor, real_label: float = 1.0) -> torch.Tensor:
    """Least squares (Mao 2017, eq. 1 of the cascade's paper): what is real to `real_label`, what is made to 0."""
    return 0.5 * (real - real_label).square().mean() + 0.5 * made.square().mean()


def lsgan_generator(made: torch.Tensor, real_label: float = 1.0) -> torch.Tensor:
    """What is made is to be taken for real."""
    return 0.5 * (made - real_label).square().mean()


def standard_critic(real: torch.Tensor, made: torch.Tensor, real_label: float = 1.0) -> torch.Tensor:
    """Cross entropy of logits: -log D(real) - log(1 - D(made)), with what is real smoothed to `real_label`."""
    wanted = torch.full_like(real, real_label)
    of_real = functional.binary_cross_entropy_with_logits(real, wanted)
    return of_real + functional.binary_cross_entropy_with_logits(made, torch.zeros_like(made))


def standard_generator(made: torch.Tensor, real_label: float = 1.0) -> torch.Tensor:
    """-log D(made): the smoothing is one-sided, and the generator's wish has none."""
    return functional.binary_cross_entropy_with_logits(made, torch.ones_like(made))


CRITICS: Final[Mapping[str, Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]]] = {
    "lsgan": lsgan_critic,
    "standard": standard_critic,
}
GENERATORS: Final[Mapping[str, Callable[[torch.Tensor, float], torch.Tensor]]] = {
    "lsgan": lsgan_generator,
    "standard": standard_generator,
}


@dataclass(frozen=True, eq=False)
class Sight:
    """What the terms look at, in HU.

    noise_hu  (patches,): standard deviation of the noise of the generator's input; None where nobody knows it
    planted   like wanted, in shares: where nodules were planted; None where none can be
    """

    made: Images
    wanted: Images
    noise_hu: torch.Tensor | None = None
    planted: Images | None = None


class Terms:
    """The terms of a recipe's stage, by name, weighted.

    features  the net whose feature maps the term vgg compares; without it that term is off, and `off` names it
    """

    def __init__(self, terms: Sequence[LossTerm], features: nn.Module | None = None) -> None:
        self.off: tuple[str, ...] = tuple(term.kind for term in terms if term.kind == "vgg" and features is None)
        self._terms = tuple(term for term in terms if term.kind not in self.off)
        self._features = features

    def __call__(self, sight: Sight) -> dict[str, torch.Tensor]:
        """Each term with its weight."""
        return {term.kind: term.weight * self._value(term, sight) for term in self._terms}

    def _value(self, term: LossTerm, sight: Sight) -> torch.Tensor:
        if term.kind == "mse":
            weight = 1.0 if sight.planted is None or not term.planted else 1.0 + term.planted * sight.planted
            return mse(sight.made, sight.wanted, _unit(term, sight), weight)
        if term.kind == "mae":
            return mae(sight.made, sight.wanted, _unit(term, sight))
        made, wanted = windowed(sight.made, term.window_hu), windowed(sight.wanted, term.window_hu)
        if term.kind == "ssim":
            return 1.0 - ssim(made, wanted)
        assert self._features is not None
        with torch.no_grad():
            features = self._features(wanted)
        return features_apart(self._features(made), features)


def seen(adversary: Adversary, image: Images, given: Images) -> Images:
    """What the discriminator is shown of an image and of what it was made of, in HU."""
    shown = torch.cat((image, given), dim=1) if adversary.conditioned else image
    return windowed(shown, adversary.window_hu)


def adversarial(adversary: Adversary, said: torch.Tensor) -> torch.Tensor:
    """The generator's adversarial term of what the discriminator said of its images, weighted."""
    return adversary.weight * GENERATORS[adversary.kind](said, 1.0)


def critical(adversary: Adversary, real: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    """The discriminator's loss."""
    return CRITICS[adversary.kind](real, made, adversary.real_label)


def _unit(term: LossTerm, sight: Sight) -> Images | float:
    if not term.per_noise or sight.noise_hu is None:
        return term.unit_hu
    return sight.noise_hu[:, None, None, None].clamp_min(_LEAST_NOISE_HU)


def windowed(values: Images, window_hu: tuple[float, float]) -> Images:
    """0 to 1 within the window. Values beyond it go on: cut off, they would give no gradient."""
    return (values - window_hu[0]) / (window_hu[1] - window_hu[0])


def _window(like: Images) -> torch.Tensor:
    places = torch.arange(SSIM_PX, dtype=like.dtype, device=like.device) - SSIM_PX // 2
    row = torch.exp(-0.5 * (places / _SSIM_SIGMA) ** 2)
    row = row / row.sum()
    return torch.outer(row, row)[None, None]
