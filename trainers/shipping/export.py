"""From trained nets to an engine bundle: ONNX files, a card, and a golden test computed by the node's own runtimes."""

from __future__ import annotations

import shlex
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from dicomnode import __version__
from dicomnode.core.phantom import phantom_study, stored_hu
from engines.base import Value
from engines.bundle.folder import WORDS, Bundle, load_bundle, seal, write_bundle
from engines.bundle.golden import Golden, Tolerance, compare
from engines.bundle.provenance import Provenance, Training
from engines.bundle.soundness import check_card
from engines.bundle.words import in_words
from engines.card import EngineCard, Port, Precision, Scale, Stage, TensorInput, TensorOutput
from engines.errors import BundleError
from engines.model.engine import ModelEngine
from engines.prompt import Box, Prompt
from engines.runtimes.base import Resources, Runtime
from engines.runtimes.choice import onnx_runtimes
from engines.tasks.image import with_strength
from engines.volume import ARBITRARY, HU, Volume
from trainers.errors import RecipeError, TrainerError
from trainers.nets.base import ImageOf, Net
from trainers.recipes.recipe import Plan, Recipe, ShippedStage
from trainers.run.subject import command_of
from trainers.shipping.storage import weights_in_float16
from trainers.training.rehearsal import rehearse

OPSET: Final = 18
IMAGE, MARKS = "image", "lesions"
_X, _Y = "x", "y"
PRESENTED_HU: Final = 1024.0
"""What 0 of a presentation image is: air, as most scanners cut it off."""

_TOLERANCES: Final[Mapping[Precision, Tolerance]] = {
    "float32": Tolerance(0.01, 0.05, 0.5),
    "bfloat16": Tolerance(0.25, 1.5, 25.0),
    "float16": Tolerance(0.1, 0.25, 5.0),
}
"""HU that another machine may be off the golden output. What bfloat16 rounds, and most so where air meets the skin, is
far below the noise of any dose; it must not move a mean."""

_PARITY: Final = Tolerance(0.001, 0.01, 0.1)
"""HU between torch and the exported network in float32."""
_F16_PARITY: Final = Tolerance(0.02, 0.25, 5.0)
"""The same where the weights are kept in float16."""

_GOLDEN_SLICES, _GOLDEN_PX = 3, 128


@dataclass(frozen=True, eq=False)
class Trained:
    """Nets of a recipe's stages by name, and where they come from."""

    recipe: Recipe
    nets: Mapping[str, Net]
    provenance: Provenance


def require_shippable(recipe: Recipe) -> None:
    """Raises RecipeError where the bundle's card would not be one: its names, version, bounds. Hours before it is
    written, and with nets that need no training."""
    shipping = recipe.shipping
    untrained = Trained(recipe, rehearse(recipe), Provenance(shipping.maker, shipping.licence, Training("none yet")))
    try:
        check_card(card_of(untrained))
    except BundleError as error:
        raise RecipeError(f"{recipe.name} could not be shipped: {error}", error.hint) from None


def export(trained: Trained, folder: Path) -> Bundle:
    """Write the bundle of a recipe's shipping table into an existing, empty folder, unsigned.

    Raises TrainerError where a runtime computes something else than torch did.
    """
    recipe, networks = trained.recipe, dict[str, bytes]()
    card = card_of(trained)
    for entry in recipe.shipping.stages:
        net = network_of(trained, entry)
        content = onnx_of(net)
        is_small = recipe.shipping.storage == "float16"
        content = weights_in_float16(content) if is_small else content
        check_parity(net, content, recipe.scale_hu, _F16_PARITY if is_small else _PARITY)
        networks[file_of(entry)] = content
    return write_bundle(folder, card, trained.provenance, networks, golden_of(card, networks))


def tell(bundle: Bundle, own: str) -> Bundle:
    """Add its maker's own words to what CARD.md takes from the card; digests are written anew."""
    (bundle.folder / WORDS).write_text(in_words(bundle.card, bundle.provenance, own))
    seal(bundle.folder)
    return load_bundle(bundle.folder)


