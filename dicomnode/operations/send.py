"""send: DICOM files to a peer without the node, as they are wherever it takes them so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dicomnode.config import Config
from dicomnode.core.types import Outgoing, Receipt
from dicomnode.deliver.decoding import WorkerTranscoder
from dicomnode.deliver.dicom import DeliverySettings, DicomDeliverer
from dicomnode.errors import InputError, NotFoundError, PeerError
from dicomnode.operations.files import as_outgoing, dicom_files, files_in
from dicomnode.operations.peers import address_of
from dicomnode.operations.trace import peer_trace
from dicomnode.operations.wording import counted
from dicomnode.workers import WorkerProcess

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Answers:
    """How many instances were answered in one way. `status` is the DIMSE status, None where none came."""

    outcome: str
    status: int | None
    meaning: str
    hint: str
    instances: int

    def line(self) -> str:
        status = "" if self.status is None else f"0x{self.status:04X} "
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.instances:6} {self.outcome}: {status}{self.meaning}{hint}"


@dataclass(frozen=True, slots=True)
class SendReport:
    """What became of a folder.

    arrived  instances that the peer holds now      unsent   those it was not asked to take: it broke off
    skipped  files that are no DICOM objects        problem  why it broke off, and what to do next, or ""
    stopped  by Ctrl-C
    """

    peer: str
    found: int
    arrived: int
    unsent: int
    skipped: int
    answers: tuple[Answers, ...]
    problem: str
    hint: str
    stopped: bool

    @property
    def failed(self) -> bool:
        return self.arrived == 0

    @property
    def partly(self) -> bool:
        return 0 < self.arrived < self.found

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        skipped = f", {counted(self.skipped, 'other file')} skipped" if self.skipped else ""
        problem = [f"error: {self.problem}", f" next: {self.hint}"] if self.problem else []
        unsent = [f"{self.unsent:6} not sent"] if self.unsent else []
        head = f"{self.peer}: {self.arrived} of {self.found} instances arrived{skipped}"
        return [head, *(one.line() for one in self.answers), *unsent, *problem]


def send_folder(config: Config, source: Path, peer: str, progress: Progress) -> SendReport:
    """Send every DICOM object in a folder (or one file) to a configured peer.

    Raises NotFoundError where there is no such peer or nothing to send, ConfigError for a peer that only calls us.
    """
    address = address_of(config, peer)
    paths = dicom_files(source)
    if not paths:
        raise NotFoundError(f"there is no DICOM file in {source}", "name a folder of DICOM Part 10 files")
    receipts: list[Receipt] = []
    problem: PeerError | KeyboardInterrupt | None = None
    settings = DeliverySettings(trace=peer_trace(config, peer))
    with _transcoder(config) as transcoder, closing(DicomDeliverer(address, settings, transcoder)) as deliverer:
        try:
            for known in deliverer.deliver(tuple(_readable(paths, config.node.ae_title))):
                receipts.extend(known)
                progress(f"to {peer}", len(receipts), len(paths))
        except (PeerError, KeyboardInterrupt) as error:  # what arrived is told in either case
            problem = error
    return _report(peer, receipts, (len(paths), len(files_in(source)) - len(paths)), problem)


@contextmanager
def _transcoder(config: Config) -> Iterator[WorkerTranscoder]:
    """Decodes for a peer that takes nothing compressed; its process is started when it is first needed."""
    worker = WorkerProcess("dicomnode.pixels.service", config.limits.worker_memory_mb << 20)
    with TemporaryDirectory(prefix="dicomnode-") as folder, closing(worker):
        yield WorkerTranscoder(worker, Path(folder))


def _readable(paths: Sequence[Path], calling_ae: str) -> Iterator[Outgoing]:
    for number, path in enumerate(paths):
        try:
            yield as_outgoing(number, path, calling_ae)
        except InputError:  # without UIDs in its header it cannot be offered; it counts as not sent
            continue


def _report(
    peer: str,
    receipts: Sequence[Receipt],
    found_skipped: tuple[int, int],
    problem: PeerError | KeyboardInterrupt | None,
) -> SendReport:
    found, skipped = found_skipped
    counted = Counter((one.outcome.value, one.status, one.meaning, one.hint) for one in receipts)
    return SendReport(
        peer=peer,
        found=found,
        arrived=sum(one.outcome.arrived for one in receipts),
        unsent=found - len(receipts),
        skipped=skipped,
        answers=tuple(Answers(*answer, count) for answer, count in counted.most_common()),
        problem=str(problem) if isinstance(problem, PeerError) else "",
        hint=problem.hint if isinstance(problem, PeerError) else "",
        stopped=isinstance(problem, KeyboardInterrupt),
    )
