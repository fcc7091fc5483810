"""Operations for workers in tests: answers, errors of every kind, and ends of every kind."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dicomnode import errors
from dicomnode.workers import Operation


def operations() -> Mapping[str, Operation]:
    return {
        "echo": lambda **arguments: arguments,
        "pid": lambda: {"pid": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS")},
        "fail": _fail,
        "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),  # type: ignore[dict-item]
        "sleep": _sleep,
        "allocate": lambda size_bytes: {"length": len(bytearray(size_bytes))},
        "no_json": lambda: {"no": object()},
        "disk_full": _disk_full,
        "meet": _meet,
        "write": _write,
        "dribble": _dribble,
    }


def _fail(kind: str) -> Mapping[str, Any]:
    if kind in errors.__all__:
        raise getattr(errors, kind)(f"it is a {kind}", "do this")
    raise {"ValueError": ValueError, "KeyError": KeyError, "RecursionError": RecursionError}[kind]("Doe^Jane")


def _sleep(seconds: float, marker: str = "") -> Mapping[str, Any]:
    if marker:
        Path(marker).write_text(str(os.getpid()))
    time.sleep(seconds)
    return {}


def _disk_full(number: int) -> Mapping[str, Any]:
    raise OSError(number, os.strerror(number), "/data/Doe^Jane")


def _write(line: str) -> Mapping[str, Any]:
    """Writes to the parent what a process that was taken over might."""
    _channel().sendall(line.encode() + b"\n")
    return {}


def _dribble() -> Mapping[str, Any]:
    channel = _channel()
    while True:
        channel.sendall(b" ")
        time.sleep(0.1)


def _channel() -> socket.socket:
    return socket.socket(fileno=os.dup(int(sys.argv[2])))


def _meet(mine: str, other: str) -> Mapping[str, Any]:
    """Returns only where another call runs at the same time."""
    Path(mine).touch()
    give_up_at = time.monotonic() + 20
    while not Path(other).exists() and time.monotonic() < give_up_at:
        time.sleep(0.01)
    return {"met": Path(other).exists()}
