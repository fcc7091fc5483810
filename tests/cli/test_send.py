"""send: a folder as people keep it, to a peer that takes all, some or nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from dicomnode.cli.console import _PlainProgress
from dicomnode.core.types import Outcome
from dicomnode.errors import NotFoundError
from dicomnode.operations import send
from dicomnode.operations.files import as_outgoing, dicom_files
from dicomnode.testing.peers import StoreScp
from tests.cli.conftest import Command

CT = UID("1.2.840.10008.5.1.4.1.1.2")
PRIVATE = UID("1.2.276.0.7230010.3.0.3.5.99")
MEDIA_STORAGE_DIRECTORY = UID("1.2.840.10008.1.3.10")


def write_object(path: Path, sop_class: UID = CT) -> str:
    """A DICOM file without pixels; its SOP Instance UID."""
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    dataset.PatientName = "Nobody"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return str(dataset.SOPInstanceUID)


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """Three DICOM objects on two levels, a DICOMDIR, a text, an empty file, and a link to one of the objects."""
    folder = tmp_path / "cd"
    write_object(folder / "a.dcm")
    write_object(folder / "sub/no-suffix")
    write_object(folder / "sub/b.dcm")
    write_object(folder / "DICOMDIR", MEDIA_STORAGE_DIRECTORY)
    (folder / "readme.txt").write_text("DICM" * 99)
    (folder / "empty.dcm").touch()
    (folder / "again.dcm").symlink_to(folder / "a.dcm")
    return folder


def test_objects_are_found_by_what_they_are(folder: Path) -> None:
    assert [path.name for path in dicom_files(folder)] == ["a.dcm", "b.dcm", "no-suffix"]
    assert dicom_files(folder / "a.dcm") == (folder / "a.dcm",)
    assert dicom_files(folder / "readme.txt") == ()


def test_a_file_is_offered_as_its_header_says(tmp_path: Path) -> None:
    uid = write_object(tmp_path / "x")
    offered = as_outgoing(7, tmp_path / "x", "US")
    assert (offered.outbox_id, offered.sop_class_uid, offered.sop_instance_uid) == (7, CT, uid)
    assert (offered.transfer_syntax_uid, offered.calling_ae) == (ExplicitVRLittleEndian, "US")


@pytest.mark.peer("dcmtk")
def test_a_folder_arrives(command: Command, folder: Path, tmp_path: Path) -> None:
    with StoreScp(tmp_path / "scp") as scp:
        command("init", "--yes", "--pacs", f"{scp.ae_title},127.0.0.1,{scp.port}")
        ran = command("send", folder, "--to", "pacs", "--json")
        assert ran.code == 0, ran.err
        assert (ran.json["found"], ran.json["arrived"], ran.json["skipped"]) == (3, 3, 3)
        assert [(one["status"], one["instances"]) for one in ran.json["answers"]] == [(0, 3)]
        assert len(list(scp.files.iterdir())) == 3
        assert "pacs: 3 of 3 instances arrived, 3 other files skipped" in command("send", folder, "--to", "pacs").out


@dataclass
class Scripted:
    """A deliverer that gives the outcomes it was told, and breaks off after them."""

    outcomes: list[Outcome]

    def deliver(self, batch: tuple[send.Outgoing, ...]) -> Iterator[tuple[send.Receipt]]:
        for outgoing, outcome in zip(batch, self.outcomes, strict=False):
            status = 0x0000 if outcome is Outcome.SENT else 0xA700
            yield (send.Receipt(outgoing.outbox_id, outcome, status, outcome.value, "", transient=False),)
        if len(self.outcomes) < len(batch):
            raise send.PeerError("the peer went away", "look for it")

    def close(self) -> None: ...


Script = Callable[..., None]


@pytest.fixture(name="script")
def _script(command: Command, monkeypatch: pytest.MonkeyPatch) -> Script:
    def script(*outcomes: Outcome) -> None:
        command("init", "--yes", "--pacs", "PACS,127.0.0.1,104")
        monkeypatch.setattr(send, "DicomDeliverer", lambda *_, **__: Scripted(list(outcomes)))

    return script


@pytest.mark.parametrize(
    ("outcomes", "code", "arrived"),
    [
        ([Outcome.SENT, Outcome.WARNING, Outcome.DUPLICATE], 0, 3),
        ([Outcome.SENT, Outcome.REFUSED, Outcome.SENT], 3, 2),
        ([Outcome.REFUSED, Outcome.FAILED, Outcome.REFUSED], 1, 0),
        ([Outcome.SENT], 3, 1),
        ([], 1, 0),
    ],
)
def test_the_exit_code_says_how_much_arrived(
    command: Command, script: Script, folder: Path, outcomes: list[Outcome], code: int, arrived: int
) -> None:
    script(*outcomes)
    ran = command("send", folder, "--to", "pacs")
    assert ran.code == code
    assert f"pacs: {arrived} of 3 instances arrived" in ran.out
    assert ("error: the peer went away" in ran.out) == (len(outcomes) < 3)


def test_ctrl_c_tells_what_arrived(
    command: Command, script: Script, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    script(Outcome.SENT, Outcome.SENT, Outcome.SENT)
    monkeypatch.setattr(_PlainProgress, "__call__", interrupted)
    ran = command("send", folder, "--to", "pacs")
    assert ran.code == 130
    assert "pacs: 1 of 3 instances arrived" in ran.out
    assert ran.error_lines[0] == "error: stopped"


def test_nobody_there(command: Command, folder: Path, port: int) -> None:
    command("init", "--yes", "--pacs", f"PACS,127.0.0.1,{port}")
    ran = command("send", folder, "--to", "pacs")
    assert ran.code == 1
    assert "Connection refused" in ran.out


def test_nothing_to_send(command: Command, tmp_path: Path) -> None:
    command("init", "--yes", "--pacs", "PACS,127.0.0.1,104")
    (tmp_path / "nothing").mkdir()
    ran = command("send", tmp_path / "nothing", "--to", "pacs")
    assert (ran.code, ran.out) == (1, "")
    assert "no DICOM file" in ran.err
    assert NotFoundError.__name__ not in ran.err