def made_by(recipe: str, plan: Plan, tables: Sequence[str]) -> str:
    """The commands that make a recipe's bundle, with which versions, and the tables of evaluations that judged it."""
    commands = (
        shlex.join(("trainers", "train", recipe, "--images", "IMAGES", "--run", "RUN", *plan.options)),
        *map(command_of, tables),
        f"trainers export {recipe} --run RUN{' --table OUT/table.txt' * len(tables)} BUNDLE",
    )
    blocks = (
        (f"How it was made (dicomnode-router {__version__}, torch {torch.__version__})", commands),
        *(("Evaluation", table.splitlines()) for table in tables),
    )
    indented = ((title, "".join(f"    {line}".rstrip() + "\n" for line in lines)) for title, lines in blocks)
    return "".join(f"\n## {title}\n\n{lines}" for title, lines in indented)


def card_of(trained: Trained) -> EngineCard:
    """The card that follows from a recipe and its nets."""
    shipping = trained.recipe.shipping
    stages, source = [], IMAGE
    for entry in shipping.stages:
        stages.append(_stage(trained, entry, source))
        source = entry.target
    marks = {MARKS: Port("prompt")} if shipping.regions else {}
    is_deep = any(trained.nets[entry.stage].inputs > 1 for entry in shipping.stages)
    card = EngineCard(
        name=trained.recipe.name,
        version=trained.recipe.version,
        task="image",
        operation=shipping.operation,
        intended_use=shipping.intended_use,
        influence="volume" if is_deep else "slice",
        inputs={IMAGE: Port(unit=HU), **marks},
        outputs={entry.target: _port(entry) for entry in shipping.stages if entry.is_output},
        envelope=shipping.envelope,
        limits=shipping.limits,
        stages=tuple(stages),
        precisions=shipping.precisions,
    )
    return with_strength(card, shipping.strength)


def _port(entry: ShippedStage) -> Port:
    return Port(unit=ARBITRARY, presentation=True) if entry.presentation else Port(unit=HU)


