"""ModelEngine: the same promises for every shape of bundle, computed by ONNX Runtime."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from dicomnode.testing.bundles import Made, Shape, engine_of, made, made_bundle, opened
from engines.base import Value
from engines.bundle.examples import example_inputs, example_volume
from engines.bundle.folder import golden
from engines.bundle.golden import compare
from engines.card import EngineCard, Port, Setting, TensorInput, TensorOutput
from engines.errors import BundleError, EngineInputError, RuntimeFailedError
from engines.findings import Findings
from engines.model.chain import Portions
from engines.model.engine import ModelEngine, Work
from engines.model.slabs import Assembly, slab_of
from engines.prompt import Box, Prompt
from engines.runtimes.base import Session
from engines.volume import ARBITRARY, HU, Mask, Volume

SHAPES: tuple[Shape, ...] = tuple(shape for shape in get_args(Shape) if shape != "denoise-large")
LOCAL = tuple(shape for shape in SHAPES if shape != "contrast")
SMALL = Portions(slices=2, batch=2, tile_px=24)
Inputs = Mapping[str, Value]


def run(engine: ModelEngine, inputs: Inputs, **settings: float) -> Mapping[str, Value]:
    return engine.run(inputs, engine.card.resolve(settings))


def arrays(values: Mapping[str, Value]) -> dict[str, NDArray[Any]]:
    return {name: array(value) for name, value in values.items()}


def array(value: Value) -> NDArray[Any]:
    if isinstance(value, Volume):
        return value.voxels
    if isinstance(value, Mask):
        return value.labels
    assert isinstance(value, Findings)
    return np.array([(item.slice_index, *item.box, item.score) for item in value.items])


def assert_alike(found: Mapping[str, Value], expected: Mapping[str, Value], within: float = 1e-3) -> None:
    assert set(found) == set(expected)
    for name, values in arrays(expected).items():
        assert np.allclose(arrays(found)[name], values, rtol=0, atol=within)
        assert grid(found[name]) == grid(expected[name])


def grid(value: Value) -> object:
    if isinstance(value, Volume):
        return value.affine.tolist(), value.unit, value.window, None if value.valid is None else value.valid.tolist()
    return (value.affine.tolist(), value.names) if isinstance(value, Mask) else len(array(value))


@pytest.fixture(scope="module", params=SHAPES)
def subject(request: pytest.FixtureRequest) -> Made:
    return made(request.param)


@pytest.fixture
def engine(subject: Made) -> Iterator[ModelEngine]:
    with engine_of(subject) as opened:
        yield opened


def test_each_output_is_what_the_card_declares(engine: ModelEngine) -> None:
    inputs = example_inputs(engine.card)
    source = inputs["image"]
    assert isinstance(source, Volume) and source.valid is not None
    kinds = {"volume": Volume, "mask": Mask, "findings": Findings}
    outputs = run(engine, inputs)
    assert set(outputs) == set(engine.card.outputs)
    for name, port in engine.card.outputs.items():
        value = outputs[name]
        assert isinstance(value, kinds[port.kind])
        assert isinstance(value, Volume) is (port.kind == "volume")
        if isinstance(value, Volume):
            assert np.isfinite(value.voxels).all()
            assert value.unit == port.unit
            assert np.ptp(value.voxels) > 0
        if isinstance(value, Mask):
            assert value.labels.shape == source.shape
            assert tuple(value.names.values()) == port.labels
            assert set(np.unique(value.labels)) <= {0, *value.names}
            assert value.labels.any()
            assert not value.labels[~source.valid].any()
        if isinstance(value, Findings):
            assert value.items


def test_tiled_in_slabs_and_batches_equals_whole(engine: ModelEngine, subject: Made) -> None:
    inputs = example_inputs(subject.card, (5, 61, 67))
    with engine_of(subject, SMALL) as cut:
        assert len(cut.slabs((5, 61, 67))) == (1 if subject.card.method else 3)
        assert_alike(run(cut, inputs), run(engine, inputs))


def test_the_same_inputs_give_the_same_outputs_and_stay_as_they_were(engine: ModelEngine, subject: Made) -> None:
    inputs, untouched = example_inputs(subject.card), example_inputs(subject.card)
    first = run(engine, inputs)
    with engine_of(subject) as another:
        assert_alike(run(another, inputs), first, within=0)
    assert_alike(run(engine, inputs), first, within=0)
    for name, value in inputs.items():
        if isinstance(value, Volume):
            assert np.array_equal(value.voxels, array(untouched[name]))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 17, 3), (2, 40, 33)])
@pytest.mark.parametrize("name", LOCAL)
def test_odd_sizes_and_single_slices(name: Shape, shape: tuple[int, int, int]) -> None:
    subject = made(name)
    inputs = {
        key: Prompt((Box(0, (0.0, 0.0, 0.5, 0.5)),)) if port.kind == "prompt" else unpadded(shape)
        for key, port in subject.card.inputs.items()
    }
    with engine_of(subject, SMALL) as engine:
        outputs = run(engine, inputs)
    factor = 2 if name == "super-resolution" else 1
    for value in outputs.values():
        if not isinstance(value, Findings):
            assert array(value).shape == (shape[0], factor * shape[1], factor * shape[2])


def unpadded(shape: tuple[int, int, int]) -> Volume:
    voxels = np.random.default_rng(1).normal(0.0, 50.0, shape).astype(np.float32)
    return Volume(voxels, np.diag([0.7, 0.8, 2.0, 1.0]), HU)


@pytest.mark.parametrize("name", LOCAL)
def test_a_slab_looks_at_what_it_says_and_gives_its_slices(name: Shape) -> None:
    subject = made(name)
    inputs = example_inputs(subject.card, (7, 40, 40))
    with engine_of(subject, Portions(slices=2)) as engine:
        settings = engine.card.resolve({})
        assembly = Assembly(7)
        for slab in reversed(engine.slabs((7, 40, 40))):
            assert len(slab.reads) <= len(slab.slices) + 2 * engine.halo_slices
            given = {key: hidden(value, slab.reads) for key, value in inputs.items()}
            assembly.put(slab.slices, engine.run_slab(given, settings, slab))
        found, expected = assembly.values(), run(engine, inputs)
    if name == "detect":
        found = {key: Findings(tuple(items(value))) for key, value in found.items()}
        expected = {key: Findings(tuple(items(value))) for key, value in expected.items()}
    assert_alike(found, expected, within=1e-4)


def items(value: Value) -> list[Any]:
    assert isinstance(value, Findings)
    return sorted(value.items, key=lambda item: (item.slice_index, item.label, item.box))


def hidden(value: Value, reads: range) -> Value:
    """With values that spoil everything in all slices that may not be looked at."""
    if not isinstance(value, Volume):
        return value
    voxels = np.full_like(value.voxels, np.nan)
    voxels[reads.start : reads.stop] = value.voxels[reads.start : reads.stop]
    return value.with_voxels(voxels)


def test_slabs_of_several_series_go_through_together(engine: ModelEngine) -> None:
    card = engine.card
    several = [example_inputs(card, (3, 40, 44)), example_inputs(card, (1, 40, 44)), example_inputs(card, (2, 33, 37))]
    settings = card.resolve({})
    works = [Work(inputs, settings, engine.slabs(array(inputs["image"]).shape)[0]) for inputs in several]
    for found, inputs in zip(engine.run_slabs(works), several, strict=True):
        assert_alike(found, run(engine, inputs))


@pytest.mark.parametrize("name", SHAPES)
def test_a_bundle_is_opened_and_passes_its_own_golden_test(name: Shape, tmp_path: Path) -> None:
    bundle = made_bundle(tmp_path, name)
    test = golden(bundle)
    engine = opened(bundle)
    assert engine.card.runtime.startswith("onnxruntime-") and engine.card.runtime.endswith("/float32")
    assert engine.card.bundle == bundle.digest
    assert engine.card.digest != bundle.card.digest
    differences = compare(test, "float32", run(engine, test.inputs))
    assert [str(difference) for difference in differences if not difference.passed] == []
    engine.close()


def test_two_thousand_slices_take_no_more_memory_than_two_hundred(tmp_path: Path) -> None:
    subject = made("two-stages")

    def mapped(name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        return np.lib.format.open_memmap(tmp_path / f"{name}-{shape[0]}.npy", "w+", dtype, shape)

    def peak_bytes(slices: int) -> int:
        voxels = mapped("source", (slices, 32, 32), np.float32)
        voxels[:] = np.random.default_rng(0).normal(0.0, 20.0, (slices, 32, 32))
        source = Volume(voxels, np.eye(4), HU)
        with engine_of(subject, Portions(slices=8), mapped) as engine:
            tracemalloc.start()
            outputs = run(engine, {"image": source})
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert all(np.abs(values - voxels).max() < 200.0 for values in arrays(outputs).values())
        return peak

    few, many = peak_bytes(200), peak_bytes(2000)
    assert many < few + 1_000_000
    assert many < 2000 * 32 * 32 * 4 / 2


def test_strength_blends_what_leaves_and_not_what_goes_on() -> None:
    subject = made("two-stages")
    card = replace(subject.card, settings={"strength": Setting(1.0, "share of the image", 0.0, 1.0)})
    with engine_of(replace(subject, card=card)) as engine:
        inputs = example_inputs(card)
        source = array(inputs["image"])
        none, half, full = (arrays(run(engine, inputs, strength=share)) for share in (0.0, 0.5, 1.0))
    for name in card.outputs:
        assert np.array_equal(none[name], source)
        assert np.allclose(half[name], (source + full[name]) / 2, atol=1e-3)
        assert np.abs(full[name] - source).max() > 5.0


def test_what_a_stage_gives_is_what_the_next_takes() -> None:
    subject = made("two-stages")
    alone = replace(subject.card, stages=subject.card.stages[1:], outputs={"enhanced": Port(unit=HU)})
    inputs = {"image": unpadded((2, 30, 30))}
    with engine_of(subject) as both, engine_of(replace(subject, card=alone)) as second:
        outputs = run(both, inputs)
        again = run(second, {"image": outputs["image"]})
    assert np.array_equal(array(outputs["enhanced"]), array(again["enhanced"]))


def test_slices_beside_are_the_ones_beside() -> None:
    """The network's middle channel is the slice itself; at the ends the last slice is repeated."""
    seen = Recorder()
    subject = made("adjacent")
    engine = ModelEngine(subject.card, [seen], Portions(slices=2))
    source = Volume(
        np.arange(5, dtype=np.float32)[:, None, None] * np.full((1, 3, 3), 1000.0, np.float32), np.eye(4), HU
    )
    run(engine, {"image": source})
    triples = np.concatenate(seen.images)[:, :, 0, 0].tolist()
    assert triples == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 4]]
    assert engine.halo_slices == 1


