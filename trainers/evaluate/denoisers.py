"""What is judged: nets, bundles and peers, all as one function of a slice."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from engines.base import Engine
from engines.bundle.folder import load_bundle
from engines.card import EngineCard
from engines.model.engine import ModelEngine
from engines.runtimes.base import Resources
from engines.runtimes.choice import Wish, choose, onnx_runtimes
from engines.tasks.image import STRENGTH
from engines.volume import HU, Volume
from trainers.errors import RecipeError
from trainers.recipes.recipe import Recipe
from trainers.shipping.channels import channels
from trainers.shipping.export import IMAGE, PRESENTED_HU
from trainers.training.stages import load_nets

Pixels = NDArray[np.float32]
Run = Callable[[Pixels], Pixels]
Kind = Literal["input", "ours", "partial", "peer"]


PEER_NETS: Final = frozenset({"dncnn", "redcnn"})
"""Nets that are trained here to be compared with, not to be shipped."""


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A way to take noise away.

    name       as tables show it
    run        HU float32 (rows, columns) -> the same
    kind       input: the low dose as it is; ours: a net or bundle; partial: a share of what ours takes away; peer: what
               it is compared with
    strengths  shares of what `run` takes away that are judged beside `shipped`, each in a row of its own; 1: all of it
    shipped    the share that is taken away where nobody asks for another
    output     which image of several this is; empty where there is one
    presented  it leaves for the eye only: the node blends no such image, so it has no strengths
    """

    name: str
    run: Run
    kind: Kind = "peer"
    strengths: tuple[float, ...] = ()
    shipped: float = 1.0
    output: str = ""
    presented: bool = False

    def row(self, strength: float) -> str:
        """The name of a row: its own at full strength."""
        return self.name if strength == 1.0 else f"{self.name} x {strength:g}"

    @property
    def rows(self) -> Mapping[float, str]:
        """Names of its rows by strength, the shipped one first."""
        return {strength: self.row(strength) for strength in (self.shipped, *self.strengths)}


@dataclass(frozen=True, eq=False)
class Seen:
    """A slice before and after a denoiser, and the processor's seconds that it took."""

    low: Pixels
    made: Pixels
    seconds: float

    def at(self, strength: float) -> Seen:
        """The same with a share of what was taken away: the node's own setting `strength`."""
        return self if strength == 1.0 else Seen(self.low, blended(self.low, self.made, strength), self.seconds)


def blended(low: Pixels, made: Pixels, strength: float) -> Pixels:
    """`strength` of the way from the source to what was made of it."""
    return low + np.float32(strength) * (made - low)


def seen(denoiser: Denoiser, low: Pixels) -> Seen:
    """Run a denoiser on a slice."""
    started = time.process_time()
    made = np.ascontiguousarray(denoiser.run(low), dtype=np.float32)
    return Seen(low, made, time.process_time() - started)


LOW_DOSE: Final = Denoiser("low dose", lambda low: low, "input")
"""The input itself: in every table, for all gains are over it."""


@dataclass(frozen=True)
class _Leaving:
    """An image that a recipe or a bundle lets out. presented: with HU + 1024, for the eye."""

    output: str
    presented: bool

    @property
    def told(self) -> str:
        return f"{self.output} (for the eye)" if self.presented else self.output

    def in_row(self, name: str, images: int) -> str:
        """A row's name, of one that makes so many images."""
        if images > 1:
            return f"{name}: {self.told}"
        return f"{name} (for the eye)" if self.presented else name


