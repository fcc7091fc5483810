"""`dicomnode why`: the whole story, by every name a person may have for it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dicomnode.core.types import AssociationEnd, Outcome, Sender
from dicomnode.errors import InputError, NotFoundError
from dicomnode.flow.closing import Closer
from dicomnode.operations.terminal import printable
from dicomnode.operations.why import Explanation, why
from dicomnode.store.schema import Instance, Outbox
from tests.flow.rooms import Flow, phantom
from tests.operations.sites import answer, index_of, site
from tests.store.receiving import SCANNER, ct_header, encoded


def text(told: Explanation) -> str:
    return "\n".join(told.lines())


def test_before_the_first_start_nothing_is_known(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        why(site(tmp_path), "1.2.3")


@pytest.mark.parametrize("subject", ["1.2.3.99", "", "A99", "no/such/file", "x" * 300, "\0", "%", "1.2.3' OR 1=1"])
def test_what_is_not_known_is_said_so(tmp_path: Path, subject: str) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        flow.receive([ct_header(1, AccessionNumber="")])
        with pytest.raises(NotFoundError) as caught:
            why(config, subject)
        assert caught.value.hint


def derived(flow: Flow) -> list[Instance]:
    return [row for row in flow.reception.rows(Instance) if row.origin == "derived"]


def test_one_story_by_every_name(tmp_path: Path) -> None:
    config = site(tmp_path)
    study = phantom()
    with index_of(config) as flow:
        flow.receive(study)
        flow.run()
        path = flow.reception.files.path(flow.reception.rows(Instance)[0].file)
        of_study = why(config, study[0].StudyInstanceUID)
        assert why(config, study[0].AccessionNumber).series == of_study.series
        assert [story.origin for story in of_study.series] == ["received", "derived"]
        of_series = why(config, study[0].SeriesInstanceUID)
        assert of_series.series == of_study.series[:1]
        of_instance = why(config, study[0].SOPInstanceUID)
        assert why(config, str(path)) == of_instance
        assert f"stored as {path.relative_to(config.node.data)}" in of_instance.series[0].arrival
        assert [story.origin for story in why(config, derived(flow)[0].sop_instance_uid).series] == ["derived"]


def test_the_story_of_a_received_series(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        row = flow.reception.intake.association_opened(SCANNER)
        study = phantom()
        for dataset in study:
            flow.reception.receive(dataset, association=row)
        flow.reception.intake.association_ended(row, AssociationEnd.RELEASED)
        assert Closer(flow.reception.database, lambda *_: None).judge_due(9e9) == 1
        flow.pipeline.plan(1, 1)
        flow.pipeline.enhance(1)
        flow.pipeline.derive(1)
        answer(flow, flow.reception.rows(Outbox)[0].id, Outcome.SENT, status=0)
        told = why(config, study[0].SeriesInstanceUID)
    (story,) = told.series
    assert any("4 instances" in line for line in story.arrival)
    assert "from SCANNER (scanner, 10.0.0.1) calling DICOMNODE" in story.arrival
    assert any("every association that carried it was released" in line for line in story.completeness)
    (job,) = story.jobs
    assert (job.engines, job.rules, job.state) == (("ct-nlm@1.0.0",), ("low-dose chest",), "derived")
    assert any("before the engine: ok" in gate for gate in job.gates)
    assert any("after the engine: ok" in gate and "HU" in gate for gate in job.gates)
    assert len(job.derived_series) == 1
    by_name = {delivery.destination: delivery for delivery in story.deliveries}
    assert (by_name["pacs"].sent, by_name["pacs"].waiting, by_name["pacs"].rules) == (1, 3, ("low-dose chest",))
    lines = text(told)
    assert "rule 'low-dose chest' matches" in lines
    assert "ok    BodyPartExamined: wanted CHEST, found CHEST" in lines
    assert f"derived series {job.derived_series[0]}" in lines
    (derived_to,) = job.derived_deliveries[job.derived_series[0]]
    assert (derived_to.destination, derived_to.sent, derived_to.waiting) == ("pacs", 0, 4)


def test_the_story_of_a_derived_series_names_its_source(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        flow.receive(phantom())
        flow.run()
        (story,) = why(config, derived(flow)[0].sop_instance_uid).series
        assert story.arrival[0] == f"derived by ct-nlm from series {flow.received.series_instance_uid}: 4 instances"
        assert [(delivery.destination, delivery.waiting) for delivery in story.deliveries] == [("pacs", 1)]


def test_of_one_instance_its_own_deliveries_are_told(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        flow.receive([ct_header(1), ct_header(2)])
        answer(flow, flow.reception.rows(Outbox)[0].id, Outcome.FAILED, "the data set does not match")
        (failed,) = why(config, "1.2.3.4.1").series[0].deliveries
        (waits,) = why(config, "1.2.3.4.2").series[0].deliveries
        (both,) = why(config, "1.2.3.4").series[0].deliveries
    assert (failed.failed, failed.waiting, failed.attempts) == (1, 0, 1)
    assert failed.troubles == ("failed (0xA900): the data set does not match; hint",)
    assert (waits.failed, waits.waiting) == (0, 1)
    assert (both.failed, both.waiting) == (1, 1)


def test_what_still_arrives_is_said_to(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        flow.receive([ct_header(1)])
        (story,) = why(config, "1.2.3.4").series
    assert story.completeness[0].startswith("still arriving; judged again at ")


def test_what_no_rule_matches_names_the_nearest_rule_and_the_clause(tmp_path: Path) -> None:
    config = site(tmp_path)
    study = phantom()
    for dataset in study:
        dataset.Modality = "OT"
    with index_of(config) as flow:
        flow.receive(study)
        flow.run()
        lines = text(why(config, study[0].SeriesInstanceUID))
    assert "unrouted: kept here, sent nowhere" in lines
    assert "fails Modality: wanted CT, found OT" in lines


def test_a_plan_that_could_not_be_made_is_told(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        flow.receive([ct_header(1)])
        flow.pipeline.fail_plan(*flow.close(), "the reader died")
        assert "no plan could be made: the reader died" in text(why(config, "1.2.3.4"))


def test_instances_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        flow.receive(phantom())
        instance = flow.reception.rows(Instance)[0]
        flow.reception.files.path(instance.file).write_bytes(b"damaged")
        flow.pipeline.plan(*flow.close())
        assert "1 instance not readable as images" in text(why(config, instance.sop_instance_uid))


def test_versions_that_were_replaced_are_told(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        flow.receive([ct_header(1), ct_header(1, PatientName="Doe^John")])
        (story,) = why(config, "1.2.3.4").series
        (of_instance,) = why(config, "1.2.3.4.1").series
    assert "1 older or returned version kept beside" in story.arrival
    assert sum(line.startswith("an older or returned version as objects/") for line in of_instance.arrival) == 1


def test_control_characters_of_data_never_reach_the_terminal(tmp_path: Path) -> None:
    config = site(tmp_path, rule=[{"name": "us", "match": {"BodyPartExamined": "CHEST"}, "send": ["pacs"]}])
    with index_of(config) as flow:
        study = phantom(1)
        hostile = encoded(study[0]).replace(b"CHEST ", b"\x1b[2J\x07 ")
        assert hostile != encoded(study[0])
        flow.reception.receive_bytes(study[0], hostile, Sender("", "EVIL\x1b[31m", "DICOMNODE", "", 1000.0))
        flow.run()
        told = why(config, study[0].SeriesInstanceUID)
        assert "[31m" in text(told)
        assert all(line.isprintable() for line in told.lines())
        json.dumps(told.to_json())


def test_printable_keeps_words_of_any_language() -> None:
    assert printable("Größe 大きさ \x1b[1m\n\u202e") == "Größe 大きさ ?[1m??"


def test_a_file_that_is_no_dicom_is_refused(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config), pytest.raises(InputError):
        why(config, str(tmp_path / "dicomnode.toml"))


def test_a_closed_series_that_only_came_back_is_not_said_to_arrive(tmp_path: Path) -> None:
    """A destination filed our instance under another series and sent it back: nothing follows from that."""
    config = site(tmp_path)
    pacs = Sender("pacs", "PACS", "DICOMNODE", "10.0.0.2", 2000.0)
    with index_of(config) as flow:
        flow.receive([ct_header(1)])
        answer(flow, flow.reception.rows(Outbox)[0].id, Outcome.SENT, status=0)
        flow.reception.receive(ct_header(1, SeriesInstanceUID="1.2.3.77"), pacs)
        (story,) = why(config, "1.2.3.77").series
    assert story.completeness == ("kept as it came back; nothing else follows",)


def test_what_the_loop_protection_kept_back_is_told(tmp_path: Path) -> None:
    """Once for each reason, with how many instances; of one instance, only its own."""
    config = site(tmp_path)
    pacs = Sender("pacs", "PACS", "DICOMNODE", "10.0.0.2", 2000.0)
    reason = "not to late: it came from its peer pacs, and no rule that names it says echo = true (rule 'keep')"
    with index_of(config) as flow:
        for number in (1, 2):
            flow.reception.receive(ct_header(number), pacs)
        told = why(config, "1.2.3.4")
        (one,) = why(config, "1.2.3.4.2").series
    assert told.series[0].kept_back == (f"2 instances kept back: {reason}",)
    assert f"  2 instances kept back: {reason}" in told.lines()
    assert one.kept_back == (f"1 instance kept back: {reason}",)


@pytest.mark.parametrize("attributes", [{}, {"PatientName": "Coerced^Name"}], ids=["same bytes", "other bytes"])
def test_what_came_back_is_told(tmp_path: Path, attributes: dict[str, str]) -> None:
    config = site(tmp_path)
    pacs = Sender("pacs", "PACS", "DICOMNODE", "10.0.0.2", 2000.0)
    with index_of(config) as flow:
        flow.receive([ct_header(1), ct_header(2)])
        answer(flow, flow.reception.rows(Outbox)[0].id, Outcome.SENT, status=0)
        for _ in range(2):
            flow.reception.receive(ct_header(1, **attributes), pacs)
        (story,) = why(config, "1.2.3.4").series
        (other,) = why(config, "1.2.3.4.2").series
    assert story.kept_back == ("1 instance kept back: round trip: late sent it back",)
    assert other.kept_back == ()


def test_one_is_said_as_one(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        flow.receive(phantom(1))
        flow.run()
        answer(flow, flow.reception.rows(Outbox)[0].id, Outcome.SENT, status=0)
        lines = text(why(config, phantom(1)[0].StudyInstanceUID))
    assert "1 instance from " in lines
    assert "in 1 attempt\n" in lines + "\n"
    assert not re.search(r"\b1 (instances|attempts|versions)\b", lines)
