"""Every name of TensorRT and CUDA that the runtime uses is in the published Python bindings of several versions.

What is checked: for each class in `engines.runtimes.tensorrt.bindings` and each name in `libraries.TensorRtModule` and
`libraries.CudaModule` (mypy holds the runtime to these, so they are all that it uses):
- the class, function or constant exists; each member of an enumeration exists
- each method and function takes the arguments named there, in this order, and needs no others
- each attribute exists, and can be written where the runtime writes it
- the double of the other tests offers nothing that the bindings lack, and offers all that the runtime uses

Against `bindings.json`, which `extract.py` read out of the wheels of TensorRT 10.13.3.9, 10.16.1.11 and 11.4.0.106, and
of cuda-bindings 12.9.10 and 13.5.0.

What is not checked: what anything does; what it returns; that `bytes()` takes a plan. That needs a GPU:
`dicomnode engines selftest`.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from engines.runtimes.tensorrt import bindings
from engines.runtimes.tensorrt.libraries import CudaModule, TensorRtModule
from tests.engines.runtimes.tensorrt import double, extract
from tests.engines.runtimes.tensorrt.double import CudaDouble, Machine, TensorRtDouble

PUBLISHED = json.loads(Path(__file__).with_name("bindings.json").read_text())
SPELLED = {"Severity": "ILogger.Severity", "LoggerClass": "ILogger"}
"""Where a protocol is not named as the class."""

TENSORRT = [
    (version, name) for version in PUBLISHED["tensorrt"] for name in extract.CLASSES if not name.startswith("cuda")
]
CUDA = [(version, name) for version in PUBLISHED["cuda"] for name in extract.CLASSES if name.startswith("cuda")]


def public(kind: Any) -> set[str]:
    """Methods and attributes that a class offers, itself."""
    own = {*vars(kind), *getattr(kind, "__annotations__", {})}
    return {name for name in own if not name.startswith("_")}


def arguments(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)[1:]


def takes(overloads: list[str], wanted: list[str]) -> bool:
    """Whether one of the overloads begins with these arguments, and needs no others."""
    return any(
        [name.rstrip("=") for name in overload.split()[: len(wanted)]] == wanted
        and all(name.endswith("=") for name in overload.split()[len(wanted) :])
        for overload in overloads
    )


def missing_from(published: dict[str, Any], kind: Any) -> list[str]:
    """What of a class the published one does not offer, or offers otherwise."""
    if "members" in published:
        return sorted(public(kind) - set(published["members"]))
    wrong = []
    for name in sorted(public(kind) - {"Severity"}):  # an enumeration inside a class, checked by itself
        found = vars(kind).get(name)
        if inspect.isfunction(found):
            if not takes(published["methods"].get(name, []), arguments(found)):
                wrong.append(f"{name}({', '.join(arguments(found))})")
        elif published["properties"].get(name) not in ({"ro", "rw"} if isinstance(found, property) else {"rw"}):
            wrong.append(name)
    return wrong


def class_of(package: str, version: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = PUBLISHED[package][version]["classes"][SPELLED.get(name, name)]
    return found


def test_the_versions_are_the_ones_that_the_documentation_names() -> None:
    assert tuple(PUBLISHED["tensorrt"]) == extract.TENSORRT
    assert tuple(PUBLISHED["cuda"]) == extract.CUDA
    described = (Path(__file__).resolve().parents[4] / "docs" / "tensorrt.md").read_text()
    assert [version for version in (*extract.TENSORRT, *extract.CUDA) if version not in described] == []


@pytest.mark.parametrize(("version", "name"), TENSORRT)
def test_tensorrt_offers_all_that_the_runtime_uses(version: str, name: str) -> None:
    assert missing_from(class_of("tensorrt", version, name), getattr(bindings, name)) == []


@pytest.mark.parametrize(("version", "name"), CUDA)
def test_the_classes_of_cuda_offer_all_that_the_runtime_uses(version: str, name: str) -> None:
    assert missing_from(class_of("cuda", version, name), getattr(bindings, name)) == []


@pytest.mark.parametrize("version", PUBLISHED["tensorrt"])
def test_the_module_tensorrt_offers_all_names_and_constructors(version: str) -> None:
    published = PUBLISHED["tensorrt"][version]
    assert published["version"] == version
    for name in (name for name in vars(TensorRtModule) if not name.startswith("_")):
        used = vars(TensorRtModule)[name]
        assert name in published["classes"]
        if inspect.isfunction(used):
            assert takes(published["classes"][name]["methods"]["__init__"], arguments(used))


@pytest.mark.parametrize("version", PUBLISHED["cuda"])
@pytest.mark.parametrize("name", [name for name in vars(CudaModule) if name.startswith("cuda")])
def test_the_module_of_cuda_offers_all_functions_with_their_arguments(version: str, name: str) -> None:
    published, used = PUBLISHED["cuda"][version], vars(CudaModule)[name]
    if inspect.isfunction(used):
        assert published["functions"][name].split() == arguments(used)
    else:
        assert name in published["constants"] or "members" in published["classes"][name]


def doubled() -> dict[str, Any]:
    module = TensorRtDouble(Machine())
    classes = {name: found for name, found in vars(double).items() if name in extract.CLASSES}
    return classes | {name: getattr(module, name) for name in ("Builder", "OnnxParser", "Runtime")}


@pytest.mark.parametrize(("version", "name"), TENSORRT)
def test_the_double_offers_nothing_that_tensorrt_lacks(version: str, name: str) -> None:
    kind = doubled().get(name, double.ILogger.Severity if name == "Severity" else double.ILogger)
    offered = type("Offered", (), {key: found for key, found in vars(kind).items() if not key.startswith("_")})
    assert missing_from(class_of("tensorrt", version, name), offered) == []


@pytest.mark.parametrize("version", PUBLISHED["cuda"])
def test_the_double_offers_nothing_that_cuda_lacks(version: str) -> None:
    for name in public(CudaDouble):
        used = vars(CudaDouble)[name]
        if inspect.isfunction(used):
            assert arguments(used) == PUBLISHED["cuda"][version]["functions"][name].split()
    for name in ("cudaError_t", "cudaMemcpyKind", "cudaStreamCaptureMode"):
        assert set(getattr(double, name).__members__) <= set(class_of("cuda", version, name)["members"])


def test_the_double_offers_all_that_the_runtime_uses() -> None:
    classes = doubled()
    for name in extract.CLASSES:
        if name in SPELLED:
            continue
        attributes = {*dir(classes[name]), "builder_optimization_level"}
        assert public(getattr(bindings, name)) <= attributes
    assert public(CudaModule) <= set(dir(CudaDouble(Machine())))


def test_a_name_that_a_version_lacks_would_be_found() -> None:
    """TensorRT 11 has no FP16 flag and 13 no `cudaGraphInstantiate` of other arguments: the checks above can fail."""

    class BuilderFlag:
        TF32: Any
        FP16: Any

    class IBuilderConfig:
        builder_optimization_level: int

        def set_flag(self, flag: Any, value: bool) -> None: ...
        def set_quantization_flag(self, flag: Any) -> None: ...

    old, new = (class_of("tensorrt", version, "BuilderFlag") for version in ("10.13.3.9", "11.4.0.106"))
    assert missing_from(old, BuilderFlag) == []
    assert missing_from(new, BuilderFlag) == ["FP16"]
    found = missing_from(class_of("tensorrt", "11.4.0.106", "IBuilderConfig"), IBuilderConfig)
    assert found == ["set_flag(flag, value)", "set_quantization_flag(flag)"]


def test_the_protocols_can_be_read() -> None:
    assert get_type_hints(bindings.IBuilderConfig) == {"builder_optimization_level": int}
