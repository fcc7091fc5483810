"""Originals as a destination sees them: when they come, from whom, and what becomes of them if it sends them back."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread

from dicomnode.testing.node import SCANNER_AE, Node, settings
from dicomnode.testing.peers import Orthanc, StoreScp
from dicomnode.testing.processes import wait_until
from dicomnode.testing.sender import RawObject, RawSender, send_verbatim
from tests.end_to_end.observation import TIMEOUT_S, by_series, derived, wait_for_instances
from tests.end_to_end.studies import phantom_series

DENOISE = {"name": "denoise", "match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send": ["pacs"]}


@pytest.mark.peer("dcmtk")
@pytest.mark.peer("orthanc")
def test_originals_wait_for_their_series_where_asked_to_and_come_in_the_scanners_name(
    tmp_path: Path, pacs: Orthanc, archive: StoreScp
) -> None:
    sent = [RawObject.read(path) for path in phantom_series(tmp_path / "scanner", slices=3)]
    tree = settings(
        {"pacs": pacs, "archive": archive},
        [{"name": "both", "match": {"Modality": "CT"}, "send": ["pacs", "archive"]}],
        destination={"pacs": {"forward": "when-complete", "calling_ae": "sender"}},
        completeness={"quiet_s": 600.0, "deadline_s": 600.0},
    )
    with Node(tmp_path / "node", tree) as node:
        with RawSender(node.call(), sent) as sender:
            assert [sender.store(each) for each in sent] == [0, 0, 0]
            wait_until(lambda: len(list(archive.files.iterdir())) == 3, TIMEOUT_S, "the archive held all of it")
            (held,) = [one["held"] for one in node.status()["destinations"] if one["name"] == "pacs"]
            assert (held, pacs.sop_instance_uids()) == (3, []), "the series is not complete while its association lives"
        wait_for_instances(node, pacs, 3)
    assert pacs.calling_ae_titles() == {each.sop_instance_uid: SCANNER_AE for each in sent}


@pytest.mark.peer("orthanc")
def test_what_the_pacs_sends_back_goes_nowhere_and_is_told(tmp_path: Path, pacs: Orthanc) -> None:
    """Its originals and our derived objects, in Orthanc's own encoding of them."""
    sent = [RawObject.read(path) for path in phantom_series(tmp_path / "scanner", slices=3)]
    with Node(tmp_path / "node", settings({"pacs": pacs}, [DENOISE])) as node:
        assert set(send_verbatim(node.call(), sent).values()) == {0}
        wait_for_instances(node, pacs, 6)
        held, deliveries, counts = pacs.sop_instance_uids(), node.log().count("delivery_sent"), node.status()["counts"]

        pacs.send_everything(node.call())
        node.wait_until_idle()
        assert pacs.sop_instance_uids() == held
        assert node.log().count("delivery_sent") == deliveries == 6
        after = node.status()
        unchanged = ("studies", "series_received", "series_derived", "series_arriving", "instances_derived")
        assert {name: after["counts"][name] for name in unchanged} == {name: counts[name] for name in unchanged}
        assert after["jobs"]["derived"] == 1
        assert after["problems"] == []
        (study,) = {dcmread(path).StudyInstanceUID for path in (tmp_path / "scanner").iterdir()}
        told = node.ask("why", study)["series"]
    assert [story["origin"] for story in told] == ["received", "derived"]
    assert [story["kept_back"] for story in told] == [["3 instances kept back: round trip: pacs sent it back"]] * 2


@pytest.mark.peer("orthanc")
def test_a_late_slice_adds_one_original_and_one_derived_instance(tmp_path: Path, pacs: Orthanc) -> None:
    *early, late = [RawObject.read(path) for path in phantom_series(tmp_path / "scanner", slices=5)]
    with Node(tmp_path / "node", settings({"pacs": pacs}, [DENOISE])) as node:
        assert set(send_verbatim(node.call(), early).values()) == {0}
        wait_for_instances(node, pacs, 8)
        before = pacs.sop_instance_uids()
        assert len(before) == 8

        assert set(send_verbatim(node.call(), [late]).values()) == {0}
        wait_for_instances(node, pacs, 10)
    added = [uid for uid in pacs.sop_instance_uids() if uid not in before]
    assert len(pacs.sop_instance_uids()) == len(before) + 2
    assert late.sop_instance_uid in added
    images = derived(pacs.files(), {each.sop_instance_uid for each in (*early, late)})
    assert len(images) == 5
    assert len(by_series(images.values())) == 1
