"""Engine bundles of every shape that a bundle may have, with random weights: for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

from dicomnode.testing import networks
from engines.bundle.examples import example_inputs
from engines.bundle.folder import Bundle, write_bundle
from engines.bundle.golden import Golden, Tolerance
from engines.bundle.provenance import Provenance, Training
from engines.card import (
    EngineCard,
    Envelope,
    Limits,
    Port,
    Precision,
    Scale,
    Setting,
    Stage,
    TensorInput,
    TensorOutput,
)
from engines.classical.glcae import ContrastGlcae
from engines.model.chain import DEFAULT_PORTIONS, Portions
from engines.model.engine import ModelEngine
from engines.model.slabs import Allocate, in_memory
from engines.runtimes.base import Resources
from engines.runtimes.onnxruntime import OnnxRuntime
from engines.volume import ARBITRARY, HU

Shape = Literal[
    "denoise", "denoise-large", "adjacent", "three-inputs", "two-stages", "two-outputs", "super-resolution", "segment",
    "segment-marked", "detect", "contrast",
]  # fmt: skip
"""
denoise           one stage, a residual; 16.8 GFLOP for 512 x 512
denoise-large     the same at full resolution and dilated; 117 GFLOP
adjacent          a denoiser that sees the slices beside its own
three-inputs      a denoiser that sees three series of one grid, slice by slice
two-stages        a denoiser, then an enhancer; both images leave
two-outputs       one network that gives both
super-resolution  twice the rows and columns
segment           labels from three series of one grid
segment-marked    labels around a person's marks, from the image, the denoised image and the marks
detect            boxes around what is bright
contrast          parameters of a classical operation, predicted from each slice
"""

KILO: Final = Scale(divisor=1000.0)
"""How all these networks see HU."""

_IMAGE: Final = {"image": Port(unit=HU)}
_TAKEN: Final = (TensorInput("image", "image", KILO),)
_ENVELOPE: Final = Envelope(modalities=("CT",), pixel_spacing_mm=(0.1, 4.0), rows_columns=(1, 4096))
_PRECISIONS: Final[tuple[Precision, ...]] = ("float32", "bfloat16", "float16")


_TOLERANCE: Final = {
    True: {
        ("volume", False): Tolerance(0.01, 0.05, 0.5),
        ("volume", True): Tolerance(0.1, 0.5, 4.0),
        ("mask", False): Tolerance(0.001, 0.05, 2.0),
        ("findings", False): Tolerance(0.001, 0.005, 0.01),
    },
    False: {
        ("volume", False): Tolerance(0.1, 1.0, 10.0),
        ("volume", True): Tolerance(4.0, 20.0, 400.0),
        ("mask", False): Tolerance(0.02, 0.2, 2.0),
        ("findings", False): Tolerance(0.1, 0.3, 1.0),
    },
}
"""Of float32, and of what is less precise: by the kind of the output, and whether it is for the eye only."""

_PROVENANCE: Final = Provenance(
    maker="dicomnode.testing",
    licence="Apache-2.0",
    training=Training(run="none", recipe="Random weights from a seed; nothing was trained."),
    limitations=("It was never trained: use it in tests alone.",),
)


@dataclass(frozen=True)
class Made:
    """A card, and the networks of its stages by their file names."""

    card: EngineCard
    networks: Mapping[str, bytes]


def made(shape: Shape) -> Made:
    """The card and the networks of one shape. The same bytes every time."""
    return _SHAPES[shape]()


def made_bundle(folder: Path, shape: Shape, version: str = "1.0.0") -> Bundle:
    """Write the bundle of a shape into an existing, empty folder, with a golden test by ONNX Runtime; unsigned."""
    made_shape = made(shape)
    card = replace(made_shape.card, version=version)
    with engine_of(Made(card, made_shape.networks)) as engine:
        inputs = example_inputs(card)
        outputs = engine.run(inputs, card.resolve({}))
    tolerance = {precision: _tolerances(card, precision) for precision in card.precisions}
    return write_bundle(folder, card, _PROVENANCE, made_shape.networks, Golden(inputs, outputs, tolerance))


def opened(bundle: Bundle) -> ModelEngine:
    """A bundle's engine, by ONNX Runtime in float32 with one thread."""
    return ModelEngine.open(bundle, lambda network: OnnxRuntime().open(network, Resources()))


