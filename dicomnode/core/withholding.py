"""Why a derived object is kept back from a destination though its result passed the gates: pure, and in words."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal

COMMISSIONING: Final = "commissioning"
"""The node, or every rule that sends it there, is only being tried out."""

NOT_CHECKED: Final = "patient and study not compared with the destination's yet"
"""It leaves by itself once they were."""

RELEASED: Final = "released after review"
"""Of what leaves because a person said so: nothing keeps it back a second time."""

DISCARDED: Final = "discarded after review"
"""Of what never leaves because a person said so."""

NEVER: Final = 1e11
"""When what only a person can let go is to be looked at next: thousands of years on, out of the way of what is due."""

CheckPatient = Literal["no", "if-possible", "yes"]
"""Whether a destination is asked about patient and study before derived objects leave for it; "if-possible": what it
cannot be asked leaves unchecked."""


def withheld_because(rules: Collection[str], commissioning: Collection[str], check: CheckPatient) -> str | None:
    """Why derived objects wait, once they are made, that `rules` send to a destination; None where they leave at once.

    commissioning  of these rules, those that are being tried out; all of them where the whole node is
    check          whether the destination is to be asked first
    """
    if rules and set(rules) <= set(commissioning):
        return COMMISSIONING
    return NOT_CHECKED if check != "no" else None
