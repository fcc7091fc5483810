"""Which scanner made a series, and by which protocol: keys for trends that hold no patient data and no free text.

What a data set says of its device and protocol is text that a person typed, so only a hash of it is kept: enough to
tell two scanners or protocols apart, not enough to read it back.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dicomnode.core.headers import number, value
from dicomnode.core.types import Header

_DEVICE: Final = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "StationName")
_PROTOCOL: Final = ("ConvolutionKernel", "BodyPartExamined", "ProtocolName")
_MODALITIES: Final = frozenset({"CT", "MR", "CR", "DX", "PT", "XA", "MG"})

SCANNER_KEYWORDS: Final = frozenset({"Modality", "KVP", "SliceThickness", *_DEVICE, *_PROTOCOL})
"""What `scanner_of` and `protocol_of` read of a header."""

_PLAIN_WORD: Final = re.compile(r"[A-Za-z0-9_.-]{1,40}")


@dataclass(frozen=True, slots=True, order=True)
class Lineage:
    """What may be compared: one scanner, one protocol, one engine in one preset.

    peer      configured name of the sender, or ""
    device    hash of what the device says of itself: one peer may send for several
    protocol  modality, tube voltage, slice thickness, and a hash of kernel, body part and protocol name
    engine    name@version, or "" for a phantom as it was scanned
    preset    the engine's settings, as `preset_of` writes them: what is weaker leaves more noise, and does not drift
    """

    peer: str
    device: str
    protocol: str
    engine: str
    preset: str = ""

    @property
    def key(self) -> str:
        """All of it in one line, without spaces: how a person names it."""
        engine = f"{self.engine}+{self.preset}" if self.preset else self.engine or "constancy"
        return "/".join((self.peer or "-", self.device, self.protocol, engine))


def preset_of(settings: Mapping[str, Any]) -> str:
    """Resolved settings in one word, such as `strength=0.5`; text that is no plain word is given as a hash."""
    return "+".join(f"{name}={_plain(settings[name])}" for name in sorted(settings))


def device_of(header: Header) -> str:
    """Eight hexadecimal digits that stand for one device; "unknown" where the header says nothing of it."""
    told = _texts(header, _DEVICE)
    return _digest(told, 8) if any(told) else "unknown"


def protocol_of(header: Header) -> str:
    """Such as `CT-120kV-1.5mm-3fa92c`; what is not stated is left out."""
    modality = value(header, "Modality").strip()
    voltage, thickness = number(header, "KVP"), number(header, "SliceThickness")
    told = _texts(header, _PROTOCOL)
    parts = (
        modality if modality in _MODALITIES else "other",
        f"{voltage:.0f}kV" if voltage is not None and 0 < voltage < 1000 else "",
        f"{thickness:.2g}mm" if thickness is not None and 0 < thickness < 100 else "",
        _digest(told, 6) if any(told) else "",
    )
    return "-".join(part for part in parts if part)


def _plain(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if _PLAIN_WORD.fullmatch(text) else _digest([text], 8)


def _texts(header: Header, keywords: tuple[str, ...]) -> list[str]:
    return [" ".join("\\".join(header.get(keyword, ())).split()).upper() for keyword in keywords]


def _digest(told: list[str], digits: int) -> str:
    return hashlib.sha256("\0".join(told).encode()).hexdigest()[:digits]
