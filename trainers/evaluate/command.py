"""`trainers evaluate`: from what was asked for to files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from engines.bundle.folder import read_card
from engines.bundle.provenance import Metric, Provenance
from engines.card import EngineCard
from trainers.errors import RecipeError, SourceError
from trainers.evaluate.cases import QUICK, Among, Case, Extent, Judged, read_cases
from trainers.evaluate.credits import metrics_of
from trainers.evaluate.denoisers import Denoiser, of_bundle, of_run
from trainers.evaluate.judging import judge
from trainers.evaluate.page import page, pictures
from trainers.evaluate.peers import peers
from trainers.evaluate.table import Table
from trainers.evaluate.words import as_csv, as_json, text
from trainers.material import datasets
from trainers.progress import Say
from trainers.recipes.plan import OTHERWISE, otherwise_told, part_told
from trainers.recipes.reading import ReadRecipe, read_recipe, shipped
from trainers.recipes.recipe import Recipe
from trainers.run.folder import is_of, note_metrics, rounds_of, trained_by
from trainers.run.subject import Subject, sealed, subject_of

TEXT, CSV, JSON, PAGE = "table.txt", "figures.csv", "table.json", "table.html"
_PICTURED_DOSE: Final = 0.25
_UNKNOWN: Final = "Nobody can check here whether {} was trained on these patients: no recipe at hand has its digest."
_NOT_NOTED: Final = "nothing is noted for the card: that takes all test patients of the recipe, and the usual extent"
_LONGEST: Final = 600
_OTHER_NOISE: Final = "Noise is not of the series' own kernels: all of it is of a Hann window that ends at {:g}."
_PART: Final = "This is a part: a card's figures are of all test patients, and at least of the usual extent."
_DECIDING: Final = "These are patients that decisions are made by: no figure to report."


@dataclass(frozen=True)
class Asked:
    """What is to be judged, and by whom.

    recipe    names the sources, the noise and, where `patients` is empty, the test patients
    run       of that recipe; None: it is not judged itself
    others    RECIPE=RUN: more trained recipes
    bundles, peers   folders, and names of `trainers.evaluate.peers`
    strengths  shares of what ours take away, beside the shipped one
    patients  names or patterns, in place of the recipe's own
    split     validation: for a decision, such as which strength to ship
    """

    recipe: str
    images: Path
    out: Path
    cache: Path
    run: Path | None = None
    others: tuple[str, ...] = ()
    bundles: tuple[Path, ...] = ()
    peers: tuple[str, ...] = ()
    strengths: tuple[float, ...] = ()
    patients: tuple[str, ...] = ()
    extent: Extent = QUICK
    split: Judged = "test"

    @property
    def is_whole(self) -> bool:
        """Whether a card may tell what was found."""
        return self.split == "test" and not self.patients and self.extent.is_whole

    @property
    def command(self) -> str:
        """What a person types to ask the same, with a word in place of each path and of patients' names."""
        words = ["trainers", "evaluate", Path(self.recipe).stem, "--images", "IMAGES", "--out", "OUT"]
        words += ["--run", "RUN"] if self.run else []
        words += [word for named in self.others for word in ("--trained", f"{Path(named.partition('=')[0]).stem}=RUN")]
        words += [word for _ in self.bundles for word in ("--bundle", "BUNDLE")]
        words += [word for peer in self.peers for word in ("--peer", peer)]
        words += ["--patients", "PATIENTS"] if self.patients else []
        words += ["--split", self.split] if self.split != "test" else []
        words += [f"--strength={strength:g}" for strength in self.strengths]
        return shlex.join((*words, *self.extent.options))


