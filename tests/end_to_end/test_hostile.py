"""Whatever is sent to it, the node stays up, answers clearly, keeps its memory and its folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import StoreScp, storescu
from dicomnode.testing.processes import resident_bytes
from dicomnode.testing.sender import NoContextError, RawObject, RawSender, echo, send_verbatim
from tests.end_to_end.observation import files_of, is_clear
from tests.end_to_end.studies import phantom_series
from tests.shared import shared_data

MOST_MEMORY_BYTES = 3 * 2**30
RULES = [
    {"name": "all", "match": {"SOPClassUID": "*"}, "send": ["archive"]},
    {"name": "images", "match": {"Modality": ["CT", "MR", "CR"]}, "engines": ["contrast-glcae"], "send": ["archive"]},
]
UNKNOWN_TO_STORESCP = {"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.8.1"}
SOP_CLASS_NOT_SUPPORTED = 0x0122


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


NAMED = {
    "name": "named",
    "match": {"PatientName": "Phantom*", "StudyDescription": "*"},
    "engines": ["contrast-glcae"],
    "send": ["archive"],
}
CHARACTER_SETS = ("undefined", "rot13", "\\\\", "../../etc/passwd")


@pytest.fixture(name="reader", scope="module")
def _reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, StoreScp]]:
    """A node that reads texts of what it is sent, and what it sends to; it has to survive all character sets."""
    folder = tmp_path_factory.mktemp("reader")
    with (
        StoreScp(folder / "archive", "ARCHIVE") as archive,
        Node(folder / "node", settings({"archive": archive}, [*RULES, NAMED])) as node,
    ):
        yield node, archive


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("character_set", CHARACTER_SETS)
def test_an_unknown_character_set_is_answered_and_the_association_goes_on(
    tmp_path: Path, reader: tuple[Node, StoreScp], character_set: str
) -> None:
    node, archive = reader
    path, other = phantom_series(tmp_path, slices=2, seed=CHARACTER_SETS.index(character_set))
    sent = [RawObject.read(with_character_set(path, character_set)), RawObject.read(other)]
    with RawSender(node.call(), sent) as sender:
        statuses = [sender.store(each) for each in sent]
    assert is_clear(statuses[0])
    assert statuses[1] == 0
    node.wait_until_idle()
    assert "thread_failed" not in node.log()
    assert "process_ended" not in node.log()
    archived = {RawObject.read(path).sop_instance_uid for path in files_of(archive.files)}
    assert archived >= {each.sop_instance_uid for each, status in zip(sent, statuses, strict=True) if status == 0}


def with_character_set(path: Path, character_set: str) -> Path:
    """A copy that says so of its texts, one of which is not ASCII."""
    dataset = dcmread(path)
    dataset.StudyDescription = "\xe9t\xe9"
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.save_as(path)
    content = path.read_bytes()
    tag = b"\x08\x00\x05\x00CS"
    at = content.index(tag)
    value = character_set.encode().ljust(len(character_set) + len(character_set) % 2)
    path.write_bytes(content[:at] + tag + len(value).to_bytes(2, "little") + value + content[at + 8 + 10 :])
    return path
