"""The threads that give processes their slabs, whatever processes do: die, hang, answer nonsense, cannot be started."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest

from dicomnode.errors import DicomNodeError, EngineError, EngineInputError, WorkerError
from dicomnode.inference import dispatch
from dicomnode.inference.dispatch import Dispatcher, Extent, Ticket, Work
from dicomnode.testing.processes import wait_until
from engines.errors import RuntimeFailedError

ENGINE = "plus@1.0.0"
Answer = Mapping[str, Any]


@dataclass
class Site:
    """What the processes of a test do, and what they did.

    behave   called for each call with its process's number, the operation, and what ends where the process is ended
    given    parts that are being computed, by the folder of their job
    """

    behave: Callable[[int, str, threading.Event], None] = lambda *_: None
    given: list[tuple[str, int, int]] = field(default_factory=list)
    computed: Counter[tuple[str, int]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, parts: list[Any]) -> None:
        with self.lock:
            for part in parts:
                mine = (part["outputs"]["image"], part["begin"], part["end"])
                if any(mine[0] == other[0] and mine[1] < other[2] and other[1] < mine[2] for other in self.given):
                    self.faults.append(f"{mine} was given to two processes")
                self.given.append(mine)

    def end(self, parts: list[Any], is_computed: bool) -> None:
        with self.lock:
            for part in parts:
                mine = (part["outputs"]["image"], part["begin"], part["end"])
                self.given.remove(mine)
                if is_computed:
                    self.computed.update((mine[0], each) for each in range(mine[1], mine[2]))


class Process:
    """Stands in for `WorkerProcess`."""

    def __init__(self, site: Site, number: int) -> None:
        self._site = site
        self._number = number
        self._ended = threading.Event()
        self._closed = False
        self.pid: int | None = None

    def call(self, operation: str, timeout_s: float, **arguments: Any) -> Answer:
        if self._closed:
            raise WorkerError("closed")
        self._ended.clear()
        self.pid = self._number
        parts = arguments.get("parts", [])
        self._site.begin(parts)
        is_computed = False
        try:
            self._site.behave(self._number, operation, self._ended)
            if self._ended.is_set() or self._closed:
                raise WorkerError("the process died")
            is_computed = True
        finally:
            self._site.end(parts, is_computed)
        found = [{"findings": {"image": [{"slice_index": part["begin"], "end": part["end"]}]}} for part in parts]
        return {"parts": found, "seconds": 0.0, "warm": [ENGINE]} if parts else {"engine": arguments["engine"]}

    def end(self) -> None:
        self._site.ended.append(self._number)
        self.pid = None
        self._ended.set()

    def close(self) -> None:
        self._closed = True
        self.end()


def dispatcher(monkeypatch: pytest.MonkeyPatch, site: Site, processes: int = 1) -> Dispatcher:
    numbers = iter(range(processes))
    monkeypatch.setattr(dispatch, "WorkerProcess", lambda *_: Process(site, next(numbers)))
    return Dispatcher(Extent([{}] * processes, idle_s=0.05))


def work(job: str, slices: int, deadline_s: float = 30.0, **more: Any) -> Work:
    deadline_at = time.monotonic() + deadline_s
    told = {"halo": 0, "batch": "", "most": 4, "priority": 100, **more}
    return Work(ENGINE, "d", {}, {}, {"image": job}, slices, deadline_at=deadline_at, **told)


def computed(engines: Dispatcher, asked: Work) -> Ticket:
    """Hand in a job and see it to its end."""
    ticket = engines.submit(asked)
    try:
        engines.arrived(ticket, asked.slices)
        done = 0
        while done < asked.slices:
            done = engines.wait(ticket, done)
    finally:
        engines.withdraw(ticket)
    return ticket


def in_thread(function: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Starts it; the list is to hold what it gave or raised."""
    ends: list[object] = []

    def run() -> None:
        try:
            ends.append(function())
        except (DicomNodeError, EngineError) as error:
            ends.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, ends


def asked(engines: Dispatcher, deadline_s: float = 20.0) -> Answer:
    return engines.ask("prepare", ENGINE, time.monotonic() + deadline_s)


def first_fails(error: Exception) -> Callable[[int, str, threading.Event], None]:
    left = [error]

    def behave(number: int, operation: str, ended: threading.Event) -> None:
        if left:
            raise left.pop()

    return behave


