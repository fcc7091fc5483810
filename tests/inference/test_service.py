"""The engine worker: chains between gates, in this process and in its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomnode.core.ports import ChainRequest
from dicomnode.inference import opening
from dicomnode.inference.dispatch import Extent
from dicomnode.inference.service import EngineService, describe, run_chain
from dicomnode.workers import WorkerPool
from engines.base import Value
from engines.classical.nlm import CtNlm
from engines.errors import EngineInputError, EngineNotFoundError, SettingError
from engines.registry import Registry, default_registry
from engines.volume import Volume, load_volume, save_volume
from tests.engines.phantoms import body, noisy, volume

HEADER = {"Modality": ["CT"]}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    """A saved volume of two slices, and an empty folder."""
    (tmp_path / "volume").mkdir()
    (tmp_path / "out").mkdir()
    save_volume(volume(noisy(body(), 12.0), noisy(body(), 12.0, seed=1)), tmp_path / "volume")
    return str(tmp_path / "volume"), str(tmp_path / "out")


def run(
    folders: tuple[str, str],
    *chain: Mapping[str, Any],
    header: Mapping[str, list[str]] = HEADER,
    released: bool = False,
) -> dict[str, Any]:
    answer = run_chain(list(chain), {"image": folders[0]}, {"image": header}, folders[1], released)
    told: dict[str, Any] = json.loads(json.dumps(answer, allow_nan=False))
    return told


class Shifting(CtNlm):
    """A denoiser that lost its calibration."""

    def run(self, inputs: Mapping[str, Value], settings: Mapping[str, Any]) -> Mapping[str, Value]:
        output = super().run(inputs, settings)["image"]
        assert isinstance(output, Volume)
        return {"image": output.with_voxels(output.voxels + np.float32(5.0))}


class Broken(CtNlm):
    """A denoiser that divided by zero."""

    def run(self, inputs: Mapping[str, Value], settings: Mapping[str, Any]) -> Mapping[str, Value]:
        output = super().run(inputs, settings)["image"]
        assert isinstance(output, Volume)
        return {"image": output.with_voxels(output.voxels * np.float32("nan"))}


def test_one_engine(folders: tuple[str, str]) -> None:
    told = run(folders, {"engine": "ct-nlm", "settings": {"strength": 0.5}})
    assert (told["state"], told["reasons"]) == ("done", [])
    (stage,) = told["stages"]
    assert stage["engine"] == "ct-nlm"
    assert stage["settings"] == {"strength": 0.5}
    assert stage["unit"] == "HU"
    assert stage["presentation"] is False
    assert stage["before"]["passed"] and stage["after"]["passed"]
    assert stage["quality"]["noise_after"] < stage["quality"]["noise_before"]
    assert stage["card_digest"] == describe("ct-nlm")["digest"]
    saved = load_volume(Path(folders[1]) / stage["folder"])
    assert saved.shape == (2, 128, 128)


def test_a_chain_feeds_the_output_on(folders: tuple[str, str]) -> None:
    told = run(folders, {"engine": "ct-nlm@1.0.0"}, {"engine": "contrast-glcae"})
    assert told["state"] == "done"
    assert [stage["folder"] for stage in told["stages"]] == ["0-ct-nlm-image", "1-contrast-glcae-image"]
    engine = default_registry().get("contrast-glcae")
    first, second = (load_volume(Path(folders[1]) / stage["folder"]) for stage in told["stages"])
    expected = engine.run({"image": first}, engine.card.resolve({}))["image"]
    assert isinstance(expected, Volume)
    assert np.array_equal(second.voxels, expected.voxels)
    assert told["stages"][1]["presentation"] is True
    assert told["stages"][1]["quality"] == {}


def test_a_chain_whose_units_do_not_fit_is_refused_by_the_gate(folders: tuple[str, str]) -> None:
    told = run(folders, {"engine": "contrast-glcae"}, {"engine": "ct-nlm"})
    assert told["state"] == "refused"
    assert told["reasons"] == ["values are in arbitrary units, HU is wanted"]
    assert told["stages"][1]["folder"] is None
    assert told["stages"][1]["after"] is None


def test_what_is_outside_the_envelope_runs_nothing(folders: tuple[str, str]) -> None:
    told = run(folders, {"engine": "ct-nlm"}, {"engine": "contrast-glcae"}, header={"Modality": ["PT"]})
    assert told["state"] == "refused"
    assert len(told["stages"]) == 1
    assert list(Path(folders[1]).iterdir()) == []


def test_what_fails_its_gate_for_its_figures_is_withheld_and_kept_for_review(
    folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "default_registry", lambda: Registry({"ct-nlm": Shifting}))
    told = run(folders, {"engine": "ct-nlm"}, {"engine": "ct-nlm"})
    assert len(told["stages"]) == 1
    assert told["state"] == "withheld"
    assert any(reason.startswith("soft tissue changes by") for reason in told["reasons"])
    assert told["stages"][0]["quality"]["bias_hu"]["soft tissue"] == pytest.approx(5.0, abs=0.2)
    assert load_volume(Path(folders[1]) / told["stages"][0]["folder"]).shape == (2, 128, 128)


def test_a_released_chain_goes_on_and_tells_what_did_not_pass(
    folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "default_registry", lambda: Registry({"ct-nlm": Shifting}))
    told = run(folders, {"engine": "ct-nlm"}, {"engine": "ct-nlm"}, released=True)
    assert told["state"] == "done"
    assert [stage["folder"] for stage in told["stages"]] == ["0-ct-nlm-image", "1-ct-nlm-image"]
    assert any(reason.startswith("soft tissue changes by") for reason in told["reasons"])
    assert not told["stages"][0]["after"]["passed"]


@pytest.mark.parametrize("released", [False, True])
def test_what_is_no_image_of_the_source_any_more_is_never_kept(
    folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch, released: bool
) -> None:
    monkeypatch.setattr(opening, "default_registry", lambda: Registry({"ct-nlm": Broken}))
    told = run(folders, {"engine": "ct-nlm"}, released=released)
    assert (told["state"], told["stages"][0]["folder"]) == ("withheld", None)
    assert list(Path(folders[1]).iterdir()) == []


def test_mistakes_are_found_before_anything_runs(folders: tuple[str, str]) -> None:
    with pytest.raises(EngineNotFoundError) as missing:
        run(folders, {"engine": "ct-nlm"}, {"engine": "ct-nml"})
    assert "ct-nlm" in missing.value.hint
    with pytest.raises(SettingError):
        run(folders, {"engine": "ct-nlm"}, {"engine": "contrast-glcae", "settings": {"clip": 0.0}})
    with pytest.raises(EngineInputError):
        run(folders)
    assert list(Path(folders[1]).iterdir()) == []


def test_the_input_is_not_altered(folders: tuple[str, str]) -> None:
    before = {path.name: path.read_bytes() for path in Path(folders[0]).iterdir()}
    run(folders, {"engine": "ct-nlm"}, {"engine": "contrast-glcae"})
    assert {path.name: path.read_bytes() for path in Path(folders[0]).iterdir()} == before


@pytest.mark.parametrize("name", default_registry(zoo=None).names())
def test_cards_are_json(name: str) -> None:
    card = json.loads(json.dumps(describe(name), allow_nan=False))
    assert card["name"] == name
    assert len(card["digest"]) == 64


def test_the_service_tells_the_same_and_gives_the_same_voxels(folders: tuple[str, str], tmp_path: Path) -> None:
    chain = [{"engine": "ct-nlm", "settings": {}}, {"engine": "contrast-glcae", "settings": {}}]
    here = run(folders, *chain)
    (tmp_path / "other").mkdir()
    place = {"wish": {"devices": ["cpu"]}, "threads": 1, "cache": None, "memory_bytes": 1 << 30, "idle_s": 600.0}
    with ExitStack() as stack:
        judges = stack.enter_context(closing(WorkerPool("dicomnode.inference.gates", 1)))
        service = stack.enter_context(closing(EngineService(Extent([place] * 2, 600.0, 8 << 30), judges, 1)))
        out = str(tmp_path / "other")
        asked = ChainRequest(chain, {"image": folders[0]}, {"image": HEADER}, out, priority=100, deadline_s=60.0)
        with service.admit(asked) as running:
            running.arrived(2)
            there = running.report()
        with (
            pytest.raises(SettingError, match="strength"),
            service.admit(replace(asked, chain=[{"engine": "ct-nlm", "settings": {"strength": 9.0}}])) as running,
        ):
            running.report()
    for ours, theirs in zip(here["stages"], there["stages"], strict=True):
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
        one, other = load_volume(Path(folders[1]) / ours["folder"]), load_volume(tmp_path / "other" / theirs["folder"])
        assert np.array_equal(one.voxels, other.voxels)
