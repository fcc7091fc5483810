"""Worker processes: their answers, their errors, and how they end."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydicom import Dataset, dcmwrite

from dicomnode import errors
from dicomnode.errors import DicomNodeError, DiskFullError, EngineError, InputError, StoreError, WorkerError
from dicomnode.testing.processes import wait_until
from dicomnode.workers import WorkerPool, WorkerProcess, _answer

MODULE = "tests.worker_operations"
KINDS = sorted(
    name
    for name in errors.__all__
    if issubclass(getattr(errors, name), DicomNodeError | EngineError) and name != "RequestFailedError"  # of peers
)  # fmt: skip


@pytest.fixture(name="worker", scope="module")
def _worker() -> Iterator[WorkerProcess]:
    with closing(WorkerProcess(MODULE)) as worker:
        yield worker


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def pid_of(worker: WorkerProcess) -> int:
    return int(worker.call("pid", 30.0)["pid"])


def test_a_call_is_answered_by_the_same_process(worker: WorkerProcess) -> None:
    assert worker.call("echo", 30.0, a=[1, "ü"], b={"c": None}) == {"a": [1, "ü"], "b": {"c": None}}
    assert pid_of(worker) == pid_of(worker) != os.getpid()


def test_a_long_answer_comes_whole(worker: WorkerProcess) -> None:
    assert worker.call("echo", 30.0, text="ä\n" * 500_000) == {"text": "ä\n" * 500_000}


def test_a_worker_computes_with_one_thread(worker: WorkerProcess) -> None:
    assert worker.call("pid", 30.0)["threads"] == os.environ.get("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_comes_back_as_its_kind_with_its_hint(worker: WorkerProcess, kind: str) -> None:
    with pytest.raises((DicomNodeError, EngineError)) as caught:
        worker.call("fail", 30.0, kind=kind)
    assert type(caught.value) is getattr(errors, kind)
    assert (str(caught.value), caught.value.hint) == (f"it is a {kind}", "do this")
    assert caught.value.transient == getattr(errors, kind).transient


@pytest.mark.parametrize("kind", ["ValueError", "KeyError", "RecursionError"])
def test_any_other_error_is_the_inputs_and_keeps_its_text_to_itself(worker: WorkerProcess, kind: str) -> None:
    with pytest.raises(InputError, match=kind) as caught:
        worker.call("fail", 30.0, kind=kind)
    assert "Doe" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, DiskFullError), (errno.EIO, StoreError)])
def test_a_failing_disk_is_not_the_inputs_fault(worker: WorkerProcess, number: int, kind: type[StoreError]) -> None:
    with pytest.raises(StoreError) as caught:
        worker.call("disk_full", 30.0, number=number)
    assert type(caught.value) is kind
    assert "Doe" not in str(caught.value)
    assert caught.value.transient, "the disk may work again"


def test_an_unknown_operation_is_refused(worker: WorkerProcess) -> None:
    with pytest.raises(InputError, match="KeyError"):
        worker.call("no_such", 30.0)


def test_what_takes_too_long_is_ended_and_the_next_call_works(tmp_path: Path) -> None:
    with closing(WorkerProcess(MODULE)) as worker:
        before = pid_of(worker)
        with pytest.raises(WorkerError, match="longer than 1 s") as caught:
            worker.call("sleep", 1.0, seconds=60)
        assert caught.value.transient
        assert not is_running(before)
        assert pid_of(worker) != before


@pytest.mark.parametrize("end", ["crash", "no_json"])
def test_a_worker_that_dies_fails_its_call_and_no_other(end: str) -> None:
    with closing(WorkerProcess(MODULE)) as worker:
        with pytest.raises(WorkerError, match=f"died during {end}") as caught:
            worker.call(end, 30.0)
        assert caught.value.hint
        assert worker.call("echo", 30.0, a=1) == {"a": 1}


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EMFILE])
@pytest.mark.parametrize("call", ["subprocess.Popen", "socket.socketpair"])
def test_a_worker_that_cannot_be_started_fails_its_call_and_no_other(
    monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "/data/Doe^Jane")

    with closing(WorkerProcess(MODULE)) as worker:
        with monkeypatch.context() as patch:
            patch.setattr(call, fails)
            before = open_files()
            with pytest.raises(WorkerError, match="could be started") as caught:
                worker.call("echo", 30.0)
            assert open_files() == before
        assert caught.value.transient and caught.value.hint
        assert "Doe" not in str(caught.value)
        assert worker.call("echo", 30.0, a=1) == {"a": 1}


@pytest.mark.parametrize("line", ["[]", '{"error": []}', '{"result": 5}', "[" * 100_000, "no json"])
def test_what_a_worker_writes_that_is_no_answer_is_its_end(line: str) -> None:
    """What takes over a decoder may write anything."""
    with closing(WorkerProcess(MODULE)) as worker:
        with pytest.raises(WorkerError, match="died during write"):
            worker.call("write", 30.0, line=line)
        assert worker.call("echo", 30.0, a=1) == {"a": 1}


def test_a_worker_that_dribbles_has_no_more_time_than_another() -> None:
    with closing(WorkerProcess(MODULE)) as worker, pytest.raises(WorkerError, match="longer than"):
        worker.call("dribble", 0.7)


def test_a_worker_that_was_closed_is_started_by_nobody() -> None:
    worker = WorkerProcess(MODULE)
    worker.call("echo", 30.0)
    worker.close()
    with pytest.raises(WorkerError, match="was closed") as caught:
        worker.call("echo", 30.0)
    assert caught.value.transient
    assert worker.pid is None


def test_a_worker_that_was_ended_is_started_again() -> None:
    with closing(WorkerProcess(MODULE)) as worker:
        before = pid_of(worker)
        worker.end()
        assert worker.pid is None
        assert pid_of(worker) != before


def test_a_worker_that_died_between_two_calls_is_replaced() -> None:
    with closing(WorkerProcess(MODULE)) as worker:
        dead = pid_of(worker)
        os.kill(dead, signal.SIGKILL)
        process = worker._process
        wait_until(lambda: process is not None and process.poll() is not None, 10.0, "all its threads are gone")
        assert pid_of(worker) != dead


def test_memory_is_limited() -> None:
    with closing(WorkerProcess(MODULE, memory_bytes=1 << 30)) as worker:
        with pytest.raises(WorkerError, match="not enough memory") as caught:
            worker.call("allocate", 30.0, size_bytes=2 << 30)
        assert "worker_memory_mb" in caught.value.hint
        assert worker.call("allocate", 30.0, size_bytes=1 << 20) == {"length": 1 << 20}


def test_a_pool_works_on_as_much_at_once_as_it_has_workers(tmp_path: Path) -> None:
    answers: list[object] = []
    with closing(WorkerPool(MODULE, 2)) as pool:

        def meet(mine: str, other: str) -> None:
            answers.append(pool.call("meet", 60.0, mine=str(tmp_path / mine), other=str(tmp_path / other))["met"])

        threads = [threading.Thread(target=meet, args=names) for names in (("a", "b"), ("b", "a"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [True, True]


def test_a_pool_has_its_worker_back_after_an_error() -> None:
    with closing(WorkerPool(MODULE, 1)) as pool:
        for _ in range(3):
            with pytest.raises(WorkerError):
                pool.call("crash", 30.0)
        assert pool.call("echo", 30.0, a=1) == {"a": 1}


def test_closing_ends_the_processes(tmp_path: Path) -> None:
    markers = [tmp_path / "a", tmp_path / "b"]
    pool = WorkerPool(MODULE, 2)
    threads = [
        threading.Thread(target=pool.call, args=("sleep", 30.0), kwargs={"seconds": 0.5, "marker": str(marker)})
        for marker in markers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pids = {int(marker.read_text()) for marker in markers}
    assert len(pids) == 2
    assert all(map(is_running, pids))
    pool.close()
    pool.close()
    assert not any(map(is_running, pids))


def test_closing_does_not_wait_for_a_call_that_runs(tmp_path: Path) -> None:
    marker, failures = tmp_path / "marker", []
    pool = WorkerPool(MODULE, 1)

    def call() -> None:
        try:
            pool.call("sleep", 300.0, seconds=300, marker=str(marker))
        except WorkerError as error:
            failures.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    wait_until(lambda: marker.exists() and marker.read_text() != "", 30.0, "the call runs")
    pool.close()
    thread.join(10)
    assert not thread.is_alive()
    assert [error.transient for error in failures] == [True]
    assert not is_running(int(marker.read_text()))


_PARENT = """
import sys
from dicomnode.workers import WorkerProcess
worker = WorkerProcess("tests.worker_operations")
worker.call("echo", 60.0)
if sys.argv[2] == "busy":
    worker.call("sleep", 600.0, seconds=600, marker=sys.argv[1])
