"""Plans at rest on the machine that built them: found by all that they depend on, written whole, and authenticated.

A plan is executable: whoever can exchange the file runs code in the node. So a record beside it names its SHA-256 and
what was proved of it, and carries an HMAC by a key that only the node's user can read; the machine's own id enters
the HMAC, so that a folder copied from another machine is worth nothing. What does not hold is not loaded, and not
repaired: it is built anew.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from engines.card import Precision
from engines.errors import RuntimeFailedError
from engines.runtimes.tensorrt.device import Gpu
from engines.runtimes.tensorrt.profiles import Profile
from engines.whole_files import create_once, write_whole

_FOLDER: Final = "tensorrt"
_KEY: Final = "tensorrt.key"
_KEY_BYTES: Final = 32
_MACHINE_ID: Final = Path("/etc/machine-id")
_LARGEST_RECORD_BYTES: Final = 2**20
_LARGEST_PLAN_BYTES: Final = 8 * 2**30
_BUILD_AGAIN: Final = "build it again: dicomnode engines build"


@dataclass(frozen=True)
class BuildSettings:
    """What the builder is told, by name: the numbers of its enumerations differ between versions.

    workspace_bytes     what a layer may use of the GPU's memory beside its tensors
    optimization_level  0 to 5: how long is searched for the fastest kernels
    tf32                whether float32 may be multiplied with 10 bits of mantissa
    """

    workspace_bytes: int = 4 * 2**30
    optimization_level: int = 3
    tf32: bool = False


@dataclass(frozen=True)
class PlanFacts:
    """All that a plan depends on.

    bundle    digest of the bundle; `stage` the file of the network in it, `network` its SHA-256
    tensorrt  the full version; `packages` those that its libraries came with, with theirs
    recipe    of the conversion to `precision`
    """

    bundle: str
    stage: str
    network: str
    precision: Precision
    recipe: int
    tensorrt: str
    packages: tuple[str, ...]
    gpu: Gpu
    profiles: tuple[Profile, ...]
    settings: BuildSettings


def plan_key(facts: PlanFacts) -> str:
    """The name of the plan: SHA-256 of its facts."""
    return hashlib.sha256(_canonical(asdict(facts))).hexdigest()


def timing_key(facts: PlanFacts) -> str:
    """The name of the timing cache: kernels are timed anew for another TensorRT, GPU, driver or setting."""
    shared = {name: asdict(facts)[name] for name in ("tensorrt", "packages", "gpu", "settings")}
    return hashlib.sha256(_canonical(shared)).hexdigest()


@dataclass(frozen=True)
class Record:
    """What is known of one plan.

    plan    SHA-256 of its file
    kept    what is left in float32 in it
    proof   what was proved of it, as lines for people; `activated` whether it may compute
    """

    facts: PlanFacts
    plan: str
    kept: tuple[str, ...] = ()
    proof: tuple[str, ...] = ()
    activated: bool = False


@dataclass(frozen=True)
class Known:
    """A plan that was built here, for whatever GPU and version, as people are told of it."""

    stage: str
    precision: str
    tensorrt: str
    gpu: str
    activated: bool
    kept: tuple[str, ...]
    proof: tuple[str, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        state = "activated" if self.activated else "NOT used"
        kept = (f"    left in float32: {', '.join(self.kept)}",) if self.kept else ()
        head = f"plan of {self.stage} in {self.precision}, TensorRT {self.tensorrt}, {self.gpu}: {state}"
        return (head, *kept, *(f"    {line}" for line in self.proof or ("it was not proved",)))


class PlanStore:
    """A folder of plans. `cache` must exist."""

    def __init__(self, cache: Path) -> None:
        self._folder = cache / _FOLDER
        self._key_file = cache / _KEY

    def put(self, record: Record, plan: bytes | None = None) -> None:
        """Keep a record, and the plan with it where it is new. Whole or not at all; survives a power cut."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if plan is not None:
            write_whole(self._folder / f"{record.plan}.plan", plan)
        body = asdict(record)
        document = {"record": body, "hmac": self._hmac(_canonical(body))}
        write_whole(self._record_file(record.facts), _canonical(document))

    def find(self, facts: PlanFacts) -> Record | None:
        """What is known of the plan with these facts; None where nothing is, or what is there is not ours."""
        body = self._authentic(self._record_file(facts))
        if body is None or body["facts"] != json.loads(_canonical(asdict(facts))):
            return None
        return Record(facts, body["plan"], tuple(body["kept"]), tuple(body["proof"]), body["activated"])

    def known(self, bundle: str) -> tuple[Known, ...]:
        """All plans of a bundle, by its digest; also those for what the machine no longer is."""
        bodies = [self._authentic(path) for path in sorted(self._folder.glob("*.json"))]
        return tuple(_known(body) for body in bodies if body is not None and body["facts"]["bundle"] == bundle)

    def plan(self, record: Record) -> bytes:
        """The bytes of a plan whose record was found. Raises RuntimeFailedError where they are not the ones built."""
        content = self._content(record)
        if hashlib.sha256(content).hexdigest() != record.plan:
            raise RuntimeFailedError(f"the plan of {record.facts.stage} is missing or was changed", _BUILD_AGAIN)
        return content

    def has_plan(self, record: Record) -> bool:
        """Whether `plan` would give it."""
        return hashlib.sha256(self._content(record)).hexdigest() == record.plan

    def timing(self, facts: PlanFacts) -> bytes:
        """Timings of kernels of earlier builds; empty where there are none of ours."""
        code, _, content = _read(self._timing_file(facts), _LARGEST_PLAN_BYTES).partition(b"\n")
        return content if hmac.compare_digest(code, self._hmac(content).encode()) else b""

    def put_timing(self, facts: PlanFacts, timing: bytes) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        write_whole(self._timing_file(facts), self._hmac(timing).encode() + b"\n" + timing)

    def forget_unused(self) -> None:
        """Delete plans that no record names any more: those built anew since."""
        if not self._folder.is_dir():
            return
        named = {found for path in self._folder.glob("*.json") if (found := _named_plan(path))}
        for path in self._folder.glob("*.plan"):
            if path.stem not in named:
                path.unlink(missing_ok=True)

    def _content(self, record: Record) -> bytes:
        return _read(self._folder / f"{record.plan}.plan", _LARGEST_PLAN_BYTES)

    def _authentic(self, path: Path) -> Any:
        """What we wrote there; None where there is nothing, or not we have written it."""
        try:
            document = json.loads(_read(path, _LARGEST_RECORD_BYTES))
            body, code = document["record"], document["hmac"]
            return body if hmac.compare_digest(self._hmac(_canonical(body)), code) else None
        except (ValueError, TypeError, KeyError, RecursionError):
            return None

    def _record_file(self, facts: PlanFacts) -> Path:
        return self._folder / f"{plan_key(facts)}.json"

    def _timing_file(self, facts: PlanFacts) -> Path:
        return self._folder / f"{timing_key(facts)}.timing"

    def _hmac(self, content: bytes) -> str:
        return hmac.new(_machine_key(self._key_file), content, hashlib.sha256).hexdigest()


