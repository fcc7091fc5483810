"""What a person may decide of how a job or a plan ended, and what follows for an engine's result.

A result is withheld where a gate after an engine finds its figures out of bounds. It is kept, and a person who has
looked at it may release it. Results that are no images of the source any more (another grid, values that are no
numbers) are not kept, and nobody can release them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

RELEASED: Final = "released"
"""It leaves though a gate withheld it."""

DISMISSED: Final = "dismissed"
"""It needs nobody's attention any more; nothing else follows."""


def is_worth_keeping(report: Mapping[str, Any]) -> bool:
    """Whether the result of a chain is to be kept at rest: it is whole, or withheld for what a person may overrule."""
    return report["state"] == "done" or is_reviewable(report)


def is_reviewable(report: Mapping[str, Any]) -> bool:
    """Whether a chain was stopped by a gate that a person may overrule: its output was written all the same."""
    return bool(report["state"] == "withheld" and report["stages"] and report["stages"][-1]["folder"] is not None)


def may_leave(report: Mapping[str, Any], engines: Sequence[str], *, is_released: bool) -> bool:
    """Whether derived objects may be made of a result: all gates passed, or a person released it and no engine of the
    chain is still to run."""
    if report["state"] == "done":
        return True
    return is_released and is_reviewable(report) and len(report["stages"]) == len(engines)


def flags(content: Mapping[str, Any]) -> bool:
    """Whether a planned job's results leave though a gate finds their figures out of bounds, and say so."""
    return bool(content.get("on_gate") == "flag")


def is_flagged(report: Mapping[str, Any], content: Mapping[str, Any], *, is_released: bool) -> bool:
    """Whether what a job derives has to say that a gate did not pass, and that nobody has looked at it."""
    return flags(content) and not is_released and bool(report["reasons"])


FLAG: Final = " [gate failed]"
"""What the Series Description of such objects ends in."""


def flag_note(report: Mapping[str, Any]) -> str:
    """What a flagged object says of itself: ASCII, the gate's own sentences, no patient data."""
    return f"A safety gate did not pass, and nobody has reviewed it: {'; '.join(report['reasons'])}."


def release_note(report: Mapping[str, Any]) -> str:
    """What a released object says of itself: ASCII, the gate's own sentences, no patient data."""
    return f"Released after review although a safety gate did not pass: {'; '.join(report['reasons'])}."