class Recorder:
    """A network that takes nothing away, and keeps what it was shown."""

    identity = "recorder/float32"

    def __init__(self) -> None:
        self.images: list[NDArray[np.float32]] = []
        self.is_closed = False

    def run(self, tensors: Mapping[str, NDArray[np.float32]]) -> Mapping[str, NDArray[np.float32]]:
        self.images.append(tensors["image"].copy())
        return {"residual": np.zeros_like(tensors["image"][:, :1])}

    def close(self) -> None:
        self.is_closed = True


def test_padding_is_not_shown_to_the_network_and_comes_back() -> None:
    seen = Recorder()
    source = example_volume((1, 20, 20))
    output = run(ModelEngine(made("denoise").card, [seen]), {"image": source})["image"]
    assert seen.images[0].min() > -1.2
    assert np.array_equal(array(output), source.voxels)


def test_a_region_around_each_mark_is_all_that_a_network_sees() -> None:
    subject = made("segment-marked")
    with engine_of(subject) as engine:
        source = unpadded((4, 96, 96)).with_voxels(np.full((4, 96, 96), 300.0, np.float32))
        marks = Prompt(
            (Box(1, (40.0, 40.0, 48.0, 46.0)), Box(1, (80.0, 80.0, 84.0, 84.0)), Box(3, (10.0, 50.0, 14.0, 52.0)))
        )
        labels = array(run(engine, {"image": source, "marks": marks})["mask"])
    assert labels.reshape(4, -1).any(axis=1).tolist() == [False, True, False, True]
    assert np.argwhere(labels[1]).min() >= 44 - 8
    assert labels[1, 44, 44] == 1 and labels[1, 82, 82] == 1
    assert not labels[1, :30].any() and not labels[3, :, 30:].any()


