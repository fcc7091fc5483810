"""In which form an instance goes to a destination, and why not: pure decisions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from dicomnode.core.types import Outcome, Outgoing, Receipt
from dicomnode.net.contexts import REENCODABLE, Kind, syntaxes_for
from dicomnode.net.scu import Response
from dicomnode.net.status import interpret


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a destination may be sent at all; None: anything."""

    sop_classes: frozenset[str] | None = None
    transfer_syntaxes: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Forms:
    """The forms in which instances can go to one destination.

    decompresses  whether compressed objects can be decompressed for it
    """

    allowed: Allowed = Allowed()
    decompresses: bool = False

    def of(self, outgoing: Outgoing) -> tuple[Kind, ...]:
        """What can be proposed for an instance, as stored first; nothing where the destination is not allowed it."""
        return _forms(self, Kind(outgoing.sop_class_uid, outgoing.transfer_syntax_uid))

    def not_allowed(self, outgoing: Outgoing) -> Receipt | None:
        """The receipt of an instance that our configuration keeps from this destination."""
        if self.of(outgoing):
            return None
        classes = self.allowed.sop_classes
        if classes is not None and outgoing.sop_class_uid not in classes:
            meaning = "the configuration does not let this SOP class go to the destination"
            hint = f"sop_classes of the destination does not name {outgoing.sop_class_uid}"
        else:
            meaning = "the configuration does not let this transfer syntax go to the destination"
            limit = "" if self.decompresses else " while its decompress is false"
            hint = f"its transfer_syntaxes names nothing that {outgoing.transfer_syntax_uid} can become{limit}"
        return Receipt(outgoing.outbox_id, Outcome.EXCLUDED, None, meaning, hint, transient=False)

    def not_accepted(self, outgoing: Outgoing, class_refused: bool) -> Receipt:
        """The receipt of an instance for which the destination accepted no presentation context."""
        syntax = outgoing.transfer_syntax_uid
        if class_refused or syntax in REENCODABLE:
            meaning = "the destination does not accept this SOP class"
            hint = f"do not send SOP class {outgoing.sop_class_uid} there, or have it enabled at the destination"
            return Receipt(outgoing.outbox_id, Outcome.REFUSED, None, meaning, hint, transient=False)
        meaning = "the destination does not accept the transfer syntax it is stored in"
        hint = f"have transfer syntax {syntax} enabled at the destination"
        if len(self.of(outgoing)) > 1:
            meaning += ", nor an uncompressed one"
        return Receipt(outgoing.outbox_id, Outcome.FAILED, None, meaning, hint, transient=False)


@lru_cache(maxsize=4096)
def _forms(forms: Forms, stored: Kind) -> tuple[Kind, ...]:
    classes, syntaxes = forms.allowed.sop_classes, forms.allowed.transfer_syntaxes
    if classes is not None and stored.sop_class_uid not in classes:
        return ()
    return tuple(
        Kind(stored.sop_class_uid, syntax)
        for syntax in syntaxes_for(stored.transfer_syntax_uid, decompresses=forms.decompresses)
        if syntaxes is None or syntax in syntaxes
    )


def chosen(forms: Collection[Kind], accepted: Collection[Kind]) -> Kind | None:
    """The first form that the destination accepts."""
    return next((kind for kind in forms if kind in accepted), None)


def answered(outgoing: Outgoing, response: Response) -> Receipt:
    """The receipt that follows from what the destination said."""
    meaning = interpret(response.status, response.error_comment, response.offending_elements)
    return Receipt(
        outgoing.outbox_id, meaning.outcome, response.status, meaning.meaning, meaning.hint, meaning.transient
    )
