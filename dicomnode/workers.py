"""Resident child processes that do one kind of work, spoken to in lines of JSON over a socket pair.

Decoders and engines are native code fed with hostile bytes: they run apart, with a limit on their address space, and
a call that outlasts its time is ended with the process. Arguments and results are JSON; pixels travel as files.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import queue
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final

from dicomnode import errors, telemetry
from dicomnode.errors import DicomNodeError, EngineError, WorkerError

Operation = Callable[..., Mapping[str, Any]]

_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
"""unshare(2); Python offers it from 3.12 on."""

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
"""mallopt(3)."""
_KEPT_BYTES: Final = 64 << 20
_MAPPED_BYTES: Final = 32 << 20
"""The most that glibc takes."""

_ENDING_S: Final = 10.0
"""How long a process is waited for that was killed."""

_NUMPYS_FULL_DISK: Final = re.compile(r"\d+ requested and \d+ written")
"""What `ndarray.tofile` says where a disk is full, without a number."""

_ERRORS: Final[dict[str, type[DicomNodeError] | type[EngineError]]] = {
    name: kind
    for name in errors.__all__
    if isinstance(kind := getattr(errors, name), type) and issubclass(kind, DicomNodeError | EngineError)
}


class WorkerProcess:
    """The parent's side of one worker; starts it at the first call and again after it died. One call at a time.

    module        a module with a function `operations(...) -> Mapping[str, Operation]`
    memory_bytes  RLIMIT_AS of the process, or None
    arguments     of `operations`, by name: JSON values
    """

    def __init__(
        self, module: str, memory_bytes: int | None = None, arguments: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        self._module = module
        self._memory_bytes = memory_bytes
        self._arguments = json.dumps(dict(arguments))
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the process that runs; None: there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def call(self, operation: str, timeout_s: float, **arguments: Any) -> Mapping[str, Any]:
        """What the operation gives. Raises what it raises, and WorkerError where no answer came in time, or no process
        could be started."""
        request = json.dumps({"operation": operation, "arguments": arguments}).encode() + b"\n"
        with self._lock:
            channel = self._channel()
            try:
                answer = _exchange(channel, request, time.monotonic() + timeout_s)
            except TimeoutError:
                self._end()
                raise WorkerError(f"{operation} took longer than {timeout_s:.0f} s and was ended") from None
            except (OSError, ValueError, RecursionError) as error:
                code = self._end()
                raise WorkerError(
                    f"the {self._module.rpartition('.')[0]} worker died during {operation} (exit status {code})",
                    "it may have run out of the memory it is limited to, or the input crashed a decoder",
                ) from error
        if "error" in answer:
            failed = _ERRORS.get(answer["error"], WorkerError)(answer["message"], answer["hint"])
            failed.transient = failed.transient or answer.get("transient", False)
            raise failed
        result: Mapping[str, Any] = answer["result"]
        return result

    def end(self) -> None:
        """End the process once no call runs any more; the next call starts another one."""
        with self._lock:
            self._end()

    def close(self) -> None:
        """End the process for good. A call that is running fails as one whose worker died, and so does any later."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()  # it ends the call, which gives up the lock
        with self._lock:
            self._end()

    def _channel(self) -> socket.socket:
        is_running = self._process is not None and self._process.poll() is None
        channel = self._socket if is_running else None
        try:
            if channel is None and not self._closed:
                channel = self._started()
        except OSError as error:  # no process, memory or descriptor is left, or the interpreter is being replaced
            raise WorkerError(
                f"no {self._module.rpartition('.')[0]} worker could be started: {os.strerror(error.errno or 0)}",
                "look at what else runs on this machine, and at its limits of processes, memory and open files",
            ) from None
        if self._closed or channel is None:  # again: `close` ends only what it finds started
            self._end()
            raise WorkerError("the worker was closed", "the node is being stopped; it goes on after its next start")
        return channel

    def _started(self) -> socket.socket:
        self._end()
        ours, theirs = socket.socketpair()
        settings = (str(theirs.fileno()), str(self._memory_bytes or 0), self._arguments)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__, self._module, *settings],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                )
        except BaseException:
            ours.close()
            raise
        self._socket = ours
        return ours

    def _end(self) -> int | None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is None:
            return None
        process, self._process = self._process, None
        process.kill()
        try:
            return process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:  # it hangs in a driver or on a disk, where no signal reaches it
            return None


class WorkerPool:
    """Several workers of one kind; a call takes one that is idle, or waits for it."""

    def __init__(self, module: str, size: int, memory_bytes: int | None = None) -> None:
        self._workers = tuple(WorkerProcess(module, memory_bytes) for _ in range(size))
        self._idle: queue.LifoQueue[WorkerProcess] = queue.LifoQueue()  # the last used is warm
        for worker in self._workers:
            self._idle.put(worker)

    def call(self, operation: str, timeout_s: float, **arguments: Any) -> Mapping[str, Any]:
        """As `WorkerProcess.call`."""
        with self.one() as worker:
            return worker.call(operation, timeout_s, **arguments)

    @contextmanager
    def one(self) -> Iterator[WorkerProcess]:
        """One worker for several calls, of which the later ones need what the former ones left in it."""
        worker = self._idle.get()
        try:
            yield worker
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


