"""engines build and selftest: through a double of TensorRT, on real slices; and on a machine without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.testing.bundles import made_bundle
from engines.runtimes.tensorrt import runtime
from engines.runtimes.tensorrt.libraries import assemble
from tests.cli.conftest import Command
from tests.engines.runtimes.tensorrt.double import CudaDouble, Machine, TensorRtDouble, cudaDeviceProp, cudaError_t
from tests.shared import shared_data

NAME = "random-adjacent"


@pytest.fixture(name="machine")
def _machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(cudaDeviceProp, "major", 7)
    libraries = assemble(TensorRtDouble(machine), CudaDouble(machine))
    monkeypatch.setattr(runtime, "load", lambda: libraries)
    monkeypatch.setattr(runtime, "cuda_devices", lambda: 1)
    return machine


@pytest.fixture(name="source", scope="module")
def _source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    made_bundle(folder, "adjacent")
    return folder


@pytest.fixture(name="slices")
def _slices() -> Path:
    """Twelve slices of a real CT: enough for batches that are cut, and for graphs."""
    return shared_data("ct/dicom/lidc0002")


@pytest.fixture(name="installed")
def _installed(command: Command, source: Path) -> Command:
    command("init", "--yes", "--pacs", "PACS,127.0.0.1,104")
    assert command("engines", "add", source, "--allow-unsigned").code == 0
    return command


def test_a_plan_is_built_proved_on_real_slices_and_shown(installed: Command, machine: Machine, slices: Path) -> None:
    built = installed("engines", "build", NAME, "--slices", slices, "--json")
    assert built.code == 0, built.out + built.err
    (attempt,) = built.json["attempts"]
    assert (attempt["precision"], attempt["activated"]) == ("float16", True)
    assert any("on real slices, series 1" in line and line.endswith("passed") for line in attempt["found"])
    assert machine.called.count("cudaGraphLaunch") > 0
    assert machine.busiest == 2
    shown = installed("engines", "show", NAME)
    assert "in float16, TensorRT 11.4.0.106, NVIDIA Double: activated" in shown.out


def test_what_cannot_be_built_is_said_and_nothing_is_used(installed: Command, machine: Machine, slices: Path) -> None:
    machine.refuse["build_serialized_network"] = cudaError_t.cudaErrorMemoryAllocation
    built = installed("engines", "build", NAME, "--slices", slices)
    assert built.code == 1
    assert "float16: NOT used" in built.out
    assert "Could not find any implementation for node" in built.out
    assert "float32: NOT used" in built.out
    assert built.out.splitlines()[-1].startswith("no plan is used")


def test_what_fails_while_it_is_proved_is_shown_with_why(installed: Command, machine: Machine, slices: Path) -> None:
    machine.refuse["create_execution_context"] = cudaError_t.cudaErrorMemoryAllocation
    assert installed("engines", "build", NAME, "--slices", slices).code == 1
    shown = installed("engines", "show", NAME).out
    assert shown.count("NOT used") == 2
    assert "out of memory" in shown


def test_without_a_gpu_it_says_why_and_what_next(installed: Command, slices: Path) -> None:
    built = installed("engines", "build", NAME, "--slices", slices, "--device", "cuda:99")
    assert built.code == 1
    assert "no GPU cuda:99" in built.error_lines[0]
    assert "nvidia-smi" in built.error_lines[1]


def test_slices_that_the_engine_does_not_take_prove_nothing(
    installed: Command, machine: Machine, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    built = installed("engines", "build", NAME, "--slices", tmp_path / "empty")
    assert built.code == 1
    assert "no DICOM image" in built.error_lines[0]


def test_what_comes_with_the_node_has_nothing_to_build(installed: Command, machine: Machine, slices: Path) -> None:
    assert installed("engines", "build", "ct-nlm", "--slices", slices).code == 2


def test_the_self_test_of_a_machine_without_a_gpu_fails_with_the_next_step(command: Command) -> None:
    tested = command("engines", "selftest", "--device", "cuda:99")
    assert tested.code == 1
    assert tested.out.splitlines()[0].startswith("FAILED")
    assert "nvidia-smi" in tested.out.splitlines()[1]
    facts = command("engines", "selftest", "--device", "cuda:99", "--json")
    assert facts.code == 1
    assert facts.json["passed"] is False
    assert facts.json["steps"][0]["next_step"]
