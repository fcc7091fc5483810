"""What a person may decide of a result that a gate withheld."""

from __future__ import annotations

from typing import Any

import pytest

from dicomnode.core.review import is_worth_keeping, may_leave, release_note


def report(state: str, *folders: str | None) -> dict[str, Any]:
    return {"state": state, "stages": [{"folder": folder} for folder in folders], "reasons": ["fat changes"]}


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        (report("done", "0-a"), True),
        (report("withheld", "0-a"), True),
        (report("withheld", "0-a", "1-b"), True),
        (report("withheld", None), False),
        (report("withheld"), False),
        (report("refused", None), False),
        (report("refused", "0-a", None), False),
    ],
)
def test_what_is_kept_at_rest(told: dict[str, Any], kept: bool) -> None:
    assert is_worth_keeping(told) is kept


@pytest.mark.parametrize(
    ("told", "released", "leaves"),
    [
        (report("done", "0-a", "1-b"), False, True),
        (report("done", "0-a", "1-b"), True, True),
        (report("withheld", "0-a", "1-b"), False, False),
        (report("withheld", "0-a", "1-b"), True, True),
        (report("withheld", "0-a"), True, False),
        (report("withheld", "0-a", None), True, False),
        (report("refused", "0-a", None), True, False),
    ],
)
def test_what_may_leave(told: dict[str, Any], released: bool, leaves: bool) -> None:
    assert may_leave(told, ["a", "b"], is_released=released) is leaves


def test_a_released_object_says_so_in_ascii() -> None:
    note = release_note(report("withheld", "0-a"))
    assert note == "Released after review although a safety gate did not pass: fat changes."
    assert note.isascii()
