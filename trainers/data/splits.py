"""Who is trained on, who is chosen by, and who is tested on: by patient, never by slice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, TypeVar

from trainers.data.series import PairedSeries, Series
from trainers.errors import SourceError

Name = Literal["train", "validation", "test"]
S = TypeVar("S", bound=Series | PairedSeries)


@dataclass(frozen=True)
class Splits:
    """Patients of each split, by name or pattern (`TCGA-*`); a table of a recipe. Who is in none is left out.

    validation  what decisions are made by: when to stop, which network, which settings
    test        what is reported; no decision rests on it
    """

    train: tuple[str, ...]
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    def of(self, patient: str) -> tuple[Name, ...]:
        """The splits that a patient is named in."""
        named: Mapping[Name, tuple[str, ...]] = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
        }
        return tuple(name for name, patterns in named.items() if is_named(patient, patterns))


def is_named(patient: str, patterns: Iterable[str]) -> bool:
    """Whether a patient is among those of names or patterns: `*` is any characters, `?` one, all else itself."""
    return any(fnmatchcase(patient, pattern.replace("[", "[[]")) for pattern in patterns)


def split(series: Iterable[S], splits: Splits) -> Mapping[Name, tuple[S, ...]]:
    """The series of each split. Raises SourceError where a patient is in two, or a split has none of its patients."""
    found: Mapping[Name, list[S]] = {"train": [], "validation": [], "test": []}
    for one in series:
        full = one.full if isinstance(one, PairedSeries) else one
        names = splits.of(full.patient)
        if len(names) > 1:
            raise SourceError(
                f"the patient of {full.name} is in two splits: {' and '.join(names)}", "name each patient in one only"
            )
        for name in names:
            found[name].append(one)
    for name, patterns in (("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
        if patterns and not found[name]:
            raise SourceError(f"no series belongs to the split {name!r}", "look at the names of its patients")
    return {name: tuple(own) for name, own in found.items()}


def require_apart(splits: Mapping[Name, Iterable[Series]]) -> None:
    """Raises SourceError where series of one patient are in two splits, however they came to be there."""
    seen: dict[str, Name] = {}
    for name, own in splits.items():
        for series in own:
            if seen.setdefault(series.patient, name) != name:
                raise SourceError(f"the patient of {series.name} is in two splits", "split by patient, never by slice")
