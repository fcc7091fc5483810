"""Sends to a destination only what it does not hold already, where that may be: derived objects have computed UIDs.

A node that has lost its store computes the same objects under the same UIDs again. The destination is asked by C-FIND
before the objects of a derived series are sent; what it holds is not sent. Where it cannot be asked all is sent: a
second object of the same UID is the same object.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from dicomnode.core.ports import Deliverer
from dicomnode.core.types import Outcome, Outgoing, Receipt
from dicomnode.errors import PeerError
from dicomnode.net.holdings import instances_held
from dicomnode.net.query import FIND_CONTEXTS
from dicomnode.net.scu import Interruption, Opening, PeerAddress, Timeouts, associate

_ANSWERS_S: Final = Timeouts(connect_s=5.0, associate_s=5.0, response_s=10.0)
"""Originals wait behind the question: a destination that takes longer is not asked."""

_NOT_ASKED_FOR_S: Final = 600.0
"""How long a destination is not asked again that could not be."""

_REMEMBERED_S: Final = 60.0
"""How long an answer holds: a series goes in several batches."""

Series = tuple[str, str]
"""Study and Series Instance UID."""


class AskingDeliverer:
    """A `Deliverer` (`dicomnode.core.ports`) in front of another, for the same destination."""

    def __init__(self, deliverer: Deliverer, address: PeerAddress, opening: Opening) -> None:
        self._deliverer = deliverer
        self._address = address
        self._interruption = Interruption()
        self._opening = replace(opening, timeouts=_ANSWERS_S, interruption=self._interruption)
        self._held: dict[Series, tuple[float, frozenset[str]]] = {}
        self._ask_from = 0.0

    def deliver(self, batch: Sequence[Outgoing]) -> Iterator[Sequence[Receipt]]:
        held = self._known(batch)
        there = [each for each in batch if each.derived_series and each.sop_instance_uid in held]
        if there:
            yield tuple(_is_there(each) for each in there)
        left = [each for each in batch if each not in there] if there else batch
        if left:
            yield from self._deliverer.deliver(left)

    def probe(self, calling_ae: str) -> bool:
        return self._deliverer.probe(calling_ae)

    def finish(self) -> None:
        self._deliverer.finish()

    def interrupt(self) -> None:
        self._interruption.interrupt()
        self._deliverer.interrupt()

    def close(self) -> None:
        self._deliverer.close()

    def _known(self, batch: Sequence[Outgoing]) -> frozenset[str]:
        """What the destination holds of the derived series of a batch."""
        now = time.monotonic()
        self._held = {series: known for series, known in self._held.items() if known[0] > now}
        series = dict.fromkeys(each.derived_series for each in batch if each.derived_series)
        unknown = [each for each in series if each not in self._held]
        if unknown and now >= self._ask_from:
            try:
                self._ask(unknown, batch[0].calling_ae, now + _REMEMBERED_S)
            except PeerError:  # the deliverer finds out by itself whether it is there at all
                self._ask_from = time.monotonic() + _NOT_ASKED_FOR_S
        return frozenset(uid for each in series if each in self._held for uid in self._held[each][1])

    def _ask(self, series: Sequence[Series], calling_ae: str, until: float) -> None:
        """Ask about one after the other, but not for long: what was not asked about is sent."""
        give_up_at = time.monotonic() + _ANSWERS_S.response_s
        with associate(self._address, calling_ae, FIND_CONTEXTS, self._opening) as association:
            for each in series:
                if time.monotonic() > give_up_at:
                    self._ask_from = time.monotonic() + _NOT_ASKED_FOR_S
                    return
                self._held[each] = until, instances_held(association, *each)


def _is_there(outgoing: Outgoing) -> Receipt:
    meaning = "the destination holds this object already, by its C-FIND: it was not sent"
    return Receipt(outgoing.outbox_id, Outcome.DUPLICATE, None, meaning, "", False)
