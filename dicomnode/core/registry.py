"""The standard's registry of UIDs (PS3.6 annex A) by keyword, as people write it in a configuration."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

from pydicom._uid_dict import UID_dictionary

from dicomnode.core.identity import is_valid_uid

_STORAGE: Final = {
    entry[4]: uid for uid, entry in UID_dictionary.items() if entry[1] == "SOP Class" and entry[4].endswith("Storage")
}
_SYNTAXES: Final = {
    entry[4]: uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax" and entry[4]
}


def storage_classes(text: str) -> tuple[str, ...]:
    """The SOP Class UIDs that a UID, a keyword ("CTImageStorage") or a pattern of one ("*ImageStorage") names.

    Raises ValueError where that is none.
    """
    return _named(text, _STORAGE, "a storage SOP class: write a UID, or a keyword as CTImageStorage or *SRStorage")


def transfer_syntaxes(text: str) -> tuple[str, ...]:
    """As `storage_classes`: "1.2.840.10008.1.2.5", "JPEGLSLossless", "JPEG*"."""
    return _named(text, _SYNTAXES, "a transfer syntax: write a UID, or a keyword as ExplicitVRLittleEndian or JPEG*")


def _named(text: str, known: dict[str, str], wanted: str) -> tuple[str, ...]:
    if is_valid_uid(text):
        return (text,)
    found = tuple(uid for keyword, uid in known.items() if fnmatchcase(keyword, text))
    if not found:
        raise ValueError(f"{text!r} names no {wanted.removeprefix('a ')}")
    return found
