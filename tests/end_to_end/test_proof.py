"""Announced, delivered, proved, told: a scanner's procedure step, a whole node, and an Orthanc that commits."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pynetdicom import AE

from dicomnode.core.notification import PROCEDURE_STEP
from dicomnode.testing.node import NODE_AE, SCANNER_AE, Node, settings
from dicomnode.testing.peers import Orthanc
from dicomnode.testing.processes import wait_until
from dicomnode.testing.sender import RawObject, send_verbatim
from tests.end_to_end.observation import TIMEOUT_S
from tests.end_to_end.studies import phantom_series

RULE = {"name": "denoise", "match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send": ["pacs"]}
SLICES = 3
PROVING = {"after_s": 0.5, "report_s": 0.0, "again_s": 1.0}


def tell_procedure_step(node: Node, images: list[RawObject]) -> None:
    """As the scanner: a step that begins and is completed, with what it has made."""
    ae = AE(SCANNER_AE)
    ae.add_requested_context(PROCEDURE_STEP)
    association = ae.associate("127.0.0.1", node.port, ae_title=NODE_AE)
    header = dcmread(BytesIO(images[0].data_set), force=True, stop_before_pixels=True)
    begun, series = Dataset(), Dataset()
    begun.PerformedProcedureStepStatus = "IN PROGRESS"
    begun.ScheduledStepAttributesSequence = [Dataset()]
    begun.ScheduledStepAttributesSequence[0].StudyInstanceUID = header.StudyInstanceUID
    series.SeriesInstanceUID = header.SeriesInstanceUID
    series.ReferencedImageSequence = [Dataset() for _ in images]
    for reference, image in zip(series.ReferencedImageSequence, images, strict=True):
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = (
            image.sop_class_uid,
            image.sop_instance_uid,
        )
    ended = Dataset()
    ended.PerformedProcedureStepStatus, ended.PerformedSeriesSequence = "COMPLETED", [series]
    step_uid = f"{header.StudyInstanceUID}.9"
    assert association.send_n_create(begun, PROCEDURE_STEP, step_uid)[0].Status == 0
    assert association.send_n_set(ended, PROCEDURE_STEP, step_uid)[0].Status == 0
    association.release()


@pytest.mark.peer("orthanc")
def test_originals_and_what_is_derived_are_proved_by_storage_commitment(tmp_path: Path) -> None:
    sent = [RawObject.read(path) for path in phantom_series(tmp_path / "scanner", slices=SLICES)]
    node = Node(tmp_path / "node", settings({}, []))
    knows_us = {"DicomModalities": {"node": [NODE_AE, "127.0.0.1", node.port]}}
    with Orthanc(tmp_path / "pacs", options=knows_us) as pacs:
        node.configure(settings({"pacs": pacs}, [RULE], destination={"pacs": {"commit": True, "proving": PROVING}}))
        with node:
            tell_procedure_step(node, sent)
            assert set(send_verbatim(node.call(), sent).values()) == {0}

            def confirmed() -> int:
                (destination,) = node.status()["destinations"]
                return int(destination["confirmed"])

            wait_until(lambda: confirmed() == 2 * SLICES, TIMEOUT_S, "everything was confirmed")
            assert node.status()["problems"] == []
            (story,) = node.ask("why", sent[0].sop_instance_uid)["series"]
            assert any("MPPS" in line for line in story["completeness"])
            assert story["proofs"] == [
                f"proof at pacs: confirmed, {SLICES} of {SLICES} instances confirmed ({SLICES} by commitment)"
            ]
            assert node.stop() == 0