open(sys.argv[1], "w").write(str(worker.call("pid", 60.0)["pid"]))
sys.stdin.read()
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_worker_ends_with_its_parent(tmp_path: Path, state: str) -> None:
    marker = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(marker), state], stdin=subprocess.PIPE)
    try:
        wait_until(lambda: marker.exists() and marker.read_text() != "", 30.0, "the worker works")
        pid = int(marker.read_text())
        assert is_running(pid)
    finally:
        parent.kill()
        parent.communicate()
    wait_until(lambda: not is_running(pid), 10.0, "the worker has ended")


def test_a_full_disk_as_pydicom_tells_it_is_one() -> None:
    """It names the element that it was writing by an error of its own, which has no number."""
    dataset = Dataset()
    dataset.add_new("PixelData", "OB", bytes(1 << 20))

    def write() -> dict[str, object]:
        with Path("/dev/full").open("wb", buffering=0) as file:
            dcmwrite(file, dataset, implicit_vr=False, little_endian=True)
        return {}

    with pytest.raises(OSError, match="No space left") as raised:
        write()
    assert raised.value.errno is None
    assert _answer({"write": write}, {"operation": "write", "arguments": {}})["error"] == "DiskFullError"


def test_a_full_disk_as_numpy_tells_it_is_one() -> None:
    def write() -> dict[str, object]:
        raise OSError("16384 requested and 512 written")

    assert _answer({"write": write}, {"operation": "write", "arguments": {}})["error"] == "DiskFullError"
