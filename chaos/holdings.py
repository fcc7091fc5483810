"""What the destinations hold at the end, and what they are expected to hold, in the words of `chaos.verdict`."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from io import BytesIO

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from bench.wire import Sent
from chaos.scanner import Sending
from chaos.verdict import Held, Original
from dicomnode.testing.objects import data_set_bytes
from dicomnode.testing.peers import Orthanc, StoreScp


def archived(archive: StoreScp) -> list[Held]:
    """Every copy that a storescp wrote, by its exact bytes. What it was killed while writing is the beginning of
    another copy, and none itself."""
    copies: dict[str, list[bytes]] = defaultdict(list)
    for path in sorted(archive.files.iterdir()):
        file = path.read_bytes()
        if uid := _uid(file):
            copies[uid].append(file)
    return [
        _held(file, _digest(data_set_bytes(file)))
        for files in copies.values()
        for file in files
        if not any(_is_torn(file, other) for other in files)
    ]


def in_pacs(pacs: Orthanc) -> list[Held]:
    """Every instance that an Orthanc keeps, by its stored pixels: it writes data sets its own way."""
    files = (pacs.get(f"/instances/{identifier}/file") for identifier in pacs.instances())
    return [_held(file, _digest(dcmread(BytesIO(file)).PixelData)) for file in files]


def expected_by_bytes(sendings: Iterable[Sending]) -> dict[str, Original]:
    """What was sent, as a storescp keeps it."""
    return {sent.sop_instance_uid: Original(series, _digest(sent.data_set)) for series, sent in _all_of(sendings)}


def expected_by_pixels(sendings: Iterable[Sending]) -> dict[str, Original]:
    """What was sent, as an Orthanc keeps it."""
    return {
        sent.sop_instance_uid: Original(series, _digest(dcmread(BytesIO(sent.data_set), force=True).PixelData))
        for series, sent in _all_of(sendings)
    }


def differing(one: Iterable[Held], other: Iterable[Held]) -> list[str]:
    """Derived UIDs that only one of two destinations holds."""
    ours, theirs = ({copy.sop_instance_uid for copy in held if copy.source} for held in (one, other))
    return sorted(ours ^ theirs)


def _all_of(sendings: Iterable[Sending]) -> Iterator[tuple[str, Sent]]:
    for sending in sendings:
        for sent in sending.series.instances:
            yield sending.series.uid, sent


def _held(file: bytes, digest: str) -> Held:
    dataset = dcmread(BytesIO(file), stop_before_pixels=True)
    return Held(str(dataset.SOPInstanceUID), str(dataset.SeriesInstanceUID), digest, _source(dataset))


def _source(dataset: Dataset) -> str:
    """The one image that a derived one was made of (PS3.3 C.12.4.1): a slice-wise engine has one for each."""
    if dataset.ImageType[0] != "DERIVED":
        return ""
    return str(dataset.SourceImageSequence[0].ReferencedSOPInstanceUID)


def _uid(file: bytes) -> str:
    """SOP Instance UID; "" where the file ends before it."""
    try:
        return str(dcmread(BytesIO(file), specific_tags=["SOPInstanceUID"], stop_before_pixels=True).SOPInstanceUID)
    except (AttributeError, EOFError, ValueError, OSError, InvalidDicomError):
        return ""


def _is_torn(file: bytes, other: bytes) -> bool:
    return len(file) < len(other) and data_set_bytes(other).startswith(data_set_bytes(file))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
