"""Engine processes, and the threads that give them slabs: `ordering` decides which, this does it.

A process that dies, or cannot be started, loses no job: its slabs are given out again, each alone, and only what took
down several fails. A call that hangs is ended with its process. What a job has computed so far stays in its files.
Nobody waits longer than until a deadline.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any, Final

from dicomnode import metrics
from dicomnode.errors import DicomNodeError, EngineError, WorkerError
from dicomnode.inference.ordering import ATTEMPTS, Process, Progress, Slab, Waiting, choose
from dicomnode.telemetry import event
from dicomnode.workers import WorkerProcess
from engines.errors import RuntimeFailedError

MODULE: Final = "dicomnode.inference.process"
SLAB_TIMEOUT_S: Final = 600.0
"""A slab that takes longer hangs: it is a second or two of work."""

OPENING_TIMEOUT_S: Final = 600.0
"""Reading and compiling the networks of an engine; a TensorRT plan is built before, by `engines build`."""

Findings = Mapping[str, Sequence[Mapping[str, Any]]]
"""By output name, what a detector found in one slab."""


@dataclass(frozen=True)
class Extent:
    """The engine processes that there may be.

    arguments     of the operations of `module`, for each process
    idle_s        after so long with nothing to do one ends
    memory_bytes  RLIMIT_AS of each; None: no limit, as a GPU's driver needs it
    """

    arguments: Sequence[Mapping[str, Any]]
    idle_s: float
    memory_bytes: int | None = None
    module: str = MODULE


@dataclass(frozen=True)
class Work:
    """One engine over the slices of one job.

    engine, digest   what `EngineProcess.run` takes; `batch` as in `ordering.Waiting`
    inputs, outputs  folders by name (`slabs.Part`)
    deadline_at      on the clock `time.monotonic`
    most             slices of one slab
    """

    engine: str
    digest: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    slices: int
    halo: int | None
    batch: str
    most: int
    priority: int
    deadline_at: float


@dataclass
class Ticket:
    """A job that was handed in; its fields are the dispatcher's to change, under its lock.

    seconds  that engine processes spent on it, a batch's being shared by slices
    ended    why it goes on no more, where it failed
    """

    number: int
    work: Work
    progress: Progress
    since_s: float
    seconds: float = 0.0
    findings: list[Findings] = field(default_factory=list)
    ended: DicomNodeError | EngineError | None = None

    @property
    def is_over(self) -> bool:
        """Nothing of it is being computed, nor will be."""
        return not self.progress.running if self.ended is not None else self.progress.is_done

    @property
    def waiting(self) -> Waiting:
        work = self.work
        return Waiting(self.number, work.priority, self.since_s, work.engine, work.batch, work.most, self.progress)


@dataclass(frozen=True)
class Question:
    """A call of a process that is no slab; `answer` is cancelled where nobody waits for it any more."""

    operation: str
    arguments: Mapping[str, Any]
    answer: Future[Mapping[str, Any]] = field(default_factory=Future)


Batch = Sequence[tuple[Ticket, Slab]]
"""Slabs that are computed together."""


class Dispatcher:
    """Resident engine processes; each is started when it is first needed."""

    def __init__(self, extent: Extent) -> None:
        self._processes = tuple(WorkerProcess(extent.module, extent.memory_bytes, given) for given in extent.arguments)
        self._warm: list[tuple[str, ...]] = [() for _ in self._processes]
        self._questions: list[deque[Question]] = [deque() for _ in self._processes]
        self._busy = [False for _ in self._processes]
        self._idle_s = extent.idle_s
        self._condition = threading.Condition()
        self._tickets: dict[int, Ticket] = {}
        self._numbers = itertools.count()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, args=(number,), name=f"engine-{number}", daemon=True)
            for number in range(len(self._processes))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the engine processes that run."""
        return tuple(pid for process in self._processes if (pid := process.pid) is not None)

    @property
    def waiting(self) -> int:
        """Jobs that are not over."""
        return len(self._tickets)

    def ask(self, operation: str, engine: str, deadline_at: float, **arguments: Any) -> Mapping[str, Any]:
        """Ask the process that has the engine open, else an idle one, about it; a busy one answers when its slab is
        done. Raises what the operation raises, and WorkerError where there is no answer at `deadline_at` (on the clock
        `time.monotonic`): an engine that is being opened by then is opened all the same, for who needs it next."""
        question = Question(operation, {"engine": engine, **arguments})
        with self._condition:
            self._check_open()
            self._questions[self._best(engine)].append(question)
            self._condition.notify_all()
        wait((question.answer,), max(0.0, deadline_at - time.monotonic()))
        if question.answer.cancel() or not question.answer.done():
            raise late()
        return question.answer.result()

    def submit(self, work: Work) -> Ticket:
        """Hand in a job of which no slice can be read yet."""
        with self._condition:
            self._check_open()
            ticket = Ticket(next(self._numbers), work, Progress(work.slices, work.halo), time.monotonic())
            self._tickets[ticket.number] = ticket
            self._condition.notify_all()
        return ticket

    def arrived(self, ticket: Ticket, slices: int) -> None:
        """The first `slices` slices can be read."""
        with self._condition:
            ticket.progress = ticket.progress.arrived_to(slices)
            self._condition.notify_all()

    def wait(self, ticket: Ticket, slices: int) -> int:
        """Until more than the first `slices` slices are computed: how many of the first are. Raises why it goes on no
        more. `withdraw` is to follow."""
        with self._condition:
            while ticket.progress.done_to <= slices and not ticket.is_over:
                self._end_late(time.monotonic())
                self._condition.wait(max(0.1, ticket.work.deadline_at - time.monotonic()))
            if ticket.ended is not None:
                raise ticket.ended
            return ticket.progress.done_to

    def withdraw(self, ticket: Ticket) -> None:
        """Give out no more of it; returns when no process touches the job's files any more."""
        with self._condition:
            self._end(ticket, WorkerError("the job was given up", "it is done again, or is not needed any more"))
            self._condition.wait_for(lambda: ticket.is_over)
            self._tickets.pop(ticket.number, None)

    def close(self) -> None:
        """End the processes; jobs that are not over fail as transient."""
        with self._condition:
            self._closed = True
            for ticket in self._tickets.values():
                self._end(ticket, _stopping())
            self._condition.notify_all()
        for process in self._processes:
            process.close()
        for thread in self._threads:
            thread.join()

    def _check_open(self) -> None:
        if self._closed:  # nobody would end what is handed in from now on
            raise _stopping()

    def _best(self, engine: str) -> int:
        """The process to ask about an engine."""
        ranks = [(engine not in warm, busy) for warm, busy in zip(self._warm, self._busy, strict=True)]
        return ranks.index(min(ranks))

    def _serve(self, number: int) -> None:
        while (task := self._next(number)) is not None:
            try:
                self._do(number, task)
            except Exception as error:  # noqa: BLE001  without this thread, all that waits for its process would wait on
                self._failed(number, task, error)

    def _do(self, number: int, task: Question | Batch) -> None:
        if isinstance(task, Question):
            self._answer(number, task)
        elif task:
            self._compute(number, task)
        else:
            self._processes[number].end()

    def _failed(self, number: int, task: Question | Batch, error: Exception) -> None:
        """What is wrong with an answer, or with us, is a loss like another. The error's text may hold PHI."""
        told = WorkerError(f"an engine process could not be served ({type(error).__name__})", "report it, with the log")
        if not isinstance(task, Question):
            self._lost(number, [(ticket, slab) for ticket, slab in task if slab in ticket.progress.running], told)
        elif not task.answer.done():
            task.answer.set_exception(told)

    def _next(self, number: int) -> Question | Batch | None:
        """What to do; nothing where the process has been idle for long; None at the end."""
        idle_since = time.monotonic()
        with self._condition:
            self._busy[number] = False
            while not self._closed:
                now = time.monotonic()
                self._end_late(now)
                task = self._questions[number].popleft() if self._questions[number] else self._given(number, now)
                if task:
                    self._busy[number] = True
                    return task
                is_running = self._processes[number].pid is not None
                if is_running and now - idle_since >= self._idle_s:
                    self._warm[number] = ()
                    return ()
                self._condition.wait(self._pause_s(now, idle_since if is_running else None))
            for question in self._questions[number]:
                if question.answer.set_running_or_notify_cancel():
                    question.answer.set_exception(_stopping())
        return None

    def _answer(self, number: int, question: Question) -> None:
        if not question.answer.set_running_or_notify_cancel():
            return
        try:
            answer = self._processes[number].call(question.operation, OPENING_TIMEOUT_S, **question.arguments)
        except (WorkerError, RuntimeFailedError) as error:
            self._processes[number].end()  # as in `_compute`: opening an engine runs it, for its golden test
            with self._condition:
                self._warm[number] = ()
            question.answer.set_exception(error)
            return
        except (DicomNodeError, EngineError) as error:
            question.answer.set_exception(error)
            return
        engine = question.arguments["engine"]
        with self._condition:
            self._warm[number] = (*(name for name in self._warm[number] if name != engine), engine)
        question.answer.set_result(answer)

    def _given(self, number: int, now: float) -> Batch:
        process = Process(number, self._warm[number], len(self._processes) - 1)
        offered = [ticket.waiting for ticket in self._tickets.values() if ticket.ended is None]
        batch = tuple((self._tickets[one.job], slab) for one, slab in choose(offered, process, now))
        for ticket, slab in batch:
            ticket.progress = ticket.progress.given_out(slab)
            ticket.since_s = now
        return batch

    def _pause_s(self, now: float, idle_since: float | None) -> float | None:
        """How long nothing can happen of which nobody tells us."""
        times = [ticket.work.deadline_at for ticket in self._tickets.values() if ticket.ended is None]
        if idle_since is not None:
            times.append(idle_since + self._idle_s)
        return max(0.0, min(times) - now) if times else None

    def _end_late(self, now: float) -> None:
        for ticket in self._tickets.values():
            if ticket.ended is None and now >= ticket.work.deadline_at:
                self._end(ticket, late())

    def _end(self, ticket: Ticket, error: DicomNodeError | EngineError) -> None:
        if ticket.ended is None and not ticket.progress.is_done:
            ticket.ended = error
        self._condition.notify_all()

    def _compute(self, number: int, batch: Batch) -> None:
        work = batch[0][0].work
        parts = [
            {"inputs": dict(one.work.inputs), "outputs": dict(one.work.outputs), "begin": slab.begin, "end": slab.end}
            for one, slab in batch
        ]
        began = time.monotonic()
        timeout_s = min(SLAB_TIMEOUT_S, *(ticket.work.deadline_at - began for ticket, _ in batch))
        given = {"engine": work.engine, "digest": work.digest, "settings": dict(work.settings), "parts": parts}
        try:
            answer = self._processes[number].call("run", max(timeout_s, 0.001), **given)
        except (WorkerError, RuntimeFailedError) as error:
            self._processes[number].end()  # its engines and its driver may be in any state
            self._lost(number, batch, error)
        except (DicomNodeError, EngineError) as error:
            self._refused(number, batch, error)
        else:
            self._finished(number, batch, answer)

    def _finished(self, number: int, batch: Batch, answer: Mapping[str, Any]) -> None:
        seconds: float = answer["seconds"]
        slices = sum(slab.slices for _, slab in batch)
        with self._condition:
            self._warm[number] = tuple(answer["warm"])
            metrics.count("dicomnode_engine_slices_total", slices)
            metrics.count("dicomnode_engine_seconds_total", seconds)
            for (ticket, slab), made in zip(batch, answer["parts"], strict=True):
                ticket.progress = ticket.progress.finished(slab)
                ticket.seconds += seconds * slab.slices / slices
                ticket.findings.append(made["findings"])
            self._condition.notify_all()

    def _lost(self, number: int, batch: Batch, error: DicomNodeError | EngineError) -> None:
        """The process died at these slabs, or was ended because the deadline of one of them had passed."""
        with self._condition:
            self._warm[number] = ()
            self._end_late(now := time.monotonic())
            is_late = any(now >= ticket.work.deadline_at for ticket, _ in batch)
            for ticket, slab in batch:
                if is_late:
                    ticket.progress = ticket.progress.given_back(slab)
                else:
                    self._lose(number, ticket, slab, error)
            self._condition.notify_all()
        if not is_late and not self._closed:
            metrics.count("dicomnode_engine_processes_lost_total")
            event("engine_process_lost", reason=str(error), instances=sum(slab.slices for _, slab in batch))

    def _refused(self, number: int, batch: Batch, error: DicomNodeError | EngineError) -> None:
        """The engine raised an error: of several jobs' slabs, nobody knows for which."""
        with self._condition:
            for ticket, slab in batch:
                self._lose(number, ticket, slab, error)
                if len(batch) == 1:
                    self._end(ticket, error)

    def _lose(self, number: int, ticket: Ticket, slab: Slab, error: DicomNodeError | EngineError) -> None:
        ticket.progress = ticket.progress.lost(slab, number)
        if len(slab.lost_on) + 1 >= ATTEMPTS:
            self._end(ticket, error)


def late() -> WorkerError:
    """A deadline has passed."""
    return WorkerError("the job took longer than it may", "look at what else the engines had to do, or at the device")


def _stopping() -> WorkerError:
    return WorkerError("the node is being stopped", "the job goes on after its next start")
