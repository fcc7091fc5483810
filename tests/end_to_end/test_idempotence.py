"""Doing it twice changes nothing at the PACS: not a re-send, not even with the whole data folder lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import Orthanc, storescu
from tests.end_to_end.observation import files_of, wait_for_instances
from tests.shared import shared_data

RULES = [
    {"name": "denoise", "match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send": ["pacs"]},
    {"name": "contrast", "match": {"Modality": "CT"}, "engines": ["contrast-glcae"], "send": ["pacs"]},
]


@pytest.mark.peer("dcmtk")
@pytest.mark.peer("orthanc")
def test_sending_again_changes_nothing_at_the_pacs(tmp_path: Path, pacs: Orthanc) -> None:
    files = files_of(shared_data("ct/dicom/lidc0002"))
    with Node(tmp_path / "node", settings({"pacs": pacs}, RULES)) as node:
        assert storescu(node.call(), files) == 0
        wait_for_instances(node, pacs, len(files) * 3)
        held, digests = pacs.sop_instance_uids(), pacs.pixel_digests()
        assert len(held) == len(files) * 3

        assert storescu(node.call(), files) == 0
        node.wait_until_idle()
        assert pacs.sop_instance_uids() == held

        assert node.stop() == 0
        node.forget()
        node.start()
        assert storescu(node.call(), files) == 0
        node.wait_until_idle()
        assert node.unfinished() == 0
        derived = next(uid for uid in held if uid.startswith("2.25."))
        (delivery,) = node.ask("why", derived)["series"][0]["deliveries"]
        assert any("holds this object already" in trouble for trouble in delivery["troubles"])
    assert pacs.sop_instance_uids() == held
    assert pacs.pixel_digests() == digests
