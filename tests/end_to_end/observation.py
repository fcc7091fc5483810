"""What the tests of the whole node ask of files, places and objects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread

from dicomnode.testing.node import Node
from dicomnode.testing.peers import Orthanc
from dicomnode.testing.processes import wait_until

TIMEOUT_S = 180.0
_CLEAR = {0x0000, 0x0106, 0x0110, 0x0117, 0x0122, 0x0124, 0xA700, 0xA900}
"""Success, and what PS3.7 C.5 and PS3.4 B.2.3 have for what cannot be stored; 0xC0xx, "cannot understand", too."""


def is_clear(status: int | None) -> bool:
    """Whether a C-STORE was answered, and with a status that the standard has for it."""
    return status is not None and (status in _CLEAR or status & 0xF000 == 0xC000)


def files_of(folder: Path) -> list[Path]:
    """All files of a folder that hold anything: of an empty data set a sender sends nothing, and waits."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def by_uid(paths: Iterable[Path]) -> dict[str, Path]:
    """Files by their SOP Instance UID."""
    return {dcmread(path, stop_before_pixels=True).SOPInstanceUID: path for path in paths}


def wait_for_instances(node: Node, orthanc: Orthanc, count: int) -> None:
    """Wait until the node has nothing left to do and an Orthanc holds at least `count` instances."""

    def held() -> int:
        return int(orthanc.statistics()["CountInstances"])

    try:
        wait_until(lambda: held() >= count, TIMEOUT_S, f"{orthanc.ae_title} held {count} instances")
    except TimeoutError as error:
        raise TimeoutError(f"{error}: it holds {held()}; the node said:\n{node.tail(6000)}") from None
    node.wait_until_idle()


def derived(files: Mapping[str, bytes], sources: Iterable[str]) -> dict[str, Dataset]:
    """Those of the files that are none of the sources, read, by SOP Instance UID."""
    known = set(sources)
    return {uid: dcmread(BytesIO(file)) for uid, file in files.items() if uid not in known}


def by_series(images: Iterable[Dataset]) -> dict[str, list[Dataset]]:
    series: dict[str, list[Dataset]] = defaultdict(list)
    for image in images:
        series[image.SeriesInstanceUID].append(image)
    return dict(series)


def source_uids(image: Dataset) -> list[str]:
    """The SOP Instance UIDs that a derived image says it was made from."""
    return [item.ReferencedSOPInstanceUID for item in image.SourceImageSequence]
