"""A-ASSOCIATE-RJ (PS3.8 9.3.4) in words, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dicomnode.errors import AssociationRejectedError

_REJECTIONS: Final[Mapping[tuple[int, int], tuple[str, str]]] = {
    (1, 1): ("no reason given", "look at its log; most often it does not know our AE title or address"),
    (1, 2): ("application context not supported", "it is no DICOM application"),
    (1, 3): ("calling AE title not recognized", "add our AE title, address and port to its list of known applications"),
    (1, 7): (
        "called AE title not recognized",
        "the peer does not know this name as its own: check the peer's ae_title in the configuration",
    ),
    (2, 1): ("no reason given by its protocol layer", "look at its log"),
    (2, 2): ("protocol version not supported", "it is no DICOM application of this century"),
    (3, 1): ("temporary congestion", "it is busy; it will be tried again"),
    (3, 2): ("local limit exceeded", "it has too many associations open; it will be tried again"),
}
"""(source, reason) of an A-ASSOCIATE-RJ (PS3.8 table 9-21) in words, and what to do."""
_TRANSIENT: Final = 2


def rejection(body: bytes, who: str) -> AssociationRejectedError:
    """The error for what follows the header of an A-ASSOCIATE-RJ. `who`: the peer that sent it."""
    _, result, source, reason = body
    words, hint = _REJECTIONS.get((source, reason), (f"source {source}, reason {reason}", "look at its log"))
    error = AssociationRejectedError(f"{who} rejected the association: {words}", hint)
    error.transient = result == _TRANSIENT
    return error
