"""A reception whose instances were sent to a destination, and a prover that asks it; time is what a test says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicomnode.core.proof import ProofPolicy
from dicomnode.core.types import Outcome
from dicomnode.core.types import Receipt as Answer
from dicomnode.flow.inquiring import ProofRoute
from dicomnode.flow.proving import Prover
from dicomnode.net.contexts import Kind, ProposedContext
from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scp.settings import Caller, ScpSettings
from dicomnode.net.scu import PeerAddress, associate
from dicomnode.net.upload import Upload
from dicomnode.store.index import outbox
from dicomnode.store.index.retrying import RetryPolicy
from dicomnode.store.notifications import StoreNotifications
from dicomnode.store.schema import Outbox, Proof
from tests.store.receiving import Reception, ct_header, encoded, receiving

NODE = "DICOMNODE"
POLICY = ProofPolicy(after_s=5.0, report_s=0.0, answer_s=600.0, again_s=60.0)
SENT_AT = 5000.0
CONTEXTS = (ProposedContext(CTImageStorage, (ExplicitVRLittleEndian,)),)


@dataclass
class Asked:
    """What there is to be asked about, and whom."""

    reception: Reception
    prover: Prover
    address: PeerAddress
    now: float = SENT_AT
    numbers: list[int] = field(default_factory=list)

    def prove(self, after_s: float) -> None:
        """Time goes on, and the prover looks at what is due until nothing is."""
        self.now += after_s
        for _ in range(10):
            if not self.prover.prove():
                return
        raise AssertionError("there is always something due")

    def receive(self, numbers: Iterable[int]) -> None:
        """Instances arrive here, and as far as our receipts go at the destination too."""
        for number in numbers:
            self.reception.receive(ct_header(number))
            self.numbers.append(number)
        self.receipts()

    def receipts(self) -> None:
        """What is ready was answered with success."""
        with self.reception.database.write() as session:
            rows = [row for row in session.query(Outbox) if row.state == "ready"]
            answers = [Answer(row.id, Outcome.SENT, 0, "success", "", False) for row in rows]
            outbox.record_answers(session, answers, RetryPolicy(), self.now)

    def deliver(self, numbers: Iterable[int]) -> None:
        """The destination truly gets these."""
        with associate(self.address, NODE, CONTEXTS) as association:
            for number in numbers:
                header = ct_header(number)
                upload = Upload(
                    Kind(CTImageStorage, ExplicitVRLittleEndian), header.SOPInstanceUID, around=(encoded(header), b"")
                )
                association.begin_store(upload)
                assert association.answer().status == 0

    @property
    def rows(self) -> dict[int, Outbox]:
        """Outbox rows by the number of the instance."""
        return dict(zip(self.numbers, self.reception.rows(Outbox), strict=True))

    @property
    def confirmed(self) -> dict[int, str | None]:
        return {number: row.confirmed_by for number, row in self.rows.items()}

    @property
    def proof(self) -> Proof:
        (row,) = self.reception.rows(Proof)
        return row


@contextmanager
def asking(folder: Path, address: PeerAddress, policy: ProofPolicy = POLICY) -> Iterator[Asked]:
    """`address` is where the destination `pacs` is."""
    with receiving(folder) as reception:
        route = ProofRoute("pacs", "pacs", address, NODE, policy)
        notifications = StoreNotifications(reception.database, lambda: asked.now)
        prover = Prover(reception.database, notifications, route, lambda: asked.now)
        asked = Asked(reception, prover, address)
        yield asked


@contextmanager
def listening(asked: Asked, port: int = 0) -> Iterator[StorageServer]:
    """Our receiver, which the destination may call, and a peer OTHER."""
    callers = (Caller(asked.address.called_ae, "pacs", "127.0.0.1"), Caller("OTHER", "other", "127.0.0.1"))
    settings = ScpSettings((NODE,), "127.0.0.1", port, callers)
    notifications = StoreNotifications(asked.reception.database, lambda: asked.now)
    server = StorageServer(settings, asked.reception.intake, notifications=notifications)
    server.start()
    try:
        yield server
    finally:
        server.stop(0.2)