def _machine_key(path: Path) -> bytes:
    """The key of this machine, made at its first use. Raises RuntimeFailedError where others could read or write it."""
    create_once(path, lambda file: file.write(secrets.token_bytes(_KEY_BYTES)))
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise RuntimeFailedError(
            f"the key of the plans, {path}, is not this user's alone",
            "delete it (chmod 600 will not do) and build again",
        )
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise RuntimeFailedError(f"the key of the plans, {path}, is damaged", "delete it and build the plans again")
    machine = _MACHINE_ID.read_bytes() if _MACHINE_ID.exists() else b""
    return hmac.new(key, machine, hashlib.sha256).digest()


def _read(path: Path, largest_bytes: int) -> bytes:
    """The file itself, never what a link leads to; empty where there is none, or it is larger."""
    if path.is_symlink() or not path.is_file():
        return b""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read() if os.fstat(descriptor).st_size <= largest_bytes else b""


def _known(body: Any) -> Known:
    facts = body["facts"]
    return Known(
        facts["stage"], facts["precision"], facts["tensorrt"], facts["gpu"]["name"], body["activated"],
        tuple(body["kept"]), tuple(body["proof"]),
    )  # fmt: skip


def _named_plan(path: Path) -> str:
    found = re.search(rb'"plan": ?"([0-9a-f]{64})"', _read(path, _LARGEST_RECORD_BYTES))
    return found[1].decode() if found else ""


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
