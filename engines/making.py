"""Making a bundle: from a card and its networks to a folder that proves itself.

The reference is ONNX Runtime in float32. What the other runtimes and precisions of this machine differ by, times a
margin, is what a machine may differ by; what no runtime here computes in gets the tolerance of the house.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from engines.base import Value
from engines.bundle import folder as bundles
from engines.bundle.examples import example_inputs, example_shape
from engines.bundle.folder import GOLDEN, WORDS, Bundle
from engines.bundle.golden import Difference, Golden, Tolerance, compare, read_golden, write_golden
from engines.bundle.provenance import Provenance
from engines.bundle.reach import FARTHEST_PX, reach_of
from engines.bundle.words import in_words, own_words
from engines.card import EngineCard, Port, Precision, Stage
from engines.errors import BundleError
from engines.model.engine import ModelEngine
from engines.runtimes.base import Resources, Runtime
from engines.runtimes.choice import onnx_runtimes
from engines.runtimes.devices import CPU
from engines.runtimes.onnxruntime import OnnxRuntime
from engines.tasks.image import with_strength
from engines.tiling import DEFAULT_TILE_PX
from engines.volume import HU, Volume
from engines.whole_files import GIVEN_ON, write_whole

MARGIN: Final = 4.0
"""Times what was measured here: another processor rounds in another order."""

_ANYTHING: Final = Tolerance(math.inf, math.inf, math.inf)
_HU_RANGE: Final = 2000.0
_MOST_SHIFT_HU: Final = 0.5
_LARGEST_WORDS_BYTES: Final = 2**20
_LARGEST_GOLDEN_BYTES: Final = 2**28

_LEAST: Final = {
    "image": Tolerance(0.01, 0.05, 0.5), "presentation": Tolerance(0.1, 0.5, 4.0), "mask": Tolerance(0.001, 0.05, 2.0),
    "findings": Tolerance(0.001, 0.005, 0.01),
}  # fmt: skip
"""What any machine may differ by in float32: of HU, of presentation values, of labels and of places and scores."""

_COARSE: Final = {
    "image": Tolerance(0.1, 1.0, 10.0), "presentation": Tolerance(4.0, 20.0, 400.0), "mask": Tolerance(0.02, 0.2, 2.0),
    "findings": Tolerance(0.1, 0.3, 1.0),
}  # fmt: skip
"""The same in a precision of 16 bits or less, that nothing here computes in."""


@dataclass(frozen=True)
class Made:
    """A bundle that was made; `notes` say what was measured and what was found out about it."""

    bundle: Bundle
    notes: tuple[str, ...]


def make(folder: Path, given: Mapping[str, Value] | None = None) -> Made:
    """Make a bundle of a folder with card.toml and its networks, or make one anew after a change of them. A signature
    is taken away: it was of what there was before.

    given  inputs of the golden test, by the card's names; None: those of the golden.npz that is there and fits, else
           made ones
    Raises BundleError with what is wrong, before anything is written.
    """
    card, provenance = bundles.read_card(folder)
    card = with_strength(card)
    _check_said(card, provenance)
    bundles.check_wanted(folder, card)
    bundles.check_networks_of(card, folder)
    looks = tuple(reach_words(card, folder))
    words = in_words(card, provenance, _own_words(folder))
    inputs, drawn = _inputs(card, folder, given)
    test, measured = golden_of(card, folder, inputs)
    bundles.check_golden(card, test)
    write_whole(folder / GOLDEN, write_golden(test), GIVEN_ON)
    write_whole(folder / WORDS, words.encode(), GIVEN_ON)
    bundles.seal(folder)
    return Made(bundles.load_bundle(folder), (*looks, f"golden test: {drawn}", *measured))


def reach_words(card: EngineCard, folder: Path) -> Iterator[str]:
    """How far each network looks, a sentence each. Raises BundleError where the card says less than that."""
    for stage in card.stages if not card.method else ():  # a method's networks always see slices as a whole
        problem, sentence = judge_reach(card, stage, bundles.network_of(folder, stage))
        if problem:
            raise BundleError(f"card.toml: {sentence}", problem)
        yield sentence


def judge_reach(card: EngineCard, stage: Stage, network: bytes) -> tuple[str, str]:
    """What to do where slices cut into tiles would show seams ("" where they would not), and how far a network looks
    beside what its card says, as a sentence."""
    reach = reach_of(network, stage)
    if reach.unknown:
        sentence = f"{stage.file}: how far it looks cannot be told from its {reach.unknown}: see that halo_px says it"
        return "", f"{sentence}; it says {stage.halo_px}"
    if reach.is_whole:
        sentence = f"{stage.file} looks at whole slices, or farther than {FARTHEST_PX} px"
        is_cut = card.envelope.rows_columns[1] > DEFAULT_TILE_PX
        hint = f"write rows_columns = [16, {DEFAULT_TILE_PX}] into [engine.envelope]: larger slices are cut into tiles"
        return hint if is_cut else "", sentence
    assert reach.px is not None
    if reach.px > stage.halo_px:
        sentence = f"{stage.file} looks {reach.px} px far and its halo_px is {stage.halo_px}: tiles would show seams"
        return f"write halo_px = {reach.px}", sentence
    more = "" if reach.px == stage.halo_px else f"; its halo_px is {stage.halo_px}, which costs time"
    return "", f"{stage.file} looks {reach.px} px far{more}"


def golden_of(card: EngineCard, folder: Path, inputs: Mapping[str, Value]) -> tuple[Golden, tuple[str, ...]]:
    """The golden test of a card whose networks lie in `folder`, and what was measured in sentences.

    Raises BundleError where a precision that the card allows gives something else than the reference.
    """
    reference = _computed(card, folder, OnnxRuntime(), "float32", inputs)
    for name, value in reference.items():
        if isinstance(value, Volume) and not np.isfinite(value.voxels).all():
            raise BundleError(f"its networks give values of {name} that are no numbers", "look at scale and export")
    blank: dict[Precision, Mapping[str, Tolerance]] = {
        precision: dict.fromkeys(reference, _ANYTHING) for precision in card.precisions
    }
    test = Golden(inputs, reference, blank)
    tolerance: dict[Precision, Mapping[str, Tolerance]] = {}
    notes: list[str] = []
    for precision in card.precisions:
        tolerance[precision], said = _tolerances(card, folder, test, precision)
        notes += said
    return Golden(inputs, reference, tolerance), tuple(notes)


def _check_said(card: EngineCard, provenance: Provenance) -> None:
    said = {
        "engine.intended_use": card.intended_use,
        "provenance.maker": provenance.maker,
        "provenance.licence": provenance.licence,
        "provenance.training.run": provenance.training.run,
    }
    empty = [name for name, text in said.items() if not text.strip()]
    if empty:
        raise BundleError(f"card.toml: {', '.join(empty)}: nothing is said", "say it: people decide by it")


def _own_words(folder: Path) -> str:
    if not (folder / WORDS).exists():
        return ""
    return own_words(bundles.read_file(folder / WORDS, _LARGEST_WORDS_BYTES).decode(errors="replace"))


def _inputs(card: EngineCard, folder: Path, given: Mapping[str, Value] | None) -> tuple[Mapping[str, Value], str]:
    """What the golden test takes, and where that is from."""
    if given is not None:
        return given, "of the slices that were given"
    if (folder / GOLDEN).exists():
        old = read_golden(bundles.read_file(folder / GOLDEN, _LARGEST_GOLDEN_BYTES)).inputs
        if set(old) == set(card.inputs):
            return old, "of the inputs of the golden.npz that was there"
    return example_inputs(card, example_shape(card)), "of inputs that were made up (a noisy disc): --slices takes yours"


def _computed(
    card: EngineCard, folder: Path, runtime: Runtime, precision: Precision, inputs: Mapping[str, Value]
) -> Mapping[str, Value]:
    resources = Resources(precision=precision)
    sessions = [runtime.open(folder / stage.file, resources) for stage in card.stages]
    with closing(ModelEngine(card, sessions)) as engine:
        return engine.run(inputs, card.resolve({}))


def _tolerances(
    card: EngineCard, folder: Path, test: Golden, precision: Precision
) -> tuple[Mapping[str, Tolerance], list[str]]:
    """By output what a machine may differ by in a precision, and how that was found."""
    worst: dict[str, Tolerance] = {}
    runtimes = [one for one in onnx_runtimes() if not one.unavailable(CPU) and precision in one.precisions(CPU)]
    for runtime in runtimes:
        made = _computed(card, folder, runtime, precision, test.inputs)
        for one in compare(test, precision, made):
            worst[one.output] = _worse(_measured(one, runtime, precision), worst.get(one.output))
    least = _LEAST if precision == "float32" or runtimes else _COARSE
    allowed = {
        name: _allowed(worst.get(name), least[_kind(card.outputs[name])], _scale(card.outputs[name], value))
        for name, value in test.outputs.items()
    }
    if not runtimes:
        return allowed, [
            f"{precision}: no runtime here computes in it; the tolerance is the house's: make it where one is"
        ]
    names = ", ".join(runtime.name for runtime in runtimes)
    told = [f"{precision} in {names}: {_said(name, one, worst[name])}" for name, one in allowed.items()]
    return allowed, [*told, *_shift_words(card, precision, worst)]


def _measured(one: Difference, runtime: Runtime, precision: Precision) -> Tolerance:
    if not math.isfinite(one.largest):
        raise BundleError(
            f"in {precision} {runtime.name} gives another number of {one.output}, or no numbers",
            f"leave {precision} out of the card's precisions",
        )
    return Tolerance(abs(one.mean), one.rms, one.largest)


def _worse(one: Tolerance, other: Tolerance | None) -> Tolerance:
    if other is None:
        return one
    return Tolerance(max(one.mean, other.mean), max(one.rms, other.rms), max(one.largest, other.largest))


def _allowed(worst: Tolerance | None, least: Tolerance, scale: float) -> Tolerance:
    found = Tolerance(0.0, 0.0, 0.0) if worst is None else worst
    return Tolerance(
        max(_rounded(MARGIN * found.mean), least.mean * scale),
        max(_rounded(MARGIN * found.rms), least.rms * scale),
        max(_rounded(MARGIN * found.largest), least.largest * scale),
    )


def _rounded(value: float) -> float:
    """To two digits, for people."""
    return float(f"{value:.2g}")


def _kind(port: Port) -> str:
    if port.kind != "volume":
        return port.kind
    return "presentation" if port.presentation else "image"


def _scale(port: Port, value: Value) -> float:
    """How large values are beside HU: the unit of some is their own."""
    if not isinstance(value, Volume) or port.presentation or value.unit == HU:
        return 1.0
    low, high = np.percentile(value.voxels, (0.1, 99.9))
    return max(float(high - low), 1e-6) / _HU_RANGE


def _said(name: str, allowed: Tolerance, worst: Tolerance) -> str:
    found = f"{name} differs by {worst.mean:.3g} on the mean, {worst.rms:.3g} rms, {worst.largest:.3g} at most"
    return f"{found}; allowed are {allowed.mean:g}, {allowed.rms:g} and {allowed.largest:g}"


def _shift_words(card: EngineCard, precision: Precision, worst: Mapping[str, Tolerance]) -> Iterator[str]:
    for name, one in worst.items():
        if card.outputs[name].unit == HU and one.mean > _MOST_SHIFT_HU:
            yield f"{precision} shifts {name} by {one.mean:.2g} HU on the mean: is it to be among the precisions?"
