"""ONNX to plan, on the GPU that will compute it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from engines.errors import RuntimeFailedError
from engines.runtimes.tensorrt import bindings as of
from engines.runtimes.tensorrt.libraries import Libraries
from engines.runtimes.tensorrt.plans import BuildSettings
from engines.runtimes.tensorrt.profiles import Profile

_Made = TypeVar("_Made")

_MOST_ERRORS: Final = 3


@dataclass(frozen=True)
class Built:
    """timing: measured times of kernels, for the next build."""

    plan: bytes
    timing: bytes


def build(
    libraries: Libraries, network: bytes, profiles: Sequence[Profile], settings: BuildSettings, timing: bytes
) -> Built:
    """A plan for the current device. Takes minutes, and all the GPU's attention.

    network  ONNX in the types that it is to be computed in
    timing   of an earlier build, or empty

    Raises RuntimeFailedError with TensorRT's reason: nothing in it raises by itself.
    """
    libraries.messages.clear()
    trt = libraries.trt
    builder = created(libraries, "builder", lambda: trt.Builder(libraries.logger))
    # 10.x has to be told that types are those of the file; 11 knows no other way
    definition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(libraries, definition, network)
    config = builder.create_builder_config()
    _configure(libraries, config, settings)
    for profile in profiles:
        _add_profile(libraries, builder, config, profile)
    cache = _timing_cache(config, timing)
    plan = builder.build_serialized_network(definition, config)
    if plan is None:
        raise RuntimeFailedError(
            f"TensorRT could not build the plan: {libraries.said()}",
            "where no implementation was found: another precision, or another TensorRT (docs/tensorrt.md); where memory"
            " was short: stop what else uses the GPU",
        )
    return Built(bytes(plan), bytes(cache.serialize()))


def created(libraries: Libraries, what: str, make: Callable[[], _Made]) -> _Made:
    """What a class of TensorRT gives. Without a usable driver it gives nothing, which the bindings make a TypeError."""
    try:
        return make()
    except TypeError as error:
        reason = libraries.said() if libraries.messages else str(error)[:200]
        raise RuntimeFailedError(
            f"TensorRT made no {what}: {reason}", "see whether nvidia-smi runs here; then: dicomnode engines selftest"
        ) from None


def _parse(libraries: Libraries, definition: of.INetworkDefinition, network: bytes) -> None:
    parser = libraries.trt.OnnxParser(definition, libraries.logger)
    if parser.parse(network):
        return
    errors = [parser.get_error(index) for index in range(min(parser.num_errors, _MOST_ERRORS))]
    reasons = [f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors]
    text = "".join(character if character.isprintable() else " " for character in "; ".join(reasons))
    raise RuntimeFailedError(
        f"TensorRT does not take the network: {text[:600] or libraries.said()}",
        "another precision may do; else another runtime computes this engine",
    )


def _configure(libraries: Libraries, config: of.IBuilderConfig, settings: BuildSettings) -> None:
    trt = libraries.trt
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    config.builder_optimization_level = settings.optimization_level
    switch = config.set_flag if settings.tf32 else config.clear_flag  # TF32 is on where nothing is said
    switch(trt.BuilderFlag.TF32)


def _add_profile(libraries: Libraries, builder: of.Builder, config: of.IBuilderConfig, profile: Profile) -> None:
    made = builder.create_optimization_profile()
    for bounds in profile.bounds:
        made.set_shape(bounds.name, bounds.low, bounds.best, bounds.high)
    if config.add_optimization_profile(made) < 0:
        raise RuntimeFailedError(
            f"TensorRT does not take the shapes {profile}: {libraries.said()}", "another runtime computes this engine"
        )


def _timing_cache(config: of.IBuilderConfig, timing: bytes) -> of.ITimingCache:
    """The cache of an earlier build, or a new one where it was made for something else."""
    cache = config.create_timing_cache(timing)
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache
