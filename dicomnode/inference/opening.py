"""Opening an engine by what the node knows it as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engines.base import Engine
from engines.bundle import load_bundle
from engines.model import ModelEngine
from engines.registry import default_registry
from engines.runtimes.base import Resources, Runtime
from engines.runtimes.choice import Wish, choose
from engines.runtimes.onnxruntime import OnnxRuntime
from engines.runtimes.openvino import OpenVino
from engines.runtimes.processor import this_processor


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
    choice = choose(bundle.card, place.wish, runtimes())
    resources = Resources(choice.device, place.threads, choice.precision, place.cache)
    engine = ModelEngine.open(bundle, lambda network: choice.runtime.open(network, resources))
    return Opened(engine, engine.close)


def runtimes() -> tuple[Runtime, ...]:
    """All of them. In float32 the first is the faster one on small networks; in bfloat16 the second is the only one."""
    return OnnxRuntime(), OpenVino(this_processor())


def _nothing() -> None:
    """A classical engine holds nothing."""
