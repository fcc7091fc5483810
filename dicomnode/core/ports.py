"""What rooms ask of each other, as protocols; `dicomnode.serve` alone joins the two sides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from dicomnode.core.notification import Availability, CommitmentReport, StepContent
from dicomnode.core.types import AssociationEnd, DecodedPixels, Offer, Outgoing, Receipt, Sender


class Incoming(Protocol):
    """One instance being received. Exactly one of `commit` and `abort` ends it."""

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Append encoded data set bytes, as they came; the pieces are valid during this call only."""
        ...

    def commit(self) -> None:
        """Make bytes, index row and outbox rows durable. Returns only when a 0x0000 may be answered.

        Raises DiskFullError, MismatchError, InputError, StoreError; then nothing is kept.
        """
        ...

    def abort(self) -> None:
        """Forget it. Never raises."""
        ...


class Intake(Protocol):
    """Takes in instances, whatever brings them: C-STORE, a folder, our own derived objects."""

    def association_opened(self, sender: Sender) -> int:
        """Note that a sender opened an association; its id. It is recorded with its first instance."""
        ...

    def association_ended(self, association_id: int, how: AssociationEnd) -> None: ...

    def begin(self, offer: Offer) -> Incoming:
        """Start receiving one; raises DiskFullError where less than the reserve is left, InputError on bad UIDs."""
        ...


class Noted(StrEnum):
    """What became of what a peer told us by an N-service."""

    TAKEN = "taken"
    KNOWN = "known"
    UNKNOWN = "unknown"
    FINAL = "final"


class Notifications(Protocol):
    """Takes in what peers tell by N-services. Each call returns once that is durable, and raises StoreError else.

    `peer` is the configured name of the peer that tells it.
    """

    def committed(self, peer: str, report: CommitmentReport) -> Noted:
        """UNKNOWN where this peer was not asked so."""
        ...

    def step_created(self, peer: str, sop_instance_uid: str, step: StepContent) -> Noted:
        """KNOWN where there is such a step."""
        ...

    def step_changed(self, peer: str, sop_instance_uid: str, step: StepContent) -> Noted:
        """UNKNOWN where this peer has made no such step, FINAL where it has ended (PS3.4 F.7.2.2.2)."""
        ...

    def available(self, peer: str, availability: Availability) -> Noted: ...


class Deliverer(Protocol):
    """Sends to one destination."""

    def deliver(self, batch: Sequence[Outgoing]) -> Iterator[Sequence[Receipt]]:
        """Send each, the first ones first; one receipt each, as soon as it is known, with what else is known by then.

        Now and then there is none: a sign that it goes on. All of `batch` has one calling AE title. Raises PeerError
        where the destination as a whole failed; what was not receipted by then is to be sent again.
        """
        ...

    def probe(self, calling_ae: str) -> bool:
        """Ask whether it is there, at next to no cost to it; False where it takes no such question.

        Raises PeerError where it is not there.
        """
        ...

    def finish(self) -> None:
        """Begin nothing new any more, for good; from any thread. A `deliver` that is running ends when what is being
        sent has its receipts."""
        ...

    def interrupt(self) -> None:
        """Send nothing any more, for good; from any thread, and without waiting for the destination.

        A `deliver` that is running ends soon without an error: what has no receipt by then is to be sent again.
        """
        ...

    def close(self) -> None:
        """End what is kept open between batches. Waits for a batch that is being delivered."""
        ...


class Transcoder(Protocol):
    """Decodes compressed objects, somewhere else than in our process: decoders are native code."""

    def decoded(self, path: Path) -> AbstractContextManager[DecodedPixels]:
        """The pixels of a stored object; their file goes with the context.

        Raises InputError where they cannot be decoded, StoreError, WorkerError.
        """
        ...


@dataclass(frozen=True)
class ChainRequest:
    """A chain of engines to be run on volumes that lie in files.

    chain       [{"engine": reference, "settings": {name: value}, "leaving": outputs as in `engines.chaining.Link`}]
    inputs      folder of each series (`engines.volume_files`): first, as "image", the one that is enhanced, then others
                by the input that takes them
    headers     by the same names the attributes of the first slice by keyword, for the gates
    out         existing, empty folder
    priority    the lower the sooner (`core.routing.PRIORITIES`)
    deadline_s  how long it may take, from now
    released    a person has looked at what a gate withheld
    """

    chain: Sequence[Mapping[str, Any]]
    inputs: Mapping[str, str]
    headers: Mapping[str, Mapping[str, Sequence[str]]]
    out: str
    priority: int
    deadline_s: float
    released: bool = False


class RunningChain(Protocol):
    """A chain that is being worked on."""

    def arrived(self, slices: int) -> None:
        """The first `slices` slices of all inputs are decoded."""
        ...

    def report(self) -> Mapping[str, Any]:
        """Waits until the chain has ended: what ran, in what state it ended, and why. Raises what failed."""
        ...


class Engines(Protocol):
    """Resident engines."""

    def describe(self, engine: str) -> Mapping[str, Any]:
        """The card of an engine by its reference, as JSON, with its digest. Raises EngineNotFoundError."""
        ...

    def admit(self, request: ChainRequest) -> AbstractContextManager[RunningChain]:
        """Begin a chain; waits while as many as may be are being worked on. Left early, it is given up."""
        ...


class Worker(Protocol):
    """A process that does what must not run beside us: decoding, engines, encoding."""

    def call(self, operation: str, timeout_s: float, **arguments: Any) -> Mapping[str, Any]:
        """Run one operation; arguments and result are JSON values. Raises WorkerError if the process fails,
        or the error that the operation raised."""
        ...
