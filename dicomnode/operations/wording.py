"""Numbers and findings in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def counted(number: int, thing: str) -> str:
    """`1 instance`, `2 instances`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def gate_sentences(stage: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """("before" or "after", what a gate of that side of the engine found) for each finding of a stage."""
    for side in ("before", "after"):
        for finding in (stage.get(side) or {}).get("findings", ()):
            yield side, f"{'ok   ' if finding['passed'] else 'FAILS'} {finding['sentence']}"
