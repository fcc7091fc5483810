"""A CT series end to end through networks of two sizes, and through the denoiser that comes with the node, durability
`power`: from its closing to the derived one's rest.

Where the time goes is told by what each kind of process worked. `inference` is what the engine processes took to run
slabs (loading and writing them included), shared by how many they are; everything else is the node's.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from bench.measures import processes
from bench.results import Results
from bench.rounds import Surroundings, fresh, noted
from bench.studies import CT, MARKER
from bench.wire import Association, Sent, read
from dicomnode.testing.bundles import Shape, made_bundle
from dicomnode.testing.node import NODE_AE, SCANNER_AE, Node, settings
from dicomnode.testing.processes import free_port
from engines.bundle.folder import Bundle
from engines.card import Precision
from engines.registry import default_registry
from engines.runtimes.base import Resources
from engines.runtimes.choice import onnx_runtimes
from engines.runtimes.cost import gflop
from engines.runtimes.devices import CPU
from engines.runtimes.roof import measured_roof

PART: Final = "enhance"
_RANDOM: Final[Mapping[str, Shape]] = {"17 GFLOP": "denoise", "117 GFLOP": "denoise-large"}
"""Bundles of random weights, by what a slice of 512 x 512 costs in each."""

_TRAINED: Final = ("ct-denoise",)
"""Engines that come with the node."""

NETWORKS: Final = (*_RANDOM, *_TRAINED)
_PRECISIONS: Final[tuple[Precision, ...]] = ("float32", "bfloat16")


def _precisions(network: str) -> tuple[Precision, ...]:
    """What is measured of a network: of those that come with the node, what their cards allow."""
    shipped = default_registry().bundle(network) if network in _TRAINED else None
    return tuple(each for each in _PRECISIONS if shipped is None or each in shipped.card.precisions)


Case = tuple[str, Precision]
CASES: Final[Mapping[str, Case]] = {
    f"{network.removesuffix(' GFLOP')}-{precision}": (network, precision)
    for network in NETWORKS
    for precision in _precisions(network)
}

WHOLE: Final = "s from closing to derived"
REST: Final = "ms of one core a slice for all but inference"
OVERLAP: Final = "the whole, by the larger of inference and the rest"
LIMITS: Final = {
    f"{PART}, 17 GFLOP, float32: {WHOLE}": 40.0,
    f"{PART}, 17 GFLOP, bfloat16: {WHOLE}": 20.0,
    **{
        f"{PART}, {network}, {precision}: {name}": limit
        for network in NETWORKS
        for precision in _precisions(network)
        for name, limit in ((REST, 20.0), (OVERLAP, 1.15))
    },
}
"""What is aimed at, for 300 slices on two cores."""

_AIMED_SLICES: Final = 300
_WARM_SLICES: Final = 64
_TIMEOUT_S: Final = 1800.0
_REST_S: Final = 10.0
"""How long a node that has nothing to do is watched: what it does then anyway is no work on the series."""

_ROLES: Final = {
    "dicomnode.pixels.service": "pixels",
    "dicomnode.inference.gates": "gates",
    "dicomnode.inference.process": "engines",
}
"""What a process works at, by a word of its command line; "node" where none of them stands there."""


@dataclass(frozen=True, slots=True)
class Way:
    """What one series took, in seconds of the clock; `work_s` is processor time by what the processes work at, until
    the engines' result was at rest, and from there on."""

    whole_s: float
    enhance_s: float
    inference_s: float
    derive_s: float
    work_s: tuple[Mapping[str, float], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Network:
    """One network in one precision: what a slice costs, and the fastest that this machine multiplies in it."""

    name: str
    precision: str
    gflop: float
    peak_gflop_s: float


def run(surroundings: Surroundings, results: Results) -> None:
    for network, precision in (CASES[name] for name in surroundings.cases):
        name = f"{PART}: {network}, {precision}"
        peak_gflop_s = _peak_gflop_s(precision)
        if peak_gflop_s == 0.0:
            results.failures.append(f"{name}: this processor does not multiply {precision}")
            continue
        with noted(results, name), fresh(surroundings.disk) as folder:
            bundle = _bundle(folder, network)
            taken = {bundle.card.stages[0].inputs[0].tensor: (1, 1, CT.size, CT.size)}
            cost = gflop(bundle.networks[0].read_bytes(), taken)
            with _node(folder, bundle, precision) as node:
                _case(node, surroundings, results, Network(network, precision, cost, peak_gflop_s))


def _bundle(folder: Path, network: str) -> Bundle:
    """The one that comes with the node, or one of random weights, made below `folder`."""
    if network not in _RANDOM:
        shipped = default_registry().bundle(network)
        assert shipped is not None
        return shipped
    made = folder / "bundle"
    made.mkdir()
    return made_bundle(made, _RANDOM[network])


def _peak_gflop_s(precision: Precision) -> float:
    """Of all cores, by the runtime that reaches most; 0 where the processor does not multiply in that precision."""
    able = [runtime for runtime in onnx_runtimes() if precision in runtime.precisions(CPU)]
    resources = Resources(CPU, os.cpu_count() or 1, precision)
    return max((measured_roof(runtime, resources).gflop_s for runtime in able), default=0.0)


@contextmanager
def _node(folder: Path, bundle: Bundle, precision: str) -> Iterator[Node]:
    """A node whose one rule runs the network; a gate that does not like what random weights make flags it. Nothing is
    sent: a node in commissioning keeps what it derives."""
    rule = {
        "name": "bench", "match": {"Modality": "CT"}, "engines": [bundle.card.name], "on_gate": "flag",
        "send_results": ["nobody"],
    }  # fmt: skip
    tree = settings({}, [rule], node={"commissioning": True}, completeness={"released_quiet_s": 0.5})
    tree["peer"]["nobody"] = {"ae_title": "NOBODY", "host": "127.0.0.1", "port": free_port()}
    tree["destination"]["nobody"] = {"peer": "nobody"}
    node = Node(folder / "node", {**tree, "engines": {"precision": precision}})
    if bundle.card.name not in _TRAINED:
        added = node.command("engines", "add", bundle.folder, "--allow-unsigned")
        if added.returncode:
            raise RuntimeError(added.stderr or added.stdout)
    with node:
        yield node
        node.stop()


def _case(node: Node, surroundings: Surroundings, results: Results, network: Network) -> None:
    series = [read(path) for path in surroundings.files(CT, surroundings.slices)]
    _sent(node, series[:_WARM_SLICES], 1)  # so that engines are open, and all processes run
    _ended(node, 1)
    time.sleep(_REST_S)
    way = _measured(node, series)
    row = _row(way, len(series), network)
    results.rows.setdefault(PART, []).append(row)
    results.facts |= _facts(way, row, len(series))
    print(f"  {row}", file=sys.stderr, flush=True)


def _sent(node: Node, series: Sequence[Sent], number: int) -> None:
    """A series under UIDs that nobody has seen."""
    stamp = str(10**19 + 1000 * number)
    renamed = [each.renamed(MARKER, stamp) for each in series]
    association = Association(node.port, NODE_AE, SCANNER_AE, {each.context for each in renamed})
    for each in renamed:
        if status := association.store(each):
            raise RuntimeError(f"an instance was answered with 0x{status:04X}")
    association.release()


def _measured(node: Node, series: Sequence[Sent]) -> Way:
    before, began = _work(node), time.monotonic()
    time.sleep(_REST_S)
    idle = _less(_work(node), before)
    idle_s = time.monotonic() - began
    _sent(node, series, 2)
    node.wait_for_log('"series_closed"', 2, _TIMEOUT_S)
    before, began = _work(node), time.monotonic()
    node.wait_for_log('"job_finished"', 2, _TIMEOUT_S)
    between = _work(node)
    _ended(node, 2)
    after, lasted_s = _work(node), time.monotonic() - began
    after["node"] -= idle["node"] * lasted_s / idle_s
    closed, finished, derived = (_last(node, name) for name in ("series_closed", "job_finished", "series_derived"))
    return Way(
        whole_s=_at(derived) - _at(closed),
        enhance_s=finished["seconds"],
        inference_s=_engine_seconds(node) / max(1, _running(node).count("engines")),
        derive_s=derived["seconds"],
        work_s=(_less(between, before), _less(after, between)),
    )


def _ended(node: Node, times: int) -> None:
    node.wait_for_log('"series_derived"', times, _TIMEOUT_S)


def _last(node: Node, name: str) -> dict[str, Any]:
    """The last event of a name in the node's log."""
    lines = [line for line in node.log().splitlines() if f'"event": "{name}"' in line]
    event: dict[str, Any] = json.loads(lines[-1])
    return event


def _at(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def _engine_seconds(node: Node) -> float:
    """What the engine processes spent on the slabs of the last job."""
    with closing(sqlite3.connect(node.data / "node.sqlite")) as index:
        (stages,) = index.execute("SELECT stages FROM job ORDER BY id DESC LIMIT 1").fetchone()
    return float(sum(stage["seconds"] for stage in json.loads(stages)))


def _work(node: Node) -> dict[str, float]:
    """Processor seconds of the node's processes by what they work at."""
    work: dict[str, float] = defaultdict(float)
    for process in processes(node.pid):
        work[_role(process.pid)] += process.cpu_s
    return work


def _running(node: Node) -> list[str]:
    return [_role(process.pid) for process in processes(node.pid)]


def _role(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return "node"
    return next((_ROLES[word] for word in words if word in _ROLES), "node")


def _less(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}


def _facts(way: Way, row: Mapping[str, str | float], slices: int) -> dict[str, float]:
    """What is held to LIMITS."""
    rest = float(row["all but inference ms"])
    case = f"{PART}, {row['network']}, {row['precision']}"
    overlap = way.whole_s / max(way.inference_s, rest * slices / 1000.0)
    whole = {f"{case}: {WHOLE}": way.whole_s} if slices == _AIMED_SLICES else {}
    return {**whole, f"{case}: {REST}": rest, f"{case}: {OVERLAP}": overlap}


def _row(way: Way, slices: int, network: Network) -> dict[str, str | float]:
    """A line of the table; work is in ms of one core a slice."""
    enhancing, deriving = way.work_s
    decode, gates, node, derive = (
        1000.0 * seconds / slices
        for seconds in (
            enhancing.get("pixels", 0.0),
            enhancing.get("gates", 0.0),
            enhancing.get("node", 0.0) + deriving.get("node", 0.0),
            deriving.get("pixels", 0.0),
        )
    )
    return {
        "network": network.name,
        "precision": network.precision,
        "slices": slices,
        "whole s": way.whole_s,
        "inference s": way.inference_s,
        "enhance s": way.enhance_s,
        "derive and write s": way.derive_s,
        "decode ms": decode,
        "gates ms": gates,
        "derive and write ms": derive,
        "node ms": node,
        "all but inference ms": decode + gates + derive + node,
        "engines ms": 1000.0 * enhancing.get("engines", 0.0) / slices,
        "peak GFLOP/s": network.peak_gflop_s,
        "share of peak": network.gflop * slices / way.inference_s / network.peak_gflop_s,
    }
