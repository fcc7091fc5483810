"""Delivery: one receipt for each instance whatever happens to the others, over as few associations as possible."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.presentation import build_context

from dicomnode.core.types import Outcome, Outgoing, Receipt
from dicomnode.deliver.dicom import DeliverySettings, DicomDeliverer
from dicomnode.deliver.forms import Allowed
from dicomnode.errors import AssociationLostError, AssociationRejectedError, PeerError, PeerUnreachableError
from dicomnode.net.scu import PeerAddress, Timeouts
from dicomnode.testing.processes import free_port, wait_until
from tests.net.clients import Client, Script, accepting, fragment, response, scripted

CT, MR, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.88.33"
IMPLICIT, EXPLICIT, JPEG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70"
QUICK = DeliverySettings(Timeouts(2, 2, 2), idle_s=30, associations=1)
POOL = replace(QUICK, associations=4)


@dataclass
class Pacs:
    """A pynetdicom storage provider: what it accepted, and the status that it answers for each UID."""

    port: int
    statuses: dict[str, int] = field(default_factory=dict)
    abort_at: set[str] = field(default_factory=set)
    hold: dict[str, Callable[[], Any]] = field(default_factory=dict)
    stored: list[tuple[str, str, str]] = field(default_factory=list)
    callers: list[str] = field(default_factory=list)
    released: int = 0
    rejections: int = 0
    associations: list[Any] = field(default_factory=list)

    @property
    def address(self) -> PeerAddress:
        return PeerAddress("127.0.0.1", self.port, "PACS")

    def accepted(self, event: Any) -> None:
        self.callers.append(event.assoc.requestor.ae_title)
        self.associations.append(event.assoc)

    def store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        if (hold := self.hold.get(uid)) is not None:
            hold()
        if uid in self.abort_at:
            self.abort_at.remove(uid)
            event.assoc.abort()
        self.stored.append((uid, str(event.context.transfer_syntax), str(event.dataset.get("PatientComments", ""))))
        return self.statuses.get(uid, 0)

    def release(self, _: Any) -> None:
        self.released += 1

    def rejected(self, _: Any) -> None:
        self.rejections += 1


@pytest.fixture
def start() -> Iterator[Callable[..., Pacs]]:
    running: list[Any] = []

    def _start(
        classes: tuple[str, ...] = (CT, MR), syntaxes: tuple[str, ...] = (EXPLICIT,), associations: int = 10
    ) -> Pacs:
        pacs = Pacs(free_port())
        entity = AE("PACS")
        entity.require_called_aet = True
        entity.maximum_pdu_size = 131_072
        entity.maximum_associations = associations
        entity.supported_contexts = [build_context(uid, list(syntaxes)) for uid in classes]
        handlers: list[Any] = [
            (evt.EVT_C_STORE, pacs.store),
            (evt.EVT_ACCEPTED, pacs.accepted),
            (evt.EVT_RELEASED, pacs.release),
            (evt.EVT_REJECTED, pacs.rejected),
        ]
        running.append(entity.start_server(("127.0.0.1", pacs.port), block=False, evt_handlers=handlers))
        return pacs

    yield _start
    for server in running:
        server.shutdown()


@pytest.fixture
def deliverer() -> Iterator[Callable[[Pacs], DicomDeliverer]]:
    made = []

    def make(pacs: Pacs, settings: DeliverySettings = QUICK) -> DicomDeliverer:
        made.append(DicomDeliverer(pacs.address, settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def outgoing(tmp_path: Path) -> Callable[..., Outgoing]:
    """Makes an outbox row and its file."""
    count = 0

    def make(sop_class_uid: str = CT, syntax: str = EXPLICIT, calling_ae: str = "NODE") -> Outgoing:
        nonlocal count
        count += 1
        data_set = Dataset()
        data_set.SOPClassUID, data_set.SOPInstanceUID = sop_class_uid, f"1.2.{count}"
        data_set.PatientComments = f"comment {count}"
        data_set.file_meta, data_set.preamble = FileMetaDataset(), bytes(128)
        data_set.file_meta.TransferSyntaxUID = UID(syntax)
        path = tmp_path / f"{count}.dcm"
        dcmwrite(path, data_set)
        return Outgoing(count, path, sop_class_uid, f"1.2.{count}", syntax, calling_ae)

    return make


def flat(receipts: Iterator[Sequence[Receipt]]) -> list[Receipt]:
    return [receipt for known in receipts for receipt in known]


def outcomes(receipts: Iterator[Sequence[Receipt]]) -> list[tuple[int, Outcome, int | None]]:
    return [(receipt.outbox_id, receipt.outcome, receipt.status) for receipt in flat(receipts)]


def test_every_instance_has_its_own_receipt(start: Any, deliverer: Any, outgoing: Any) -> None:
    pacs = start()
    pacs.statuses = {"1.2.2": 0x0111, "1.2.3": 0xB000, "1.2.4": 0xA700, "1.2.5": 0xC123, "1.2.6": 0x0124}
    receipts = flat(deliverer(pacs).deliver([outgoing() for _ in range(7)]))
    assert [(receipt.outbox_id, receipt.outcome, receipt.status) for receipt in receipts] == [
        (1, Outcome.SENT, 0),
        (2, Outcome.DUPLICATE, 0x0111),
        (3, Outcome.WARNING, 0xB000),
        (4, Outcome.REFUSED, 0xA700),
        (5, Outcome.FAILED, 0xC123),
        (6, Outcome.REFUSED, 0x0124),
        (7, Outcome.SENT, 0),
    ]
    assert [receipt.transient for receipt in receipts] == [False] * 3 + [True] + [False] * 3
    assert len(pacs.callers) == 1


def test_receipts_come_while_others_are_sent(start: Any, deliverer: Any, outgoing: Any) -> None:
    pacs = start()
    let_go = threading.Event()
    pacs.hold = {"1.2.2": lambda: let_go.wait(30)}
    receipts = deliverer(pacs).deliver([outgoing(), outgoing()])
    assert next(known for known in receipts if known)[0].outbox_id == 1
    let_go.set()
    assert [receipt.outbox_id for receipt in flat(receipts)] == [2]


def test_batches_share_an_association_while_its_contexts_do(start: Any, deliverer: Any, outgoing: Any) -> None:
    pacs = start()
    sender = deliverer(pacs)
    for batch in ([outgoing(CT)], [outgoing(CT)], [outgoing(MR)], [outgoing(CT), outgoing(MR)], [outgoing(CT)]):
        assert {outcome for _, outcome, _ in outcomes(sender.deliver(batch))} == {Outcome.SENT}
    assert len(pacs.callers) == 2
    assert pacs.released == 1


def test_another_calling_ae_is_another_association(start: Any, deliverer: Any, outgoing: Any) -> None:
    pacs = start()
    sender = deliverer(pacs)
    list(sender.deliver([outgoing(calling_ae="CT1")]))
    list(sender.deliver([outgoing(calling_ae="MR1")]))
    assert pacs.callers == ["CT1", "MR1"]


def test_a_refused_class_costs_only_its_instances(start: Any, deliverer: Any, outgoing: Any) -> None:
    pacs = start()
    batch = [outgoing(CT), outgoing(SR), outgoing(CT, JPEG), outgoing(MR)]
    receipts = {receipt.outbox_id: receipt for receipt in flat(deliverer(pacs).deliver(batch))}
    assert {key: each.outcome for key, each in receipts.items()} == {
        1: Outcome.SENT, 2: Outcome.REFUSED, 3: Outcome.FAILED, 4: Outcome.SENT,
    }  # fmt: skip
    assert SR in receipts[2].hint
    assert JPEG in receipts[3].hint


def test_a_refused_syntax_is_reencoded_only_then(start: Any, deliverer: Any, outgoing: Any) -> None:
    only_implicit, both = start(syntaxes=(IMPLICIT,)), start(syntaxes=(IMPLICIT, EXPLICIT))
    for pacs, syntax in ((only_implicit, IMPLICIT), (both, EXPLICIT)):
        row = outgoing(CT, EXPLICIT)
        assert outcomes(deliverer(pacs).deliver([row])) == [(row.outbox_id, Outcome.SENT, 0)]
        assert pacs.stored == [(row.sop_instance_uid, syntax, f"comment {row.outbox_id}")]


def test_a_file_that_is_gone_costs_only_itself(start: Any, deliverer: Any, outgoing: Any) -> None:
    pacs = start()
    rows = [outgoing(), outgoing(), outgoing()]
    rows[0].path.unlink()
    rows[1].path.write_bytes(b"not DICOM")
    receipts = flat(deliverer(pacs).deliver(rows))
    assert [each.outcome for each in receipts] == [Outcome.FAILED, Outcome.FAILED, Outcome.SENT]
    assert not any(each.transient for each in receipts)


@pytest.mark.parametrize("syntaxes", [(EXPLICIT,), (IMPLICIT,)], ids=["as stored", "re-encoded"])
@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_file_that_cannot_be_read_now_waits(
    code: int, syntaxes: Any, start: Any, deliverer: Any, outgoing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [outgoing(), outgoing()]
    sender = deliverer(start(syntaxes=syntaxes))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", raising(OSError(code, "no")))
        patched.setattr(os, "fstat", raising(OSError(code, "no")))
        failed = flat(sender.deliver(rows))
    assert [(each.outcome, each.transient, bool(each.hint)) for each in failed] == [(Outcome.FAILED, True, True)] * 2
    assert {outcome for _, outcome, _ in outcomes(sender.deliver(rows))} == {Outcome.SENT}


def raising(error: OSError) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("maximum_bytes", [131_072, 16_384], ids=["sendfile", "read"])
def test_a_disk_that_fails_within_a_file_lets_the_file_wait(
    maximum_bytes: int, start: Any, deliverer: Any, outgoing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [outgoing(), outgoing()]
    sender = deliverer(start(), replace(QUICK, maximum_bytes=maximum_bytes))
    with monkeypatch.context() as patched:
        patched.setattr(os, "sendfile" if maximum_bytes > 100_000 else "preadv", raising(OSError(errno.EIO, "no")))
        failed = flat(sender.deliver(rows))
    assert [(each.outcome, each.transient) for each in failed] == [(Outcome.FAILED, True)] * 2
    assert {outcome for _, outcome, _ in outcomes(sender.deliver(rows))} == {Outcome.SENT}


def test_a_folder_that_is_not_mounted_lets_its_files_wait(start: Any, deliverer: Any, outgoing: Any) -> None:
    row = outgoing()
    gone = replace(row, path=row.path.parent / "not mounted" / row.path.name)
    (receipt,) = flat(deliverer(start()).deliver([gone]))
    assert (receipt.outcome, receipt.transient) == (Outcome.FAILED, True)


def test_a_kept_association_that_died_is_replaced(start: Any, deliverer: Any, outgoing: Any) -> None:
    pacs = start()
    sender = deliverer(pacs)
    list(sender.deliver([outgoing()]))
    pacs.associations[0].abort()
    assert outcomes(sender.deliver([outgoing()])) == [(2, Outcome.SENT, 0)]
    pacs.abort_at = {"1.2.3"}  # dies only when used
    assert outcomes(sender.deliver([outgoing()])) == [(3, Outcome.SENT, 0)]


def test_an_instance_that_breaks_the_association_costs_only_itself(start: Any, deliverer: Any, outgoing: Any) -> None:
    pacs = start()
    pacs.abort_at = {"1.2.2"}
    receipts = flat(deliverer(pacs).deliver([outgoing(), outgoing(), outgoing()]))
    assert [receipt.outcome for receipt in receipts] == [Outcome.SENT, Outcome.ABORTED, Outcome.SENT]
    assert receipts[1].transient
    assert receipts[1].hint


@pytest.mark.parametrize("aborts", [{"1.2.2", "1.2.3"}, {"1.2.4"}], ids=["two neighbours", "the last"])
def test_instances_that_break_off_wait_their_own_time(
    aborts: set[str], start: Any, deliverer: Any, outgoing: Any
) -> None:
    pacs = start()
    pacs.abort_at = set(aborts)
    rows = [outgoing() for _ in range(4)]
    receipts = flat(deliverer(pacs).deliver(rows))
    assert [receipt.outbox_id for receipt in receipts] == [row.outbox_id for row in rows]
    broken = {int(uid.rpartition(".")[2]) for uid in aborts}
    assert {receipt.outbox_id for receipt in receipts if receipt.outcome is Outcome.ABORTED} == broken
    assert all(receipt.transient for receipt in receipts if receipt.outbox_id in broken)


def test_a_destination_that_breaks_off_again_and_again_is_down(start: Any, deliverer: Any, outgoing: Any) -> None:
    pacs = start()
    pacs.abort_at = {f"1.2.{number}" for number in range(2, 6)}
    receipts: list[Receipt] = []
    with pytest.raises(AssociationLostError):
        for known in deliverer(pacs).deliver([outgoing() for _ in range(6)]):
            receipts.extend(known)
    assert [receipt.outcome for receipt in receipts] == [Outcome.SENT, *[Outcome.ABORTED] * 3]


def test_a_destination_that_is_down_or_refuses_is_an_error(start: Any, outgoing: Any) -> None:
    pacs = start()
    nobody = DicomDeliverer(PeerAddress("127.0.0.1", free_port(), "PACS"), QUICK)
    with pytest.raises(PeerUnreachableError):
        list(nobody.deliver([outgoing()]))
    wrong_name = DicomDeliverer(PeerAddress("127.0.0.1", pacs.port, "ELSE"), QUICK)
    with pytest.raises(AssociationRejectedError, match="called AE title"):
        list(wrong_name.deliver([outgoing()]))


def test_an_idle_association_is_released(start: Any, deliverer: Any, outgoing: Any) -> None:
    pacs = start()
    sender = deliverer(pacs, DeliverySettings(Timeouts(2, 2, 2), idle_s=0.05))
    list(sender.deliver([outgoing()]))
    wait_until(lambda: pacs.released == 1, 10, "the association was released")
    assert outcomes(sender.deliver([outgoing()])) == [(2, Outcome.SENT, 0)]


def test_close_releases(start: Any, deliverer: Any, outgoing: Any) -> None:
    pacs = start()
    sender = deliverer(pacs)
    list(sender.deliver([outgoing()]))
    sender.close()
    sender.close()
    wait_until(lambda: pacs.released == 1, 10, "the association was released")
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def silent_from(step: str, reached: threading.Event, release: threading.Event) -> Script:
    """A destination that goes along until `step`, and then says nothing more until it is let go."""

    def wait(_: Client) -> None:
        reached.set()
        release.wait(30)

    def take_one(client: Client) -> None:
        client.read_pdu(), client.read_pdu()
        wait(client)

    return {"negotiation": wait, "response": accepting(take_one), "reading": accepting(wait)}[step]


@pytest.mark.parametrize("step", ["negotiation", "response", "reading"])
def test_an_interrupted_delivery_waits_for_no_answer(step: str, outgoing: Any) -> None:
    reached, release = threading.Event(), threading.Event()
    row = outgoing()
    if step == "reading":
        with row.path.open("ab") as file:
            file.write(bytes(16 << 20))  # more than the buffers between us hold
    receipts: list[Receipt] = []
    with scripted(silent_from(step, reached, release)) as address:
        sender = DicomDeliverer(address)
        sending = threading.Thread(target=lambda: receipts.extend(flat(sender.deliver([row, row]))), daemon=True)
        sending.start()
        assert reached.wait(10)
        sender.interrupt()
        sending.join(10)
        assert not sending.is_alive()
        closing = threading.Thread(target=sender.close, daemon=True)
        closing.start()
        closing.join(10)
        release.set()
    assert not closing.is_alive()
    assert receipts == []  # a receipt would cost it one of its attempts


def test_an_interrupted_deliverer_opens_nothing(start: Any, outgoing: Any) -> None:
    pacs = start()
    sender = DicomDeliverer(pacs.address, QUICK)
    sender.interrupt()
    assert flat(sender.deliver([outgoing()])) == []
    assert not pacs.callers


def test_an_interruption_ends_the_wait_for_a_release(outgoing: Any) -> None:
    reached, release = threading.Event(), threading.Event()

    def then(client: Client) -> None:
        client.read_pdu(), client.read_pdu()
        client.send(fragment(response(1), is_command=True))
        client.read_pdu()  # the A-RELEASE-RQ
        reached.set()
        release.wait(30)

    with scripted(accepting(then)) as address:
        sender = DicomDeliverer(address)
        assert outcomes(sender.deliver([outgoing()])) == [(1, Outcome.SENT, 0)]
        closing = threading.Thread(target=sender.close, daemon=True)
        closing.start()
        assert reached.wait(10)
        sender.interrupt()
        closing.join(10)
        release.set()
    assert not closing.is_alive()


def test_more_classes_than_contexts_need_several_associations(start: Any, deliverer: Any, outgoing: Any) -> None:
    classes = tuple(str(context.abstract_syntax) for context in AllStoragePresentationContexts[:70])
    pacs = start(classes)
    rows = [outgoing(sop_class_uid) for sop_class_uid in classes]
    assert {outcome for _, outcome, _ in outcomes(deliverer(pacs).deliver(rows))} == {Outcome.SENT}
    assert len(pacs.callers) == 2


def test_nothing_to_deliver_opens_nothing() -> None:
    assert list(DicomDeliverer(PeerAddress("127.0.0.1", free_port(), "PACS")).deliver([])) == []


class Meeting:
    """Holds up everybody until so many are there at once; later ones pass."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._complete = threading.Event()
        self.came: list[str] = []

    def wait(self, name: str = "") -> None:
        with self._lock:
            self.came.append(name)
            if len(self.came) == self._size:
                self._complete.set()
        assert self._complete.wait(30)