@contextmanager
def engine_of(
    made_shape: Made, portions: Portions = DEFAULT_PORTIONS, allocate: Allocate = in_memory
) -> Iterator[ModelEngine]:
    """The engine of a card and its networks, by ONNX Runtime in float32 with one thread."""
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / stage.file for stage in made_shape.card.stages]
        for path in paths:
            path.write_bytes(made_shape.networks[path.name])
        sessions = [OnnxRuntime().open(path, Resources()) for path in paths]
    engine = ModelEngine(made_shape.card, sessions, portions, allocate)
    try:
        yield engine
    finally:
        engine.close()


def _tolerances(card: EngineCard, precision: Precision) -> dict[str, Tolerance]:
    return {
        name: _TOLERANCE[precision == "float32"][port.kind, port.presentation] for name, port in card.outputs.items()
    }


def _denoise() -> Made:
    return Made(_image_card("denoise", _residual_stage("net.onnx", 18, 2)), {"net.onnx": networks.denoiser()})


def _denoise_large() -> Made:
    stage = _residual_stage("net.onnx", halo_px=18)
    return Made(_image_card("denoise-large", stage), {"net.onnx": networks.dilated_denoiser()})


def _adjacent() -> Made:
    stage = replace(_residual_stage("net.onnx", halo_px=5), inputs=(TensorInput("image", "image", KILO, adjacent=1),))
    card = replace(_image_card("adjacent", stage), influence="volume")
    return Made(card, {"net.onnx": networks.adjacent_denoiser()})


def _three_inputs() -> Made:
    taken = tuple(TensorInput("image", name, KILO) for name in ("portal", "image", "delayed"))
    stage = replace(_residual_stage("net.onnx", halo_px=5), inputs=taken)
    card = replace(
        _image_card("three-inputs", stage), inputs={name: Port(unit=HU) for name in ("image", "portal", "delayed")}
    )
    return Made(card, {"net.onnx": networks.adjacent_denoiser()})


def _two_stages() -> Made:
    first = _residual_stage("denoise.onnx", 7, 2)
    second = Stage("enhance.onnx", _TAKEN, (TensorOutput("enhanced", "enhanced", KILO),), halo_px=2)
    card = replace(_image_card("two-stages", first, second), outputs={**_IMAGE, "enhanced": Port(unit=HU)})
    files = {"denoise.onnx": networks.denoiser(channels=8, layers=3), "enhance.onnx": networks.enhancer()}
    return Made(card, files)


def _two_outputs() -> Made:
    outputs = (
        TensorOutput("residual", "image", KILO, residual_of="image"),
        TensorOutput("enhanced", "enhanced", KILO),
    )
    card = _image_card("two-outputs", Stage("net.onnx", _TAKEN, outputs, halo_px=5))
    card = replace(card, outputs={**_IMAGE, "enhanced": Port(unit=HU)})
    return Made(card, {"net.onnx": networks.two_outputs()})


def _super_resolution() -> Made:
    stage = Stage("net.onnx", _TAKEN, (TensorOutput("image_out", "image", KILO),), halo_px=3, factor=2)
    card = replace(
        _image_card("super-resolution", stage),
        task="super-resolution",
        operation="super-resolution",
        limits=Limits(bias_hu=2.0),
    )
    return Made(card, {"net.onnx": networks.super_resolver()})


def _segment() -> Made:
    names = ("image", "portal", "delayed")
    taken = tuple(TensorInput("image", name, KILO) for name in names)
    stage = Stage("net.onnx", taken, (TensorOutput("labels", "mask"),), halo_px=2)
    card = replace(
        _image_card("segment", stage),
        task="segment",
        operation="segment",
        inputs={name: Port(unit=HU) for name in names},
        outputs={"mask": Port("mask", labels=("body", "bone"))},
    )
    return Made(card, {"net.onnx": networks.segmenter()})


