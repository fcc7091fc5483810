"""An engine process: what it does when asked (see `dicomnode.workers`). Arguments and results are JSON values.

It keeps engines open between calls, and knows nothing of jobs: which slabs it computes next is decided in
`dicomnode.inference.dispatch`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2

from dicomnode.errors import WorkerError
from dicomnode.inference.gates import card_text
from dicomnode.inference.opening import Place, open_engine
from dicomnode.inference.slabs import Part, halo_of, is_joinable, run_parts
from dicomnode.inference.warm import Keeping, WarmEngines
from dicomnode.workers import Operation
from engines.base import Engine
from engines.card import SettingValue
from engines.errors import BundleError, EngineNotFoundError
from engines.runtimes.choice import Wish


def operations(
    wish: Mapping[str, Any], threads: int, cache: str | None, memory_bytes: int, idle_s: float
) -> Mapping[str, Operation]:
    """The process's operations by name; called once, as it starts.

    wish                  fields of `engines.runtimes.choice.Wish`
    threads, cache        see `engines.runtimes.base.Resources`
    memory_bytes, idle_s  see `Keeping`
    """
    cv2.setNumThreads(threads)
    wished = Wish(**{**wish, "devices": tuple(wish["devices"])})
    place = Place(wished, threads, Path(cache) if cache is not None else None)
    engines = EngineProcess(WarmEngines(lambda source: open_engine(source, place), Keeping(memory_bytes, idle_s)))
    return {"describe": engines.describe, "prepare": engines.prepare, "run": engines.run, "settle": engines.settle}


class EngineProcess:
    """The operations. `engine` is what `engines.registry.Registry.source` gives."""

    def __init__(self, engines: WarmEngines) -> None:
        self._engines = engines

    def describe(self, engine: str) -> dict[str, Any]:
        """Its card as JSON, with its digest."""
        card = self._engines.get(engine).card
        return {**asdict(card), "digest": card.digest}

    def prepare(self, engine: str, settings: Mapping[str, SettingValue]) -> dict[str, Any]:
        """Its card as `describe` tells it and as the gates take it, `settings` resolved, and how volumes may be cut
        into slabs for it (`halo_of`, `is_joinable`).

        Raises SettingError.
        """
        opened = self._engines.get(engine)
        card, cut = opened.card, {"halo": halo_of(opened), "joinable": is_joinable(opened)}
        told = {"card": self.describe(engine), "text": card_text(card), "settings": card.resolve(settings)}
        return {**told, **cut}

    def run(
        self, engine: str, digest: str, settings: Mapping[str, SettingValue], parts: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Run a batch; {"parts": what `run_parts` gives, "seconds": how long that took, without the opening of the
        engine, "warm": engines that are open}.

        digest  of the card that the jobs began with: no result is ever made by two versions
        """
        opened = self._there(engine)
        if opened.card.digest != digest:
            raise WorkerError("the engine was replaced while a job ran", "the job is done again from its start")
        began = time.monotonic()
        made = run_parts(opened, settings, [Part(**part) for part in parts])
        seconds = time.monotonic() - began
        self._engines.settle(used=engine)
        return {"parts": made, "seconds": seconds, "warm": list(self._engines.names)}

    def _there(self, engine: str) -> Engine:
        """The engine that a job began with. Where its bundle is gone by now, the job is to ask for what is there."""
        try:
            return self._engines.get(engine)
        except BundleError as error:
            raise EngineNotFoundError(
                f"the engine went away while a job ran: {error}", "the job is done again from its start"
            ) from None

    def settle(self) -> dict[str, Any]:
        """Close what nobody has asked for; {"warm": engines that are open}."""
        self._engines.settle()
        return {"warm": list(self._engines.names)}
