"""Every file of a collection of odd DICOM objects, and the answer that the standard has for it.

`statuses.csv` was written from the standard and from the rules of docs/conformance.md, not from what the node does:

    sha256   of the file
    what     it is, and why it is odd
    answer   to its C-STORE: a status, or how its only presentation context is refused ("context 3", "context 4"), or
             "abort" where no presentation context can be proposed for it
    because  paragraph of the standard, and rule of ours
"""

from __future__ import annotations

import csv
import hashlib
import socket
import warnings
from collections import Counter
from pathlib import Path

from dicomnode.net import pdu
from dicomnode.net.contexts import ProposedContext
from dicomnode.net.dimse import Element, parse_command
from dicomnode.net.negotiation import read_answer
from dicomnode.net.part10 import read_file_meta
from dicomnode.testing.node import NODE_AE, SCANNER_AE, Node, settings
from dicomnode.testing.sender import RawObject
from tests.net.clients import Client, fragment, store_request
from tests.shared import shared_data

TABLE = Path(__file__).with_name("statuses.csv")
PIECE_BYTES = 100_000


def expected() -> dict[str, str]:
    """Answers by SHA-256."""
    with TABLE.open(newline="") as table:
        return {row["sha256"]: row["answer"] for row in csv.DictReader(table)}


def answer_to(node: Node, sent: RawObject) -> str:
    """Send one object over an association of its own."""
    context = ProposedContext(sent.sop_class_uid, (sent.transfer_syntax_uid,))
    with socket.create_connection(("127.0.0.1", node.port), timeout=60) as connection:
        client = Client(connection)
        accepted = client.associate(context, called_ae=NODE_AE, calling_ae=SCANNER_AE)
        if accepted[0] == pdu.PduType.ABORT:
            return "abort"
        result, _ = read_answer(accepted[6:]).results[1]
        if result:
            return f"context {result}"
        client.send(fragment(store_request(sent.sop_instance_uid, sent.sop_class_uid), is_command=True))
        for start in range(0, max(1, len(sent.data_set)), PIECE_BYTES):
            piece = sent.data_set[start : start + PIECE_BYTES]
            client.send(fragment(piece, is_last=start + PIECE_BYTES >= len(sent.data_set)))
        return f"{parse_command(client.read_pdu()[12:]).number(Element.STATUS):04X}"


def kept_by(node: Node) -> Counter[tuple[str, str]]:
    """(SOP Instance UID, SHA-256 of the data set) of every file that a node holds."""
    kept: Counter[tuple[str, str]] = Counter()
    for path in (node.data / "objects").rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                meta = read_file_meta(file)
                file.seek(meta.offset_bytes)
                kept[meta.sop_instance_uid, hashlib.sha256(file.read()).hexdigest()] += 1
    return kept


def test_the_table_is_one_of_answers() -> None:
    answers = expected()
    assert len(answers) == 237
    assert set(answers.values()) == {"0000", "0117", "A900", "C000", "context 3", "context 4", "abort"}


def test_every_file_is_answered_as_the_standard_has_it(tmp_path: Path) -> None:
    folder = shared_data("dicom")
    answers = expected()
    wrong: dict[str, str] = {}
    taken: set[tuple[str, str]] = set()
    with Node(tmp_path / "node", settings({}, [])) as node:
        for path in sorted(folder.rglob("*")):
            wanted = answers.pop(hashlib.sha256(path.read_bytes()).hexdigest(), "") if path.is_file() else ""
            if not wanted:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pydicom warns of UIDs that are none
                sent = RawObject.read(path)
            if (answered := answer_to(node, sent)) != wanted:
                wrong[path.name] = f"{answered} instead of {wanted}"
            if answered == "0000":
                taken.add((sent.sop_instance_uid, hashlib.sha256(sent.data_set).hexdigest()))
        assert wrong == {}
        assert answers == {}, "files that the table has and the collection has not"
        assert kept_by(node) == Counter(taken)  # byte for byte, each once, and nothing else
        assert node.stop() == 0
        assert "thread_failed" not in node.log()
        assert "process_ended" not in node.log()
