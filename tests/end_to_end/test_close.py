"""An incomplete series is held by a running node, and goes on when a person closes it."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import StoreScp, storescu
from dicomnode.testing.processes import wait_until
from tests.end_to_end.observation import TIMEOUT_S, files_of
from tests.shared import shared_data

RULES = [{"name": "all", "match": {"Modality": "*"}, "send": ["archive"]}]
HOLDS = {"quiet_s": 1.0, "released_quiet_s": 0.5, "deadline_s": 1.0, "on_deadline": "hold"}


@pytest.mark.peer("dcmtk")
def test_a_held_series_waits_for_a_person(tmp_path: Path, archive: StoreScp) -> None:
    files = sorted(
        files_of(shared_data("ct/dicom/lidc0002")), key=lambda path: float(pydicom.dcmread(path).SliceLocation)
    )
    uid = pydicom.dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID
    del files[len(files) // 2]
    tree = settings(
        {"archive": archive}, RULES, completeness=HOLDS, destination={"archive": {"forward": "when-complete"}}
    )
    with Node(tmp_path / "node", tree) as node:
        assert storescu(node.call(), files) == 0
        wait_until(lambda: "held" in kinds(node), TIMEOUT_S, "the series is held")
        (story,) = node.ask("why", uid)["series"]
        assert "1 slice is missing by position" in story["completeness"][0]
        assert files_of(archive.files) == []
        assert node.ask("close", uid, "--reason", "it was lost")["closing"] == [uid]
        wait_until(lambda: len(files_of(archive.files)) == len(files), TIMEOUT_S, "what was held is sent")
        assert "held" not in kinds(node)


def kinds(node: Node) -> list[str]:
    return [problem["kind"] for problem in node.ask("status")["problems"]]
