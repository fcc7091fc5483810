"""Chains of engines with several inputs and outputs: what each takes, and what is said where nothing gives it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dicomnode.inference.service import run_chain
from dicomnode.inference.stages import Prepared, Ran, Verdict, run_stages
from dicomnode.store import bundles
from dicomnode.store.bundles import By
from dicomnode.testing.bundles import Shape, made_bundle
from engines.errors import EngineInputError
from engines.registry import Registry, default_registry
from engines.volume import load_volume, save_volume
from tests.engines.phantoms import body, noisy, volume

SHAPES: tuple[Shape, ...] = ("three-inputs", "two-outputs", "segment", "segment-marked")
HEADER = {"Modality": ["CT"]}


@pytest.fixture(scope="module", name="registry")
def _registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("bundles")
    for shape in SHAPES:
        (folder / shape).mkdir()
        bundles.add(folder / "engines", made_bundle(folder / shape, shape), "", By("physicist", 1.7e9))
    return default_registry(folder / "engines")


def run(registry: Registry, folder: Path, names: list[str], *chain: tuple[Shape, list[str]]) -> Mapping[str, Any]:
    """Run a chain of (shape, outputs that leave) on volumes of these names."""
    inputs = {}
    for seed, name in enumerate(names):
        (folder / name).mkdir()
        save_volume(volume(*(noisy(body(48), 15.0, seed=2 * seed + one) for one in range(2))), folder / name)
        inputs[name] = str(folder / name)
    (folder / "out").mkdir()
    links = [{"engine": registry.source(f"random-{shape}"), "leaving": leaving} for shape, leaving in chain]
    return run_chain(links, inputs, {"image": HEADER}, str(folder / "out"), released=True)


def test_a_mask_goes_its_own_way_and_the_image_on(registry: Registry, tmp_path: Path) -> None:
    chain: list[tuple[Shape, list[str]]] = [("segment", []), ("two-outputs", ["", "enhanced"]), ("three-inputs", [])]
    told = run(registry, tmp_path, ["image", "portal", "delayed"], *chain)
    assert [(stage["output"], list(stage["outputs"])) for stage in told["stages"]] == [
        ("mask", ["mask"]),
        ("image", ["image", "enhanced"]),
        ("image", ["image"]),
    ]
    assert told["stages"][2]["inputs"] == ["image", "portal", "delayed"]
    last = load_volume(tmp_path / "out" / told["stages"][2]["folder"])
    assert last.shape == (2, 48, 48)


@pytest.mark.parametrize(
    ("names", "chain", "said"),
    [
        (
            ["image", "portal"],
            [("three-inputs", [""])],
            "^random-three-inputs@1.0.0 takes 'delayed', and nothing gives it",
        ),
        (
            ["image", "portal", "delayed"],
            [("segment", [""])],
            "^random-segment@1.0.0 gives a mask, and no DICOM object is made of that yet",
        ),
        (["image"], [("segment-marked", [])], "wants marks that a person drew, as 'marks'"),
        (["image"], [("two-outputs", ["sharper"])], "has no output 'sharper'"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is(
    registry: Registry, tmp_path: Path, names: list[str], chain: list[tuple[Shape, list[str]]], said: str
) -> None:
    with pytest.raises(EngineInputError, match=said):
        run(registry, tmp_path, names, *chain)
    assert list((tmp_path / "out").iterdir()) == []


class _Recording:
    """A station that computes nothing, and remembers what it was given."""

    def __init__(self) -> None:
        self.given: list[Mapping[str, str]] = []

    def prepare(self, index: int, engine: str, settings: Mapping[str, Any]) -> Prepared:
        raise NotImplementedError

    def run(self, stage: Prepared, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Ran:
        self.given.append(inputs)
        passed = Verdict({}, True, ())
        return Ran(passed, dict.fromkeys(outputs, passed), {}, 0.0)


def _stage(index: int, inputs: list[str], outputs: list[str]) -> Prepared:
    sides = {"inputs": inputs, "outputs": outputs}
    ports = {
        side: {name: {"kind": "volume", "presentation": False, "unit": "HU"} for name in names}
        for side, names in sides.items()
    }
    words = dict.fromkeys(("name", "version", "digest", "bundle", "runtime", "operation", "influence"), f"e{index}")
    return Prepared(index, f"e{index}", {**words, **ports}, "", {}, 0, True)


@pytest.mark.parametrize(("series", "original"), [({}, "/image"), ({"original": "/named"}, "/named")])
def test_what_a_chain_began_with_stays_there_for_engines_after_it(
    tmp_path: Path, series: Mapping[str, str], original: str
) -> None:
    station = _Recording()
    stages = [_stage(0, ["image"], ["denoised", "enhanced"]), _stage(1, ["image", "original", "enhanced"], ["image"])]
    run_stages(station, stages, {"image": "/image", **series}, tmp_path, released=False)
    made = str(tmp_path / "0-e0-")
    assert station.given == [
        {"image": "/image"},
        {"image": f"{made}denoised", "original": original, "enhanced": f"{made}enhanced"},
    ]
