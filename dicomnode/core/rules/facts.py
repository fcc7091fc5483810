"""What clauses are judged on: a header, who sent it, and at which hour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dicomnode.core.identity import INSTANCE_CREATOR_UID
from dicomnode.core.types import Header, Sender

SENDER_KEYS: Final = ("peer", "calling_ae", "called_ae", "source_address", "received_hour")
"""What a rule may match beside DICOM keywords. Lower case, so no keyword can be one."""

GUARD_KEYWORDS: Final = frozenset({"InstanceCreatorUID", "ManufacturerModelName", "ImageType"})
"""What `is_derived_by_us` reads: every header must have been read with these."""

OUR_MODEL_NAME: Final = "dicomnode"
"""Manufacturer's Model Name (0008,1090) of every object derived here."""


@dataclass(frozen=True, slots=True)
class Facts:
    """One object as rules see it. `received_hour` is 0...23 in local time: the caller knows the time zone."""

    header: Header
    sender: Sender
    received_hour: int

    def values(self, key: str) -> tuple[str, ...]:
        """The values of a DICOM keyword or sender key; empty where there is none."""
        if key == "received_hour":
            return (str(self.received_hour),)
        if key in SENDER_KEYS:
            return (str(getattr(self.sender, key)),)
        return self.header.get(key, ())


def is_derived_by_us(header: Header) -> bool:
    """Whether this software made the object: by its Instance Creator UID, or, where a PACS dropped that, by model name
    and Image Type value 1 (PS3.3 C.7.6.1.1.2)."""
    if INSTANCE_CREATOR_UID in header.get("InstanceCreatorUID", ()):
        return True
    return OUR_MODEL_NAME in header.get("ManufacturerModelName", ()) and header.get("ImageType", ("",))[0] == "DERIVED"
