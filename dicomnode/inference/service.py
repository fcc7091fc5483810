"""The warm engine service: what the node asks for chains of engines; see the package's docstring for its design.

`run_chain` does the same for a command that works on files, in the caller's process and without a service.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from dicomnode.core.ports import ChainRequest
from dicomnode.errors import WorkerError
from dicomnode.inference import gates
from dicomnode.inference.dispatch import OPENING_TIMEOUT_S, Dispatcher, Extent, Ticket, Work, late
from dicomnode.inference.gates import Gates, verdict_of
from dicomnode.inference.opening import Place, open_engine
from dicomnode.inference.process import EngineProcess
from dicomnode.inference.slabs import cut_into, slab_slices
from dicomnode.inference.stages import Prepared, Ran, Report, Verdict, run_stages
from dicomnode.inference.warm import Keeping, WarmEngines
from dicomnode.workers import WorkerPool, WorkerProcess
from engines.chaining import IMAGE
from engines.errors import EngineInputError
from engines.runtimes.choice import Wish
from engines.volume_files import read_grid
from engines.whole_files import UNFINISHED

GATE_TIMEOUT_S: Final = 1800.0
_FORGETTING_S: Final = 30.0
_OWN_MEMORY_BYTES: Final = 4 << 30


def describe(engine: str) -> dict[str, Any]:
    """The card of an engine (what `engines.registry.Registry.source` gives) as JSON, with its digest; raises
    EngineNotFoundError."""
    return _own_process().describe(engine)


def run_chain(
    chain: Sequence[Mapping[str, Any]],
    inputs: Mapping[str, str],
    headers: Mapping[str, Mapping[str, Sequence[str]]],
    out: str,
    released: bool = False,
) -> Report:
    """Run engines one after another in this process; the "image" of each feeds the next. A gate that does not pass ends
    the chain.

    chain   as in `dicomnode.core.ports.ChainRequest`, and so `inputs` and `headers`
    out     existing, empty folder; the output NAME of stage i is written to `<i>-<engine>-NAME` in it
    released  a person has looked at what a gate withheld: figures out of bounds stop the chain no more
    Gives {"stages": [...], "state": done | refused | withheld, "reasons": [sentences]}. What is withheld for its
    figures is written too, to be looked at; what has another grid, or values that are no numbers, never is. Raises
    EngineNotFoundError, SettingError, and EngineInputError where the engines do not fit, before anything runs.
    """
    station = _OwnStation(_own_process(), headers)
    stages = _prepared(station.prepare, chain)
    return run_stages(station, stages, inputs, Path(out), released=released)


def _own_process() -> EngineProcess:
    place = Place(Wish(), os.cpu_count() or 1, None)
    return EngineProcess(WarmEngines(lambda source: open_engine(source, place), Keeping(_OWN_MEMORY_BYTES, 3600.0)))


def _prepared(
    prepare: Callable[[int, str, Mapping[str, Any]], Prepared], chain: Sequence[Mapping[str, Any]]
) -> list[Prepared]:
    if not chain:
        raise EngineInputError("the chain has no engine", "name at least one engine")
    return [
        replace(prepare(index, one["engine"], one.get("settings", {})), leaving=tuple(one.get("leaving", ())))
        for index, one in enumerate(chain)
    ]


class _OwnStation:
    """Runs engines and gates in this process."""

    def __init__(self, process: EngineProcess, headers: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        self._process = process
        self._headers = headers

    def prepare(self, index: int, engine: str, settings: Mapping[str, Any]) -> Prepared:
        return Prepared(index, engine, **self._process.prepare(engine, settings))

    def run(self, stage: Prepared, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Ran:
        before = verdict_of(gates.before(stage.text, self._headers, inputs))
        if not before.passed:
            return Ran(before, {}, {}, 0.0)
        source = inputs[stage.main_input]
        grid = read_grid(Path(source))
        began = time.monotonic()
        made = []
        for begin, end in cut_into(grid.shape, stage.halo):
            part = {"inputs": inputs, "outputs": outputs, "begin": begin, "end": end}
            made += self._process.run(stage.engine, stage.card["digest"], stage.settings, [part])["parts"]
        seconds = time.monotonic() - began
        findings, judges = _joined([one["findings"] for one in made]), Gates()
        after = {
            name: verdict_of(judges.after(stage.text, name, source, output, findings.get(name, [])))
            for name, output in outputs.items()
        }
        return Ran(before, after, findings, seconds)


def _joined(findings: Sequence[Mapping[str, Sequence[Mapping[str, Any]]]]) -> dict[str, list[Mapping[str, Any]]]:
    """What was found in each slab, by output, in the order of the slices."""
    joined: dict[str, list[Mapping[str, Any]]] = {}
    for one in findings:
        for name, found in one.items():
            joined.setdefault(name, []).extend(found)
    return {name: sorted(found, key=lambda each: each["slice_index"]) for name, found in joined.items()}


class EngineService:
    """Resident engine processes, and the gates around them.

    judges    the processes that judge what engines take and make (operations of `gates`)
    admitted  chains that are worked on at once; who wants one more waits
    locate    from a rule's reference to what `opening.open_engine` takes
    """

    def __init__(
        self,
        extent: Extent,
        judges: WorkerPool,
        admitted: int,
        locate: Callable[[str], str] = lambda reference: reference,
    ) -> None:
        self._dispatcher = Dispatcher(extent)
        self._gates = judges
        self._seats = threading.BoundedSemaphore(admitted)
        self._threads = ThreadPoolExecutor(admitted, "chain")
        self._chains: set[AdmittedChain] = set()
        self._locate = locate

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the engine processes that run."""
        return self._dispatcher.pids

    @property
    def waiting(self) -> int:
        """Stages of chains that are handed in and not done."""
        return self._dispatcher.waiting

    def describe(self, engine: str) -> Mapping[str, Any]:
        """As `describe` of this module."""
        return self._dispatcher.ask("describe", self._locate(engine), time.monotonic() + OPENING_TIMEOUT_S)

    @contextmanager
    def admit(self, request: ChainRequest) -> Iterator[AdmittedChain]:
        """Begin a chain whose volumes may still be being decoded; waits for a seat. Left early, it is given up.

        From this call on it has `deadline_s` for all: the seat, opening its engines, decoding, computing and judging.
        Raises WorkerError where no seat is free before, or the service was closed.
        """
        deadline_at = time.monotonic() + request.deadline_s
        if not self._seats.acquire(timeout=request.deadline_s):
            raise WorkerError("the engines had no time for this job", "see `dicomnode status` for what they work on")
        try:
            chain = AdmittedChain(request, deadline_at)
            self._begin(chain)
            try:
                yield chain
            finally:
                chain.give_up()
                self._chains.discard(chain)
        finally:
            self._seats.release()

    def close(self) -> None:
        """End all processes; chains that are not over fail as transient."""
        self._dispatcher.close()
        self._gates.close()
        for chain in tuple(self._chains):
            chain.forget()  # it would wait for slices that are still being decoded
        self._threads.shutdown()

    def _begin(self, chain: AdmittedChain) -> None:
        self._chains.add(chain)
        try:
            chain.future = self._threads.submit(self._run, chain)
        except RuntimeError:  # it was shut down, or the machine has no more threads for us
            chain.forget()
            self._chains.discard(chain)
            raise WorkerError("the engines take no more jobs", "the job is tried again after a while") from None

    def _run(self, chain: AdmittedChain) -> Report:
        station = _Station(self._dispatcher, self._gates, chain, self._locate)
        stages = _prepared(station.prepare, chain.request.chain)
        out, released = Path(chain.request.out), chain.request.released
        report = run_stages(station, stages, chain.request.inputs, out, released=released)
        for left in out.rglob(f"{UNFINISHED}*"):  # of a process that was killed
            left.unlink(missing_ok=True)
        return report


