"""Opening an engine by what the node knows it as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from dicomnode.telemetry import event
from engines.base import Engine
from engines.bundle.folder import Bundle, load_bundle
from engines.model.chain import Portions
from engines.model.engine import ModelEngine
from engines.registry import default_registry
from engines.runtimes.base import Resources, Runtime
from engines.runtimes.choice import Wish, choose, onnx_runtimes
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
    """Open what `engines.registry.Registry.source` gives: a name, or the folder of a bundle.

    Raises EngineNotFoundError, BundleError, RuntimeFailedError.
    """
    if not Path(source).is_absolute():
        return Opened(default_registry().get(source), _nothing)
    bundle = load_bundle(Path(source))
    choice = choose(bundle.card, place.wish, runtimes_for(bundle, place))
    resources = Resources(choice.device, place.threads, choice.precision, place.cache)
    opener = partial(choice.runtime.open, resources=resources)
    engine = ModelEngine.open(bundle, opener, portions_on(choice.device))
    event("engine_opened", engine=bundle.card.reference, runtime=engine.card.runtime, reason=choice.reason)
    return Opened(engine, engine.close)


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
