"""A sender for tests that sends any bytes as a data set, under any UID, as broken and hostile senders do."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final, Self

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from dicomnode.testing.objects import data_set_bytes
from dicomnode.testing.peers import Call

_SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
_VERIFICATION: Final = "1.2.840.10008.1.1"
_ANSWER_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.05
_PAUSE_S: Final = 0.001
_ENDED: Final = ("Sta1", "Sta13")
"""No connection, or one that is only waited to close (PS3.8 table 9-4)."""


@dataclass(frozen=True, slots=True)
class RawObject:
    """What a C-STORE request says and carries. Nothing of it is checked or changed."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set: bytes

    @classmethod
    def read(cls, path: Path) -> RawObject:
        """A DICOM file as its File Meta Information announces it; anything else as a Secondary Capture of odd bytes."""
        file = path.read_bytes()
        try:
            meta = dcmread(BytesIO(file), specific_tags=[], stop_before_pixels=True).file_meta
            return cls(
                str(meta.MediaStorageSOPClassUID),
                str(meta.MediaStorageSOPInstanceUID),
                str(meta.TransferSyntaxUID),
                data_set_bytes(file),
            )
        except (InvalidDicomError, AttributeError, ValueError, OSError, EOFError, RecursionError):
            return cls(_SECONDARY_CAPTURE, generate_uid(), ImplicitVRLittleEndian, file)


class NoContextError(Exception):
    """The peer rejected the association or accepted no presentation context for an object."""


class RawSender:
    """One association that sends objects verbatim; a context manager."""

    def __init__(self, call: Call, objects: Iterable[RawObject]) -> None:
        self._call = call
        self._contexts = sorted({(each.sop_class_uid, each.transfer_syntax_uid) for each in objects})
        self._association: Association | None = None
        self._message_id = 0

    def __enter__(self) -> Self:
        self._association = associate(self._call, self._contexts)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._association is not None
        if self._association.is_established:
            self._association.release()
        self._association.kill()

    def store(self, sent: RawObject) -> int | None:
        """Send one object; the status of the answer, or None where the association ended without one."""
        association = self._association
        assert association is not None
        self._message_id += 1
        request = _request(sent, self._message_id)
        context_id = _context_id(association, sent)
        _pause(association)
        try:
            association.dimse.send_msg(request, context_id)
            return _status(association)
        finally:
            association._reactor_checkpoint.set()


def _pause(association: Association) -> None:
    """Keep pynetdicom's loop from reading our answer, its own way. It says that it is paused an instant before it is:
    it has to say so twice."""
    association._reactor_checkpoint.clear()
    said = 0
    while said < 2 and association.is_alive():
        time.sleep(_PAUSE_S)
        said = said + 1 if association._is_paused else 0


def _status(association: Association) -> int | None:
    """Wait for the answer, but not for one that cannot come: pynetdicom itself would not see the connection end."""
    deadline = time.monotonic() + _ANSWER_TIMEOUT_S
    while time.monotonic() < deadline:
        ended = association.dul.state_machine.current_state in _ENDED
        with contextlib.suppress(queue.Empty):
            _, answer = association.dimse.msg_queue.get(timeout=_POLL_S)
            return getattr(answer, "Status", None)
        if ended:
            return None
    return None


def _request(sent: RawObject, message_id: int) -> C_STORE:
    request = C_STORE()
    request.MessageID = message_id
    request.Priority = 2  # LOW; pynetdicom's own default
    request.AffectedSOPClassUID = UID(sent.sop_class_uid)
    request._affected_sop_instance_uid = UID(sent.sop_instance_uid)  # past the setter, which refuses what we try
    request.DataSet = BytesIO(sent.data_set)
    return request


def _context_id(association: Association, sent: RawObject) -> int:
    for context in association.accepted_contexts:
        if (context.abstract_syntax, context.transfer_syntax[0]) == (sent.sop_class_uid, sent.transfer_syntax_uid):
            return int(context.context_id or 0)
    raise NoContextError(f"no context accepted for {sent.sop_class_uid} in {sent.transfer_syntax_uid}")


def associate(call: Call, contexts: Iterable[tuple[str, str]]) -> Association:
    """Open an association with a context for each (SOP class, transfer syntax); raises NoContextError if rejected."""
    entity = AE(call.calling_ae)
    entity.dimse_timeout = entity.acse_timeout = entity.network_timeout = _ANSWER_TIMEOUT_S
    for sop_class_uid, transfer_syntax_uid in contexts:
        entity.add_requested_context(sop_class_uid, transfer_syntax_uid)
    association = entity.associate("127.0.0.1", call.port, ae_title=call.called_ae)
    if not association.is_established:
        raise NoContextError("the association was rejected" if association.is_rejected else "no association")
    return association


@contextlib.contextmanager
def _verification(call: Call) -> Iterator[Association]:
    association = associate(call, [(_VERIFICATION, ImplicitVRLittleEndian)])
    try:
        yield association
    finally:
        if association.is_established:
            association.release()
        association.kill()


def echo(call: Call) -> bool:
    """Whether a C-ECHO is answered with success."""
    try:
        with _verification(call) as association:
            return bool(association.send_c_echo().get("Status") == 0)
    except NoContextError:
        return False


def send_verbatim(call: Call, objects: Iterable[RawObject]) -> dict[str, int | None]:
    """Send objects over one association; the status by SOP Instance UID. Stops where the association ends."""
    objects = list(objects)
    statuses: dict[str, int | None] = {}
    with RawSender(call, objects) as sender:
        for each in objects:
            statuses[each.sop_instance_uid] = status = sender.store(each)
            if status is None:
                break
    return statuses