def test_a_batch_goes_over_several_associations(start: Any, deliverer: Any, outgoing: Any) -> None:
    pacs = start()
    together = Meeting(4)
    rows = [outgoing() for _ in range(16)]
    pacs.hold = {row.sop_instance_uid: together.wait for row in rows}
    sender = deliverer(pacs, POOL)
    assert sorted(outcomes(sender.deliver(rows))) == [(row.outbox_id, Outcome.SENT, 0) for row in rows]
    assert len(pacs.callers) == 4
    assert outcomes(sender.deliver([outgoing()])) == [(17, Outcome.SENT, 0)], "one instance needs one"
    assert len(pacs.callers) == 4, "they were kept"


def test_few_instances_need_one_association(start: Any, deliverer: Any, outgoing: Any) -> None:
    pacs = start()
    assert len(flat(deliverer(pacs, POOL).deliver([outgoing() for _ in range(4)]))) == 4
    assert len(pacs.callers) == 1


def test_what_comes_first_is_begun_first(start: Any, deliverer: Any, outgoing: Any) -> None:
    pacs = start()
    together = Meeting(4)
    rows = [outgoing() for _ in range(16)]
    pacs.hold = {row.sop_instance_uid: partial(together.wait, row.sop_instance_uid) for row in rows}
    assert len(flat(deliverer(pacs, POOL).deliver(rows))) == 16
    first = {row.sop_instance_uid for row in rows[:8]}  # each association has one on its way and one at hand
    assert set(together.came[:4]) <= first


