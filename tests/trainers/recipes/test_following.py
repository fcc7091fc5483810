"""What a recipe takes from the one it follows."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from engines.card import Envelope
from trainers.errors import RecipeError
from trainers.recipes.following import whole
from trainers.recipes.plan import planned
from trainers.recipes.reading import ReadRecipe, parse, read_recipe, shipped
from trainers.recipes.recipe import Plan

_OURS = """
format = 1
follows = "ct-denoise"
name = "our-denoise"
version = "2.0.0"
paper = "of our own images"

[[sources]]
kind = "dicom"
files = ["studies/*"]
provenance = "provenance.csv"

[patients]
train = ["A*"]

[shipping]
maker = "Our hospital"
licence = "in-house"
intended_use = "Research use only."
limitations = []

[shipping.envelope]
kvp = [120.0, 120.0]
"""
_WHOLE = files("trainers.recipes").joinpath("ct-denoise.toml").read_text()


def test_it_takes_what_it_does_not_say() -> None:
    theirs, ours = read_recipe("ct-denoise").recipe, parse(_OURS.encode(), "ours.toml")
    assert (ours.name, ours.version) == ("our-denoise", "2.0.0")
    assert ours.stages == theirs.stages
    assert [source.files for source in ours.sources] == [("studies/*",)]
    assert (ours.shipping.maker, ours.shipping.strength) == ("Our hospital", theirs.shipping.strength)


def test_what_is_true_of_other_images_is_not_taken() -> None:
    recipe = parse(_OURS.encode(), "ours.toml")
    assert (recipe.patients.train, recipe.patients.validation, recipe.patients.test) == (("A*",), (), ())
    assert recipe.shipping.envelope == Envelope(kvp=(120.0, 120.0))


@pytest.mark.parametrize("key", ["paper", "maker", "licence", "intended_use", "limitations"])
def test_a_recipe_with_images_of_its_own_says_itself_what_its_card_will(key: str) -> None:
    lines = [line for line in _OURS.splitlines() if not line.startswith(f"{key} =")]
    with pytest.raises(RecipeError, match=rf"images of its own.*: (shipping\.)?{key}$"):
        parse("\n".join(lines).encode(), "ours.toml")


def test_two_stages_like_one_share_nothing() -> None:
    text = _OURS + '[[stages]]\nname = "one"\nlike = "denoise"\n[[stages]]\nname = "two"\nlike = "denoise"\n'
    text += '[[shipping.stages]]\nstage = "two"\n'
    changes = ("two.patches.batch=4", "two.net.arguments.channels=16", "two.optimiser.learning_rate=9e-9")
    read = ReadRecipe(parse(text.encode(), "ours.toml"), text.encode())
    one, two = planned(read, Plan(changes=changes)).recipe.stages
    theirs = read_recipe("ct-denoise").recipe.stages[0]
    assert (one.patches, one.net, one.optimiser) == (theirs.patches, theirs.net, theirs.optimiser)
    assert (two.patches.batch, two.net.arguments["channels"], two.optimiser.learning_rate) == (4, 16, 9e-9)


def test_another_net_has_its_own_arguments() -> None:
    net = {"kind": "plain", "arguments": {"channels": 48, "blocks": 4}}
    adversary = {"kind": "lsgan", "net": "patch", "arguments": {"inputs": 2}}
    followed = {"stages": [{"name": "first", "net": net, "adversary": adversary}]}

    def like(**own: Any) -> Any:
        return whole({"stages": [{"like": "first", **own}]}, followed, "mine")["stages"][0]

    assert like(net={"kind": "drl"})["net"] == {"kind": "drl"}
    assert like(net={"predicts": "residual"})["net"] == {**net, "predicts": "residual"}
    assert like(adversary={"kind": "standard"})["adversary"] == {**adversary, "kind": "standard"}
    assert like(adversary={"net": "srgan"})["adversary"] == {"kind": "lsgan", "net": "srgan"}


@pytest.mark.parametrize("name", shipped())
def test_the_whole_of_it_is_the_same_recipe(name: str) -> None:
    """So that a run goes on where the package has another version of what its recipe follows."""
    read = read_recipe(name)
    assert "follows" not in read.text
    again = ReadRecipe(parse(read.text.encode(), name), read.text.encode())
    assert again.recipe == read.recipe and again.trained == read.trained


@pytest.mark.parametrize("own", ["name", "version"])
def test_what_makes_another_bundle_of_it_it_has_itself(own: str) -> None:
    lines = [line for line in _OURS.splitlines() if not line.startswith(own)]
    with pytest.raises(RecipeError, match=f"lacks '{own}'"):
        parse("\n".join(lines).encode(), "ours.toml")


def test_stages_that_it_lists_are_all_that_it_has() -> None:
    followed: dict[str, Any] = {
        "stages": [
            {"name": "first", "steps": 1, "net": {"kind": "drl", "arguments": {"channels": 64, "edges": True}}},
            {"name": "second", "steps": 2, "losses": [{"kind": "mse"}, {"kind": "vgg"}]},
        ]
    }
    own = {
        "stages": [
            {"name": "other", "like": "second", "losses": [{"kind": "mae"}]},
            {"like": "first", "net": {"arguments": {"channels": 8}}},
            {"name": "second", "steps": 9},
        ]
    }
    before = repr((own, followed))
    assert whole(own, followed, "mine")["stages"] == [
        {"name": "other", "steps": 2, "losses": [{"kind": "mae"}]},
        {"name": "first", "steps": 1, "net": {"kind": "drl", "arguments": {"channels": 8, "edges": True}}},
        {"name": "second", "steps": 9},
    ]
    assert repr((own, followed)) == before


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        (_OURS.replace("ct-denoise", "ct-denoize"), "follows 'ct-denoize'", "'ct-denoise'"),
        (_OURS.replace('"ct-denoise"', "[1]"), "follows", "known here"),
        (_OURS + '[[stages]]\nlike = "texture"', "like 'texture'", "'textures'"),
        (_OURS + "[[stages]]\nlike = 1", "like '1'", "known here"),
        (_OURS + '[[stages]]\nlike = ["textures"]', "which the recipe that it follows does not have", "'textures'"),
        (_WHOLE + '[[stages]]\nlike = "textures"', "no key 'like'", ""),
        (_OURS.replace("[[sources]]", 'stages = "none"\n[[sources]]'), "stages is", ""),
    ],
)
def test_what_cannot_be_followed_is_refused(text: str, said: str, hint: str) -> None:
    with pytest.raises(RecipeError) as refused:
        parse(text.encode(), "ours.toml")
    assert said in str(refused.value) and hint in refused.value.hint


def test_the_recipe_of_ones_own_that_is_documented_is_whole() -> None:
    page = (Path(__file__).parents[3] / "docs/trainers/recipes.md").read_text()
    (text,) = re.findall(r"```toml\n(format = 1\nfollows.*?)```", page, re.DOTALL)
    recipe = parse(text.encode(), "mine.toml")
    assert recipe.name == "our-denoise" and recipe.patients.test == ("D*",)
    assert recipe.shipping.envelope.kvp == (100.0, 120.0) and recipe.shipping.envelope.modalities == ("CT",)


def test_the_digest_is_of_all_files_that_it_follows() -> None:
    package = files("trainers.recipes")
    first, second, third = (
        package.joinpath(f"{name}.toml").read_bytes() for name in ("cascade-drlp", "cascade-drl", "cascade")
    )
    assert read_recipe("cascade-drlp").digest == hashlib.sha256(first + second + third).hexdigest()
    assert read_recipe("cascade").digest == hashlib.sha256(third).hexdigest()


def test_what_is_only_told_and_shipped_does_not_change_what_was_trained() -> None:
    def of(text: str) -> str:
        return ReadRecipe(parse(text.encode(), "ours.toml"), text.encode()).trained

    assert of(_OURS) == of(_OURS.replace("Our hospital", "Another"))
    assert of(_OURS) != of(_OURS.replace("A*", "B*"))
