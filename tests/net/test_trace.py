"""A trace of both roles: everything about an association but what it carries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicomnode.errors import AssociationLostError, AssociationRejectedError
from dicomnode.net import pdu
from dicomnode.net.contexts import Kind
from dicomnode.net.negotiation import reject
from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scp.settings import Caller, ScpSettings
from dicomnode.net.scu import Opening, PeerAddress, Timeouts, associate
from dicomnode.net.trace import MAXIMUM_BYTES, PeerTrace
from dicomnode.net.upload import Upload
from dicomnode.testing.processes import wait_until
from tests.net.clients import CT, CT_IMAGE, EXPLICIT, Client, MemoryIntake, accepting, scripted

SECRET = b"DOE^JANE 19700101"


@pytest.fixture(name="ours")
def _ours(tmp_path: Path) -> PeerTrace:
    return PeerTrace(tmp_path, "pacs")


@pytest.fixture(name="tracing")
def _tracing(settings: ScpSettings, intake: MemoryIntake, tmp_path: Path) -> Iterator[StorageServer]:
    callers = (Caller("CT1", "scanner", None),)
    server = StorageServer(replace(settings, callers=callers, traces=tmp_path), intake)
    server.start()
    yield server
    server.stop(grace_s=0.2)


def told(trace: PeerTrace) -> list[dict[str, Any]]:
    return [json.loads(line) for line in trace.path.read_text().splitlines()] if trace.path.exists() else []


def send_one(port: int, trace: PeerTrace, data_set: bytes) -> None:
    opening = Opening(Timeouts(5, 5, 5), trace=trace)
    with associate(PeerAddress("127.0.0.1", port, "NODE"), "CT1", [CT], opening) as association:
        association.store_encoded(data_set, CT_IMAGE, "1.2.3", EXPLICIT)


def test_both_roles_tell_the_same_story(tracing: StorageServer, ours: PeerTrace) -> None:
    theirs = replace(ours, peer="scanner")
    for each in (ours, theirs):
        each.switch.touch()
    send_one(tracing.port, ours, SECRET * 30_000)
    wait_until(lambda: any(line["event"] == "closed" for line in told(theirs)), 10, "the acceptor was done")
    mine = told(ours)
    assert [line["event"] for line in mine] == [
        "opened", "pdu", "negotiation", "pdu", "negotiation", "pdu", "pdu", "pdu", "pdu", "pdu", "closed"
    ]  # fmt: skip
    assert [(line["direction"], line["pdu"]) for line in mine if line["event"] == "pdu"] == [
        ("sent", "ASSOCIATE_RQ"), ("received", "ASSOCIATE_AC"), ("sent", "DATA"), ("sent", "DATA"),
        ("received", "DATA"), ("sent", "RELEASE_RQ"), ("received", "RELEASE_RP"),
    ]  # fmt: skip
    offered, answered = (line for line in mine if line["event"] == "negotiation")
    assert offered["contexts"] == [{"id": 1, "abstract_syntax": CT_IMAGE, "transfer_syntaxes": [EXPLICIT]}]
    assert answered["contexts"][0]["result"] == 0
    sent = next(line for line in mine if line.get("kind") == "data")
    received = next(line for line in told(theirs) if line.get("kind") == "data")
    assert (sent["pdus"], sent["bytes"]) == (received["pdus"], received["bytes"]) == (4, 510_000 + 4 * 6)
    assert [line["direction"] for line in told(theirs) if line["event"] == "negotiation"] == ["received", "sent"]


def test_nothing_of_what_is_carried_is_told(tracing: StorageServer, ours: PeerTrace) -> None:
    theirs = replace(ours, peer="scanner")
    for each in (ours, theirs):
        each.switch.touch()
    send_one(tracing.port, ours, SECRET)
    wait_until(lambda: any(line["event"] == "closed" for line in told(theirs)), 10, "the acceptor was done")
    for each in (ours, theirs):
        assert "DOE" not in each.path.read_text()
        assert '1.2.3"' not in each.path.read_text()


def test_a_file_is_traced_as_well(tracing: StorageServer, ours: PeerTrace, tmp_path: Path) -> None:
    ours.switch.touch()
    path = tmp_path / "one.dcm"
    meta = b"\x02\x00\x10\x00UI\x14\x00" + EXPLICIT.encode() + b"\0"
    path.write_bytes(bytes(128) + b"DICM" + meta + bytes(200_000))
    opening = Opening(Timeouts(5, 5, 5), trace=ours)
    with associate(PeerAddress("127.0.0.1", tracing.port, "NODE"), "CT1", [CT], opening) as association:
        with Upload.stored(path, Kind(CT_IMAGE, EXPLICIT), "1.2.3") as upload:
            association.begin_store(upload)
        association.answer()
    assert next(line for line in told(ours) if line.get("kind") == "data")["bytes"] == 200_000 + 2 * 6


def test_it_is_switched_without_a_restart(tracing: StorageServer, ours: PeerTrace) -> None:
    send_one(tracing.port, ours, b"")
    assert told(ours) == []
    ours.switch.touch()
    send_one(tracing.port, ours, b"")
    lines = len(told(ours))
    assert lines
    ours.switch.unlink()
    send_one(tracing.port, ours, b"")
    assert len(told(ours)) == lines


def test_who_aborted_and_who_rejected(ours: PeerTrace) -> None:
    ours.switch.touch()
    opening = Opening(Timeouts(2, 2, 2), trace=ours)

    def abort(client: Client) -> None:
        client.read_pdu(), client.read_pdu()
        client.send(pdu.abort_by_provider(pdu.AbortReason.UNEXPECTED_PDU))

    def refuse(client: Client) -> None:
        client.read_pdu()
        client.send(reject(2, 3, 2))

    with scripted(accepting(abort)) as address, pytest.raises(AssociationLostError):
        associate(address, "NODE", [CT], opening).store_encoded(b"x", CT_IMAGE, "1.2.3", EXPLICIT)
    with scripted(refuse) as address, pytest.raises(AssociationRejectedError):
        associate(address, "NODE", [CT], opening)
    found = {line["pdu"]: line for line in told(ours) if line["event"] == "pdu" and line["direction"] == "received"}
    assert (found["ABORT"]["source"], found["ABORT"]["reason"]) == (2, 2)
    assert [found["ASSOCIATE_RJ"][key] for key in ("result", "source", "reason")] == [2, 3, 2]


def test_it_is_bounded(tracing: StorageServer, ours: PeerTrace) -> None:
    ours.switch.touch()
    ours.path.write_bytes(b"{}\n" * (MAXIMUM_BYTES // 3))
    send_one(tracing.port, ours, b"")
    assert ours.path.stat().st_size < 10_000
    assert ours.path.with_suffix(".jsonl.1").stat().st_size <= MAXIMUM_BYTES + 1000


def test_a_trace_that_cannot_be_written_disturbs_nothing(tracing: StorageServer, ours: PeerTrace) -> None:
    ours.switch.touch()
    ours.path.mkdir()
    send_one(tracing.port, ours, b"")