def test_a_destination_that_grants_fewer_associations_is_used_with_those(
    start: Any, deliverer: Any, outgoing: Any
) -> None:
    pacs = start(associations=2)
    sender = deliverer(pacs, POOL)
    together = Meeting(2)
    rows = [outgoing() for _ in range(16)]
    pacs.hold = {row.sop_instance_uid: together.wait for row in rows}
    assert {receipt.outcome for receipt in flat(sender.deliver(rows))} == {Outcome.SENT}
    assert len(pacs.callers) == 2
    asked = pacs.rejections
    assert asked
    pacs.hold = {}
    assert len(flat(sender.deliver([outgoing() for _ in range(16)]))) == 16
    assert pacs.rejections == asked, "it is not asked for more for a while"


def test_a_failing_instance_stops_no_other_association(start: Any, deliverer: Any, outgoing: Any) -> None:
    pacs = start()
    rows = [outgoing() for _ in range(24)]
    pacs.statuses = {"1.2.3": 0xC000, "1.2.9": 0xA700}
    pacs.abort_at = {"1.2.5", "1.2.20"}
    rows[11].path.unlink()
    receipts = {receipt.outbox_id: receipt for receipt in flat(deliverer(pacs, POOL).deliver(rows))}
    assert sorted(receipts) == [row.outbox_id for row in rows]
    failed = {key for key, receipt in receipts.items() if not receipt.outcome.arrived}
    assert failed == {3, 5, 9, 12, 20}


