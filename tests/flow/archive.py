"""An archive in this process that answers C-FIND, C-GET and C-MOVE as a test wants it: faithful or forgetful."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt

from dicomnode.net.query import PATIENT_ROOT, STUDY_ROOT
from dicomnode.net.scu import PeerAddress
from dicomnode.testing.processes import free_port

_LEVELS = {
    "STUDY": ("StudyInstanceUID", "NumberOfStudyRelatedInstances"),
    "SERIES": ("SeriesInstanceUID", "NumberOfSeriesRelatedInstances"),
    "IMAGE": ("SOPInstanceUID", ""),
}


@dataclass
class Archive:
    """What it holds, and how it misbehaves.

    silently_keeps  SOP Instance UIDs that it never sends, and never speaks of
    once            the same, for the first request only
    answers_images  whether it answers C-FIND at the IMAGE level
    status          what it answers C-GET or C-MOVE with, in place of sending
    moves_to        the port that it sends to; None: it knows nobody
    """

    instances: list[Dataset]
    services: tuple[str, ...] = ("find", "get", "move")
    moves_to: int | None = None
    silently_keeps: set[str] = field(default_factory=set)
    once: set[str] = field(default_factory=set)
    answers_images: bool = True
    status: int | None = None
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    port: int = field(default_factory=free_port)

    @property
    def address(self) -> PeerAddress:
        return PeerAddress("127.0.0.1", self.port, "PACS")

    def ways(self) -> list[str]:
        """How it was asked to send, in order."""
        return [way for way, _, _ in self.requests]

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        wanted = event.identifier
        level = wanted.QueryRetrieveLevel
        if level == "IMAGE" and not self.answers_images:
            yield 0xA900, None
            return
        uid, number = _LEVELS[level]
        groups: dict[str, list[Dataset]] = {}
        for one in self._matching(wanted):
            groups.setdefault(one[uid].value, []).append(one)
        for members in groups.values():
            answer = Dataset()
            for element in wanted:
                if element.keyword in members[0]:
                    answer[element.tag] = members[0][element.tag]
            answer.QueryRetrieveLevel = level
            if number:
                setattr(answer, number, len(members))
            yield 0xFF00, answer

    def get(self, event: evt.Event) -> Iterator[Any]:
        yield from self._send("get", event.identifier)

    def move(self, event: evt.Event) -> Iterator[Any]:
        if self.moves_to is None:
            yield None, None
            return
        yield "127.0.0.1", self.moves_to
        yield from self._send("move", event.identifier)

    def _send(self, way: str, wanted: Dataset) -> Iterator[Any]:
        uids = wanted.get("SOPInstanceUID", [])
        self.requests.append((way, wanted.QueryRetrieveLevel, len([uids] if isinstance(uids, str) else uids)))
        if self.status is not None:
            yield 1
            yield self.status, None
            return
        kept = self.silently_keeps | self.once
        self.once = set()
        sending = [one for one in self._matching(wanted) if one.SOPInstanceUID not in kept]
        yield len(sending)
        for one in sending:
            yield 0xFF00, one

    def _matching(self, wanted: Dataset) -> list[Dataset]:
        def matches(one: Dataset) -> bool:
            for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "AccessionNumber"):
                value = wanted.get(keyword) or ""
                values = [value] if isinstance(value, str) else list(value)
                if any(values) and one.get(keyword) not in values:
                    return False
            return True

        return [one for one in self.instances if matches(one)]


@contextmanager
def running(archive: Archive) -> Iterator[Archive]:
    """The archive, answering."""
    application = AE("PACS")
    for service in archive.services:
        for model in (STUDY_ROOT, PATIENT_ROOT):
            application.add_supported_context(getattr(model, service), ExplicitVRLittleEndian)
    application.add_supported_context(CTImageStorage, ExplicitVRLittleEndian, scu_role=True, scp_role=True)
    application.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    handlers = [(evt.EVT_C_FIND, archive.find), (evt.EVT_C_GET, archive.get), (evt.EVT_C_MOVE, archive.move)]
    server = application.start_server(("127.0.0.1", archive.port), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        yield archive
    finally:
        server.shutdown()