def _segment_marked() -> Made:
    first = Stage(
        "denoise.onnx", _TAKEN, (TensorOutput("residual", "denoised", KILO, residual_of="image"),), 7, multiple_px=2
    )
    taken = (
        TensorInput("image", "image", KILO),
        TensorInput("image", "denoised", KILO),
        TensorInput("image", "marks", Scale(divisor=10.0)),
    )
    second = Stage("segment.onnx", taken, (TensorOutput("labels", "mask"),), halo_px=2, multiple_px=16)
    card = replace(
        _image_card("segment-marked", first, second),
        task="segment",
        operation="segment",
        inputs={**_IMAGE, "marks": Port("prompt")},
        outputs={"mask": Port("mask", labels=("lesion",))},
    )
    files = {
        "denoise.onnx": networks.denoiser(channels=8, layers=3),
        "segment.onnx": networks.segmenter(thresholds=(0.03,)),
    }
    return Made(card, files)


def _detect() -> Made:
    outputs = (TensorOutput("scores", "scores"), TensorOutput("boxes", "boxes"))
    card = replace(
        _image_card("detect", Stage("net.onnx", _TAKEN, outputs, halo_px=12, multiple_px=4)),
        task="detect",
        operation="detect",
        outputs={"findings": Port("findings", labels=("bright", "very bright"))},
        settings={
            "score": Setting(0.5, "least score of a finding", 0.0, 1.0),
            "overlap": Setting(0.3, "largest share that two findings of one label may have in common", 0.0, 1.0),
        },
    )
    return Made(card, {"net.onnx": networks.detector(labels=2)})


def _contrast() -> Made:
    predicted = ("clip", "grid")
    outputs = (
        TensorOutput("clip", "clip", Scale(1.0, 7.0, clip=(1.0, 8.0))),
        TensorOutput("grid", "grid", Scale(2.0, 14.0, clip=(2.0, 16.0))),
    )
    card = replace(
        _image_card("contrast", Stage("net.onnx", _TAKEN, outputs)),
        task="contrast",
        operation="contrast",
        method="glcae",
        influence="volume",
        outputs={"image": Port(unit=ARBITRARY, presentation=True)},
        limits=Limits(clipped_fraction=None),
        settings={name: setting for name, setting in ContrastGlcae.card.settings.items() if name not in predicted},
    )
    return Made(card, {"net.onnx": networks.predictor(predicted)})


def _residual_stage(file: str, halo_px: int, multiple_px: int = 1) -> Stage:
    given = TensorOutput("residual", "image", KILO, residual_of="image")
    return Stage(file, _TAKEN, (given,), halo_px, multiple_px)


def _image_card(name: str, *stages: Stage) -> EngineCard:
    """The card of a denoiser of these stages; other tasks replace what is different."""
    return EngineCard(
        name=f"random-{name}",
        version="1.0.0",
        task="image",
        operation="denoise",
        intended_use="Tests and benchmarks: its weights are random.",
        influence="slice",
        inputs=_IMAGE,
        outputs=_IMAGE,
        envelope=_ENVELOPE,
        limits=Limits(bias_hu=2.0, noise_ratio=(0.03, 0.99)),
        source="dicomnode.testing.networks",
        stages=stages,
        precisions=_PRECISIONS,
    )


_SHAPES: Final[Mapping[Shape, Callable[[], Made]]] = {
    "denoise": _denoise,
    "denoise-large": _denoise_large,
    "adjacent": _adjacent,
    "three-inputs": _three_inputs,
    "two-stages": _two_stages,
    "two-outputs": _two_outputs,
    "super-resolution": _super_resolution,
    "segment": _segment,
    "segment-marked": _segment_marked,
    "detect": _detect,
    "contrast": _contrast,
}