def evaluate(asked: Asked, say: Say) -> Table:
    """Judge, and write the table as text, CSV, JSON and a page; figures of `run` are noted for its card where
    nothing was left out.

    Raises SourceError where a patient was trained on, and TrainerError or EngineError where something cannot be run.
    """
    recipe = read_recipe(asked.recipe).recipe
    runs = [*([] if asked.run is None else [(asked.recipe, asked.run)]), *map(_named_run, asked.others)]
    trained = [(trained_by(name, run), run) for name, run in runs]
    for folder in asked.bundles:
        if not folder.is_dir():
            raise SourceError(f"{folder} is no folder", "give that of a bundle: the one that trainers export wrote")
    cards = [read_card(folder) for folder in asked.bundles]
    origins, unknown = _origins(cards, (asked.recipe, *(name for name, _ in runs)))
    subjects = [subject_of(one.recipe, run) for one, run in trained]
    by_run = [of_run(one.recipe, run, _named(one, run)) for one, run in trained]
    made = [one for several in (*by_run, *map(of_bundle, asked.bundles)) for one in several]
    ours = [one if one.presented else replace(one, strengths=asked.strengths) for one in made]
    denoisers = _distinct([*ours, *peers(asked.peers)])
    among = Among(recipe, (*(one.recipe for one, _ in trained), *origins), asked.patients, asked.split)
    cases = read_cases(among, asked.images, asked.cache, asked.extent, say)
    table = judge(cases, denoisers, asked.extent, say)
    terms = (*terms_told(trained), *map(card_told, cards))
    part = [] if asked.is_whole or asked.split == "validation" else [_PART]
    deciding = [_DECIDING] if asked.split == "validation" else []
    other = [_OTHER_NOISE.format(asked.extent.window)] if asked.extent.window else []
    table = replace(table, notes=(*table.notes, *filter(None, terms), *unknown, *part, *deciding, *other))
    judged = zip((_named(*one) for one in trained), subjects, strict=True)
    told = sealed(text(table), asked.command, judged)
    _write(asked.out, table, told, pictures(cases, denoisers, _pictured(asked.extent)))
    if asked.run is not None:
        metrics = [metric for one in by_run[0] for metric in metrics_of(table, one)]
        _note(asked, metrics, cases, subjects[0], say)
    return table


def _note(asked: Asked, metrics: Sequence[Metric], cases: Sequence[Case], of: Subject, say: Say) -> None:
    """For the card of the run: what was measured in full, on the recipe's own test patients."""
    assert asked.run is not None
    if asked.is_whole:
        note_metrics(asked.run, metrics, datasets({"test": [case.noisy for case in cases]}), of)
    else:
        say(_NOT_NOTED)


def terms_told(trained: Sequence[tuple[ReadRecipe, Path]]) -> list[str]:
    """Of each run what was changed of its recipe, and where that compares features of VGG, whether it was done."""
    return [f"{_named(read, run)}: {told}." for read, run in trained if (told := otherwise_told(read))]


def card_told(read: tuple[EngineCard, Provenance]) -> str:
    """What a bundle's card says of how much of its schedule was done, and of terms of its loss that are optional; empty
    where it says neither."""
    card, provenance = read
    printable = "".join(one if one.isprintable() else " " for one in provenance.training.recipe)
    said = (sentence.strip().rstrip(".") for sentence in printable.split(". "))
    told = ". ".join(sentence for sentence in said if sentence.startswith(OTHERWISE))
    return f"{card.reference}: {told[:_LONGEST]}." if told else ""


def _named_run(named: str) -> tuple[str, Path]:
    name, _, run = named.partition("=")
    if not run:
        raise RecipeError(f"{named[:60]!r} names no run", "write RECIPE=RUN, such as redcnn=runs/redcnn")
    return name, Path(run)


def _named(read: ReadRecipe, run: Path) -> str:
    """A run as the table calls it, with how much of its recipe it did."""
    told = [run.name] if run.name != read.recipe.name else []
    told += [] if read.plan.is_whole else [part_told(read, rounds_of(read, run))]
    return f"{read.recipe.name} ({', '.join(told)})" if told else read.recipe.name


def _origins(cards: Sequence[tuple[EngineCard, Provenance]], own: Sequence[str]) -> tuple[list[Recipe], list[str]]:
    """The recipes that bundles are made by, to the letter, of `own` and the package's; and a note for each bundle of
    which none is known."""
    known = [read_recipe(name) for name in (*own, *shipped())]
    found: list[Recipe] = []
    unknown: list[str] = []
    for card, provenance in cards:
        by = [read.recipe for read in known if is_of(provenance.training, read)]
        found += by
        unknown += [] if by else [_UNKNOWN.format(card.reference)]
    return found, unknown


def _distinct(denoisers: list[Denoiser]) -> list[Denoiser]:
    names = [denoiser.name for denoiser in denoisers]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"two denoisers are called {name}", "runs are told apart by their folders' names")
    return denoisers


def _pictured(extent: Extent) -> float:
    return min(extent.doses, key=lambda dose: abs(dose - _PICTURED_DOSE))


def _write(out: Path, table: Table, told: str, shown: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / TEXT).write_text(told)
    (out / CSV).write_text(as_csv(table))
    (out / JSON).write_text(as_json(table))
    (out / PAGE).write_text(page(table, shown))
