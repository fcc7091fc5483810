"""`dicomnode rules explain`: a file against the rules as they are now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicomnode.errors import InputError
from dicomnode.operations.explain import explain_file
from dicomnode.store.schema import Outbox
from tests.flow.rooms import phantom
from tests.operations.sites import TREE, index_of, site


@pytest.fixture(name="image")
def _image() -> Dataset:
    return phantom(1)[0]


@pytest.fixture(name="path")
def _path(tmp_path: Path, image: Dataset) -> Path:
    image.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    return tmp_path / "image.dcm"


def test_every_rule_is_told_clause_by_clause(tmp_path: Path, path: Path) -> None:
    told = explain_file(site(tmp_path / "site"), path)
    lines = "\n".join(told.lines())
    assert lines.startswith("judged as from no known sender")
    assert "rule 'low-dose chest' matches" in lines
    assert "ok    BodyPartExamined: wanted CHEST, found CHEST" in lines
    assert [target.destination for target in told.forwarding.targets] == ["pacs", "late"]
    assert [job.engines for job in told.plan.jobs] == [("ct-nlm",)]
    json.dumps(told.to_json())


def test_nothing_is_stored_or_sent(tmp_path: Path, path: Path) -> None:
    config = site(tmp_path / "site")
    explain_file(config, path)
    assert not config.node.data.exists()
    with index_of(config) as flow:
        explain_file(config, path)
        assert flow.reception.rows(Outbox) == []


def test_an_object_that_the_node_received_is_judged_by_its_sender(tmp_path: Path, path: Path, image: Dataset) -> None:
    rule = {"name": "from ct1", "match": {"peer": "ct1"}, "send": ["pacs"]}
    config = site(tmp_path / "site", rule=[rule], peer={**TREE["peer"], "ct1": {"ae_title": "SCANNER"}})
    assert explain_file(config, path).forwarding.unrouted
    with index_of(config) as flow:
        flow.receive([image])
        told = explain_file(config, path)
    assert told.judged_as == "received from SCANNER (scanner, 10.0.0.1)"
    assert told.forwarding.unrouted, "it came from a peer of another name"


def test_what_no_rule_matches_names_the_nearest(tmp_path: Path, image: Dataset) -> None:
    image.Modality = "MR"
    image.save_as(tmp_path / "mr.dcm", enforce_file_format=True)
    lines = "\n".join(explain_file(site(tmp_path / "site"), tmp_path / "mr.dcm").lines())
    assert "unrouted: no rule matches; the nearest is 'low-dose chest'" in lines


def test_hostile_text_never_reaches_the_terminal(tmp_path: Path, path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"CHEST ", b"\x1b[2J\x07 "))
    told = explain_file(site(tmp_path / "site"), path)
    assert any("[2J" in line for line in told.lines())
    assert all(line.isprintable() for line in told.lines())


def test_what_is_no_dicom_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no DICOM")
    with pytest.raises(InputError):
        explain_file(site(tmp_path / "site"), tmp_path / "note.txt")
