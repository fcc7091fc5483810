"""engines bench: how fast an engine is here, what share of the machine that is, and where the rest of a slice goes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from dicomnode.config import Config
from dicomnode.core.phantom import phantom_study
from dicomnode.errors import UsageError
from dicomnode.inference.opening import Place, portions_on, runtimes_for
from dicomnode.operations.engines import registry_of
from dicomnode.operations.terminal import printable_lines
from engines.base import Engine, Value
from engines.bundle.folder import Bundle
from engines.card import EngineCard
from engines.model.engine import ModelEngine
from engines.prompt import Box, Prompt
from engines.runtimes.base import Resources
from engines.runtimes.choice import AUTO, Choice, Wish, choose
from engines.runtimes.cost import gflop
from engines.runtimes.devices import CPU, devices
from engines.runtimes.processor import this_processor
from engines.runtimes.roof import Roof, measured_roof
from engines.runtimes.watched import WatchedSession
from engines.volume import HU, Mask, Volume

_SPACING_MM: Final = (0.7, 0.7, 2.0)
_BUSY_SHARE: Final = 0.8
"""Of their cores that threads have where nothing else runs."""

_DIFFERENT_SLICES: Final = 4
"""A phantom of these is repeated: making one takes longer than most engines do."""


@dataclass(frozen=True)
class Bench:
    """What is measured: so many slices of `size_px` x `size_px`, by what a wish names.

    threads  of the one session; 0: one for each core that may be used
    batch    slices that a network is given at once; 0: as the node does it
    """

    slices: int = 16
    size_px: int = 512
    threads: int = 0
    batch: int = 0
    runtime: str = AUTO
    precision: str = AUTO


@dataclass(frozen=True)
class Networks:
    """The part of the networks in it. Seconds are of one slice.

    cpu_share     of the cores that its threads were to have, what they got: less where others kept them busy
    copying_s     to copy what goes into the networks and comes out, once
    """

    gflop: float
    seconds: float
    cpu_share: float
    copying_s: float
    roof: Roof
    reason: str

    @property
    def gflop_s(self) -> float:
        return self.gflop / self.seconds

    @property
    def share_of_roof(self) -> float:
        return self.gflop_s / self.roof.gflop_s

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "gflop_s": self.gflop_s, "share_of_roof": self.share_of_roof}


@dataclass(frozen=True)
class Measured:
    """One engine; `seconds` are of one slice, all in all."""

    engine: str
    runtime: str
    device: str
    threads: int
    seconds: float
    networks: Networks | None

    def to_json(self) -> dict[str, Any]:
        networks = None if self.networks is None else self.networks.to_json()
        return {**asdict(self), "slices_s": 1.0 / self.seconds, "networks": networks}

    def lines(self) -> Sequence[str]:
        where = f"{self.threads} thread{'s' * (self.threads > 1)} on {self.device}"
        first = f"{self.engine} by {self.runtime}, {where}: {1.0 / self.seconds:.1f} slices/s"
        return [first, *(() if self.networks is None else self._network_lines(self.networks))]

    def _network_lines(self, networks: Networks) -> list[str]:
        around_ms = 1e3 * (self.seconds - networks.seconds)
        lines = [
            f"    {networks.gflop:.1f} GFLOP a slice, {networks.gflop_s:.0f} GFLOP/s: {networks.share_of_roof:.0%} of "
            f"the {networks.roof.gflop_s:.0f} GFLOP/s that plain convolutions reach here",
            f"    memory gives {networks.roof.memory_bytes_s / 1e9:.0f} GB/s (read and written)",
            f"    {1e3 * self.seconds:.1f} ms a slice: networks {1e3 * networks.seconds:.1f}, "
            f"around them {around_ms:.1f}; copying what goes in and comes out takes {1e3 * networks.copying_s:.1f}",
            f"    {networks.reason}",
        ]
        if self.device == CPU and networks.cpu_share < _BUSY_SHARE:
            lines.append(
                f"    the threads had {networks.cpu_share:.0%} of their cores: others kept them busy, or they waited"
            )
        return lines


@dataclass(frozen=True)
class Benched:
    """All that was measured, and on what."""

    bench: Bench
    processor: str
    engines: tuple[Measured, ...]

    def to_json(self) -> dict[str, Any]:
        engines = [one.to_json() for one in self.engines]
        return {"bench": asdict(self.bench), "processor": self.processor, "engines": engines}

    def lines(self) -> Sequence[str]:
        slices, size_px = self.bench.slices, self.bench.size_px
        size = f"{slices} slice{'s' * (slices > 1)} of {size_px} x {size_px}"
        return printable_lines((f"{self.processor}; {size}", *(line for one in self.engines for line in one.lines())))


def bench_engines(config: Config | None, reference: str | None, bench: Bench) -> Benched:
    """Measure one engine, or all there are. Raises EngineNotFoundError, BundleError, RuntimeFailedError, and UsageError
    for an engine whose inputs cannot be made up."""
    registry = registry_of(config)
    processor = this_processor()
    bench = replace(bench, threads=bench.threads or processor.cores)
    cv2.setNumThreads(bench.threads)
    measured = []
    for name in registry.names() if reference is None else (reference,):
        bundle = registry.bundle(name)
        measured.append(_classical(registry.get(name), bench) if bundle is None else _model(config, bundle, bench))
    return Benched(bench, f"{processor.model or 'processor'}, {processor.bfloat16 or 'no bfloat16'}", tuple(measured))


def wish_of(config: Config | None) -> Wish:
    """What the configuration wants networks to be computed by."""
    if config is None:
        return Wish(devices=devices())
    wanted = config.engines
    return Wish(wanted.runtime, wanted.precision, wanted.devices or devices())


def _classical(engine: Engine, bench: Bench) -> Measured:
    seconds = _seconds_a_slice(engine, bench)
    return Measured(engine.card.reference, engine.card.runtime, CPU, bench.threads, seconds, None)


def _model(config: Config | None, bundle: Bundle, bench: Bench) -> Measured:
    choice, resources = _chosen(config, bundle, bench)
    portions = portions_on(choice.device)
    if bench.batch:
        portions = replace(portions, batch=bench.batch, slices=max(portions.slices, bench.batch))
    sessions: list[WatchedSession] = []

    def opened(network: Path) -> WatchedSession:
        sessions.append(WatchedSession(choice.runtime.open(network, resources)))
        return sessions[-1]

    engine = ModelEngine.open(bundle, opened, portions)
    try:
        seconds = _seconds_a_slice(engine, bench, sessions)
        networks = _networks(bundle, sessions, bench, measured_roof(choice.runtime, resources), choice.reason)
    finally:
        engine.close()
    copying_s = networks.copying_s  # is time of the watching, not of the engine
    return Measured(
        bundle.card.reference, engine.card.runtime, choice.device, resources.threads, seconds - copying_s, networks
    )


def _chosen(config: Config | None, bundle: Bundle, bench: Bench) -> tuple[Choice, Resources]:
    """What the node would compute it with, where no option says otherwise."""
    wish = wish_of(config)
    wish = replace(
        wish,
        runtime=wish.runtime if bench.runtime == AUTO else bench.runtime,
        precision=wish.precision if bench.precision == AUTO else bench.precision,
    )
    cache = config.compiled if config is not None and config.compiled.is_dir() else None
    choice = choose(bundle.card, wish, runtimes_for(bundle, Place(wish, bench.threads, cache)))
    return choice, Resources(choice.device, bench.threads, choice.precision, cache)


def _seconds_a_slice(engine: Engine, bench: Bench, sessions: Sequence[WatchedSession] = ()) -> float:
    """Of `run` after one that is not counted, since it compiles and allocates."""
    inputs = _inputs(engine.card, bench)
    settings = engine.card.resolve({})
    engine.run(_inputs(engine.card, replace(bench, slices=max(1, bench.batch))), settings)
    for session in sessions:
        session.reset()
    began = time.perf_counter()
    engine.run(inputs, settings)
    return (time.perf_counter() - began) / bench.slices


def _networks(bundle: Bundle, sessions: Sequence[WatchedSession], bench: Bench, roof: Roof, reason: str) -> Networks:
    operations = 0.0
    for path, session in zip(bundle.networks, sessions, strict=True):
        content = path.read_bytes()
        operations += sum(gflop(content, dict(sizes)) * count for sizes, count in session.runs.items())
    seconds = sum(session.seconds for session in sessions)
    return Networks(
        gflop=operations / bench.slices,
        seconds=seconds / bench.slices,
        cpu_share=sum(session.cpu_s for session in sessions) / (seconds * bench.threads),
        copying_s=sum(session.copying_s for session in sessions) / bench.slices,
        roof=roof,
        reason=reason,
    )


def _inputs(card: EngineCard, bench: Bench) -> Mapping[str, Value]:
    """Something for each input of a card: the phantom, a box in the middle, an empty mask."""
    volume = _phantom(bench.slices, bench.size_px)
    middle = (bench.size_px * 0.45, bench.size_px * 0.45, bench.size_px * 0.55, bench.size_px * 0.55)
    made: dict[str, Value] = {
        "volume": volume,
        "mask": Mask(np.zeros(volume.shape, np.uint8), volume.affine, {}),
        "prompt": Prompt((Box(bench.slices // 2, middle),)),
    }
    for name, port in card.inputs.items():
        if port.kind not in made:
            raise UsageError(f"{card.reference} takes {port.kind} as {name!r}", "there is nothing to measure it with")
    units = {name: HU if port.unit == "as-input" else port.unit for name, port in card.inputs.items()}
    return {
        name: replace(volume, unit=units[name]) if port.kind == "volume" else made[port.kind]
        for name, port in card.inputs.items()
    }


def _phantom(slices: int, size_px: int) -> Volume:
    study = phantom_study(np.random.default_rng(1), min(slices, _DIFFERENT_SLICES), size_px)
    slope, intercept = float(study[0].RescaleSlope), float(study[0].RescaleIntercept)
    few = np.stack([dataset.pixel_array for dataset in study]).astype(np.float32) * np.float32(slope)
    voxels = few[np.arange(slices) % len(few)] + np.float32(intercept)
    return Volume(voxels, np.diag([*_SPACING_MM, 1.0]), HU)
