"""From a bundle to a plan that may compute: built, proved, activated, found again; and passed over where not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomnode.testing.bundles import example_inputs, made_bundle, opened
from engines.bundle.folder import Bundle, golden
from engines.bundle.golden import Tolerance
from engines.errors import RuntimeFailedError
from engines.model.chain import Portions
from engines.model.engine import ModelEngine
from engines.runtimes.base import Resources
from engines.runtimes.onnxruntime import OnnxRuntime
from engines.runtimes.tensorrt import runtime
from engines.runtimes.tensorrt.activation import Proof, prove
from engines.runtimes.tensorrt.libraries import assemble, load
from engines.runtimes.tensorrt.plans import PlanStore
from engines.runtimes.tensorrt.runtime import Networks, TensorRt, build_plans, conclude, open_built
from engines.runtimes.tensorrt.selftest import Load, Step, run_steps
from tests.engines.runtimes.tensorrt.double import CudaDouble, Machine, TensorRtDouble, cudaDeviceProp, cudaError_t

GPU = "cuda:0"


@pytest.fixture(name="machine")
def _machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with a GPU of compute capability 7.5: without bfloat16, in which ONNX Runtime does not compute."""
    machine = Machine()
    monkeypatch.setattr(cudaDeviceProp, "major", 7)
    monkeypatch.setattr(cudaDeviceProp, "minor", 5)
    libraries = assemble(TensorRtDouble(machine), CudaDouble(machine))
    monkeypatch.setattr(runtime, "load", lambda: libraries)
    monkeypatch.setattr(runtime, "cuda_devices", lambda: 1)
    return machine


