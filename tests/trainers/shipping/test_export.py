"""What could not be shipped is said before it is trained."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainers.errors import RecipeError
from trainers.recipes.reading import read_recipe, shipped
from trainers.recipes.recipe import Recipe
from trainers.shipping.export import require_shippable


@pytest.mark.parametrize("name", shipped())
def test_the_recipes_of_the_package_can_be_shipped(name: str) -> None:
    require_shippable(read_recipe(name).recipe)


def _called(name: str = "our-denoise", version: str = "1.0.0", target: str = "image") -> Recipe:
    recipe = read_recipe("ct-denoise").recipe
    (entry,) = recipe.shipping.stages
    shipping = replace(recipe.shipping, stages=(replace(entry, target=target),))
    return replace(recipe, name=name, version=version, shipping=shipping)


def test_names_of_ones_own_can_be_shipped() -> None:
    require_shippable(_called())


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (_called(name="Our Denoise"), "the name is 'Our Denoise'"),
        (_called(name="../../x"), "the name is"),
        (_called(version="one"), "the version is 'one'"),
        (_called(target="lesions out"), "'lesions out' names an"),
    ],
)
def test_what_a_card_cannot_say_is_refused(recipe: Recipe, said: str) -> None:
    with pytest.raises(RecipeError, match=said) as refused:
        require_shippable(recipe)
    assert refused.value.hint
