"""What a run does otherwise than its recipe says: a part of the schedule, and numbers that a smaller machine needs.
Papers train for days of a GPU; a recipe keeps their numbers, and a run says how much of them it did."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from engines.bundle.tables import nearest
from trainers.errors import RecipeError
from trainers.recipes.reading import ReadRecipe, recipe_of, table_of
from trainers.recipes.recipe import OFF, Optimiser, Plan, Recipe, StageRecipe

_OFTEN: Final = 20
"""Checkpoints, pictures and lines come no closer than so many steps, unless the recipe wants them to."""


_TRAINED, _CHANGED = "Trained for ", "Changed: "
_TERM, _UNNOTED_TERM = "The loss term ", "Nobody noted whether the loss term "
OTHERWISE: Final = (_TRAINED, _CHANGED, _TERM, _UNNOTED_TERM)
"""How sentences of `steps_told` begin that tell what was done otherwise than the recipe says, or may have been."""

Rounds = Mapping[str, Sequence[int]]
"""Of stages that grow: how many slices each of their rounds was trained on."""
NO_ROUNDS: Final[Rounds] = {}


def planned(read: ReadRecipe, plan: Plan) -> ReadRecipe:
    """The recipe as it is trained by a plan. Raises RecipeError where the two do not go together."""
    if not 0 < plan.share <= 1:
        raise RecipeError(f"{plan.share:g} is no share of the steps", "give one above 0, at most 1")
    table = table_of(read.content, read.recipe.name)
    changed = [_change(table, one) for one in plan.changes]
    recipe = recipe_of(table, read.recipe.name) if changed else read.recipe
    if plan.share < 1:
        kept = {name for name, keys in changed if keys == ["steps"]}
        stages = (one if one.name in kept else _shortened(one, plan.share) for one in recipe.stages)
        recipe = replace(recipe, stages=tuple(stages))
    for stage in recipe.stages:
        if plan.features == OFF and not stage.adversary and {term.kind for term in stage.losses} == {"vgg"}:
            raise RecipeError(f"{stage.name} has no loss but vgg, and no weights for it", "bring them: --features FILE")
    return replace(read, recipe=recipe, plan=plan if recipe.wants_features else replace(plan, features=""))


def steps_told(read: ReadRecipe, rounds: Rounds = NO_ROUNDS) -> str:
    """How far a run goes, and with which terms, for its card. `rounds`: those that it truly did."""
    return ". ".join(filter(None, (_steps(read, rounds), _features(read))))


def steps_to_do(read: ReadRecipe) -> str:
    """The same of a run before it begins."""
    return steps_told(read).replace(_TRAINED, "To be trained for ", 1)


def otherwise_told(read: ReadRecipe) -> str:
    """Which of the recipe's numbers were changed, and whether features of VGG are compared; empty where neither is."""
    return ". ".join(filter(None, (_changed(read), _features(read))))


def _features(read: ReadRecipe) -> str:
    """Whether features of VGG are compared; empty where the recipe does not want that."""
    if not read.recipe.wants_features:
        return ""
    if read.plan.features == OFF:
        return f"{_TERM}vgg is off: no weights were given for it"
    if not read.plan.features:
        return f"{_UNNOTED_TERM}vgg is on"
    return f"{_TERM}vgg compares by weights of SHA-256 {read.plan.features[:16]}"


def _steps(read: ReadRecipe, rounds: Rounds) -> str:
    stages = read.recipe.stages
    if read.plan.is_whole:
        return "; ".join(f"{stage.name}: {stage.steps} steps{_how_often(stage, rounds)}" for stage in stages)
    pairs = list(zip(stages, read.written.stages, strict=True))
    parts = "; ".join(
        f"{stage.name} {stage.steps} of {whole.steps}{_how_often(stage, rounds)}" for stage, whole in pairs
    )
    done, whole = _counts(read, rounds)
    told = f"{_TRAINED}{part_told(read, rounds)}: {done} of {whole} ({parts})"
    return ". ".join(filter(None, (told, _changed(read))))


