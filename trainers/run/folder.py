"""A run's folder: whose it is, and what the card says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from engines.bundle.provenance import Dataset, Metric, Provenance, Training
from engines.bundle.tables import read_table
from engines.errors import BundleError
from trainers.errors import CheckpointError
from trainers.recipes.plan import part_told, planned, steps_told
from trainers.recipes.reading import ReadRecipe, read_recipe
from trainers.recipes.recipe import Plan
from trainers.run import checkpoints
from trainers.run.checkpoints import ENDED, NET
from trainers.run.rounds import rounds_in
from trainers.run.subject import Subject, subject_of
from trainers.whole import whole, write_json

_DATASETS: Final = "datasets.json"
_METRICS: Final = "metrics.json"
_IMAGES: Final = "images.json"
_RUN: Final = "run.json"
_RECIPE: Final = "recipe.toml"


def claim(read: ReadRecipe, run: Path) -> None:
    """Note whose folder it is, and by what plan it is trained; and keep the recipe with all that it took from another,
    which the next version of the package may have otherwise.

    Raises CheckpointError where it is another recipe's, or of another plan.
    """
    path = run / _RUN
    if path.exists() and (claimed := _claimed(read, run)) != read.plan:
        raise CheckpointError(
            f"{run} holds a run of {claimed}, not of {read.plan}",
            "go on with the same options, or give a new folder; with the other's --cache its noise is not made again",
        )
    write_json(path, {"recipe": read.recipe.name, "trained": read.trained, **asdict(read.plan)})
    with whole(run / _RECIPE) as file:
        file.write(read.text.encode())


def trained_by(name: str, run: Path) -> ReadRecipe:
    """The recipe of that name as a run trains it. Raises CheckpointError where the run is of another, or none."""
    read = read_recipe(name)
    return planned(read, _claimed(read, run))


def _claimed(read: ReadRecipe, run: Path) -> Plan:
    """The plan of a run that is of this recipe."""
    found = noted(run)
    if found["trained"] != read.trained:  # what is only told and shipped, its name too, may change
        raise CheckpointError(
            f"{run} holds a run of {found['recipe']}, of another text",
            f"give that recipe as it was, it lies in {run / _RECIPE}; or a new folder to train",
        )
    return plan_of(found)


def noted(run: Path) -> dict[str, Any]:
    """What `claim` wrote. Raises CheckpointError where nobody did."""
    if not (run / _RUN).exists():
        raise CheckpointError(f"{run} is no run's folder", "give the one that a training was given as --run")
    try:
        return dict(json.loads((run / _RUN).read_text()))
    except ValueError:
        raise CheckpointError(f"{run / _RUN} is damaged", "begin a new run") from None


def plan_of(named: Mapping[str, Any]) -> Plan:
    """The plan in what `noted` gives."""
    return Plan(float(named["share"]), tuple(map(str, named["changes"])), str(named["features"]))


def datasets_of(run: Path) -> tuple[Dataset, ...]:
    """What `note_datasets` wrote; nothing where nobody did."""
    return tuple(_read(Dataset, table) for table in _tables(run / _DATASETS))


def note_datasets(run: Path, datasets: Sequence[Dataset]) -> None:
    """Write down what a run is trained on, for its card."""
    write_json(run / _DATASETS, [asdict(one) for one in datasets], indent=1)


def note_images(run: Path, digests: Sequence[str]) -> None:
    """Write down which images a run draws from, in their order: with others each later step would be another.

    Raises CheckpointError where it was begun with others.
    """
    if not (run / _IMAGES).exists():
        write_json(run / _IMAGES, list(digests))
    begun = json.loads((run / _IMAGES).read_text())
    if begun != list(digests):
        new, gone = len(set(digests) - set(begun)), len(set(begun) - set(digests))
        raise CheckpointError(
            f"{run} was begun with other images, or in another order: {new} are new, {gone} are gone",
            "go on with the same images, or give a new folder",
        )


def note_metrics(run: Path, metrics: Sequence[Metric], tested: Sequence[Dataset], of: Subject) -> None:
    """Write down how well a run's nets did, on whose images, and as what they were judged, for its card."""
    rows = {"metrics": [asdict(one) for one in metrics], "tested": [asdict(one) for one in tested]}
    write_json(run / _METRICS, {**rows, "of": asdict(of)}, indent=1)


@dataclass(frozen=True)
class Judged:
    """What an evaluation noted, and what it is of; nothing where there was none."""

    metrics: tuple[Metric, ...] = ()
    tested: tuple[Dataset, ...] = ()
    of: Subject | None = None


def judged_of(run: Path) -> Judged:
    """What `note_metrics` wrote; nothing where nobody did."""
    if not (run / _METRICS).exists():
        return Judged()
    found = json.loads((run / _METRICS).read_text())
    metrics, tested = (
        tuple(_read(kind, one) for one in found[name]) for kind, name in ((Metric, "metrics"), (Dataset, "tested"))
    )
    return Judged(metrics, tested, _read(Subject, found["of"]))


def provenance_of(read: ReadRecipe, run: Path) -> Provenance:
    """What the card of a run's bundle says of where it comes from, of `trained_by`. Metrics are those that were
    noted, if any.

    Raises CheckpointError where nobody noted what it was trained on, it is not finished, or the metrics are of other
    weights or another strength.
    """
    shipping = read.recipe.shipping
    if not (run / _DATASETS).exists():
        raise CheckpointError(f"{run} does not say what it was trained on", "train it with: trainers train")
    last = run / read.recipe.stages[-1].name
    checkpoints.require_finished(last)
    judged, rounds = judged_of(run), rounds_of(read, run)
    if judged.of is not None:
        subject_of(read.recipe, run).require(judged.of)
    part = "" if read.plan.is_whole else f", {part_told(read, rounds)}"
    return Provenance(
        maker=shipping.maker,
        licence=shipping.licence,
        training=Training(
            run=f"{_told(read)}{part}",
            recipe=f"{' '.join(read.recipe.paper.split()).rstrip('.')}. {steps_told(read, rounds)}.",
            date=_ended(last / NET),
        ),
        data=(*datasets_of(run), *judged.tested),
        metrics=judged.metrics,
        limitations=shipping.limitations,
    )


def rounds_of(read: ReadRecipe, run: Path) -> dict[str, tuple[int, ...]]:
    """The rounds that a run did of each of its stages that grow."""
    found = {stage.name: rounds_in(run / stage.name) for stage in read.recipe.stages if stage.growth}
    return {name: rounds for name, rounds in found.items() if rounds is not None}


def ended_now() -> str:
    """For `ENDED` of a net that is finished."""
    return datetime.now(UTC).date().isoformat()


def _ended(net: Path) -> str:
    """The day on which a net was finished."""
    return str(checkpoints.read(net)[ENDED])


def is_of(training: Training, read: ReadRecipe) -> bool:
    """Whether a card says of itself that it is trained by this very text of a recipe."""
    return training.run == _told(read) or training.run.startswith(f"{_told(read)}, ")


def _told(read: ReadRecipe) -> str:
    """A recipe's text as cards name it."""
    return f"recipe {read.recipe.name}, SHA-256 {read.digest[:16]}"


def _tables(path: Path) -> list[Any]:
    return list(json.loads(path.read_text())) if path.exists() else []


def _read(kind: type[Any], table: object) -> Any:
    try:
        return read_table(kind, table, kind.__name__)
    except BundleError as error:
        raise CheckpointError(str(error), error.hint) from None
