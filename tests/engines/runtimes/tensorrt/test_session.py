"""Building and computing, through a double of TensorRT and CUDA that computes and that fails as the real ones do."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import onnxruntime
import pytest

from dicomnode.testing import networks
from engines.errors import EngineInputError, RuntimeFailedError
from engines.runtimes.tensorrt.building import build
from engines.runtimes.tensorrt.device import describe
from engines.runtimes.tensorrt.libraries import Libraries, assemble
from engines.runtimes.tensorrt.plans import BuildSettings
from engines.runtimes.tensorrt.profiles import Range, Sizes, input_specs, plan_profiles
from engines.runtimes.tensorrt.session import TensorRtSession
from tests.engines.runtimes.tensorrt.double import CudaDouble, Machine, TensorRtDouble, cudaError_t

NETWORK = networks.two_outputs(channels=2)
SMALL = (Sizes(Range(1, 4, 4), Range(32, 32, 32)), Sizes(Range(1, 1, 2), Range(16, 32, 64)))
FULL = cudaError_t.cudaErrorMemoryAllocation


def libraries_of(machine: Machine, version: str = "11.4.0.106") -> Libraries:
    return assemble(TensorRtDouble(machine, version), CudaDouble(machine))


def plan_of(machine: Machine, network: bytes = NETWORK) -> bytes:
    profiles = plan_profiles(input_specs(network), SMALL)
    return build(libraries_of(machine), network, profiles, BuildSettings(), b"").plan


def opened(machine: Machine) -> TensorRtSession:
    return TensorRtSession(libraries_of(machine), plan_of(machine), 0, "float16")


def image(batch: int, rows: int = 32, columns: int = 32) -> Any:
    return np.random.default_rng([batch, rows, columns]).uniform(-1, 1, (batch, 1, rows, columns)).astype(np.float32)


def expected(given: Any) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(NETWORK, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": given}), strict=True))


@pytest.fixture(name="machine")
def _machine() -> Machine:
    return Machine()


@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (4,), (9,), (17,), (1, 16, 64), (5, 48, 17)])
def test_any_batch_in_a_profile_is_computed_in_order(machine: Machine, shape: tuple[int, ...]) -> None:
    session, given = opened(machine), image(*shape)
    for _ in range(4):  # the third time by a graph
        found = session.run({"image": given})
        for name, values in expected(given).items():
            assert np.allclose(found[name], values, atol=1e-6)


def test_two_pieces_are_under_way_at_once(machine: Machine) -> None:
    session = opened(machine)
    session.run({"image": image(1)})
    assert machine.busiest == 1
    session.run({"image": image(8)})
    assert machine.busiest == 2
    assert len(machine.streams) == 2


def test_a_shape_that_comes_again_becomes_a_graph_and_another_gives_it_up(machine: Machine) -> None:
    session = opened(machine)
    for _ in range(5):
        session.run({"image": image(1)})
    assert session.graphs == 1
    assert machine.called.count("cudaGraphLaunch") == 3
    started = machine.called.count("execute_async_v3")
    session.run({"image": image(1)})
    assert machine.called.count("execute_async_v3") == started
    found = session.run({"image": image(3)})["enhanced"]
    assert session.graphs == 0
    assert np.allclose(found, expected(image(3))["enhanced"], atol=1e-6)
    assert machine.called.count("cudaGraphExecDestroy") == 1


@pytest.mark.parametrize("name", ["cudaStreamEndCapture"])
def test_a_network_that_cannot_be_captured_is_computed_without(machine: Machine, name: str) -> None:
    session = opened(machine)
    machine.refuse[name] = cudaError_t.cudaErrorStreamCaptureUnsupported
    for _ in range(4):
        assert np.allclose(session.run({"image": image(1)})["enhanced"], expected(image(1))["enhanced"], atol=1e-6)
    assert session.graphs == 0


def test_what_was_given_stays_and_what_was_returned_is_the_callers(machine: Machine) -> None:
    session, given = opened(machine), image(4)
    kept = given.copy()
    first = session.run({"image": given})["residual"]
    before = first.copy()
    session.run({"image": -given})
    assert np.array_equal(first, before)
    assert np.array_equal(given, kept)


@pytest.mark.parametrize(
    "given",
    [{}, {"other": image(1)}, {"image": image(1), "mask": image(1)}, {"image": image(1).astype(np.float64)},
     {"image": image(1)[0]}, {"image": image(1)[:0]}, {"image": image(1, 8, 8)}, {"image": image(1, 16, 65)}],
    ids=["nothing", "name", "one more", "float64", "axes", "empty", "small", "large"],
)  # fmt: skip
def test_what_no_profile_takes_is_refused_and_nothing_is_begun(machine: Machine, given: dict[str, Any]) -> None:
    session = opened(machine)
    with pytest.raises(EngineInputError) as refused:
        session.run(given)
    assert refused.value.hint
    assert "execute_async_v3" not in machine.called
    assert session.run({"image": image(1)})["residual"].shape == (1, 1, 32, 32)


def test_everything_is_given_back(machine: Machine) -> None:
    session = opened(machine)
    for batch in (1, 8, 8, 8):
        session.run({"image": image(batch)})
    session.run({"image": image(1, 48, 48)})
    assert machine.memory
    session.close()
    session.close()
    assert machine.memory == {}
    assert machine.streams == {}
    with pytest.raises(RuntimeFailedError, match="closed"):
        session.run({"image": image(1)})


def test_a_session_of_a_lost_device_can_be_closed(machine: Machine) -> None:
    session = opened(machine)
    for _ in range(3):
        session.run({"image": image(8)})
    machine.refuse |= dict.fromkeys(["cudaSetDevice", "cudaStreamSynchronize", "cudaGraphExecDestroy"], FULL)
    with pytest.raises(RuntimeFailedError):
        session.run({"image": image(8)})
    session.close()
    assert machine.memory == {}


@pytest.mark.parametrize(
    "name",
    ["cudaHostAlloc", "cudaMalloc", "cudaStreamSynchronize", "create_execution_context",
     "set_optimization_profile_async", "set_input_shape", "get_tensor_shape"],
)  # fmt: skip
def test_a_context_that_cannot_be_made_leaves_nothing_behind(machine: Machine, name: str) -> None:
    session = opened(machine)
    machine.refuse[name] = FULL
    with pytest.raises((RuntimeFailedError, EngineInputError)) as failed:
        session.run({"image": image(1)})
    assert "cudaErrorMemoryAllocation" in str(failed.value) or not name.startswith("cuda")
    assert machine.memory == {}
    assert machine.streams == {}
    machine.refuse.clear()
    assert session.run({"image": image(1)})["residual"].shape == (1, 1, 32, 32)


@pytest.mark.parametrize("name", ["cudaSetDevice", "cudaMemcpyAsync", "execute_async_v3"])
def test_a_run_that_fails_says_so_and_the_next_is_right(machine: Machine, name: str) -> None:
    session = opened(machine)
    session.run({"image": image(8)})
    machine.refuse[name] = FULL
    with pytest.raises(RuntimeFailedError) as failed:
        session.run({"image": -image(8)})
    assert failed.value.hint
    machine.refuse.clear()
    assert np.allclose(session.run({"image": image(8)})["residual"], expected(image(8))["residual"], atol=1e-6)


def test_one_thread_at_a_time_computes_in_a_session(machine: Machine) -> None:
    session, wrong = opened(machine), []

    def compute(batch: int) -> None:
        for _ in range(5):
            found = session.run({"image": image(batch)})["residual"]
            wrong.extend([] if np.allclose(found, expected(image(batch))["residual"], atol=1e-6) else [batch])

    threads = [threading.Thread(target=compute, args=(batch,)) for batch in (1, 3, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(("version", "identity"), [("10.13.3.9", "10.13"), ("11.4.0.106", "11.4")])
def test_its_identity_names_version_and_precision(machine: Machine, version: str, identity: str) -> None:
    session = TensorRtSession(libraries_of(machine, version), plan_of(machine), 0, "bfloat16")
    assert session.identity == f"tensorrt-{identity}/bfloat16"


@pytest.mark.parametrize(
    ("name", "says"),
    [("deserialize_cuda_engine", "Version tag"), ("Runtime", "error: 35"), ("get_tensor_dtype", "no float32")],
)
def test_a_plan_that_cannot_be_loaded_says_why(machine: Machine, name: str, says: str) -> None:
    plan = plan_of(machine)
    machine.refuse[name] = FULL
    with pytest.raises(RuntimeFailedError, match=says) as failed:
        TensorRtSession(libraries_of(machine), plan, 0, "float16")
    assert failed.value.hint
    assert "warning" not in str(failed.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Builder", "error: 35"),
        ("parse", "Conv conv1: no importer registered for it"),
        ("add_optimization_profile", "shapes image"),
        ("build_serialized_network", "Could not find any implementation for node conv1"),
    ],
)
def test_a_plan_that_cannot_be_built_says_why(machine: Machine, name: str, says: str) -> None:
    machine.refuse[name] = FULL
    with pytest.raises(RuntimeFailedError) as failed:
        plan_of(machine)
    assert says in str(failed.value)
    assert failed.value.hint
    assert str(failed.value).isprintable()


def test_timings_of_something_else_are_not_used(machine: Machine) -> None:
    profiles = plan_profiles(input_specs(NETWORK), SMALL)
    for timing in (b"", b"timings", b"of another GPU"):
        assert build(libraries_of(machine), NETWORK, profiles, BuildSettings(), timing).timing == b"timings"


def test_the_gpu_is_described_by_what_its_plans_depend_on(machine: Machine) -> None:
    gpu = describe(libraries_of(machine), "cuda:0")
    assert (gpu.name, gpu.capability, gpu.driver) == ("NVIDIA Double", (9, 0), 13010)
    assert gpu.precisions == ("float16", "bfloat16", "float32")


def test_a_machine_without_a_driver_says_what_to_do(machine: Machine) -> None:
    machine.refuse["cudaGetDeviceCount"] = cudaError_t.cudaErrorInsufficientDriver
    with pytest.raises(RuntimeFailedError, match="cudaErrorInsufficientDriver") as failed:
        describe(libraries_of(machine), "cuda:0")
    assert "nvidia-smi" in failed.value.hint


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:-1", "cuda:0; rm"])
def test_only_gpus_are_devices(machine: Machine, device: str) -> None:
    with pytest.raises(RuntimeFailedError, match="device"):
        describe(libraries_of(machine), device)
