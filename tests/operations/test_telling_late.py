"""What `why` and `status` tell of what came late, replaced or was rejected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from dicomnode.config import Config
from dicomnode.core.types import Sender
from dicomnode.flow.rejecting import Rejector
from dicomnode.flow.withdrawing import Withdrawer
from dicomnode.operations.status import status
from dicomnode.operations.why import why
from dicomnode.store.schema import Outbox
from tests.flow.rooms import Flow, phantom
from tests.flow.test_rejections import note
from tests.operations.sites import index_of, site

RULE = {"name": "contrast", "match": {"Modality": "CT"}, "engines": ["contrast-glcae"], "send": ["pacs"]}
SCANNER = Sender("ct1", "SCANNER", "DICOMNODE", "10.0.0.1", 1000.0)


def configured(folder: Path, late: str = "supersede", withdraw: bool = False) -> Config:
    destination = {"pacs": {"peer": "pacs", "withdraw": withdraw}}
    return site(folder, rule=[RULE], destination=destination, completeness={"late": late})


@pytest.fixture(name="config")
def _config(tmp_path: Path) -> Config:
    return configured(tmp_path, withdraw=True)


@pytest.fixture(name="flow")
def _flow(config: Config) -> Iterator[Flow]:
    with index_of(config) as flow:
        yield flow


def sent(flow: Flow) -> None:
    with flow.reception.database.write() as session:
        session.execute(update(Outbox).where(Outbox.state == "ready").values(state="sent"))


def told(config: Config, subject: str) -> str:
    return "\n".join(why(config, subject).lines())


def receive_late(flow: Flow) -> None:
    study = phantom(5)
    for dataset in study[:4]:
        flow.reception.receive(dataset, SCANNER)
    flow.run()
    sent(flow)
    flow.reception.receive(study[4], SCANNER)


def test_what_came_late_is_told_with_what_becomes_of_it(config: Config, flow: Flow) -> None:
    receive_late(flow)
    series = flow.received.series_instance_uid
    assert '1 instance came after closing 1 (late = "supersede"): what was derived is made anew' in told(config, series)


def test_what_is_ignored_is_told(tmp_path: Path) -> None:
    config = configured(tmp_path, late="ignore")
    with index_of(config) as flow:
        receive_late(flow)
        said = told(config, flow.received.series_instance_uid)
    assert "stored and sent as they are; no engine sees them" in said


def test_both_series_tell_of_each_other_and_the_note_of_what_it_tells(config: Config, flow: Flow) -> None:
    receive_late(flow)
    (old,) = flow.derived()
    flow.run()
    sent(flow)
    (new,) = flow.derived().keys() - {old}
    assert f"takes the place of series {old}" in told(config, new)
    said = told(config, old)
    assert f"its place takes series {new}" in said
    assert "4 instances hold no longer: replaced by what job 2 derived" in said
    assert "4 had arrived at pacs: 4 without a rejection note (withdraw = true sends one)" in said
    assert "jobs: 0 waiting, 1 done, 0 refused, 0 withheld, 0 failed, 1 superseded" in "\n".join(status(config).lines())

    assert Withdrawer(flow.rooms, flow.pipeline).tell_all(5000.0) == 1
    assert "4 had arrived at pacs: it was told" in told(config, old)
    (ko,) = flow.derived().keys() - {old, new}
    assert "rejection note of ours: tells pacs of 4 derived instances" in told(config, ko)
    lines = "\n".join(status(config).lines())
    assert "replaced or rejected: 4 derived instances; 4 had been delivered, and rejection notes tell of 4" in lines


def test_what_was_rejected_is_told_everywhere(config: Config, flow: Flow) -> None:
    study = phantom()
    for dataset in study:
        flow.reception.receive(dataset, SCANNER)
    flow.run()
    sent(flow)
    flow.reception.receive(note(study, "113037"), SCANNER)
    Rejector(flow.rooms, lambda: flow.pipeline.routing).read_notes(5000.0)
    said = told(config, flow.received.series_instance_uid)
    assert "4 instances rejected by note 1.2.3.99.1 from ct1: Rejected for Patient Safety Reasons: 4 of 4" in said
    assert "4 of them had arrived at pacs" in said
    assert "rejection note, applied" in told(config, "1.2.3.99.1")
    (derived,) = flow.derived()
    assert "4 instances hold no longer: rejected by its sender or holder" in told(config, derived)


def test_a_note_that_counts_for_nothing_needs_attention(config: Config, flow: Flow) -> None:
    study = phantom()
    for dataset in study:
        flow.reception.receive(dataset, SCANNER)
    flow.reception.receive(note(study), Sender("pacs", "PACS", "DICOMNODE", "10.0.0.2", 2000.0))
    Rejector(flow.rooms, lambda: flow.pipeline.routing).read_notes(5000.0)
    (problem,) = [one for one in status(config).problems if one.kind == "rejection"]
    assert problem.about == "1.2.3.99.1"
    assert "4 are not its sender's to reject" in problem.reason