def test_what_a_card_does_not_declare_is_refused() -> None:
    marked = made("segment-marked")
    with engine_of(marked) as engine:
        inputs = dict(example_inputs(marked.card))
        source = inputs["image"]
        assert isinstance(source, Volume)
        arbitrary = source.with_voxels(source.voxels, ARBITRARY)
        for changed, words in (
            ({"image": source}, "was given image"),
            ({**inputs, "more": source}, "it takes: image, marks"),
            ({**inputs, "image": Findings(())}, "given a findings as 'image'"),
            ({**inputs, "image": arbitrary}, "takes HU"),
            ({**inputs, "marks": Prompt((Box(9, (1.0, 1.0, 2.0, 2.0)),))}, "a slice that the volume does not have"),
            ({**inputs, "marks": Prompt((Box(0, (400.0, 1.0, 420.0, 9.0)),))}, "outside of the image"),
        ):
            with pytest.raises(EngineInputError) as error:
                run(engine, changed)
            assert words in f"{error.value} {error.value.hint}"
            assert error.value.hint


@pytest.mark.parametrize("change", ["shifted", "larger", "fewer"])
def test_volumes_of_different_grids_are_refused(change: str) -> None:
    subject = made("segment")
    inputs = dict(example_inputs(subject.card))
    other = inputs["delayed"]
    assert isinstance(other, Volume)
    shifted = replace(other, affine=other.affine + np.eye(4)[:, ::-1] * 0.5)
    larger = replace(other, affine=other.affine * np.array([1.01, 1.0, 1.0, 1.0]))
    inputs["delayed"] = {"shifted": shifted, "larger": larger, "fewer": slab_of(other, range(2))}[change]
    with engine_of(subject) as engine, pytest.raises(EngineInputError, match="'delayed' has another grid"):
        run(engine, inputs)


