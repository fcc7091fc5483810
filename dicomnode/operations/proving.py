"""`dicomnode jobs prove`: ask destinations anew for a proof that was given up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dicomnode.config import Config
from dicomnode.operations.index import writing
from dicomnode.operations.terminal import printable_lines
from dicomnode.store.index import proofs
from dicomnode.store.index.actions import record_action
from dicomnode.telemetry import event


@dataclass(frozen=True)
class AskedAnew:
    """How many series are asked about again, by destination."""

    series: dict[str, int]

    @property
    def nothing(self) -> bool:
        return not self.series

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        if self.nothing:
            return ("no proof was given up",)
        return printable_lines(f"{name} is asked about {count} series" for name, count in self.series.items())


def prove(config: Config, destination: str | None, series_instance_uid: str | None) -> AskedAnew:
    """Ask again, from the start, about what is not confirmed and was given up; None is any destination, any series."""
    with writing(config) as session:
        now = time.time()
        begun = proofs.begin_anew(session, destination, series_instance_uid, now)
        asked = dict(Counter(name for name, _ in begun))
        for name in asked:
            record_action(session, "jobs prove", series_instance_uid or name, "", now)
    for name in asked:
        event("proof_wanted", destination=name)
    return AskedAnew(asked)
