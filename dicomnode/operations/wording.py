"""Numbers and findings in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


def counted(number: int, thing: str) -> str:
    """`1 instance`, `2 instances`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


class GateSentence(NamedTuple):
    """What a gate found on one side of an engine, "before" or "after" it."""

    side: str
    passed: bool
    sentence: str

    @property
    def line(self) -> str:
        return f"{'ok   ' if self.passed else 'FAILS'} {self.sentence}"


def gate_sentences(stage: Mapping[str, Any]) -> Iterator[GateSentence]:
    """Each finding of the gates around a stage."""
    for side in ("before", "after"):
        for finding in (stage.get(side) or {}).get("findings", ()):
            yield GateSentence(side, finding["passed"], finding["sentence"])
