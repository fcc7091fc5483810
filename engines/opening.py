"""From a bundle to an engine that computes on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engines.bundle import Bundle
from engines.model import ModelEngine
from engines.runtimes.base import Resources, Runtime
from engines.runtimes.choice import Choice, Wish, choose, onnx_runtimes
from engines.runtimes.tensorrt.runtime import Networks, TensorRt


@dataclass(frozen=True)
class Opened:
    """An engine, and what computes it. Whoever opened it closes it."""

    engine: ModelEngine
    choice: Choice


def open_bundle(bundle: Bundle, wish: Wish, threads: int, cache: Path | None) -> Opened:
    """Open the networks of `bundle` with what fits this machine and the site's wish.

    cache  as `Resources.cache`; plans of TensorRT are found there too, and without it there are none
    Raises RuntimeFailedError where nothing here computes them, BundleError where they do not fit the card.
    """
    choice = choose(bundle.card, wish, runtimes_for(bundle, cache))
    resources = Resources(choice.device, threads, choice.precision, cache)
    return Opened(ModelEngine.open(bundle, lambda path: choice.runtime.open(path, resources)), choice)


def runtimes_for(bundle: Bundle, cache: Path | None) -> tuple[Runtime, ...]:
    """All that may compute a bundle, in the order in which they are asked."""
    if cache is None:
        return onnx_runtimes()
    plans = TensorRt(Networks(bundle.card.reference, bundle.digest, bundle.networks, cache))
    return plans, *onnx_runtimes()
