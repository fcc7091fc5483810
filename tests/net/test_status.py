"""What a status means, as a table (PS3.4 B.2.3, PS3.7 annex C)."""

from __future__ import annotations

import pytest

from dicomnode.core.types import Outcome
from dicomnode.net.status import interpret


@pytest.mark.parametrize(
    ("status", "outcome", "transient"),
    [
        (0x0000, Outcome.SENT, False),
        (0x0107, Outcome.WARNING, False),
        (0x0110, Outcome.FAILED, True),
        (0x0111, Outcome.DUPLICATE, False),
        (0x0117, Outcome.FAILED, False),
        (0x0122, Outcome.REFUSED, False),
        (0x0124, Outcome.REFUSED, False),
        (0x0211, Outcome.REFUSED, False),
        (0x0213, Outcome.FAILED, True),
        (0xA700, Outcome.REFUSED, True),
        (0xA7FF, Outcome.REFUSED, True),
        (0xA900, Outcome.REFUSED, False),
        (0xB000, Outcome.WARNING, False),
        (0xB123, Outcome.WARNING, False),
        (0xC000, Outcome.FAILED, False),
        (0xCABC, Outcome.FAILED, False),
        (0xFE00, Outcome.FAILED, True),
        (0x4242, Outcome.FAILED, False),
    ],
)
def test_outcome(status: int, outcome: Outcome, transient: bool) -> None:
    meaning = interpret(status)
    assert (meaning.outcome, meaning.transient) == (outcome, transient)


def test_every_status_has_words_and_every_failure_a_hint() -> None:
    for status in range(0x10000):
        meaning = interpret(status)
        assert meaning.meaning
        assert meaning.hint or meaning.outcome.arrived


@pytest.mark.parametrize(
    ("comment", "subject"),
    [
        ("Study of DOE^JANE is locked", "locked"),
        ("STUDY VERIFIED BY DR WHO", "locked"),
        ("Duplicate SOP Instance 1.2.3", "already"),
        ("not enough disk space for patient 4711", "no room"),
        ("permission denied", "may not"),
    ],
)
@pytest.mark.parametrize("status", [0x0110, 0x0124, 0xA700, 0xC000, 0xC123])
def test_a_comment_becomes_a_hint_and_is_never_quoted(comment: str, subject: str, status: int) -> None:
    told = interpret(status, comment)
    assert subject in told.hint
    assert told.outcome is interpret(status).outcome
    for word in ("DOE", "WHO", "4711", "1.2.3"):
        assert word not in told.meaning + told.hint


def test_offending_elements_are_named_by_tag() -> None:
    assert interpret(0xA900, "", (0x00100020, 0x00080060)).meaning.endswith("because of (0010,0020), (0008,0060)")


@pytest.mark.parametrize("status", [0x0000, 0x0111, 0xB000, 0xB007])
def test_what_arrived_needs_no_hint_from_a_comment(status: int) -> None:
    assert interpret(status, "study locked", (0x00100020,)) == interpret(status)
