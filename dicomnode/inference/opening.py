"""Opening an engine by what the node knows it as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from dicomnode.inference.proving import Proofs, prove
from dicomnode.telemetry import event
from engines.base import Engine
from engines.bundle.folder import Bundle
from engines.bundle.installed import BundleSource
from engines.errors import BundleError
from engines.model.chain import Portions
from engines.model.engine import ModelEngine
from engines.registry import default_registry
from engines.runtimes.base import Resources, Runtime
from engines.runtimes.choice import Choice, Wish, choices, onnx_runtimes
from engines.runtimes.devices import CPU
from engines.runtimes.tensorrt.runtime import TENSORRT, Networks, TensorRt

_ON_GPU: Final = Portions(slices=16, batch=8)
"""A GPU wants many slices at once; a batch is cut in pieces there, so that one is copied while another is computed."""


@dataclass(frozen=True)
class Place:
    """Where an engine computes, and how: see `engines.runtimes.choice.Wish` and `engines.runtimes.base.Resources`."""

    wish: Wish
    threads: int
    cache: Path | None


@dataclass(frozen=True)
class Opened:
    """An engine, and what gives its memory and device back."""

    engine: Engine
    close: Callable[[], None]


def open_engine(source: str, place: Place) -> Opened:
    """Open what `engines.registry.Registry.source` gives: a name, or which bundle lies where.

    A bundle is computed by the first choice that passes its golden test on this machine. A device that fails is no
    choice that failed: another runtime or precision would give other derived UIDs than the next attempt does.
    Raises EngineNotFoundError, BundleError, RuntimeFailedError.
    """
    known = BundleSource.parse(source)
    if known is None:
        return Opened(default_registry().get(source), _nothing)
    bundle = known.load()
    failed: list[str] = []
    for choice in choices(bundle.card, place.wish, runtimes_for(bundle, place)):
        engine = _open(bundle, choice, place)
        try:
            why = prove(engine, bundle, choice, Proofs(place.cache))
        except BaseException:
            engine.close()
            raise
        if not why:
            reason = "; ".join((choice.reason, *failed))
            event("engine_opened", engine=bundle.card.reference, runtime=engine.card.runtime, reason=reason)
            return Opened(engine, engine.close)
        engine.close()
        failed.append(f"{engine.card.runtime} on {choice.device} did not pass its golden test: {why}")
        event("engine_not_proved", engine=bundle.card.reference, runtime=engine.card.runtime, reason=why)
    raise BundleError(
        f"{bundle.card.reference} is not what its maker made, on this machine: {'; '.join(failed)}",
        f"see: dicomnode engines check {bundle.card.reference}; another version or machine may do",
    )


def _open(bundle: Bundle, choice: Choice, place: Place) -> ModelEngine:
    resources = Resources(choice.device, place.threads, choice.precision, place.cache)
    return ModelEngine.open(bundle, partial(choice.runtime.open, resources=resources), portions_on(choice.device))


def portions_on(device: str) -> Portions:
    """How much is computed at once there."""
    return Portions() if device == CPU else _ON_GPU


def runtimes_for(bundle: Bundle, place: Place) -> tuple[Runtime, ...]:
    """All that may compute a bundle's networks: by its plans TensorRT too, where there is a GPU or it is asked for."""
    of_interest = place.wish.devices != (CPU,) or place.wish.runtime == TENSORRT
    plans = (TensorRt(Networks.of(bundle, place.cache)),) if place.cache is not None and of_interest else ()
    return (*plans, *onnx_runtimes())


def _nothing() -> None:
    """A classical engine holds nothing."""
