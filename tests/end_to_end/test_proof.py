"""Delivered, proved, told: a whole node and an Orthanc that commits and reports on an association of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.testing.node import NODE_AE, Node, settings
from dicomnode.testing.peers import Orthanc
from dicomnode.testing.processes import wait_until
from dicomnode.testing.sender import RawObject, send_verbatim
from tests.end_to_end.observation import TIMEOUT_S
from tests.end_to_end.studies import phantom_series

RULE = {"name": "denoise", "match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send": ["pacs"]}
SLICES = 3
PROVING = {"after_s": 0.5, "report_s": 0.0, "again_s": 1.0}


@pytest.mark.peer("orthanc")
def test_originals_and_what_is_derived_are_proved_by_storage_commitment(tmp_path: Path) -> None:
    sent = [RawObject.read(path) for path in phantom_series(tmp_path / "scanner", slices=SLICES)]
    node = Node(tmp_path / "node", settings({}, []))
    knows_us = {"DicomModalities": {"node": [NODE_AE, "127.0.0.1", node.port]}}
    with Orthanc(tmp_path / "pacs", options=knows_us) as pacs:
        node.configure(settings({"pacs": pacs}, [RULE], destination={"pacs": {"commit": True, "proving": PROVING}}))
        with node:
            assert set(send_verbatim(node.call(), sent).values()) == {0}

            def confirmed() -> int:
                (destination,) = node.status()["destinations"]
                return int(destination["confirmed"])

            wait_until(lambda: confirmed() == 2 * SLICES, TIMEOUT_S, "everything was confirmed")
            assert node.status()["problems"] == []
            (story,) = node.ask("why", sent[0].sop_instance_uid)["series"]
            assert story["proofs"] == [
                f"proof at pacs: confirmed, {SLICES} of {SLICES} instances confirmed ({SLICES} by commitment)"
            ]
            assert node.stop() == 0