class AdmittedChain:
    """A chain that is being worked on, and how much of its input is there."""

    def __init__(self, request: ChainRequest, deadline_at: float) -> None:
        self.request = request
        self.deadline_at = deadline_at
        self.future: Future[Report]
        self._condition = threading.Condition()
        self._arrived = 0
        self._given_up = False
        self._on_arrival: Callable[[int], None] | None = None

    @cached_property
    def slices(self) -> int:
        return read_grid(Path(self.request.inputs[IMAGE])).shape[0]

    def arrived(self, slices: int) -> None:
        """The first `slices` slices of all inputs can be read."""
        with self._condition:
            self._arrived = max(self._arrived, slices)
            if self._on_arrival is not None:
                self._on_arrival(self._arrived)
            self._condition.notify_all()

    def report(self) -> Report:
        """Waits until the chain has ended: see `run_chain`. All slices must have arrived."""
        return self.future.result()

    def give_up(self) -> None:
        """Its caller needs it no more; returns when nothing of it is computed any more."""
        self.forget()
        self.future.exception()

    def forget(self) -> None:
        """Its slices will not come."""
        with self._condition:
            self._given_up = True
            self._condition.notify_all()

    def tell_arrivals(self, listener: Callable[[int], None]) -> None:
        """Call `listener` with the slices that are there now, and with each change."""
        with self._condition:
            self._on_arrival = listener
            listener(self._arrived)

    def await_all(self) -> None:
        """Until all slices are there; raises WorkerError where that is given up, or takes until the deadline."""
        with self._condition:
            remaining_s = self.deadline_at - time.monotonic()
            there = self._condition.wait_for(lambda: self._given_up or self._arrived >= self.slices, remaining_s)
            if self._given_up or not there:
                raise WorkerError("the slices of the series were not decoded in time", "see what the job says of it")


