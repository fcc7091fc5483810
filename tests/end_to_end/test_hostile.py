"""Whatever is sent to it, the node stays up, answers clearly, keeps its memory and its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import StoreScp, storescu
from dicomnode.testing.processes import resident_bytes
from dicomnode.testing.sender import NoContextError, RawObject, echo, send_verbatim
from tests.end_to_end.observation import files_of
from tests.shared import shared_data

MOST_MEMORY_BYTES = 3 * 2**30
RULES = [
    {"name": "all", "match": {"SOPClassUID": "*"}, "send": ["archive"]},
    {"name": "images", "match": {"Modality": ["CT", "MR", "CR"]}, "engines": ["contrast-glcae"], "send": ["archive"]},
]
UNKNOWN_TO_STORESCP = {"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.8.1"}
SOP_CLASS_NOT_SUPPORTED = 0x0122
CLEAR = {0x0000, 0x0110, 0x0117, 0x0122, 0x0124, 0xA700, 0xA900}
"""Success, and what PS3.7 C.5 and PS3.4 B.2.3 have for what cannot be stored; 0xC0xx, "cannot understand", too."""


def is_clear(status: int | None) -> bool:
    return status is not None and (status in CLEAR or status & 0xF000 == 0xC000)


def answer_to(node: Node, sent: RawObject) -> int | None:
    """Send one object on an association of its own; a context that is refused is as clear as a status."""
    try:
        (status,) = send_verbatim(node.call(), [sent]).values()
    except NoContextError:
        return SOP_CLASS_NOT_SUPPORTED
    return status


def surroundings(folder: Path) -> set[Path]:
    """All that lies around a node's data folder."""
    return {path for path in folder.rglob("*") if "data" not in path.relative_to(folder).parts}


def taken_of(node: Node, paths: list[Path]) -> dict[str, RawObject]:
    """Send every file for itself; what was answered with success, by SOP Instance UID. Every answer must be clear."""
    taken: dict[str, RawObject] = {}
    unclear = {}
    for path in paths:
        sent = RawObject.read(path)
        status = answer_to(node, sent)
        if status == 0:
            taken[sent.sop_instance_uid] = sent
        if not is_clear(status) or not echo(node.call()):
            unclear[path.name] = status
    assert unclear == {}
    return taken


def not_for_storescp(sent: RawObject) -> str:
    """Why DCMTK 3.6.7 does not take an object that we may take; "" where it does."""
    if len(sent.data_set) % 2:
        return "an odd number of bytes"
    return "an unknown transfer syntax" if sent.transfer_syntax_uid in UNKNOWN_TO_STORESCP else ""


@pytest.mark.peer("dcmtk")
def test_a_node_outlives_everything_that_is_sent_to_it(tmp_path: Path, archive: StoreScp) -> None:
    paths = files_of(shared_data("dicom"))
    retry = {"initial_s": 0.5, "maximum_s": 2.0, "patience_h": 0.02}
    tree = settings({"archive": archive}, RULES, destination={"archive": {"retry": retry}})
    with Node(tmp_path / "node", tree) as node:
        before = surroundings(node.folder)
        taken = taken_of(node, paths)
        storescu(node.call(), [shared_data("dicom")], "-xs")
        assert echo(node.call())
        node.wait_until_idle(300)
        assert resident_bytes(node.pid) < MOST_MEMORY_BYTES
        assert "thread_failed" not in node.log()
        assert "process_ended" not in node.log()
        assert node.stop() == 0
        assert surroundings(node.folder) == before
        assert not any("pwned" in path.name for path in node.folder.rglob("*"))
    archived = {RawObject.read(path).sop_instance_uid for path in files_of(archive.files)}
    lost = {uid for uid in taken.keys() - archived if not_for_storescp(taken[uid]) == ""}
    assert lost == set()