@pytest.fixture(name="bundle", scope="module")
def _bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Two stages, so two plans."""
    return made_bundle(tmp_path_factory.mktemp("bundle"), "two-stages")


@pytest.fixture(name="networks")
def _networks(bundle: Bundle, tmp_path: Path) -> Networks:
    return Networks.of(bundle, tmp_path)


@pytest.fixture(name="reference", scope="module")
def _reference(bundle: Bundle) -> Iterator[ModelEngine]:
    engine = opened(bundle)
    yield engine
    engine.close()


def proved(bundle: Bundle, networks: Networks, reference: ModelEngine, **change: Any) -> Proof:
    records = build_plans(networks, GPU, "float16")
    engine = ModelEngine(bundle.card, [open_built(networks, GPU, record) for record in records], Portions(batch=2))
    test = replace(golden(bundle), **change)
    proof = prove(test, "float16", [engine], reference, [example_inputs(bundle.card, (4, 40, 48))])
    engine.close()
    conclude(networks, records, proof.lines, proof.passed)
    return proof


def test_a_plan_computes_only_after_it_was_proved(
    machine: Machine, bundle: Bundle, networks: Networks, reference: ModelEngine
) -> None:
    tensorrt = TensorRt(networks)
    assert "dicomnode engines build" in tensorrt.unavailable(GPU)
    build_plans(networks, GPU, "float16")
    assert tensorrt.precisions(GPU) == ()
    with pytest.raises(RuntimeFailedError, match="no activated plan"):
        tensorrt.open(bundle.networks[0], Resources(GPU, precision="float16"))
    assert "deserialize_cuda_engine" not in machine.called

    assert proved(bundle, networks, reference).passed
    assert tensorrt.unavailable(GPU) == ""
    assert tensorrt.precisions(GPU) == ("float16",)
    opened = ModelEngine.open(bundle, lambda model: tensorrt.open(model, Resources(GPU, precision="float16")))
    assert "tensorrt-11.4/float16" in opened.card.runtime
    opened.close()


def test_one_outside_its_tolerance_is_not_used_and_says_why(
    machine: Machine, bundle: Bundle, networks: Networks, reference: ModelEngine
) -> None:
    strict = {"float16": {name: Tolerance(0.0, 0.0, 0.0) for name in bundle.card.outputs}}
    proof = proved(bundle, networks, reference, tolerance=strict)
    assert not proof.passed
    assert any("FAILED" in line for line in proof.lines)
    tensorrt = TensorRt(networks)
    assert tensorrt.precisions(GPU) == ()
    assert "FAILED" in tensorrt.unavailable(GPU)
    with pytest.raises(RuntimeFailedError) as refused:
        tensorrt.open(bundle.networks[0], Resources(GPU, precision="float16"))
    assert "FAILED" in refused.value.hint
    lines = [line for known in PlanStore(networks.cache).known(bundle.digest) for line in known.lines]
    assert sum("NOT used" in line for line in lines) == 2


def test_nothing_is_proved_without_real_slices(bundle: Bundle, reference: ModelEngine) -> None:
    proof = prove(golden(bundle), "float32", [reference], reference, [])
    assert all(difference.passed for difference in proof.golden)
    assert not proof.passed
    assert proof.lines[-1] == "no real slices were given"


@pytest.mark.parametrize("fault", [500.0, np.nan])
def test_a_fault_on_real_slices_alone_is_found(bundle: Bundle, reference: ModelEngine, fault: float) -> None:
    """The golden test passes; what the plan makes of other slices is wrong."""
    test = golden(bundle)

    class Faulty:
        card = reference.card

        def run(self, inputs: Any, settings: Any) -> Any:
            outputs = dict(reference.run(inputs, settings))
            if inputs is test.inputs:
                return outputs
            name, volume = next(iter(outputs.items()))
            voxels = volume.voxels.copy()
            voxels[0, 0, 0] += fault
            outputs[name] = volume.with_voxels(voxels)
            return outputs

    proof = prove(test, "float32", [reference, Faulty()], reference, [example_inputs(bundle.card, (3, 40, 40))])
    assert all(difference.passed for difference in proof.golden)
    assert not proof.passed


def test_another_driver_or_bundle_has_no_plan(
    machine: Machine, bundle: Bundle, networks: Networks, reference: ModelEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert proved(bundle, networks, reference).passed
    assert TensorRt(replace(networks, bundle="0" * 64)).precisions(GPU) == ()
    monkeypatch.setattr(CudaDouble, "cudaDriverGetVersion", lambda _: (cudaError_t.cudaSuccess, 13020))
    assert TensorRt(networks).precisions(GPU) == ()
    known = PlanStore(networks.cache).known(bundle.digest)
    assert {plan.stage for plan in known} == {path.name for path in networks.files}


def test_a_plan_that_was_changed_is_passed_over(
    machine: Machine, bundle: Bundle, networks: Networks, reference: ModelEngine
) -> None:
    assert proved(bundle, networks, reference).passed
    for path in (networks.cache / "tensorrt").glob("*.plan"):
        path.write_bytes(b"someone else's")
    assert "was changed" in TensorRt(networks).unavailable(GPU)
    (networks.cache / "tensorrt.key").chmod(0o644)
    assert "key" in TensorRt(networks).unavailable(GPU)


def test_a_second_build_uses_the_timings_of_the_first_and_leaves_one_plan_a_network(
    machine: Machine, bundle: Bundle, networks: Networks
) -> None:
    for _ in range(2):
        build_plans(networks, GPU, "float32")
    folder = networks.cache / "tensorrt"
    assert len(list(folder.glob("*.plan"))) == len(list(folder.glob("*.json"))) == 2
    assert len(list(folder.glob("*.timing"))) == 1


def test_what_is_missing_is_said_before_anything_of_cuda_is_asked(networks: Networks) -> None:
    tensorrt = TensorRt(networks)
    assert "GPUs only" in tensorrt.unavailable("cpu")
    assert "nvidia-smi" in tensorrt.unavailable("cuda:99")
    with pytest.raises(RuntimeFailedError):
        tensorrt.open(networks.files[0], Resources("cuda:99"))


def test_a_machine_without_the_libraries_says_how_to_install_them(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "cuda_devices", lambda: 1)
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    monkeypatch.setitem(__import__("sys").modules, "tensorrt_bindings", None)
    load.cache_clear()
    assert "dicomnode-router[tensorrt]" in TensorRt(networks).unavailable(GPU)


def test_a_version_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", TensorRtDouble(machine, "12.0.0.1"))
    monkeypatch.setitem(__import__("sys").modules, "cuda.bindings.runtime", CudaDouble(machine))
    load.cache_clear()
    with pytest.raises(RuntimeFailedError, match=r"12\.0\.0\.1"):
        load()


def steps(machine: Machine) -> dict[str, Step]:
    small = Load(channels=2, layers=2, batch=2, rounds=1)
    found = run_steps(lambda: runtime.on_device(GPU), GPU, OnnxRuntime(), small)
    assert all(step.next_step for step in found if not step.passed)
    return {step.name: step for step in found}


def test_the_self_test_passes_where_all_is_well(machine: Machine) -> None:
    found = steps(machine)
    assert [step.name for step in found.values() if not step.passed] == []
    assert "compute capability 7.5" in found["libraries, driver and device"].found
    assert "graph" in found["float16: the same bits again, by graphs too"].found
    assert found["build in float16"].found.endswith("left in float32: Sub denoised")
    assert machine.memory == {}


@pytest.mark.parametrize(
    ("fails", "step"),
    [
        ("cudaGetDeviceProperties", "libraries, driver and device"),
        ("cudaMemGetInfo", "memory"),
        ("build_serialized_network", "build in float16"),
        ("create_execution_context", "float16: parity"),
    ],
)
def test_the_self_test_names_what_fails(machine: Machine, fails: str, step: str) -> None:
    machine.refuse[fails] = cudaError_t.cudaErrorMemoryAllocation
    assert not steps(machine)[step].passed


def test_the_self_test_finds_wrong_values(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Machine.view
    monkeypatch.setattr(Machine, "view", lambda self, address, shape: right(self, address, shape) * np.float32(1.0))
    found = steps(machine)
    assert not found["float32: parity"].passed
    assert "another precision" in found["float32: parity"].next_step