def _exchange(channel: socket.socket, request: bytes, deadline_at: float) -> dict[str, Any]:
    """Send a request and read the answer to it, all in all until `deadline_at`, on the clock `time.monotonic`. Raises
    TimeoutError, OSError; ValueError or RecursionError where what comes is no answer: what takes over a decoder may
    write anything."""
    channel.settimeout(_left_s(deadline_at))
    channel.sendall(request)
    parts = [b""]
    while not parts[-1].endswith(b"\n"):
        channel.settimeout(_left_s(deadline_at))
        parts.append(channel.recv(1 << 16))
        if not parts[-1]:
            raise ConnectionResetError("the worker closed its channel")
    answer = json.loads(b"".join(parts))
    if not isinstance(answer, dict) or not _is_answer(answer):
        raise ValueError("the worker wrote something that is no answer")
    return answer


def _is_answer(told: Mapping[str, Any]) -> bool:
    failure = [told.get(name) for name in ("error", "message", "hint")]
    return all(isinstance(text, str) for text in failure) if "error" in told else isinstance(told.get("result"), dict)


def _left_s(deadline_at: float) -> float:
    left_s = deadline_at - time.monotonic()
    if left_s <= 0.0:
        raise TimeoutError
    return left_s


def _answer(operations: Mapping[str, Operation], request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": operations[request["operation"]](**request["arguments"])}
    except (DicomNodeError, EngineError) as error:
        return {"error": type(error).__name__, "message": str(error), "hint": error.hint}
    except MemoryError:
        hint = "raise limits.worker_memory_mb"
        return {"error": "WorkerError", "message": "not enough memory for this input", "hint": hint}
    except Exception as error:  # noqa: BLE001  whatever a decoder raises on hostile bytes; text of it may hold PHI
        if (number := _disk_error(error)) is not None:
            return _disk_failure(request["operation"], number)
        if isinstance(error, OSError) and _NUMPYS_FULL_DISK.fullmatch(str(error)):
            return _disk_failure(request["operation"], errno.ENOSPC)
        return {
            "error": "InputError",
            "message": f"{request['operation']} failed on this input ({type(error).__name__})",
            "hint": "keep the object and report it: it should have been refused with a clearer reason",
        }


def _disk_error(error: BaseException | None) -> int | None:
    """The number of the system's error that is at the root of it: pydicom raises another without the number, to name
    the element that it was writing. Decoders raise OSError too, for what they cannot decode, and never with one."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        error = error.__cause__
    return None


def _disk_failure(operation: str, number: int) -> dict[str, Any]:
    if number in (errno.ENOSPC, errno.EDQUOT):
        message, hint = f"the disk is full: {operation} could not write", "free space under the data folder"
        return {"error": "DiskFullError", "message": message, "hint": hint}
    message = f"{operation} could not read or write a file: {os.strerror(number)}"
    hint = "look at the disk under the data folder"
    return {"error": "StoreError", "message": message, "hint": hint, "transient": True}  # as where we read it ourselves


def serve(module: str, arguments: Mapping[str, Any], channel: socket.socket) -> None:
    """The child's side: answer requests until the parent closes the channel."""
    threading.Thread(target=_end_with_parent, args=(channel.fileno(),), daemon=True).start()
    operations: Mapping[str, Operation] = importlib.import_module(module).operations(**arguments)
    with channel, channel.makefile("rb") as requests:
        for line in requests:
            channel.sendall(json.dumps(_answer(operations, json.loads(line))).encode() + b"\n")


def _end_with_parent(descriptor: int) -> None:
    """Else a worker would compute for hours for a parent that was killed, beside the one of the next."""
    channel = select.poll()
    channel.register(descriptor, select.POLLRDHUP)
    channel.poll()
    os._exit(0)


def _leave_network() -> None:
    """Move into a network namespace of our own, which has no interface: what takes over a decoder cannot call home.

    A kernel or container that forbids it (EPERM) leaves us where we are: there a sandbox around the node must do it.
    """
    ctypes.CDLL(None).unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def _keep_memory() -> None:
    """Have glibc keep some memory that is freed. Else it gives back the temporaries of array arithmetic one by one, and
    the kernel clears the same pages again for the next: 3 of the 4 ms that rounding a slice to stored values took.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc's own
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _MAPPED_BYTES)


def main() -> None:
    module, descriptor, memory_bytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when we end
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    telemetry.configure_child()
    _leave_network()
    _keep_memory()
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    serve(module, json.loads(sys.argv[4]), socket.socket(fileno=descriptor))


if __name__ == "__main__":
    main()
