"""The acceptance test of a site: what of TensorRT works on this machine, step by step, and what to do where not."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.card import Precision
from engines.errors import EngineError, EngineInputError, RuntimeFailedError
from engines.runtimes.base import Resources, Runtime, Session
from engines.runtimes.devices import cuda_index
from engines.runtimes.tensorrt.building import build
from engines.runtimes.tensorrt.device import Gpu
from engines.runtimes.tensorrt.libraries import Libraries
from engines.runtimes.tensorrt.plans import BuildSettings
from engines.runtimes.tensorrt.precision import retype
from engines.runtimes.tensorrt.profiles import profiles_of
from engines.runtimes.tensorrt.session import TensorRtSession

LARGEST_DIFFERENCE: Final[Mapping[Precision, float]] = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 5e-3}
"""From float32 of another runtime, where the largest value is about 1. The types keep 24, 8 and 11 bits."""

_SIDE_PX: Final = 512
_LEAK_BYTES: Final = 64 * 2**20


@dataclass(frozen=True)
class Load:
    """The network that is computed, and how much with it: slices in a batch, and how many batches are timed."""

    channels: int = 32
    layers: int = 6
    batch: int = 16
    rounds: int = 8

    @property
    def gflop(self) -> float:
        """For a slice of 512 x 512."""
        multiplied = 4 * self.channels + (self.layers - 2) * self.channels**2 + self.channels * 4
        return 2.0 * 9 * multiplied * (_SIDE_PX // 2) ** 2 / 1e9


@dataclass(frozen=True)
class Step:
    """One thing that was looked at. `next_step` what a person does where it did not pass."""

    name: str
    passed: bool
    found: str
    next_step: str = ""


@dataclass(frozen=True)
class Bench:
    """What the steps share. `reference` computes float32 on the processor."""

    libraries: Libraries
    gpu: Gpu
    device: str
    reference: Runtime
    load: Load


def run_steps(
    find: Callable[[], tuple[Libraries, Gpu]], device: str, reference: Runtime, load: Load = Load()
) -> tuple[Step, ...]:
    """All steps up to the first without which the next make no sense; each precision is tried whatever the others do.

    find  gives the libraries and the GPU, or raises RuntimeFailedError
    """
    try:
        libraries, gpu = find()
    except RuntimeFailedError as error:
        return (Step("libraries, driver and device", False, str(error), error.hint),)
    bench = Bench(libraries, gpu, device, reference, load)
    steps = [_described(bench), _attempt("memory", lambda: _memory(bench))]
    for precision in gpu.precisions:
        steps.extend(_precision_steps(bench, precision))
    steps.append(_attempt("memory after it", lambda: _memory(bench)))
    return tuple(steps)


def made_network(load: Load = Load(), seed: int = 0) -> bytes:
    """A residual network of convolutions at half resolution, of random weights: "image" -> "denoised"."""
    from onnx import TensorProto, helper, numpy_helper

    draws, layers = np.random.default_rng(seed), load.layers
    nodes, weights = [helper.make_node("SpaceToDepth", ["image"], ["v0"], blocksize=2)], []
    for layer in range(layers):
        taken, given = 4 if layer == 0 else load.channels, 4 if layer == layers - 1 else load.channels
        values = draws.normal(0.0, np.sqrt(2.0 / (9 * taken)), (given, taken, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [f"v{layer}", f"w{layer}"], [f"c{layer}"], pads=[1] * 4))
        nodes.append(helper.make_node("Tanh" if layer == layers - 1 else "Relu", [f"c{layer}"], [f"v{layer + 1}"]))
    nodes.append(helper.make_node("DepthToSpace", [f"v{layers}"], ["residual"], blocksize=2, mode="CRD"))
    nodes.append(helper.make_node("Sub", ["image", "residual"], ["denoised"]))
    image, denoised = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1, "rows", "columns"])
        for name in ("image", "denoised")
    )
    graph = helper.make_graph(nodes, "selftest", [image], [denoised], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


def _described(bench: Bench) -> Step:
    gpu, trt = bench.gpu, bench.libraries.trt
    major, minor = gpu.capability
    return Step(
        "libraries, driver and device",
        True,
        f"TensorRT {trt.__version__}; driver for CUDA {gpu.driver // 1000}.{gpu.driver % 1000 // 10}; {gpu.name}, "
        f"compute capability {major}.{minor}, {gpu.multiprocessors} multiprocessors, "
        f"{gpu.memory_bytes / 2**30:.0f} GiB; has {', '.join(gpu.precisions)}",
    )


def _memory(bench: Bench) -> str:
    cuda = bench.libraries.cuda
    bench.libraries.value(cuda.cudaSetDevice(cuda_index(bench.device)), f"using {bench.device}")
    return f"{_free_bytes(bench) / 2**30:.1f} GiB of the GPU are free"


def _free_bytes(bench: Bench) -> int:
    """cudaMemGetInfo gives free and total; the total is known."""
    return int(bench.libraries.value(bench.libraries.cuda.cudaMemGetInfo(), "asking for free memory"))


def _precision_steps(bench: Bench, precision: Precision) -> list[Step]:
    opened: list[Session] = []

    def build_one() -> str:
        started = time.monotonic()
        session, plan_bytes, kept = _built(bench, precision)
        opened.append(session)
        left = f"; left in float32: {', '.join(kept)}" if kept else ""
        return f"{time.monotonic() - started:.0f} s, a plan of {plan_bytes / 2**20:.1f} MiB{left}"

    steps = [_attempt(f"build in {precision}", build_one)]
    if not opened:
        return steps
    session = opened[0]
    checks: dict[str, Callable[[], str]] = {
        "parity": lambda: _parity(bench, session, precision),
        "the same bits again, by graphs too": lambda: _repeatable(session),
        "a shape outside the profiles": lambda: _refuses(session),
        "speed and overlap": lambda: _speed(session, bench.load),
        "memory given back": lambda: _given_back(bench, session),
    }
    steps.extend(_attempt(f"{precision}: {name}", check) for name, check in checks.items())
    return steps


def _attempt(name: str, check: Callable[[], str]) -> Step:
    try:
        return Step(name, True, check())
    except EngineError as error:
        return Step(name, False, str(error), error.hint)


def _built(bench: Bench, precision: Precision) -> tuple[Session, int, tuple[str, ...]]:
    retyped = retype(made_network(bench.load), precision)
    profiles = profiles_of(retyped.model)
    built = build(bench.libraries, retyped.model, profiles, BuildSettings(), b"")
    session = TensorRtSession(bench.libraries, built.plan, cuda_index(bench.device), precision)
    return session, len(built.plan), retyped.kept


def _image(batch: int, side: int = _SIDE_PX) -> NDArray[np.float32]:
    return np.random.default_rng(batch).uniform(-1.0, 1.0, (batch, 1, side, side)).astype(np.float32)


def _parity(bench: Bench, session: Session, precision: Precision) -> str:
    with tempfile.TemporaryDirectory(prefix="dicomnode-") as folder:
        model = Path(folder) / "selftest.onnx"
        model.write_bytes(made_network(bench.load))
        other = bench.reference.open(model, Resources())
        found = 0.0
        for image in (_image(5), _image(1, 320)):
            expected = other.run({"image": image})["denoised"]
            found = max(found, float(np.abs(session.run({"image": image})["denoised"] - expected).max()))
        identity = other.identity
        other.close()
    bound = LARGEST_DIFFERENCE[precision]
    text = f"largest difference from {identity} {found:.2g} (at most {bound:g})"
    _require(found <= bound, text, f"do not compute in {precision} here: another precision, or another TensorRT")
    return text


def _repeatable(session: Session) -> str:
    image = _image(4)
    first, *others = (session.run({"image": image})["denoised"] for _ in range(4))
    same = all(np.array_equal(first, other) for other in others)
    graphs = getattr(session, "graphs", 0)
    _require(same, "the same slices gave other values", "do not use this GPU: see its memory's errors in nvidia-smi")
    return f"4 runs alike, {graphs} of them captured as a graph" if graphs else "4 runs alike, no graph"


def _refuses(session: Session) -> str:
    try:
        session.run({"image": _image(1, 8)})
    except EngineInputError as error:
        return f"refused: {error}"
    raise RuntimeFailedError("8 x 8 was computed though no profile has it", "report this with the other lines")


def _speed(session: Session, load: Load) -> str:
    """Slices of 512 x 512 in batches that are cut in two, and one by one: with nothing to copy beside it."""
    together = _rate(session, _image(load.batch), load.rounds)
    alone = _rate(session, _image(1), load.rounds * load.batch)
    return (
        f"{together:.0f} slices/s with copies overlapped ({together * load.gflop:.0f} GFLOP/s), "
        f"{alone:.0f} slices/s one by one"
    )


def _rate(session: Session, image: NDArray[np.float32], rounds: int) -> float:
    for _ in range(3):
        session.run({"image": image})
    started = time.monotonic()
    for _ in range(rounds):
        session.run({"image": image})
    return rounds * len(image) / max(time.monotonic() - started, 1e-9)


def _given_back(bench: Bench, session: Session) -> str:
    before = _free_bytes(bench)
    session.close()
    freed = _free_bytes(bench) - before
    _require(
        freed > -_LEAK_BYTES, f"{-freed / 2**20:.0f} MiB less are free than before", "see nvidia-smi for what else runs"
    )
    return f"{freed / 2**20:.0f} MiB were in use"


def _require(holds: Any, found: str, next_step: str) -> None:
    if not holds:
        raise RuntimeFailedError(found, next_step)
