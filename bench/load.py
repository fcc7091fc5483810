"""The load: `blast.c`, compiled at first use; without a C compiler, Python processes that do the same, only slower."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from bench.studies import MARKER

SOURCE: Final = Path(__file__).with_name("blast.c")
CALLING_AE: Final = "SCANNER"
NO_COMPILER: Final = (
    "there is no C compiler (cc): the load comes from Python processes, which take processor time from the receivers; "
    "install one (apt-get install gcc libc6-dev) for figures worth reading"
)
_TIMEOUT_S: Final = 600.0

Ending = Literal["held", "released", "each"]


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent in one visit: every file `passes` times, each time under new UIDs.

    ending  when associations end: "held" after the receiver was looked at, "released" when all was sent (for receivers
            that serve one after the other), "each" after every image
    """

    paths: Sequence[Path]
    passes: int
    associations: int
    ending: Ending = "held"

    @property
    def instances(self) -> int:
        return len(self.paths) * self.passes


@dataclass(frozen=True, slots=True)
class Sending:
    """How it went. `refused` counts answers other than 0x0000; `cpu_s` is what sending took."""

    instances: int
    bytes: int
    seconds: float
    cpu_s: float
    refused: int
    p50_ms: float
    p99_ms: float
    max_ms: float


def compiler() -> str | None:
    """The path of the C compiler."""
    return shutil.which("cc")


@contextmanager
def sent(port: int, called_ae: str, load: Load) -> Iterator[Sending]:
    """Send a load; in the block its associations are as its `ending` says. Raises RuntimeError where one broke."""
    command = [*_program(), *_arguments(port, called_ae, load), *map(str, load.paths)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment()
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            _, said = process.communicate(timeout=_TIMEOUT_S)
            raise RuntimeError(f"the load broke off with exit code {process.returncode}: {said.strip()}")
        yield Sending(**json.loads(line))
        process.communicate(timeout=_TIMEOUT_S)
    finally:
        process.kill()
        process.communicate()


def _arguments(port: int, called_ae: str, load: Load) -> list[str]:
    how = (load.associations, load.passes, load.ending)
    return [str(port), called_ae, CALLING_AE, *map(str, how), MARKER, str(_first_stamp())]


def _first_stamp() -> int:
    """Twenty digits that no visit had before."""
    return 10**19 + time.time_ns()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE.parents[1])}


@cache
def _program() -> tuple[str, ...]:
    if compiler() is None:
        print(f"warning: {NO_COMPILER}", file=sys.stderr)
        return (sys.executable, "-m", "bench.blast")
    return (str(compiled(SOURCE)),)


def compiled(source: Path) -> Path:
    """A C program, from the cache if it was compiled before as it is now."""
    content = source.read_bytes()
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = cache_home / "dicomnode-bench" / f"{source.stem}-{hashlib.sha256(content).hexdigest()[:16]}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        building = target.with_suffix(f".{os.getpid()}")  # two runs may compile at once
        subprocess.run(["cc", "-O2", "-pthread", "-o", str(building), str(source)], check=True)
        building.replace(target)
    return target
