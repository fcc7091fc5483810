"""What a recipe takes from the one it follows."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from trainers.errors import RecipeError
from trainers.recipes.following import whole
from trainers.recipes.reading import ReadRecipe, parse, read_recipe

_OURS = """
format = 1
follows = "ct-denoise"
name = "our-denoise"
version = "2.0.0"

[[sources]]
kind = "dicom"
files = ["studies/*"]
provenance = "provenance.csv"

[patients]
train = ["A*"]

[shipping]
maker = "Our hospital"
"""
_WHOLE = files("trainers.recipes").joinpath("ct-denoise.toml").read_text()


def test_it_takes_what_it_does_not_say() -> None:
    theirs, ours = read_recipe("ct-denoise").recipe, parse(_OURS.encode(), "ours.toml")
    assert (ours.name, ours.version) == ("our-denoise", "2.0.0")
    assert ours.stages == theirs.stages
    assert [source.files for source in ours.sources] == [("studies/*",)]
    assert (ours.shipping.maker, ours.shipping.licence) == ("Our hospital", theirs.shipping.licence)


def test_patients_of_two_recipes_are_in_no_split_together() -> None:
    patients = parse(_OURS.encode(), "ours.toml").patients
    assert (patients.train, patients.validation, patients.test) == (("A*",), (), ())


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
