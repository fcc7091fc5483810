"""What does not fit is said before any image is read, and nothing is computed for it."""

from __future__ import annotations

import pytest

from trainers.errors import RecipeError
from trainers.recipes.plan import planned
from trainers.recipes.reading import read_recipe, shipped
from trainers.recipes.recipe import Plan
from trainers.training.rehearsal import rehearse


@pytest.mark.parametrize("name", shipped())
def test_the_recipes_of_the_package_fit(name: str) -> None:
    rehearse(read_recipe(name).recipe)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("ct-denoise", "denoise.patches.size_px=28", "denoise: its nets and its patches do not go together"),
        ("ct-denoise", "denoise.patches.neighbours=1", "denoise: its nets"),
        ("ct-denoise", "denoise.net.arguments.channels=0", "denoise: its nets"),
        ("ct-denoise", "nodules.net.arguments.channels=16", "nodules: its nets"),
        ("cascade", "lsgan.patches.size_px=96", "lsgan: its nets"),
        ("sgan-g1", "g1.net.arguments.blocks=4", "g1: its nets"),
        ("sgan", 'g2.adversary.net="patch"', "g2: its nets"),
        ("sgan", "g2.net.arguments.block=4", "net srresnet"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, change: str, said: str) -> None:
    read = planned(read_recipe(name), Plan(changes=(change,)))
    with pytest.raises(RecipeError, match=said) as refused:
        rehearse(read.recipe)
    assert refused.value.hint
