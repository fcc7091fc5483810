"""engines build: compile a bundle's networks for this machine's GPU, prove the plans, and let them compute."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from dicomnode.config import Config
from dicomnode.core.stacks import STACK_KEYWORDS
from dicomnode.errors import EngineError, NotFoundError, UsageError
from dicomnode.operations.engines import registry_of
from dicomnode.operations.stacks import StackFiles, middle_of, stacks_in
from dicomnode.operations.terminal import printable_lines
from dicomnode.store.folders import make_folder
from dicomnode.telemetry import event
from engines.base import Value
from engines.bundle.folder import Bundle, golden
from engines.card import EngineCard, Precision
from engines.model.chain import Portions
from engines.model.engine import ModelEngine
from engines.runtimes.base import Resources, Session
from engines.runtimes.onnxruntime import OnnxRuntime
from engines.runtimes.tensorrt.activation import Proof, prove
from engines.runtimes.tensorrt.plans import Record
from engines.runtimes.tensorrt.runtime import Networks, build_plans, conclude, on_device, open_built

Progress = Callable[[str, int, int], None]

_MOST_STACKS: Final = 4
_MOST_SLICES: Final = 48
_WAYS: Final = (Portions(slices=16, batch=8), Portions(slices=16, batch=1))
"""In batches, which are cut in pieces on two slots; and slice by slice, which after the second is done by a graph."""

_ACTIVATED: Final = "TensorRT computes it wherever it is opened anew; a running node: restart it"
_NO_PLAN: Final = "no plan is used: another runtime goes on computing it"


@dataclass(frozen=True)
class Attempt:
    """What came of one precision. `activated`: its plans compute from now on; `found` says what was proved, or why
    nothing was; `kept` what is left in float32."""

    precision: str
    activated: bool
    seconds: float
    found: tuple[str, ...]
    kept: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        kept = (f"    left in float32: {', '.join(self.kept)}",) if self.kept else ()
        state = "activated" if self.activated else "NOT used"
        return (f"{self.precision}: {state}, in {self.seconds:.0f} s", *kept, *(f"    {line}" for line in self.found))


@dataclass(frozen=True)
class BuildReport:
    engine: str
    device: str
    attempts: tuple[Attempt, ...]

    @property
    def failed(self) -> bool:
        return not any(attempt.activated for attempt in self.attempts)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "activated": not self.failed}

    def lines(self) -> Sequence[str]:
        lines = (line for attempt in self.attempts for line in attempt.lines)
        return printable_lines((f"{self.engine} on {self.device}", *lines, _NO_PLAN if self.failed else _ACTIVATED))


@dataclass(frozen=True)
class _Work:
    """One bundle on one GPU, and the real inputs that its plans are proved on."""

    bundle: Bundle
    networks: Networks
    device: str
    cases: Sequence[Mapping[str, Value]]


def build_engine(config: Config, reference: str, source: Path, device: str, progress: Progress) -> BuildReport:
    """Build and prove plans in each precision that both the card and the GPU have, until one is proved.

    source  folder of DICOM files of this site: parity is tried on their slices
    Raises UsageError, NotFoundError or RuntimeFailedError where nothing can be tried at all.
    """
    bundle = registry_of(config).bundle(reference)
    if bundle is None:
        raise UsageError(f"{reference} has no networks", "it comes with the node, and is computed as it is")
    _, gpu = on_device(device)
    wanted = [precision for precision in gpu.precisions if precision in bundle.card.precisions]
    if not wanted:
        allowed = ", ".join(bundle.card.precisions)
        raise UsageError(f"{reference} may be computed in {allowed}", f"{gpu.name} has {', '.join(gpu.precisions)}")
    make_folder(config.compiled)
    work = _Work(bundle, Networks.of(bundle, config.compiled), device, _cases(bundle.card, source))
    return BuildReport(bundle.card.reference, device, tuple(_attempts(work, wanted, progress)))


def _attempts(work: _Work, wanted: Sequence[Precision], progress: Progress) -> list[Attempt]:
    attempts: list[Attempt] = []
    for done, precision in enumerate(wanted):
        progress(f"build {work.bundle.card.reference}", done, len(wanted))
        attempts.append(_attempt(work, precision))
        _tell(work, attempts[-1])
        if attempts[-1].activated:
            break
    progress(f"build {work.bundle.card.reference}", len(wanted), len(wanted))
    return attempts


def _attempt(work: _Work, precision: Precision) -> Attempt:
    began = time.monotonic()
    try:
        records = build_plans(work.networks, work.device, precision)
    except EngineError as error:  # the next precision may do
        return Attempt(precision, False, time.monotonic() - began, (str(error), error.hint))
    activated, found = _proved(work, records)
    conclude(work.networks, records, found, activated)
    kept = tuple(name for record in records for name in record.kept)
    return Attempt(precision, activated, time.monotonic() - began, found, kept)


def _proved(work: _Work, records: Sequence[Record]) -> tuple[bool, tuple[str, ...]]:
    """Whether the plans may compute, and what was found. What fails while it is proved is not proved."""
    try:
        proof = _proof(work, records)
    except EngineError as error:
        return False, (str(error), error.hint)
    return proof.passed, proof.lines


def _proof(work: _Work, records: Sequence[Record]) -> Proof:
    bundle, threads = work.bundle, len(os.sched_getaffinity(0))
    with ExitStack() as opened:
        sessions = [opened.enter_context(closing(_built(work, record))) for record in records]
        ways = [ModelEngine(bundle.card, sessions, portions) for portions in _WAYS]
        reference = ModelEngine.open(bundle, lambda model: OnnxRuntime().open(model, Resources(threads=threads)))
        opened.callback(reference.close)
        return prove(golden(bundle), records[0].facts.precision, ways, reference, work.cases)


def _built(work: _Work, record: Record) -> Session:
    return open_built(work.networks, work.device, record)


def _cases(card: EngineCard, source: Path) -> list[Mapping[str, Value]]:
    """Real inputs: for an engine of several volumes the same one for each, which is as good for comparing runtimes."""
    others = [name for name, port in card.inputs.items() if port.kind != "volume"]
    if others:
        raise UsageError(
            f"{card.reference} takes {', '.join(others)} too, which no series brings along",
            "plans are built for engines of images alone; another runtime computes this one",
        )
    stacks = [files for files in stacks_in(source, STACK_KEYWORDS)[0] if not files.stack.excluded]
    cases = [case for files in stacks if (case := _case(card, files))][:_MOST_STACKS]
    if not cases:
        raise NotFoundError(
            f"no series in {source} is one that {card.reference} takes", "name a folder of such a series"
        )
    return cases


def _case(card: EngineCard, files: StackFiles) -> Mapping[str, Value]:
    volume = middle_of(files, _MOST_SLICES)
    units = {port.unit for port in card.inputs.values()} - {"as-input"}
    return {} if units - {volume.unit} else dict.fromkeys(card.inputs, volume)


def _tell(work: _Work, attempt: Attempt) -> None:
    engine = work.bundle.card.reference
    if attempt.activated:
        event("plan_activated", engine=engine, precision=attempt.precision)
    else:
        event("plan_refused", engine=engine, precision=attempt.precision, reason="; ".join(attempt.found))