def test_a_destination_that_goes_away_leaves_the_rest_unanswered(start: Any, outgoing: Any) -> None:
    rows = [outgoing() for _ in range(40)]
    pacs = start()
    sender = DicomDeliverer(pacs.address, POOL)
    gone = threading.Event()

    def go_away() -> None:
        gone.set()
        for association in list(pacs.associations):
            association.abort()

    pacs.abort_at = {row.sop_instance_uid for row in rows[8:]}
    pacs.hold = {"1.2.8": go_away}
    receipts: list[Receipt] = []
    with pytest.raises(PeerError):
        for known in sender.deliver(rows):
            receipts.extend(known)
    sender.close()
    assert gone.is_set()
    assert len(receipts) < 40
    assert all(receipt.outcome.arrived or receipt.transient for receipt in receipts)
    assert len({receipt.outbox_id for receipt in receipts}) == len(receipts)


def test_finish_lets_what_is_being_sent_end(start: Any, deliverer: Any, outgoing: Any) -> None:
    pacs = start()
    sender = deliverer(pacs, POOL)
    rows = [outgoing() for _ in range(16)]
    together = threading.Barrier(5, timeout=20)
    let_go = threading.Event()

    def hold() -> None:
        together.wait()
        let_go.wait(20)

    pacs.hold = {row.sop_instance_uid: hold for row in rows}
    receipts: list[Receipt] = []
    sending = threading.Thread(target=lambda: receipts.extend(flat(sender.deliver(rows))))
    sending.start()
    together.wait()
    sender.finish()
    let_go.set()
    sending.join(20)
    assert not sending.is_alive()
    assert {receipt.outcome for receipt in receipts} == {Outcome.SENT}
    assert len(receipts) == 4
    assert flat(sender.deliver([outgoing()])) == [], "for good"


