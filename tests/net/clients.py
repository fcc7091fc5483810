"""An intake in memory, and a client that can misbehave."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from dicomnode.core.types import AssociationEnd, Offer, Sender
from dicomnode.net import pdu
from dicomnode.net.contexts import VERIFICATION, ProposedContext
from dicomnode.net.dimse import DATA_SET, NO_DATA_SET, CommandField, Element, command
from dicomnode.net.negotiation import read_request, request
from dicomnode.net.scp.agreement import Negotiator, Terms, accept
from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scu import PeerAddress
from dicomnode.testing.processes import wait_until

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"


@dataclass
class MemoryIncoming:
    intake: MemoryIntake
    offer: Offer
    content: bytearray = field(default_factory=bytearray)

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        if self.intake.write_error is not None:
            raise self.intake.write_error
        self.content += b"".join(pieces)

    def commit(self) -> None:
        self.intake.let_commit.wait(10)
        if self.intake.commit_error is not None:
            raise self.intake.commit_error
        self.intake.stored.append((self.offer, bytes(self.content)))

    def abort(self) -> None:
        self.intake.aborted.append(self.offer)


class MemoryIntake:
    """Keeps what it is given; fails where a test sets an error."""

    def __init__(self) -> None:
        self.begun = 0
        self.stored: list[tuple[Offer, bytes]] = []
        self.aborted: list[Offer] = []
        self.opened: list[Sender] = []
        self.ended: list[tuple[int, AssociationEnd]] = []
        self.begin_error: Exception | None = None
        self.write_error: Exception | None = None
        self.commit_error: Exception | None = None
        self.let_commit = threading.Event()
        self.let_commit.set()

    def association_opened(self, sender: Sender) -> int:
        self.opened.append(sender)
        return len(self.opened)

    def association_ended(self, association_id: int, how: AssociationEnd) -> None:
        self.ended.append((association_id, how))

    def begin(self, offer: Offer) -> MemoryIncoming:
        self.begun += 1
        if self.begin_error is not None:
            raise self.begin_error
        return MemoryIncoming(self, offer)

    def await_end(self) -> AssociationEnd:
        """How the first association ended."""
        wait_until(lambda: bool(self.ended), 10, "the association ended")
        return self.ended[0][1]

    def contents(self) -> dict[str, bytes]:
        """Data sets by SOP Instance UID."""
        return {offer.sop_instance_uid: content for offer, content in self.stored}


@dataclass
class Client:
    """A TCP connection on which a test says whatever it likes."""

    connection: socket.socket

    def send(self, content: bytes) -> None:
        self.connection.sendall(content)

    def associate(self, *contexts: ProposedContext, called_ae: str = "NODE", calling_ae: str = "CT1") -> bytes:
        """Ask for an association; the answering PDU."""
        self.send(request(called_ae, calling_ae, contexts or (CT, ECHO)))
        return self.read_pdu()

    def read_pdu(self) -> bytes:
        """The next PDU, or b"" where the connection ends."""
        header = self._exactly(6)
        return header + self._exactly(struct.unpack(">L", header[2:])[0]) if header else b""

    def _exactly(self, size: int) -> bytes:
        content = b""
        while len(content) < size:
            try:
                chunk = self.connection.recv(size - len(content))
            except ConnectionResetError:
                return b""
            if not chunk:
                return b""
            content += chunk
        return content

    def is_cut_off(self) -> bool:
        """Whether the server ended the connection, with an A-ABORT or without."""
        answer = self.read_pdu()
        return answer == b"" or answer[0] == pdu.PduType.ABORT


@contextmanager
def calling(server: StorageServer) -> Iterator[Client]:
    """A connection to a server of ours."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        yield Client(connection)


Script = Callable[[Client], None]


@contextmanager
def scripted(script: Script) -> Iterator[PeerAddress]:
    """A peer that takes one connection and does as told."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def run() -> None:
            connection, _ = listener.accept()
            with closing(connection):
                connection.settimeout(5)
                script(Client(connection))

        thread = threading.Thread(target=run)
        thread.start()
        yield PeerAddress("127.0.0.1", listener.getsockname()[1], "PACS")
        thread.join(10)


def answer_to(body: bytes, *supported: str) -> bytes:
    """The A-ASSOCIATE-AC for the body of an A-ASSOCIATE-RQ."""
    request = read_request(body)
    return accept(request, Negotiator(Terms(frozenset(supported or (CT_IMAGE, VERIFICATION))))(request.items))


def accepting(then: Script) -> Script:
    """Accept whatever is asked for, then go on."""

    def script(client: Client) -> None:
        client.send(answer_to(client.read_pdu()[6:]))
        then(client)

    return script


CT = ProposedContext(CT_IMAGE, (EXPLICIT,))
ECHO = ProposedContext(VERIFICATION, (IMPLICIT,))


def fragment(content: bytes, context_id: int = 1, *, is_command: bool = False, is_last: bool = True) -> bytes:
    """One P-DATA-TF with one fragment."""
    return pdu.data_header(context_id, is_command, is_last, len(content)) + content


def store_request(
    sop_instance_uid: str = "1.2.3", sop_class_uid: str = CT_IMAGE, *, has_data_set: bool = True, message_id: int = 7
) -> bytes:
    """An encoded C-STORE-RQ."""
    return command(
        {
            Element.AFFECTED_SOP_CLASS_UID: sop_class_uid,
            Element.COMMAND_FIELD: CommandField.C_STORE_RQ,
            Element.MESSAGE_ID: message_id,
            Element.PRIORITY: 0,
            Element.COMMAND_DATA_SET_TYPE: DATA_SET if has_data_set else NO_DATA_SET,
            Element.AFFECTED_SOP_INSTANCE_UID: sop_instance_uid,
        }
    )


def response(message_id: int, status: int = 0) -> bytes:
    values = {Element.COMMAND_FIELD: 0x8001, Element.MESSAGE_ID_BEING_RESPONDED_TO: message_id,
              Element.COMMAND_DATA_SET_TYPE: NO_DATA_SET, Element.STATUS: status}  # fmt: skip
    return command(values)
