"""contexts: what a peer accepts, found out by proposing everything that may matter. Nothing is sent to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from pydicom.uid import UID

from dicomnode.config import Config
from dicomnode.net.contexts import STORAGE_CLASSES, VERIFICATION, Kind, grouped
from dicomnode.net.negotiation import AssociationAnswer
from dicomnode.net.scu import Opening, Timeouts, associate
from dicomnode.operations.peers import address_of

_OPENING: Final = Opening(Timeouts(connect_s=10.0, associate_s=30.0, response_s=30.0))

SYNTAXES: Final[Mapping[str, str]] = {
    "1.2.840.10008.1.2.1": "expl",
    "1.2.840.10008.1.2": "impl",
    "1.2.840.10008.1.2.1.99": "defl",
    "1.2.840.10008.1.2.5": "rle",
    "1.2.840.10008.1.2.4.50": "jpeg",
    "1.2.840.10008.1.2.4.51": "jp12",
    "1.2.840.10008.1.2.4.70": "jpll",
    "1.2.840.10008.1.2.4.80": "jls",
    "1.2.840.10008.1.2.4.81": "jlsn",
    "1.2.840.10008.1.2.4.90": "j2kl",
    "1.2.840.10008.1.2.4.91": "j2k",
    "1.2.840.10008.1.2.4.201": "htl",
    "1.2.840.10008.1.2.4.203": "ht",
    "1.2.840.10008.1.2.4.102": "mp4",
}
"""The transfer syntaxes that are asked for, each with the head of its column."""


@dataclass(frozen=True, slots=True)
class AcceptedClass:
    """A SOP class that the peer accepts, and the transfer syntaxes in which it does."""

    sop_class_uid: str
    name: str
    transfer_syntaxes: tuple[str, ...]

    def line(self) -> str:
        marks = ("x" if syntax in self.transfer_syntaxes else "." for syntax in SYNTAXES)
        return f"  {self.name[:58]:58} " + " ".join(f"{mark:>4}" for mark in marks)


@dataclass(frozen=True, slots=True)
class Contexts:
    """What a peer accepts, and what it announces of itself.

    maximum_pdu_bytes  largest P-DATA-TF that it takes, 0 for any
    operations         outstanding at once (invoked, performed), where it answers that; else one
    """

    peer: str
    address: str
    proposed: int
    classes: tuple[AcceptedClass, ...]
    maximum_pdu_bytes: int
    implementation_class_uid: str
    implementation: str
    operations: tuple[int, int] | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        limit = f"{self.maximum_pdu_bytes} bytes" if self.maximum_pdu_bytes else "of any size"
        window = "one operation at a time" if self.operations is None else f"operations window {self.operations}"
        columns = " ".join(f"{head:>4}" for head in SYNTAXES.values())
        legend = (f"  {head:>4} {UID(syntax).name}" for syntax, head in SYNTAXES.items())
        return (
            f"{self.peer} ({self.address}) accepts {len(self.classes)} of {self.proposed} storage classes",
            f"it is {self.implementation or 'nameless'} ({self.implementation_class_uid or 'no implementation UID'}), "
            f"takes PDUs {limit}, {window}",
            *((f"  {'':58} {columns}",) if self.classes else ()),
            *(one.line() for one in self.classes),
            *(("columns:", *legend) if self.classes else ()),
        )


def contexts(config: Config, name: str) -> Contexts:
    """Propose every storage class to a configured peer, 128 contexts at a time.

    Raises NotFoundError, ConfigError, PeerError.
    """
    address = address_of(config, name)
    kinds = [Kind(sop_class, syntax) for sop_class in sorted(STORAGE_CLASSES) for syntax in SYNTAXES]
    accepted: set[Kind] = set()
    answer = AssociationAnswer({}, 0)
    for group in grouped([Kind(VERIFICATION, "1.2.840.10008.1.2"), *kinds]):
        with associate(address, config.node.ae_title, group, _OPENING) as association:
            accepted |= association.accepted
            answer = association.answered
    found = {sop_class: tuple(s for s in SYNTAXES if Kind(sop_class, s) in accepted) for sop_class in STORAGE_CLASSES}
    return Contexts(
        peer=name,
        address=str(address),
        proposed=len(STORAGE_CLASSES),
        classes=tuple(
            sorted(
                (AcceptedClass(uid, _name(uid), syntaxes) for uid, syntaxes in found.items() if syntaxes),
                key=lambda one: one.name,
            )
        ),
        maximum_pdu_bytes=answer.maximum_bytes,
        implementation_class_uid=answer.implementation_class_uid,
        implementation=answer.implementation,
        operations=answer.operations,
    )


def _name(uid: str) -> str:
    """The standard's name of a SOP class. Some retired ones share it with their successors."""
    return f"{UID(uid).name}{' (retired)' if UID(uid).is_retired else ''}"
