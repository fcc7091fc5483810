"""Statuses of C-FIND, C-MOVE and C-GET (PS3.4 C.4.1.1.4, C.4.2.1.5, C.4.3.1.4): what they mean, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PENDING: Final = frozenset({0xFF00, 0xFF01})
"""0xFF01: some optional keys were not matched; what is found is found all the same."""
SUCCESSES: Final = frozenset({0x0000, 0x0001, 0x0107, 0x0116})
CANCELLED: Final = 0xFE00
SOME_FAILED: Final = 0xB000
"""Sub-operations complete, one or more failures or warnings."""
DESTINATION_UNKNOWN: Final = 0xA801


@dataclass(frozen=True, slots=True)
class Explanation:
    """One status in words; `transient` says whether the same request may succeed later."""

    meaning: str
    hint: str
    transient: bool = False


_ASK_LOG: Final = "look at the peer's log"
_MEANINGS: Final = {
    0x0105: Explanation("no such attribute", _ASK_LOG),
    0x0110: Explanation("processing failure", _ASK_LOG, transient=True),
    0x0112: Explanation("no such SOP instance", "it is not there (any more): ask with `dicomnode find`"),
    0x0117: Explanation("invalid SOP instance", _ASK_LOG),
    0x0122: Explanation("SOP class not supported", "the peer does not do this: try another way, or its other port"),
    0x0124: Explanation("not authorised", "allow our AE title to query and retrieve there"),
    0x0210: Explanation("duplicate invocation", _ASK_LOG, transient=True),
    0x0211: Explanation("unrecognized operation", "the peer does not do this: wrong port or AE title?"),
    0x0213: Explanation("resource limitation", "the peer is busy", transient=True),
    0xA701: Explanation("out of resources: the number of matches cannot be calculated", _ASK_LOG, transient=True),
    0xA702: Explanation("out of resources: sub-operations cannot be performed", _ASK_LOG, transient=True),
    DESTINATION_UNKNOWN: Explanation(
        "move destination unknown",
        "the peer does not know our AE title: add it there with our host and port, or fetch by C-GET "
        '([peer.NAME] retrieve = "get")',
    ),
    SOME_FAILED: Explanation("some sub-operations failed", "what is missing is asked for again", transient=True),
    CANCELLED: Explanation("cancelled", _ASK_LOG, transient=True),
}
_RANGES: Final = (
    (range(0xA700, 0xA800), Explanation("out of resources", "the peer is busy or full", transient=True)),
    (
        range(0xA900, 0xAA00),
        Explanation(
            "the identifier does not match the SOP class",
            "a key is missing or not supported: some peers need the Patient ID or the Study Instance UID too",
        ),
    ),
    (range(0xB000, 0xC000), Explanation("ended with a warning", _ASK_LOG)),
    (
        range(0xC000, 0xD000),
        Explanation(
            "unable to process",
            "the query may be too wide for it, or it holds nothing of it; where it was to send to us, it may not know "
            f"our AE title: {_ASK_LOG}",
        ),
    ),
)
_WORDS: Final = (
    (("too many", "limit", "exceed", "maximum"), "it says that there are too many matches: narrow the query"),
    (("destination", "unknown ae", "aetitle", "ae title"), "it speaks of a destination: does it know our AE title?"),
    (("permi", "denied", "authori", "not allowed", "licen"), "it says that we may not: allow our AE title there"),
    (("offline", "archive", "nearline", "tape", "stag"), "it says that the study is not online: try again later"),
    (("memory", "disk", "space"), "it says that it has no room"),
)
"""What Error Comments (0000,0902) are about, by words in them; the comment itself may name a patient."""


def explain(status: int, comment: str = "") -> Explanation:
    """What a final status that is no success means. One that no standard knows is a failure."""
    known = _MEANINGS.get(status) or next((meaning for codes, meaning in _RANGES if status in codes), None)
    meaning = known or Explanation("unknown status", _ASK_LOG)
    lowered = comment.lower()
    said = next((hint for words, hint in _WORDS if any(word in lowered for word in words)), "")
    return Explanation(meaning.meaning, "; ".join(filter(None, (said, meaning.hint))), meaning.transient)