def test_networks_that_cannot_give_what_the_card_promises_are_refused() -> None:
    denoise, detect, contrast = (made(name).card for name in ("denoise", "detect", "contrast"))
    finer = replace(made("super-resolution").card, task="image")
    twice = made("super-resolution").card.stages[0]
    beside = replace(denoise.stages[0], inputs=(TensorInput("image", "image", adjacent=1),))
    for card, words in (
        (replace(denoise, outputs={"other": Port()}), "no stage gives its output 'other'"),
        (finer, "has 2 times the rows"),
        (replace(finer, stages=tuple(replace(twice, factor=8) for _ in range(2))), "64 times the rows"),
        (replace(detect, outputs={"findings": Port()}), "'findings' is a volume"),
        (replace(detect, outputs={"findings": Port("findings")}), "has 0 labels"),
        (replace(detect, outputs={**detect.outputs, "more": Port("findings", labels=("one",))}), "has 2 outputs"),
        (replace(denoise, inputs={**denoise.inputs, "more": Port("findings")}), "'more' is findings"),
        (replace(detect, stages=denoise.stages), "no scores"),
        (replace(detect, stages=(*detect.stages, *denoise.stages)), "last stage gives no scores"),
        (replace(detect, stages=(twice, *detect.stages)), "looks at a finer grid"),
        (replace(contrast, method=""), "no method"),
        (replace(contrast, settings={"clip": Setting(1.0, "")}), "predicts no setting"),
        (replace(contrast, inputs={**contrast.inputs, "marks": Port("prompt")}), "takes a prompt for contrast"),
        (replace(denoise, inputs={"image": Port("mask")}), "takes no volume"),
        (replace(denoise, stages=(beside,)), "influence"),
    ):
        assert_refused(card, words)


def assert_refused(card: EngineCard, words: str) -> None:
    with pytest.raises(BundleError) as error:
        ModelEngine(card, [Recorder() for _ in card.stages])
    assert words in str(error.value)
    assert error.value.hint


def test_a_network_too_few_is_refused() -> None:
    with pytest.raises(BundleError, match="2 stages, and 1 networks"):
        ModelEngine(made("two-stages").card, [Recorder()])


def test_if_one_network_cannot_be_opened_the_others_are_closed(tmp_path: Path) -> None:
    opened: list[Recorder] = []

    def opener(path: Path) -> Session:
        if opened:
            raise RuntimeFailedError("the device is full", "free it")
        opened.append(Recorder())
        return opened[0]

    with pytest.raises(RuntimeFailedError):
        ModelEngine.open(made_bundle(tmp_path, "two-stages"), opener)
    assert opened[0].is_closed


def test_an_image_of_several_channels_is_refused() -> None:
    class Colours(Recorder):
        def run(self, tensors: Mapping[str, NDArray[np.float32]]) -> Mapping[str, NDArray[np.float32]]:
            return {"residual": tensors["image"].repeat(3, axis=1)}

    card = made("denoise").card
    stage = replace(card.stages[0], outputs=(TensorOutput("residual", "image"),))
    with pytest.raises(EngineInputError, match="image with 3 channels"):
        run(ModelEngine(replace(card, stages=(stage,)), [Colours()]), {"image": unpadded((1, 8, 8))})


def test_a_volume_without_voxels_is_refused() -> None:
    with pytest.raises(EngineInputError, match="without voxels"):
        run(ModelEngine(made("denoise").card, [Recorder()]), {"image": unpadded((0, 8, 8))})


def test_a_network_of_another_factor_is_refused() -> None:
    subject = made("super-resolution")
    stage = replace(subject.card.stages[0], factor=3)
    with (
        engine_of(replace(subject, card=replace(subject.card, stages=(stage,)))) as engine,
        pytest.raises(EngineInputError, match="was declared"),
    ):
        run(engine, {"image": unpadded((1, 8, 8))})