def _stage(trained: Trained, entry: ShippedStage, source: str) -> Stage:
    net = trained.nets[entry.stage]
    residual_of = source if _is_residual(trained, entry) and not entry.presentation else ""
    enters = Scale(divisor=trained.recipe.scale_hu)
    leaves = Scale(PRESENTED_HU if entry.presentation else 0.0, trained.recipe.scale_hu)
    return Stage(
        file=file_of(entry),
        inputs=(TensorInput(_X, source, enters, adjacent=net.inputs // 2),),
        outputs=(TensorOutput(_Y, entry.target, leaves, residual_of),),
        halo_px=net.halo_px,
        multiple_px=net.multiple_px,
    )


def network_of(trained: Trained, entry: ShippedStage) -> Net:
    """A stage's net as it is shipped: a presentation is an image, of another scale than what goes in, so a residual is
    taken away within the network."""
    net = trained.nets[entry.stage]
    return ImageOf(net) if entry.presentation and _is_residual(trained, entry) else net


def _is_residual(trained: Trained, entry: ShippedStage) -> bool:
    return trained.recipe.stage(entry.stage).net.predicts == "residual"


def file_of(entry: ShippedStage) -> str:
    return f"{entry.stage}.onnx"


def onnx_of(net: Net) -> bytes:
    """The net as ONNX with open batch, rows and columns, its weights inside.

    By tracing: it needs nothing but torch, writes plain operators, and these nets have no branches.
    """
    size = 8 * net.multiple_px
    image = torch.zeros(2, net.inputs, max(size, 32), max(size, 32))
    axes = {0: "batch", 2: "rows", 3: "columns"}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracing's age, and of sizes that it takes for constants
        path = Path(folder) / "net.onnx"
        torch.onnx.export(
            net.cpu().eval(), (image,), path, input_names=[_X], output_names=[_Y], opset_version=OPSET,
            dynamic_axes={_X: axes, _Y: axes}, dynamo=False,
        )  # fmt: skip
        return path.read_bytes()


def check_parity(net: Net, content: bytes, scale_hu: float, allowed: Tolerance) -> None:
    """Raises TrainerError where a runtime computes other values than torch, in float32, on sizes of all kinds."""
    for rows, columns in ((2, 3), (9, 5)):
        image = _probe((2, net.inputs, rows * 16, columns * 16), scale_hu)
        with torch.no_grad():
            wanted = net(torch.from_numpy(image)).numpy() * scale_hu
        for runtime in onnx_runtimes():
            apart = _computed(runtime, content, image) * scale_hu - wanted
            rms = float(np.sqrt(np.square(apart).mean()))
            found = Tolerance(abs(float(apart.mean())), rms, float(np.abs(apart).max()))
            if not (found.mean <= allowed.mean and found.rms <= allowed.rms and found.largest <= allowed.largest):
                raise TrainerError(
                    f"{runtime.name} is {found.rms:.3g} HU (rms), at most {found.largest:.3g}, off torch",
                    'keep the weights as they are: storage = "float32"',
                )


def _probe(shape: tuple[int, ...], scale_hu: float) -> NDArray[np.float32]:
    """Made slices in a net's units: steps between tissues, and noise."""
    rng = np.random.default_rng(shape[-1])
    tissue = rng.choice(np.array([-1000.0, -100.0, 40.0, 60.0, 700.0]), (*shape[:2], shape[2] // 16, shape[3] // 16))
    steps = np.kron(tissue, np.ones((16, 16)))
    return ((steps + rng.normal(0, 25, shape)) / scale_hu).astype(np.float32)


def _computed(runtime: Runtime, content: bytes, image: NDArray[np.float32]) -> NDArray[np.float32]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        path.write_bytes(content)
        session = runtime.open(path, Resources())
        values = np.array(session.run({_X: image})[_Y])
        session.close()
        return values


def golden_of(card: EngineCard, networks: Mapping[str, bytes]) -> Golden:
    """What ONNX Runtime makes of a phantom in float32, with a tolerance for each precision of the card.

    Raises TrainerError where a precision that this machine has is farther off than it may be elsewhere.
    """
    inputs = golden_inputs(card)
    settings = card.resolve({})
    first, *others = onnx_runtimes()
    outputs = _run(card, networks, first, "float32", inputs)
    tolerance = {precision: dict.fromkeys(card.outputs, _TOLERANCES[precision]) for precision in card.precisions}
    golden = Golden(inputs, outputs, tolerance, settings)
    for runtime in others:
        for precision in set(card.precisions) & set(runtime.precisions("cpu")):
            found = compare(golden, precision, _run(card, networks, runtime, precision, inputs))
            for difference in found:
                if not difference.passed:
                    raise TrainerError(
                        f"{runtime.name}/{precision}: {difference}", f"leave {precision} out of the card"
                    )
    return golden


def golden_inputs(card: EngineCard) -> dict[str, Value]:
    """A body that nobody has, with noise; and a mark on it where the card takes one."""
    inputs: dict[str, Value] = {IMAGE: golden_volume()}
    if MARKS in card.inputs:
        inputs[MARKS] = Prompt((Box(1, (40.0, 40.0, 72.0, 68.0)),))
    return inputs


def golden_volume() -> Volume:
    """A few slices of the node's phantom, HU."""
    study = phantom_study(np.random.default_rng(7), _GOLDEN_SLICES, _GOLDEN_PX)
    spacing_mm = float(study[0].PixelSpacing[0])
    step_mm = float(study[1].ImagePositionPatient[2]) - float(study[0].ImagePositionPatient[2])
    return Volume(stored_hu(study).astype(np.float32), np.diag([spacing_mm, spacing_mm, step_mm, 1.0]), HU)


def _run(
    card: EngineCard, networks: Mapping[str, bytes], runtime: Runtime, precision: Precision, inputs: Mapping[str, Value]
) -> Mapping[str, Value]:
    with tempfile.TemporaryDirectory() as folder:
        sessions = []
        for stage in card.stages:
            path = Path(folder) / stage.file
            path.write_bytes(networks[stage.file])
            sessions.append(runtime.open(path, Resources(precision=precision)))
        engine = ModelEngine(card, sessions)
        outputs = engine.run(inputs, card.resolve({}))
        engine.close()
    return outputs
