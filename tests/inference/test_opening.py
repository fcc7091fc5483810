"""An engine of a bundle is opened by a plan that was proved here, and by another runtime where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.inference import opening
from dicomnode.inference.opening import Place, open_engine
from dicomnode.testing.bundles import made_bundle
from engines.bundle.folder import Bundle
from engines.bundle.installed import BundleSource
from engines.errors import RuntimeFailedError
from engines.model.engine import ModelEngine
from engines.runtimes import devices
from engines.runtimes.choice import Wish
from engines.runtimes.tensorrt import runtime
from engines.runtimes.tensorrt.libraries import assemble
from engines.runtimes.tensorrt.runtime import Networks, build_plans, conclude
from tests.engines.runtimes.tensorrt.double import CudaDouble, Machine, TensorRtDouble

GPU_FIRST = Wish(precision="float32", devices=("cuda:0", "cpu"))


def source_of(bundle: Bundle) -> str:
    return str(BundleSource(bundle.digest, bundle.folder))


@pytest.fixture(name="bundle", scope="module")
def _bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return made_bundle(tmp_path_factory.mktemp("bundle"), "two-outputs")


@pytest.fixture(name="told", autouse=True)
def _told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """A machine with a GPU, on which only TensorRT computes; and what the log is told."""
    machine, told = Machine(), []
    libraries = assemble(TensorRtDouble(machine), CudaDouble(machine))
    monkeypatch.setattr(runtime, "load", lambda: libraries)
    monkeypatch.setattr(runtime, "cuda_devices", lambda: 1)
    monkeypatch.setattr(devices, "cuda_devices", lambda: 1)
    monkeypatch.setattr(opening, "event", lambda name, **fields: told.append({"event": name, **fields}))
    return told


@pytest.mark.parametrize(("proved", "computes"), [(True, "tensorrt-11.4/float32"), (False, "onnxruntime-")])
def test_only_a_proved_plan_computes(
    bundle: Bundle, tmp_path: Path, told: list[dict[str, str]], proved: bool, computes: str
) -> None:
    networks = Networks.of(bundle, tmp_path)
    conclude(networks, build_plans(networks, "cuda:0", "float32"), ["parity: FAILED"], proved)
    opened = open_engine(source_of(bundle), Place(GPU_FIRST, 1, tmp_path))
    assert opened.engine.card.runtime.startswith(computes)
    assert told[0]["event"] == "engine_opened"
    assert ("parity: FAILED" in told[0]["reason"]) != proved
    opened.close()


def test_without_plans_it_says_how_to_make_them(bundle: Bundle, tmp_path: Path, told: list[dict[str, str]]) -> None:
    open_engine(source_of(bundle), Place(GPU_FIRST, 1, tmp_path)).close()
    assert f"dicomnode engines build {bundle.card.reference}" in told[0]["reason"]


def test_on_processors_nothing_is_said_of_gpus(bundle: Bundle, tmp_path: Path, told: list[dict[str, str]]) -> None:
    open_engine(source_of(bundle), Place(Wish(precision="float32"), 1, tmp_path)).close()
    assert "tensorrt" not in told[0]["reason"]


def test_who_asks_for_tensorrt_on_a_processor_is_told_why_not(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailedError, match="nothing computes") as refused:
        open_engine(source_of(bundle), Place(Wish(runtime="tensorrt"), 1, tmp_path))
    assert "GPUs only" in refused.value.hint


def test_an_engine_whose_golden_test_breaks_off_is_closed(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks_off(*_: object) -> str:
        raise RuntimeFailedError("the device fell off", "look at it")

    closed: list[ModelEngine] = []
    monkeypatch.setattr(opening, "prove", breaks_off)
    monkeypatch.setattr(ModelEngine, "close", lambda engine: closed.append(engine))
    with pytest.raises(RuntimeFailedError, match="fell off"):
        open_engine(source_of(bundle), Place(Wish(precision="float32"), 1, tmp_path))
    assert len(closed) == 1
