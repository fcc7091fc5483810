"""A study is pulled from a real PACS, counted against its C-FIND, and processed as if it had been sent."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicomnode.testing.archives import DcmQrScp
from dicomnode.testing.node import NODE_AE, Node, settings
from dicomnode.testing.objects import data_set_bytes
from dicomnode.testing.peers import Call, Orthanc, StoreScp, dcmsend
from dicomnode.testing.processes import wait_until
from tests.end_to_end.observation import by_uid, files_of, source_uids
from tests.shared import shared_data

RULE = {"name": "CT", "match": {"peer": ["pacs", "mover"], "Modality": "CT"}, "engines": ["ct-nlm"]}


def site(pacs: Orthanc, archive: StoreScp, mover: DcmQrScp) -> dict[str, Any]:
    """Everything to the archive, and to the PACS, from which some of it comes."""
    return settings(
        {"pacs": pacs, "archive": archive},
        [{**RULE, "send": ["archive", "pacs"]}],
        peer={"mover": {"ae_title": mover.ae_title, "host": "127.0.0.1", "port": mover.port}},
        retrieve={"initial_s": 0.5, "maximum_s": 1.0},
    )


@pytest.mark.peer("orthanc")
@pytest.mark.peer("dcmtk")
def test_a_study_is_pulled_enhanced_delivered_and_not_sent_back(
    tmp_path: Path, pacs: Orthanc, archive: StoreScp
) -> None:
    mover = DcmQrScp(tmp_path / "mover", "MOVER", options=["--disable-get"])
    node = Node(tmp_path / "node", site(pacs, archive, mover))
    mover.know({NODE_AE: node.port})
    sources = by_uid(files_of(shared_data("ct/dicom/lidc0003")))
    others = by_uid(files_of(shared_data("ct/dicom/lidc0002")))
    assert dcmsend(Call(pacs.port, pacs.ae_title, "CT1"), sources.values()) == 0
    first = dcmread(next(iter(sources.values())), stop_before_pixels=True)
    with mover, node:
        mover.hold(others.values())
        assert_listed(node, str(first.StudyInstanceUID), len(sources))
        assert_survives_both_sides(node, pacs, str(first.AccessionNumber))

        moved = dcmread(next(iter(others.values())), stop_before_pixels=True)
        answer = node.ask("fetch", "mover", "--study", moved.StudyInstanceUID)
        assert (answer["state"], answer["by"], answer["held"]) == ("complete", "C-MOVE", len(others))

        node.wait_until_idle()
        why = node.command("why", first.SeriesInstanceUID).stdout
        assert f"{len(sources)} of {len(sources)} instances here by its C-FIND" in why
        assert "fetched from pacs by C-GET" in why
        assert "not to pacs: it came from its peer pacs" in why
        assert_not_sent_back(pacs, sources, others)
        assert_arrived(archive, {**sources, **others})
        assert node.stop() == 0


def assert_listed(node: Node, study: str, count: int) -> None:
    (found,) = node.ask("find", "pacs", "--study", study)["matches"]
    assert found["NumberOfStudyRelatedInstances"] == [str(count)]
    assert node.command("find", "pacs", "--study", study).stdout.startswith("pacs: 1 study\n")
    refused = node.command("find", "pacs", "--level", "image")
    assert (refused.returncode, "add --study UID" in refused.stderr) == (2, True)


def assert_survives_both_sides(node: Node, pacs: Orthanc, accession: str) -> None:
    """What is asked for while the PACS is down is fetched once it is up, though the node was killed meanwhile."""
    pacs.stop()
    asked = node.ask("fetch", "pacs", "--accession", accession, "--no-wait")
    assert asked["state"] == "ready"
    node.wait_for_log("retrieval_postponed")
    node.kill()
    node.start()
    pacs.start()
    node.wait_for_log("retrieval_ended")
    answer = node.ask("fetch", "pacs", "--accession", accession)
    assert (answer["state"], answer["by"], answer["sub_operations"]) == ("complete", "", {})  # all was here


def assert_not_sent_back(pacs: Orthanc, own: dict[str, Path], others: dict[str, Path]) -> None:
    """The PACS holds its own once, and from the other peer all of it with what was derived; of its own nothing else."""
    files = pacs.files()
    assert len(pacs.sop_instance_uids()) == len(files) == len(own) + 2 * len(others)
    foreign = [
        dcmread(BytesIO(files[uid]), stop_before_pixels=True) for uid in files.keys() - own.keys() - others.keys()
    ]
    assert sorted(source_uids(image)[0] for image in foreign) == sorted(others)


def assert_arrived(archive: StoreScp, sources: dict[str, Path]) -> None:
    """Originals byte for byte, and a derived instance of each."""
    wait_until(lambda: len(list(archive.files.iterdir())) == 2 * len(sources), 60, "everything was delivered")
    received = by_uid(archive.files.iterdir())
    for uid, path in sources.items():
        assert data_set_bytes(received[uid].read_bytes()) == data_set_bytes(path.read_bytes())
    derived = [dcmread(path, stop_before_pixels=True) for uid, path in received.items() if uid not in sources]
    assert sorted(source_uids(image)[0] for image in derived) == sorted(sources)