def of_run(recipe: Recipe, run: Path, name: str) -> tuple[Denoiser, ...]:
    """The trained nets of a run, in float32: a denoiser for each image that leaves; no net after it is run. Raises
    CheckpointError where it is not finished."""
    nets = load_nets(recipe, run)
    if any(net.inputs > 1 for net in nets.values()):
        raise RecipeError(f"{recipe.name} looks at neighbouring slices", "only nets of single slices are judged")
    multiple = int(np.lcm.reduce([net.multiple_px for net in nets.values()]))
    stages = recipe.shipping.stages

    def running(last: int) -> Run:
        part = replace(recipe, shipping=replace(recipe.shipping, stages=stages[: last + 1]))

        def denoised(low: Pixels) -> Pixels:
            rows, columns = low.shape
            missing = [(0, -length % multiple) for length in low.shape]
            made: Pixels = channels(part, nets, np.pad(low, missing, mode="edge"))[-1]
            return made[:rows, :columns]

        return denoised

    is_peer = {stage.net.kind for stage in recipe.stages} <= PEER_NETS
    leaving = {at: _Leaving(one.target, one.presentation) for at, one in enumerate(stages) if one.is_output}
    runs = {one: running(at) for at, one in leaving.items()}
    return _each(name, "peer" if is_peer else "ours", recipe.shipping.strength, runs)


def of_bundle(folder: Path) -> tuple[Denoiser, ...]:
    """A bundle, computed as the node would on this machine: a denoiser for each image that leaves. Raises EngineError
    where it cannot be opened."""
    bundle = load_bundle(folder)
    choice = choose(bundle.card, Wish(), onnx_runtimes())
    resources = Resources(device=choice.device, precision=choice.precision)
    engine = ModelEngine.open(bundle, lambda path: choice.runtime.open(path, resources))
    blend = bundle.card.settings.get(STRENGTH)
    runs = _runs(engine, {STRENGTH: 1.0} if blend else {})
    name = f"{bundle.card.reference} ({choice.precision})"
    return _each(name, "ours", float(blend.default) if blend else 1.0, runs)


def of_engine(engine: Engine, name: str, kind: Kind) -> tuple[Denoiser, ...]:
    """An engine with the defaults of its settings, slice by slice: a denoiser for each image that leaves.

    Raises RecipeError where it does not make one image of another.
    """
    return _each(name, kind, 1.0, _runs(engine, {}))


def _runs(engine: Engine, given: Mapping[str, float]) -> dict[_Leaving, Run]:
    """What makes each image that leaves an engine, in HU."""
    card = engine.card
    presented = _presented(card)
    in_hu = {target for target, port in card.outputs.items() if port.unit == HU and not port.presentation}
    if list(card.inputs) != [IMAGE] or not in_hu | presented:
        raise RecipeError(f"{card.reference} does not make one image of another, in HU", "give a denoiser")
    settings = card.resolve(given)

    def running(one: _Leaving) -> Run:
        def denoised(low: Pixels) -> Pixels:
            made = engine.run({IMAGE: Volume(low[None], np.eye(4), HU)}, settings)[one.output]
            assert isinstance(made, Volume)
            return np.asarray(made.voxels[0] - np.float32(PRESENTED_HU if one.presented else 0.0), dtype=np.float32)

        return denoised

    leaving = [_Leaving(target, target in presented) for target in card.outputs if target in in_hu | presented]
    return {one: running(one) for one in leaving}


def _presented(card: EngineCard) -> set[str]:
    """Outputs for the eye whose values are HU + 1024, as `trainers export` writes them; of others nothing is known."""
    offsets = {tensor.target: tensor.scale.offset for stage in card.stages for tensor in stage.outputs}
    return {
        target for target, port in card.outputs.items() if port.presentation and offsets.get(target) == PRESENTED_HU
    }


def _each(name: str, kind: Kind, shipped: float, runs: Mapping[_Leaving, Run]) -> tuple[Denoiser, ...]:
    """A denoiser for each image, named by it where there are several."""
    return tuple(
        Denoiser(
            name=one.in_row(name, len(runs)),
            run=run,
            kind=kind,
            shipped=1.0 if one.presented else shipped,
            output=one.told if len(runs) > 1 else "",
            presented=one.presented,
        )
        for one, run in runs.items()
    )
