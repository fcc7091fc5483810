"""The safety gates before and after an engine: pure judgements with the figures they rest on.

Before: is the input what the engine's card says it was made for? An attribute that the object does not have refuses
only where the card restricts it: what cannot be known cannot be within the envelope. After: is the output on the
declared grid, whole, and within the card's limits? A presentation output has no HU to check.

Sentences are for people and for `why`; they quote the card and measured numbers, never text from a data set.
"""

from dicomnode.core.guards.after import after, is_measurable
from dicomnode.core.guards.before import HEADER_KEYWORDS, before
from dicomnode.core.guards.findings import GateFinding, GateReport
from dicomnode.core.guards.several import before_each, misplaced

__all__ = [
    "HEADER_KEYWORDS", "GateFinding", "GateReport", "after", "before", "before_each", "is_measurable", "misplaced",
]  # fmt: skip