def _changed(read: ReadRecipe) -> str:
    return f"{_CHANGED}{', '.join(read.plan.changes)}" if read.plan.changes else ""


def _how_often(stage: StageRecipe, rounds: Rounds) -> str:
    """In which rounds a stage's steps are done, on how many slices, and for which nets beside its own."""
    if stage.folds:
        return f", and {stage.takes} {stage.folds} times more, for parts of the patients"
    if stage.growth is None:
        return ""
    most = f"at most {stage.growth.rounds} rounds"
    if stage.name not in rounds:
        return f" a round, in {most}"
    slices = rounds[stage.name]
    return f" a round, in {len(slices)} of {most}, on {', '.join(map(str, slices))} slices of CT"


def part_told(read: ReadRecipe, rounds: Rounds = NO_ROUNDS) -> str:
    """The steps of all nets together, like `5 % of its steps`."""
    done, whole = _counts(read, rounds)
    return f"{100 * done / whole:.3g} % of its steps"


def _counts(read: ReadRecipe, rounds: Rounds) -> tuple[int, int]:
    """Steps that are done, and those that the recipe would do; where rounds ended for want of slices, of as many."""
    done = {name: len(slices) for name, slices in rounds.items()}
    most = {stage.name: stage.growth.rounds for stage in read.recipe.stages if stage.growth}
    ended = {name: count for name, count in done.items() if count < most.get(name, 0)}
    return _all_steps(read.recipe, done), _all_steps(read.written, ended)


def _all_steps(recipe: Recipe, rounds: Mapping[str, int]) -> int:
    """Of all nets that are trained on the way; as many rounds as there may be where `rounds` does not say."""
    own = (stage.steps * rounds.get(stage.name, stage.growth.rounds if stage.growth else 1) for stage in recipe.stages)
    return sum(own) + sum(stage.folds * recipe.stage(stage.takes).steps for stage in recipe.stages if stage.folds)


def _change(table: dict[str, Any], change: str) -> tuple[str, list[str]]:
    """Carry a change out in the table of a recipe; the stage's name, and the keys within it."""
    path, _, value = change.partition("=")
    name, *keys = path.strip().split(".")
    stages: Mapping[str, dict[str, Any]] = {one["name"]: one for one in table["stages"]}
    if name not in stages:
        raise RecipeError(f"there is no stage {name[:60]!r}", nearest(name, tuple(stages)))
    inner: Any = stages[name]
    for key in keys[:-1]:
        inner = inner.setdefault(key, {}) if isinstance(inner, dict) else None
    if not keys or not isinstance(inner, dict):
        raise RecipeError(
            f"{change[:80]!r} changes nothing", f"write a key of the stage, such as {name}.patches.batch=4"
        )
    inner[keys[-1]] = _value(change, value)
    return name, keys


def _value(change: str, text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        raise RecipeError(f"{change[:80]!r} has no value", 'write it as TOML: 4, 0.5, true, "text", [1, 2]') from None


def _shortened(stage: StageRecipe, share: float) -> StageRecipe:
    steps = _scaled(stage.steps, share)
    adversary, growth = stage.adversary, stage.growth
    return replace(
        stage,
        steps=steps,
        optimiser=_sooner(stage.optimiser, steps),
        adversary=adversary and replace(adversary, optimiser=_sooner(adversary.optimiser, steps)),
        growth=growth
        and replace(growth, most=_scaled(growth.most, share), candidates=_scaled(growth.candidates, share)),
        checkpoint_steps=_spaced(stage.checkpoint_steps, share),
        sample_steps=_spaced(stage.sample_steps, share),
        log_steps=_spaced(stage.log_steps, share),
    )


def _sooner(how: Optimiser, steps: int) -> Optimiser:
    """The rate falls over the steps that there are; it does not grow for more than a tenth of them."""
    return replace(how, warmup_steps=min(how.warmup_steps, steps // 10))


def _scaled(count: int, share: float) -> int:
    return max(1, round(count * share))


def _spaced(every: int, share: float) -> int:
    return max(min(every, _OFTEN), round(every * share))
