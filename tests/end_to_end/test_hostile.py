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
CLEAR = {0x0000, 0x0110, 0x0117, 0x0122, 0x0124, 0xA700, 0xA900}
"""Success, and what PS3.7 C.5 and PS3.4 B.2.3 have for what cannot be stored; 0xC0xx, "cannot understand", too."""


def is_clear(status: int | None) -> bool:
    return status is not None and (status in CLEAR or status & 0xF000 == 0xC000)


def offer(node: Node, sent: RawObject) -> str:
    """Send one object on an association of its own; "" where the answer is clear, else what was wrong."""
    try:
        (status,) = send_verbatim(node.call(), [sent]).values()
    except NoContextError:
        return ""  # refused before anything was sent: as clear as a status
    return "" if is_clear(status) else f"answered {status and hex(status)}"


def surroundings(folder: Path) -> set[Path]:
    """All that lies around a node's data folder."""
    return {path for path in folder.rglob("*") if "data" not in path.relative_to(folder).parts}


@pytest.mark.peer("dcmtk")
def test_a_node_outlives_everything_that_is_sent_to_it(tmp_path: Path, archive: StoreScp) -> None:
    paths = [path for path in files_of(shared_data("dicom")) if path.stat().st_size]
    faults = {}
    with Node(tmp_path / "node", settings({"archive": archive}, RULES)) as node:
        before = surroundings(node.folder)
        for path in paths:
            fault = offer(node, RawObject.read(path))
            if not echo(node.call()):
                fault += " and C-ECHO has no answer"
            if fault:
                faults[path.name] = fault
        assert faults == {}
        storescu(node.call(), [shared_data("dicom")], "-xs")
        assert echo(node.call())
        node.wait_until_idle(300)
        assert resident_bytes(node.pid) < MOST_MEMORY_BYTES
        assert "thread_failed" not in node.log()
        assert "process_ended" not in node.log()
        assert node.stop() == 0
        assert surroundings(node.folder) == before
        assert not any("pwned" in path.name or ".." in path.name for path in node.folder.rglob("*"))
