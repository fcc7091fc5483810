"""A recipe that follows another: it says what it does otherwise, and the rest is that one's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from engines.bundle.tables import nearest
from trainers.errors import RecipeError

Table = Mapping[str, Any]

_OWN: Final = ("name", "version")
"""A recipe has these itself: what it makes is another bundle."""
_NEVER_IN_PARTS: Final = ("patients",)
"""Given at all, it is given whole: patients of two recipes do not belong into one split."""


def whole(own: Table, followed: Table, name: str) -> dict[str, Any]:
    """The table of a recipe with all that it takes from the one it follows. Neither is changed.

    Tables are joined key by key, lists are taken as they stand. Stages that it lists are all that it has: each is
    that of the followed recipe that it is `like`, but for the keys that it has itself, or all its own.
    Raises RecipeError where a stage is like none; `name` is what messages call the recipe.
    """
    said = {key: value for key, value in own.items() if key != "follows"}
    base = {
        key: value
        for key, value in followed.items()
        if key not in _OWN and not (key in _NEVER_IN_PARTS and key in said)
    }
    stages = said.get("stages")
    if isinstance(stages, list):
        said["stages"] = [_stage(one, base["stages"], name) for one in stages]
    return _joined(base, said)


def _stage(own: Any, followed: list[Table], name: str) -> Any:
    """A stage with what it takes from the one that it is like."""
    if not isinstance(own, dict) or "like" not in own:
        return own
    known = {stage["name"]: stage for stage in followed}
    if own["like"] not in known:
        raise RecipeError(
            f"{name}: a stage is like {str(own['like'])[:60]!r}, which the recipe that it follows does not have",
            nearest(str(own["like"]), known),
        )
    return _joined(known[own["like"]], {key: value for key, value in own.items() if key != "like"})


def _joined(base: Table, over: Table) -> dict[str, Any]:
    joined = dict(base)
    for key, value in over.items():
        inner = joined.get(key)
        joined[key] = _joined(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return joined
