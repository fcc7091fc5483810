"""No log line, at any level, holds anything that identifies a patient."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from dicomnode.testing.node import Node, settings
from dicomnode.testing.objects import identifying_texts
from dicomnode.testing.peers import Orthanc, storescu
from dicomnode.testing.sender import NoContextError, RawObject, send_verbatim
from tests.end_to_end.observation import files_of, wait_for_instances
from tests.shared import shared_data

PLANTED = {
    "PatientName": "UNMISTAKABLE^PATIENT",
    "PatientID": "PID-0815-4711",
    "PatientBirthDate": "19020304",
    "AccessionNumber": "ACC-90125",
    "StudyDescription": "Suspected secret illness",
    "ReferringPhysicianName": "Referrer^Reluctant",
    "PatientComments": "prefers not to be named",
}
NAMES_OF_OURS = {"scanner", "pacs", "SCANNER", "PACS"}
RULES = [
    {
        "name": "chest",
        "match": {"Modality": "CT", "StudyDescription": "*illness*"},
        "engines": ["ct-nlm"],
        "send": ["pacs"],
    },
    {"name": "rest", "match": {"PatientName": "UNMISTAKABLE*", "PatientComments": "*named"}, "send": ["pacs"]},
]


def planted(path: Path, folder: Path) -> Path:
    dataset: Dataset = dcmread(path)
    for keyword, value in PLANTED.items():
        setattr(dataset, keyword, value)
    folder.mkdir(exist_ok=True)
    dataset.save_as(folder / path.name)
    return folder / path.name


def texts_of_broken(paths: list[Path]) -> set[str]:
    """The identifying texts of all files that can be read at all."""
    texts: set[str] = set()
    for path in paths:
        with contextlib.suppress(OSError, RecursionError, ValueError, EOFError, AttributeError, NotImplementedError):
            texts |= identifying_texts([path])
    return texts


def found_in(log: str, texts: set[str]) -> set[str]:
    """Texts that stand in the log as whole words; a number inside a UID or a time is none."""
    return {text for text in texts if re.search(rf"(?<![\w.]){re.escape(text)}(?![\w.])", log)}


@pytest.mark.peer("dcmtk")
@pytest.mark.peer("orthanc")
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_log_line_identifies_a_patient(tmp_path: Path, pacs: Orthanc, log_format: str) -> None:
    files = [planted(path, tmp_path / "scanner") for path in files_of(shared_data("ct/dicom/lidc0002"))]
    hostile = files_of(shared_data("dicom/hostile")) + files_of(shared_data("dicom/malformed"))
    tree = settings({"pacs": pacs}, RULES, log={"format": log_format})
    with Node(tmp_path / "node", tree) as node:
        assert storescu(node.call(), files) == 0
        for path in hostile:
            sent = RawObject.read(path)
            try:
                send_verbatim(node.call(), [sent])
            except NoContextError:
                continue
        wait_for_instances(node, pacs, 2 * len(files))
        commands = [node.command(*words) for words in (("status",), ("why", files[0]), ("rules", "explain", files[0]))]
        assert node.stop() == 0
        log = node.log()
    assert log.count("delivery_sent") >= 2 * len(files), "the log is complete"
    assert all(command.returncode == 0 for command in commands), commands
    complaints = "".join(command.stderr for command in commands)
    assert found_in(log + complaints, identifying_texts(files) | set(PLANTED.values())) == set()
    assert found_in(log, texts_of_broken(hostile) - NAMES_OF_OURS) == set()