def test_what_the_configuration_does_not_allow_is_not_offered(start: Any, deliverer: Any, outgoing: Any) -> None:
    pacs = start(syntaxes=(EXPLICIT, IMPLICIT))
    only_ct = deliverer(pacs, replace(QUICK, allowed=Allowed(frozenset({CT}))))
    receipts = {receipt.outbox_id: receipt for receipt in flat(only_ct.deliver([outgoing(MR), outgoing(CT)]))}
    assert (receipts[1].outcome, receipts[1].status, receipts[1].transient) == (Outcome.EXCLUDED, None, False)
    assert MR in receipts[1].hint
    assert receipts[2].outcome is Outcome.SENT
    only_implicit = deliverer(pacs, replace(QUICK, allowed=Allowed(None, frozenset({IMPLICIT}))))
    receipts = {
        receipt.outbox_id: receipt for receipt in flat(only_implicit.deliver([outgoing(CT), outgoing(CT, JPEG)]))
    }
    assert receipts[3].outcome is Outcome.SENT
    assert pacs.stored[-1][1] == IMPLICIT
    assert receipts[4].outcome is Outcome.EXCLUDED
    assert JPEG in receipts[4].hint
    assert flat(only_ct.deliver([outgoing(MR)]))[0].outcome is Outcome.EXCLUDED
    assert len(pacs.callers) == 2, "for that alone no association is opened"


VERIFICATION = "1.2.840.10008.1.1"


def test_a_probe_asks_whether_it_is_there_and_sends_nothing(start: Any, deliverer: Any) -> None:
    pacs = start((VERIFICATION, CT), (IMPLICIT,))
    assert deliverer(pacs).probe("NODE")
    assert pacs.callers == ["NODE"]
    assert pacs.stored == []


def test_a_destination_without_verification_answers_no_probe(start: Any, deliverer: Any) -> None:
    """pynetdicom accepts the association without a context; others reject it."""
    try:
        answered = deliverer(start((CT,))).probe("NODE")
    except AssociationRejectedError:
        answered = False
    assert not answered


def test_a_probe_of_nobody_fails_as_sending_would(deliverer: Any) -> None:
    with pytest.raises(PeerUnreachableError):
        deliverer(Pacs(free_port())).probe("NODE")
