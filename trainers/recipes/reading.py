"""Recipes as they are read: of the package by name, or one of your own by the path of its file."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from engines.bundle.tables import nearest, read_table, write_toml
from engines.errors import BundleError
from trainers.errors import RecipeError
from trainers.recipes.following import whole
from trainers.recipes.recipe import AS_WRITTEN, Plan, Recipe
from trainers.recipes.soundness import problems

FORMAT: Final = 1
_LARGEST_BYTES: Final = 2**20
_TOLD: Final = frozenset({"name", "version", "paper", "shipping"})
"""Tables and keys of a recipe that no step of a training depends on."""


@dataclass(frozen=True)
class ReadRecipe:
    """A recipe as it is trained, the bytes of its file, and what is done otherwise than that says."""

    recipe: Recipe
    content: bytes
    plan: Plan = AS_WRITTEN

    @property
    def digest(self) -> str:
        """SHA-256 of the file, and where it follows another of that one's behind it, and so on."""
        return hashlib.sha256(b"".join(_files(self.content, self.recipe.name))).hexdigest()

    @property
    def trained(self) -> str:
        """SHA-256 of what the training follows from. What is said of it and how it is shipped may change afterwards."""
        table = table_of(self.content, self.recipe.name)
        parts = {key: value for key, value in table.items() if key not in _TOLD}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def text(self) -> str:
        """All of it as TOML, with what it takes from another: the recipe as it can be read without that one."""
        return write_toml(_tuples(table_of(self.content, self.recipe.name)))

    @property
    def written(self) -> Recipe:
        """The recipe as its file has it."""
        return parse(self.content, self.recipe.name)


def shipped() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    return tuple(sorted(Path(file.name).stem for file in files("trainers.recipes").iterdir() if _is_recipe(file.name)))


def read_recipe(name: str) -> ReadRecipe:
    """A recipe of the package by name, or one of your own by the path of its file. Raises RecipeError."""
    content = _of_package(name) if name in shipped() else _own(name)
    return ReadRecipe(parse(content, name), content)


def parse(content: bytes, name: str) -> Recipe:
    """The recipe in the bytes of a TOML file that messages call `name`. Raises RecipeError."""
    return recipe_of(table_of(content, name), name)


def table_of(content: bytes, name: str) -> dict[str, Any]:
    """The table in those bytes, of the format that is read here, with what it takes from the recipe it follows."""
    *following, first = _files(content, name)
    table = _said(first, name)
    for one in reversed(following):
        table = whole(_said(one, name), table, name)
    return table


def _files(content: bytes, name: str) -> list[bytes]:
    """The file of a recipe, that of the one it follows, and so on. Only the package's can be followed: no circles."""
    found = [content]
    while (followed := _said(found[-1], name).get("follows")) is not None:
        if followed not in shipped():
            hint = f"{nearest(str(followed), shipped())}; your own cannot be followed"
            raise RecipeError(f"{name} follows {str(followed)[:60]!r}, which is no recipe of the package", hint)
        found.append(_of_package(followed))
    return found


def _said(content: bytes, name: str) -> dict[str, Any]:
    """What a file says itself."""
    try:
        table = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{name} is no TOML: {str(error)[:200]}", "look at the place it names") from None
    if table.get("format") != FORMAT:
        raise RecipeError(f"{name} is of format {str(table.get('format'))[:20]}", f"this version reads {FORMAT}")
    return table


def recipe_of(table: Mapping[str, Any], name: str) -> Recipe:
    """The recipe in a table. Raises RecipeError where it makes no sense."""
    try:
        recipe = read_table(Recipe, table, name)
    except BundleError as error:
        raise RecipeError(str(error), error.hint.replace("docs/engines.md", "docs/trainers/recipes.md")) from None
    for problem, hint in problems(recipe):
        raise RecipeError(f"{name}: {problem}", hint)
    return recipe


def _tuples(value: Any) -> Any:
    """With tuples for lists, as TOML is written of."""
    if isinstance(value, dict):
        return {key: _tuples(one) for key, one in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _of_package(name: str) -> bytes:
    return files("trainers.recipes").joinpath(f"{name}.toml").read_bytes()


def _own(name: str) -> bytes:
    path = Path(name)
    if path.suffix != ".toml":
        raise RecipeError(f"there is no recipe {name!r}", f"{nearest(name, shipped())}; your own is a .toml file")
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_BYTES)
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}", "give the path of a recipe") from None


def _is_recipe(file: str) -> bool:
    return file.endswith(".toml")
