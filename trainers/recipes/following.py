"""A recipe that follows another: it says what it does otherwise, and the rest is that one's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Final

from engines.bundle.tables import nearest
from trainers.errors import RecipeError

Table = Mapping[str, Any]

_OWN: Final = ("name", "version")
"""A recipe has these itself: what it makes is another bundle."""
_OF_IMAGES: Final = (
    ("patients",),
    ("paper",),
    *(("shipping", key) for key in ("maker", "licence", "intended_use", "limitations", "envelope")),
)
"""Who is in which split, and what a card says: true of the images that it was said of."""
_NEVER_IN_PARTS: Final = (("patients",), ("shipping", "envelope"))
"""Given at all, these are given whole: patients of two recipes do not belong into one split."""


def whole(own: Table, followed: Table, name: str) -> dict[str, Any]:
    """The table of a recipe with all that it takes from the one it follows. Neither is changed.

    Tables are joined key by key, lists are taken as they stand; arguments go with the net that they are of. Stages that
    it lists are all that it has: each is that of the followed recipe that it is `like`, but for the keys that it has
    itself, or all its own.
    Raises RecipeError where a stage is like none, or a recipe with images of its own leaves to another's what is said
    of them; `name` is what messages call the recipe.
    """
    said = {key: value for key, value in own.items() if key != "follows"}
    if "sources" in said:
        _require_said(said, name)
    base = deepcopy({key: value for key, value in followed.items() if key not in _OWN})
    for path in _NEVER_IN_PARTS:
        if _at(said, path) is not None:
            _at(base, path[:-1]).pop(path[-1], None)
    stages = said.get("stages")
    if isinstance(stages, list):
        said["stages"] = [_stage(one, base["stages"], name) for one in stages]
    return _joined(base, said)


def _require_said(said: Table, name: str) -> None:
    missing = [".".join(path) for path in _OF_IMAGES if _at(said, path) is None]
    if missing:
        raise RecipeError(
            f"{name} has images of its own, and leaves to another recipe what is said of them: {', '.join(missing)}",
            "say that of your images: docs/trainers/recipes.md, A recipe of your own",
        )


def _at(table: Any, path: Sequence[str]) -> Any:
    """What a table has there; None where it has nothing."""
    for key in path:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def _stage(own: Any, followed: list[Table], name: str) -> Any:
    """A stage with what it takes from the one that it is like."""
    if not isinstance(own, dict) or "like" not in own:
        return own
    like, known = str(own["like"]), {stage["name"]: stage for stage in followed}
    if like not in known:
        raise RecipeError(
            f"{name}: a stage is like {like[:60]!r}, which the recipe that it follows does not have",
            nearest(like, known),
        )
    return _joined(deepcopy(known[like]), {key: value for key, value in own.items() if key != "like"})


def _joined(base: Table, over: Table) -> dict[str, Any]:
    joined = dict(base)
    named_by = "net" if "net" in base else "kind"  # a discriminator's kind is how it plays
    if over.get(named_by, base.get(named_by)) != base.get(named_by):
        joined.pop("arguments", None)
    for key, value in over.items():
        inner = joined.get(key)
        joined[key] = _joined(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return joined
