"""A run's folder: whose it is, what the card says of it, and a page for people."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any, Final

from engines.bundle.provenance import Dataset, Metric, Provenance, Training
from engines.bundle.tables import read_table
from engines.errors import BundleError
from trainers import checkpoints
from trainers.checkpoints import ENDED, NET
from trainers.errors import CheckpointError
from trainers.plan import part_told, planned, steps_told
from trainers.progress import FIGURES
from trainers.recipe import OFF, Plan, ReadRecipe, read_recipe
from trainers.rounds import rounds_in
from trainers.subject import Subject, subject_of
from trainers.whole import write_json

_DATASETS: Final = "datasets.json"
_METRICS: Final = "metrics.json"
_IMAGES: Final = "images.json"
_RUN: Final = "run.json"
_LINE: Final = re.compile(r"(\d+),([^,]+),(nan|-?inf|-?\d+(?:\.\d+)?(?:e[-+]\d+)?)")
_WIDTH, _HEIGHT = 640, 160


def claim(read: ReadRecipe, run: Path) -> None:
    """Note whose folder it is, and by what plan it is trained.

    Raises CheckpointError where it is another recipe's, or of another plan.
    """
    path = run / _RUN
    if path.exists() and (claimed := _claimed(read, run)) != read.plan:
        raise CheckpointError(f"{run} holds a run of {claimed}", "go on with the same options, or give a new folder")
    write_json(path, {"recipe": read.recipe.name, "trained": read.trained, **asdict(read.plan)})


def trained_by(name: str, run: Path) -> ReadRecipe:
    """The recipe of that name as a run trains it. Raises CheckpointError where the run is of another, or none."""
    read = read_recipe(name)
    return planned(read, _claimed(read, run))


def _claimed(read: ReadRecipe, run: Path) -> Plan:
    """The plan of a run that is of this recipe."""
    found = _noted(run)
    if (found["recipe"], found["trained"]) != (read.recipe.name, read.trained):
        raise CheckpointError(
            f"{run} holds a run of {found['recipe']}, of another text", "give a new folder, or its recipe"
        )
    return _plan(found)


def _noted(run: Path) -> dict[str, Any]:
    """What `claim` wrote."""
    if not (run / _RUN).exists():
        raise CheckpointError(f"{run} is no run's folder", "give the one that a training was given as --run")
    try:
        return dict(json.loads((run / _RUN).read_text()))
    except ValueError:
        raise CheckpointError(f"{run / _RUN} is damaged", "begin a new run") from None


def _plan(noted: Mapping[str, Any]) -> Plan:
    return Plan(float(noted["share"]), tuple(map(str, noted["changes"])), str(noted["features"]))


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
class _Judged:
    """What an evaluation noted, and what it is of; nothing where there was none."""

    metrics: tuple[Metric, ...] = ()
    tested: tuple[Dataset, ...] = ()
    of: Subject | None = None


def _judged(run: Path) -> _Judged:
    if not (run / _METRICS).exists():
        return _Judged()
    noted = json.loads((run / _METRICS).read_text())
    metrics, tested = (
        tuple(_read(kind, one) for one in noted[name]) for kind, name in ((Metric, "metrics"), (Dataset, "tested"))
    )
    return _Judged(metrics, tested, _read(Subject, noted["of"]))


def provenance_of(read: ReadRecipe, run: Path) -> Provenance:
    """What the card of a run's bundle says of where it comes from, of `trained_by`. Metrics are those that were
    noted, if any.

    Raises CheckpointError where nobody noted what it was trained on, it is not finished, or the metrics are of other
    weights or another strength.
    """
    shipping = read.recipe.shipping
    if not (run / _DATASETS).exists():
        raise CheckpointError(f"{run} does not say what it was trained on", "train it with: trainers train")
    net = run / read.recipe.stages[-1].name / NET
    if not net.exists():
        raise CheckpointError(f"{run} is not finished", "go on with it: trainers train")
    judged, rounds = _judged(run), rounds_of(read, run)
    if judged.of is not None:
        subject_of(read.recipe, run).require(judged.of)
    part = "" if read.plan.is_whole else f", {part_told(read, rounds)}"
    return Provenance(
        maker=shipping.maker,
        licence=shipping.licence,
        training=Training(
            run=f"{_told(read)}{part}",
            recipe=f"{' '.join(read.recipe.paper.split())} {steps_told(read, rounds)}.",
            date=_ended(net),
        ),
        data=(*(_read(Dataset, table) for table in _tables(run / _DATASETS)), *judged.tested),
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


def page_of(run: Path) -> str:
    """A page of a run, with everything that it shows inside. Raises CheckpointError where there is no run."""
    named = _noted(run)
    stages = [path.parent for path in sorted(run.rglob(FIGURES))]
    plan = _plan(named)
    is_as_said = plan.is_whole and plan.features != OFF
    body = "" if is_as_said else f"<p>Not as the recipe says: {escape(str(plan))}.</p>"
    body += "".join(_stage(run, folder) for folder in stages) or "<p>No step was noted yet.</p>"
    body += _told_of(_judged(run))
    title = escape(f"{named['recipe']}, recipe {named['trained'][:16]}")
    style = "body{font-family:sans-serif;max-width:60em;margin:auto}img{max-width:100%}svg{background:#f4f4f4}"
    return f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{style}</style><h1>{title}</h1>{body}\n"


def _told_of(judged: _Judged) -> str:
    """What an evaluation noted of the run, as its card will tell it."""
    lines = "".join(
        f"<tr><td>{escape(f'{one.name}, {one.subgroup}')}<td>{one.value:g} {escape(one.unit)}"
        f"<td>{'' if one.interval is None else f'{one.interval[0]:g} to {one.interval[1]:g}'}"
        f"<td>{'' if one.baseline is None else f'{one.baseline:g}'}<td>{one.patients}"
        for one in judged.metrics
    )
    head = "<tr><th>figure<th>value<th>95 %<th>low dose<th>patients"
    return f"<h2>Evaluation</h2><table>{head}{lines}</table>" if lines else ""


def _stage(run: Path, folder: Path) -> str:
    values = curves((folder / FIGURES).read_text().splitlines())
    is_done = "finished" if (folder / NET).exists() else "not finished"
    figures = "".join(
        f"<h3>{escape(term)}: {points[-1][1]:.4g}</h3>{_drawn(points)}" for term, points in values.items()
    )
    pictures = sorted((folder / "pictures").glob("*.png"))
    shown = f"<h3>{pictures[-1].stem}: given, made, wanted</h3>{_embedded(pictures[-1])}" if pictures else ""
    return f"<h2>{escape(str(folder.relative_to(run)))} ({is_done})</h2>{figures}{shown}"


def curves(lines: Iterable[str]) -> Mapping[str, list[tuple[int, float]]]:
    """(step, value) of each term by its name, in the order of the steps; of a step noted twice the later counts.

    Half a line, as a full disk or a kill leaves it, is passed over.
    """
    noted: dict[str, dict[int, float]] = {}
    for line in lines:
        if found := _LINE.fullmatch(line):
            noted.setdefault(found[2], {})[int(found[1])] = float(found[3])
    return {term: sorted(points.items()) for term, points in noted.items()}


def _drawn(points: Sequence[tuple[int, float]]) -> str:
    """A curve, from 0 to its highest value."""
    highest = max(max(value for _, value in points), 1e-12)
    last = max(points[-1][0], 1)
    places = " ".join(f"{step / last * _WIDTH:.1f},{(1 - value / highest) * _HEIGHT:.1f}" for step, value in points)
    line = f'<polyline fill="none" stroke="#246" points="{places}"/>'
    return f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}">{line}</svg>'


def _embedded(picture: Path) -> str:
    return f'<img src="data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}">'