class _Station:
    """Runs the stages of one chain in the resident processes."""

    def __init__(
        self, dispatcher: Dispatcher, judges: WorkerPool, chain: AdmittedChain, locate: Callable[[str], str]
    ) -> None:
        self._dispatcher = dispatcher
        self._judges = judges
        self._chain = chain
        self._locate = locate

    def prepare(self, index: int, engine: str, settings: Mapping[str, Any]) -> Prepared:
        source = self._locate(engine)
        told = self._dispatcher.ask("prepare", source, self._chain.deadline_at, settings=dict(settings))
        return Prepared(index, source, **told)

    def run(self, stage: Prepared, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Ran:
        """Slabs are given out while slices are still being decoded: the gate before the engine judges all of them, and
        where it refuses, what was computed by then is dropped. The gate after it follows the engine."""
        ticket = self._dispatcher.submit(self._work(stage, inputs, outputs))
        try:
            self._await_input(stage, ticket)
            with self._judges.one() as worker:
                judge = _Judge(worker, stage, inputs[stage.main_input], self._chain.deadline_at)
                before = judge.before(self._chain.request.headers, inputs)
                if not before.passed:
                    return Ran(before, {}, {}, 0.0)
                try:
                    findings, after = self._followed(judge, ticket, outputs)
                finally:
                    judge.forget()
        finally:
            self._dispatcher.withdraw(ticket)
        return Ran(before, after, findings, ticket.seconds)

    def _followed(
        self, judge: _Judge, ticket: Ticket, outputs: Mapping[str, str]
    ) -> tuple[dict[str, list[Mapping[str, Any]]], dict[str, Verdict]]:
        """What was found, and what the gate after the engine says of each output."""
        done = 0
        while done < ticket.work.slices:
            done = self._dispatcher.wait(ticket, done)
            judge.follow(outputs, done)
        findings = _joined(ticket.findings)
        return findings, {name: judge.after(name, output, findings.get(name, [])) for name, output in outputs.items()}

    def _await_input(self, stage: Prepared, ticket: Ticket) -> None:
        if stage.index > 0:
            self._dispatcher.arrived(ticket, ticket.work.slices)
            return
        self._chain.tell_arrivals(lambda slices: self._dispatcher.arrived(ticket, slices))
        self._chain.await_all()

    def _work(self, stage: Prepared, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Work:
        grid = read_grid(Path(inputs[stage.main_input]))
        alike = [stage.engine, stage.card["digest"], dict(stage.settings), grid.shape[1:], grid.unit, grid.spacing_mm]
        return Work(
            engine=stage.engine,
            digest=stage.card["digest"],
            settings=stage.settings,
            inputs=inputs,
            outputs=outputs,
            slices=grid.shape[0],
            halo=stage.halo,
            batch=json.dumps(alike, sort_keys=True) if stage.joinable else "",
            most=slab_slices(grid.shape),
            priority=self._chain.request.priority,
            deadline_at=self._chain.deadline_at,
        )


class _Judge:
    """The gates around one stage, in one process: it remembers what it has measured. Where that process dies, another
    one measures all of it at the end."""

    def __init__(self, worker: WorkerProcess, stage: Prepared, source: str, deadline_at: float) -> None:
        self._worker = worker
        self._stage = stage
        self._source = source
        self._deadline_at = deadline_at
        self._followed: set[str] = set()

    def before(self, headers: Mapping[str, Mapping[str, Sequence[str]]], inputs: Mapping[str, str]) -> Verdict:
        return verdict_of(self._asked("before", headers=dict(headers), inputs=dict(inputs)))

    def follow(self, outputs: Mapping[str, str], slices: int) -> None:
        """Measure the first `slices` slices of the outputs."""
        for name, output in outputs.items():
            if self._stage.card["outputs"][name]["kind"] == "volume":
                self._followed.add(output)
                self._asked("follow", name=name, source=self._source, output=output, slices=slices)

    def after(self, name: str, output: str, findings: Sequence[Mapping[str, Any]]) -> Verdict:
        told = {"name": name, "source": self._source, "output": output, "findings": list(findings)}
        verdict = verdict_of(self._asked("after", **told))
        self._followed.discard(output)
        return verdict

    def forget(self) -> None:
        """Outputs that were followed and never judged: the process would hold them, with their source, as long as it
        lives."""
        if self._followed:
            with suppress(WorkerError):  # a process that died holds nothing
                self._worker.call("forget", _FORGETTING_S, outputs=sorted(self._followed))

    def _asked(self, gate: str, **arguments: Any) -> Mapping[str, Any]:
        """A gate process that dies takes nothing down: another one is asked once more."""
        try:
            return self._called(gate, arguments)
        except WorkerError:
            return self._called(gate, arguments)

    def _called(self, gate: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        left_s = self._deadline_at - time.monotonic()
        if left_s <= 0.0:
            raise late()
        return self._worker.call(gate, min(GATE_TIMEOUT_S, left_s), card=self._stage.text, **arguments)
