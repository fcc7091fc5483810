"""What a destination holds of our derived objects is not sent again; originals never wait for the question."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicomnode.core.types import Outcome, Outgoing, Receipt
from dicomnode.deliver.asking import AskingDeliverer
from dicomnode.net.contexts import Kind, ProposedContext
from dicomnode.net.scu import Opening, PeerAddress, associate
from dicomnode.net.upload import Upload
from dicomnode.testing.archives import DcmQrScp
from dicomnode.testing.processes import free_port
from tests.store.receiving import ct_header, encoded

SERIES = ("1.2.3", "1.2.3.4")


@dataclass
class Sends:
    """A deliverer that says yes to all."""

    batches: list[list[int]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def deliver(self, batch: Sequence[Outgoing]) -> Iterator[Sequence[Receipt]]:
        self.batches.append([each.outbox_id for each in batch])
        yield tuple(Receipt(each.outbox_id, Outcome.SENT, 0, "success", "", False) for each in batch)

    def probe(self, calling_ae: str) -> bool:
        self.told.append(f"probe {calling_ae}")
        return True

    def finish(self) -> None:
        self.told.append("finish")

    def interrupt(self) -> None:
        self.told.append("interrupt")

    def close(self) -> None:
        self.told.append("close")


def outgoing(number: int, *, derived: bool = True) -> Outgoing:
    return Outgoing(
        number, Path("none"), CTImageStorage, f"1.2.3.4.{number}", ExplicitVRLittleEndian, "DICOMNODE",
        SERIES if derived else None,
    )  # fmt: skip


def outcomes(deliverer: AskingDeliverer, batch: Sequence[Outgoing]) -> dict[int, Outcome]:
    return {each.outbox_id: each.outcome for receipts in deliverer.deliver(batch) for each in receipts}


def hold(archive: DcmQrScp, *numbers: int) -> PeerAddress:
    address = PeerAddress("127.0.0.1", archive.port, archive.ae_title)
    with associate(address, "DICOMNODE", [ProposedContext(CTImageStorage, (ExplicitVRLittleEndian,))]) as association:
        for number in numbers:
            header = ct_header(number)
            kind = Kind(CTImageStorage, ExplicitVRLittleEndian)
            association.begin_store(Upload(kind, header.SOPInstanceUID, around=(encoded(header), b"")))
            assert association.answer().status == 0
    return address


@pytest.mark.peer("dcmtk")
def test_of_derived_objects_only_what_is_not_there_is_sent(tmp_path: Path) -> None:
    with DcmQrScp(tmp_path) as archive:
        sends = Sends()
        deliverer = AskingDeliverer(sends, hold(archive, 1, 2, 5), Opening())
        batch = [outgoing(1), outgoing(5, derived=False), outgoing(2), outgoing(3)]
        assert outcomes(deliverer, batch) == {
            1: Outcome.DUPLICATE,
            2: Outcome.DUPLICATE,
            3: Outcome.SENT,
            5: Outcome.SENT,  # an original is always sent
        }
        assert sends.batches == [[5, 3]]
        assert outcomes(deliverer, [outgoing(1)]) == {1: Outcome.DUPLICATE}
        assert sends.batches == [[5, 3]]


def test_where_it_cannot_be_asked_all_is_sent_and_it_is_not_asked_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    sends = Sends()
    deliverer = AskingDeliverer(sends, PeerAddress("127.0.0.1", free_port(), "NOBODY"), Opening())
    assert outcomes(deliverer, [outgoing(1), outgoing(2)]) == {1: Outcome.SENT, 2: Outcome.SENT}
    monkeypatch.setattr("dicomnode.deliver.asking.associate", lambda *_: pytest.fail("it was asked again"))
    assert outcomes(deliverer, [outgoing(3)]) == {3: Outcome.SENT}
    assert sends.batches == [[1, 2], [3]]


def test_a_slow_archive_is_not_asked_about_one_series_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = [0.0], []

    def slow(_: object, study: str, series: str) -> frozenset[str]:
        asked.append(series)
        now[0] += 6.0
        return frozenset()

    monkeypatch.setattr("dicomnode.deliver.asking.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("dicomnode.deliver.asking.associate", lambda *_: nullcontext())
    monkeypatch.setattr("dicomnode.deliver.asking.instances_held", slow)
    sends = Sends()
    deliverer = AskingDeliverer(sends, PeerAddress("127.0.0.1", 104, "SLOW"), Opening())
    batch = [replace(outgoing(number), derived_series=("1.2.3", f"1.2.3.{number}")) for number in range(5)]
    assert set(outcomes(deliverer, batch).values()) == {Outcome.SENT}
    assert asked == ["1.2.3.0", "1.2.3.1"]
    assert set(outcomes(deliverer, batch[3:]).values()) == {Outcome.SENT}
    assert len(asked) == 2, "nor soon again"


def test_originals_alone_ask_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomnode.deliver.asking.associate", lambda *_: pytest.fail("it was asked"))
    sends = Sends()
    deliverer = AskingDeliverer(sends, PeerAddress("127.0.0.1", 104, "NOBODY"), Opening())
    assert outcomes(deliverer, [outgoing(1, derived=False)]) == {1: Outcome.SENT}
    assert deliverer.probe("DICOMNODE")
    deliverer.finish()
    deliverer.interrupt()
    deliverer.close()
    assert sends.told == ["probe DICOMNODE", "finish", "interrupt", "close"]


def test_a_question_is_broken_off_where_nothing_is_to_be_sent_any_more() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sends = Sends()
        deliverer = AskingDeliverer(sends, PeerAddress("127.0.0.1", silent.getsockname()[1], "SILENT"), Opening())
        deliverer.interrupt()
        assert outcomes(deliverer, [outgoing(1)]) == {1: Outcome.SENT}  # the deliverer behind it sends nothing then
    assert sends.told == ["interrupt"]