def hangs(number: int, operation: str, ended: threading.Event) -> None:
    ended.wait(20.0)


@pytest.mark.parametrize("error", [OSError(11, "no more processes"), KeyError("result"), RuntimeError("no threads")])
def test_an_error_that_nobody_foresaw_is_told_to_who_asked_and_the_next_is_served(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with closing(dispatcher(monkeypatch, Site(first_fails(error)))) as engines:
        with pytest.raises(WorkerError) as caught:
            asked(engines)
        assert caught.value.transient
        assert str(error) not in str(caught.value)
        assert asked(engines) == {"engine": ENGINE}


@pytest.mark.parametrize("error", [OSError(11, "no more processes"), KeyError("parts"), WorkerError("it died")])
def test_such_an_error_loses_a_slab_once_and_its_job_goes_on(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    site = Site(first_fails(error))
    with closing(dispatcher(monkeypatch, site)) as engines:
        assert len(computed(engines, work("a", 9)).findings) == 3
    assert site.computed == Counter(("a", each) for each in range(9))


@pytest.mark.parametrize("error", [WorkerError("it died"), RuntimeFailedError("the device fell off", "look")])
def test_a_process_whose_device_failed_while_asked_is_ended(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    site = Site(first_fails(error))
    with closing(dispatcher(monkeypatch, site)) as engines:
        with pytest.raises(type(error)):
            asked(engines)
        assert site.ended == [0]
        assert asked(engines) == {"engine": ENGINE}


def test_an_answer_of_another_length_is_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(dispatcher(monkeypatch, Site())) as engines:
        with monkeypatch.context() as patch:
            patch.setattr(Process, "call", lambda *_, **__: {"parts": [], "seconds": 0.0, "warm": []})
            with pytest.raises(WorkerError) as caught:
                computed(engines, work("a", 3))
        assert caught.value.transient
        assert len(computed(engines, work("b", 3)).findings) == 1


def test_who_asks_waits_until_its_deadline_and_what_is_opened_then_is_there_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = threading.Event()

    def opens(number: int, operation: str, ended: threading.Event) -> None:
        opened.wait(20.0)

    with closing(dispatcher(monkeypatch, Site(opens))) as engines:
        with pytest.raises(WorkerError, match="longer than it may") as caught:
            asked(engines, deadline_s=0.05)  # being opened
        with pytest.raises(WorkerError, match="longer than it may"):
            asked(engines, deadline_s=0.05)  # in the queue
        assert caught.value.transient
        opened.set()
        assert asked(engines) == {"engine": ENGINE}


def test_a_job_is_done_that_loses_two_processes_at_the_same_slab(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of two: the third attempt is made by one that died of it."""
    left = [WorkerError("out of memory"), WorkerError("out of memory")]

    def behave(number: int, operation: str, ended: threading.Event) -> None:
        if left:
            raise left.pop()

    site = Site(behave)
    with closing(dispatcher(monkeypatch, site, processes=2)) as engines:
        assert computed(engines, work("a", 3)).ended is None
    assert site.computed == Counter(("a", each) for each in range(3))


def test_a_loss_counts_for_the_others_of_a_batch_one_of_which_was_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []
    monkeypatch.setattr(dispatch, "event", lambda name, **_: events.append(name))
    dies = threading.Event()
    calls: list[int] = []

    def behave(number: int, operation: str, ended: threading.Event) -> None:
        calls.append(number)
        if len(calls) == 1:
            dies.wait(20.0)
            raise WorkerError("it died")

    site = Site(behave)
    with closing(dispatcher(monkeypatch, site)) as engines:
        tickets = [engines.submit(work(job, 2, batch="k")) for job in "ab"]
        with engines._condition:  # so that both are there when the process looks
            for ticket in tickets:
                engines.arrived(ticket, 2)
        wait_until(lambda: len(site.given) == 2, 20.0, "both are computed together")
        thread, _ = in_thread(lambda: engines.withdraw(tickets[0]))
        wait_until(lambda: tickets[0].ended is not None, 20.0, "one was given up")
        dies.set()
        assert engines.wait(tickets[1], 1) == 2
        thread.join(20.0)
        assert not thread.is_alive()
        engines.withdraw(tickets[1])
    assert events == ["engine_process_lost"]


def test_closing_ends_who_asks_who_waits_and_who_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(hangs)
    engines = dispatcher(monkeypatch, site, processes=2)
    waiting = [in_thread(lambda: computed(engines, work("a", 3))), *(in_thread(lambda: asked(engines)) for _ in "123")]
    wait_until(lambda: len(site.given) == 1, 20.0, "a slab is computed")
    engines.close()
    for thread, ends in waiting:
        thread.join(10.0)  # long before any deadline
        assert [type(end) for end in ends] == [WorkerError]
    for late in (lambda: asked(engines), lambda: computed(engines, work("b", 3))):
        with pytest.raises(WorkerError, match="stopped") as caught:
            late()
        assert caught.value.transient
    assert engines.waiting == 0


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_every_job_ends_and_no_slice_is_computed_by_two(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Jobs of all kinds at once, processes that fail in all ways, and a node that is stopped in the middle of it."""
    chance = random.Random(seed)
    site = Site(_misbehaving(chance))
    engines = dispatcher(monkeypatch, site, processes=chance.randint(1, 3))
    jobs = [_job(f"job-{number}", chance) for number in range(40)]
    running = [in_thread(lambda job=job: _run(engines, site, *job)) for job in jobs]  # type: ignore[misc]
    if chance.random() < 0.5:
        time.sleep(chance.uniform(0.0, 0.3))
        engines.close()
    for thread, _ in running:
        thread.join(30.0)
        assert not thread.is_alive(), "every job ends"
    assert all(thread.is_alive() for thread in engines._threads) or engines._closed
    assert engines.waiting == 0, "nothing is left behind"
    engines.close()
    assert (site.faults, site.given) == ([], [])
    for (asked, _, _), (_, (end,)) in zip(jobs, running, strict=True):
        if isinstance(end, Ticket):
            slices = [each for each in site.computed if each[0] == asked.outputs["image"]]
            assert len(slices) == asked.slices
            assert all(site.computed[each] == 1 for each in slices), "no slice twice"
            assert _told(end) == list(range(asked.slices)), "what was found is counted once"


def _misbehaving(chance: random.Random) -> Callable[[int, str, threading.Event], None]:
    def behave(number: int, operation: str, ended: threading.Event) -> None:
        what, pause_s = chance.random(), chance.uniform(0.0, 0.004)
        ended.wait(pause_s)
        if what < 0.10:
            raise WorkerError("it died")
        if what < 0.13:
            raise OSError(11, "no more processes")
        if what < 0.15:
            raise KeyError("result")
        if what < 0.18:
            raise EngineInputError("not this one", "")
        if what < 0.20:  # it hangs; the real one is ended at a deadline
            ended.wait(0.1)
            raise WorkerError("it took too long and was ended")

    return behave


def _job(name: str, chance: random.Random) -> tuple[Work, int, float]:
    """A job, after how many slices it is given up, and how long its slices take to come."""
    deadline_s = 0.1 if chance.random() < 0.1 else 20.0
    halo = chance.choice([0, 0, 1, None])
    asked = work(name, chance.randint(1, 12), deadline_s, halo=halo, batch=chance.choice(["", "k"]))
    return asked, chance.randint(0, 30), chance.uniform(0.0, 0.002)


def _run(engines: Dispatcher, site: Site, asked: Work, until: int, pause_s: float) -> Ticket | None:
    """None where it was given up."""
    engines.ask("prepare", ENGINE, asked.deadline_at)
    ticket = engines.submit(asked)
    try:
        for arrived in range(1, asked.slices + 1):
            time.sleep(pause_s)
            engines.arrived(ticket, arrived)
        done = 0
        while done < asked.slices:
            if done >= until:
                return None
            done = engines.wait(ticket, done)
    finally:
        engines.withdraw(ticket)
        with site.lock:
            if any(job == asked.outputs["image"] for job, _, _ in site.given):
                site.faults.append("it was withdrawn, and is being computed")
    return ticket


def _told(ticket: Ticket) -> list[int]:
    slabs = [(one["slice_index"], one["end"]) for each in ticket.findings for one in each["image"]]
    return sorted(index for begin, end in slabs for index in range(begin, end))
