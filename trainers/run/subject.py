"""What figures are of: weights, and what a shipped image is made of them. A card, or a table beside it, that tells the
figures of another setting would be false."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from trainers.errors import CheckpointError
from trainers.recipes.recipe import Recipe
from trainers.run.checkpoints import NET

_BY: Final = "made by: "
_OF: Final = "judged: {} of SHA-256 {}"
_SEAL: Final = "SHA-256 of the lines above: {}"
AGAIN: Final = "evaluate again: trainers evaluate --run"


@dataclass(frozen=True)
class Subject:
    """What was judged, or ships, of a run.

    shipping  SHA-256 of the parts of the shipping table that images depend on; words, limits and precisions are none
    nets      SHA-256 of the file of each shipped stage's net
    """

    shipping: str
    nets: Mapping[str, str]

    @property
    def digest(self) -> str:
        return _digest(asdict(self))

    def require(self, judged: Subject) -> None:
        """Raises CheckpointError where figures are of something else than this."""
        if judged.nets != self.nets:
            raise CheckpointError("the figures of this run are of other weights than it holds", AGAIN)
        if judged.shipping != self.shipping:
            raise CheckpointError("the figures of this run are of another strength, or of other shipped stages", AGAIN)


def subject_of(recipe: Recipe, run: Path) -> Subject:
    """What ships of a run now. Raises CheckpointError where a shipped stage is not finished."""
    shipping = recipe.shipping
    parts = {"stages": [asdict(one) for one in shipping.stages], "strength": shipping.strength,
             "regions": shipping.regions}  # fmt: skip
    return Subject(_digest(parts), {one.stage: _digest_of(run / one.stage / NET) for one in shipping.stages})


def sealed(table: str, command: str, judged: Iterable[tuple[str, Subject]]) -> str:
    """A table's text, with the command that made it, a line for each run that it judged, by name, and one that it is
    known by to be whole."""
    of = (_OF.format(name, subject.digest) for name, subject in judged)
    lines = "\n".join((table.rstrip("\n"), "", f"{_BY}{command}", *of))
    return f"{lines}\n{_SEAL.format(_sum(lines))}\n"


def require_table(text: str, subject: Subject) -> None:
    """Raises CheckpointError where a text is no whole table of an evaluation, or judges nothing that is the subject."""
    lines, _, seal = text.rstrip("\n").rpartition("\n")
    if seal != _SEAL.format(_sum(lines)):
        raise CheckpointError("this is no table of an evaluation as it was written", "give the table.txt of evaluate")
    if not any(line.startswith("judged: ") and line.endswith(subject.digest) for line in lines.splitlines()):
        raise CheckpointError("this table judges other weights, another strength or other shipped stages", AGAIN)


def command_of(table: str) -> str:
    """The command that made a table, of `require_table`."""
    return next(line.removeprefix(_BY) for line in reversed(table.splitlines()) if line.startswith(_BY))


def _digest(value: object) -> str:
    return _sum(json.dumps(value, sort_keys=True))


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _digest_of(net: Path) -> str:
    try:
        with net.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{net} cannot be read: {error.strerror}", "train the stage first") from None
