"""Rejection notes that came: what they cancel, what they leave alone, and who may write them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from sqlalchemy import select, update

from dicomnode.core.routing import DestinationPolicy, PeerPolicy, Routing
from dicomnode.core.rules import RuleSpec
from dicomnode.core.types import RejectsPolicy, Sender
from dicomnode.errors import StoreError
from dicomnode.flow.rejecting import Rejector
from dicomnode.flow.withdrawing import Withdrawer
from dicomnode.store.index import proofs
from dicomnode.store.schema import (
    Instance,
    Outbox,
    RejectedInstance,
    Rejection,
    Series,
    StudyNeed,
    Withdrawal,
    WithdrawalNote,
)
from tests.flow.rooms import Flow, flowing, phantom
from tests.store.receiving import PACS, SCANNER, routing

VOLUME = RuleSpec("contrast", {"Modality": "CT"}, engines=("contrast-glcae",), send=("pacs",))
BY_SLICE = RuleSpec("denoise", {"Modality": "CT"}, engines=("ct-nlm",), send=("pacs",))
OTHER = Sender("workstation", "WORK", "DICOMNODE", "10.0.0.3", 3000.0)
STRANGER = replace(SCANNER, peer="")


def routes(*rules: RuleSpec, rejects: RejectsPolicy = RejectsPolicy.OWN, withdraw: bool = False) -> Routing:
    policies = {"pacs": DestinationPolicy(calling_ae="DICOMNODE", withdraw=withdraw)}
    peers = {name: PeerPolicy(rejects=rejects) for name in ("scanner", "pacs", "workstation")}
    return replace(routing(*rules, policies=policies), peers=peers)


@pytest.fixture(name="flow")
def _flow(tmp_path: Path) -> Iterator[Flow]:
    with flowing(tmp_path, routes(VOLUME)) as flow:
        yield flow


def code(value: str, scheme: str = "DCM") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "a title"
    return item


def note(rejected: Sequence[Dataset], title: str = "113001", number: int = 1) -> Dataset:
    """A rejection note as a scanner writes it."""
    references = []
    for one in rejected:
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
        references.append(reference)
    series, study, document = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID, series.ReferencedSOPSequence = rejected[0].SeriesInstanceUID, references
    study.StudyInstanceUID, study.ReferencedSeriesSequence = rejected[0].StudyInstanceUID, [series]
    document.SOPClassUID, document.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.59", f"1.2.3.99.{number}"
    document.StudyInstanceUID, document.SeriesInstanceUID = rejected[0].StudyInstanceUID, f"1.2.3.98.{number}"
    document.PatientID, document.Modality = rejected[0].PatientID, "KO"
    document.ConceptNameCodeSequence = [code(title)]
    document.CurrentRequestedProcedureEvidenceSequence = [study]
    items = []
    for reference in references:
        item = Dataset()
        item.RelationshipType, item.ValueType, item.ReferencedSOPSequence = "CONTAINS", "IMAGE", [reference]
        items.append(item)
    document.ContentSequence = items
    return document


def read(flow: Flow, now: float = 5000.0) -> int:
    return Rejector(flow.rooms, lambda: flow.pipeline.routing).read_notes(now)


def states(flow: Flow) -> list[str]:
    return [job.state for job in flow.jobs]


def outbox_states(flow: Flow, origin: str) -> set[str]:
    notes = {row.id for row in flow.reception.rows(Instance) if row.sop_class_uid.endswith("88.59")}
    rows = [row for row in flow.reception.rows(Outbox) if row.origin == origin and row.instance_row not in notes]
    return {row.state for row in rows}


def sent(flow: Flow) -> None:
    with flow.reception.database.write() as session:
        session.execute(update(Outbox).where(Outbox.state == "ready").values(state="sent"))


@pytest.mark.both_databases
def test_a_note_cancels_what_waits_and_what_is_to_be_computed(flow: Flow) -> None:
    study = phantom()
    flow.receive(study)
    ((job, _),) = flow.pipeline.plan(*flow.close())
    flow.reception.receive(note(study))
    assert read(flow) == 1
    assert states(flow) == ["cancelled"]
    assert "Rejected for Quality Reasons" in flow.jobs[0].reasons[0]
    assert outbox_states(flow, "received") == {"cancelled"}
    assert not flow.pipeline.enhance(job)
    flow.pipeline.derive(job)
    assert flow.derived() == {}
    assert read(flow) == 0, "once"
    assert flow.received.state == "closed", "nothing is left to be judged"


def test_the_note_itself_is_an_original_as_any_other(tmp_path: Path) -> None:
    everything = RuleSpec("all", {"Modality": "*"}, send=("pacs",))
    with flowing(tmp_path, routes(everything)) as flow:
        study = phantom()
        flow.receive(study)
        flow.reception.receive(note(study))
        read(flow)
        assert flow.reception.outbox()[-1] == ("pacs", "1.2.3.99.1", "ready")


def test_what_was_derived_is_not_sent_any_more(flow: Flow) -> None:
    study = phantom()
    flow.receive(study)
    flow.run()
    flow.reception.receive(note(study))
    read(flow)
    assert states(flow) == ["cancelled"]
    assert outbox_states(flow, "derived") == {"cancelled"}
    assert len(flow.reception.rows(Withdrawal)) == 4


def test_a_job_that_is_cancelled_while_it_derives_stores_nothing(flow: Flow) -> None:
    study = phantom()
    flow.receive(study)
    ((job, _),) = flow.pipeline.plan(*flow.close())
    flow.pipeline.enhance(job)
    build = flow.pixels.operations["derive_stack"]

    def rejected_meanwhile(**arguments: object) -> object:
        flow.reception.receive(note(study))
        read(flow)
        return build(**arguments)

    flow.pixels.operations = {**flow.pixels.operations, "derive_stack": rejected_meanwhile}  # type: ignore[dict-item]
    flow.pipeline.derive(job)
    assert states(flow) == ["cancelled"]
    assert flow.derived() == {}
    kept = {row.file for row in flow.reception.rows(Instance)}
    assert {path.stem for path in (flow.reception.folder / "objects").rglob("*.dcm")} == {
        Path(key).stem for key in kept
    }


def test_of_a_slice_wise_engine_only_what_was_made_of_the_rejected_slice_goes(tmp_path: Path) -> None:
    with flowing(tmp_path, routes(BY_SLICE)) as flow:
        study = phantom()
        flow.receive(study)
        flow.run()
        flow.reception.receive(note(study[1:2]))
        read(flow)
        assert states(flow) == ["derived"]
        assert sorted(row.state for row in flow.derived_outbox()) == ["cancelled", "ready", "ready", "ready"]


@pytest.mark.both_databases
def test_what_is_left_of_a_series_is_judged_and_planned_again(flow: Flow) -> None:
    study = phantom(5)
    flow.receive(study)
    flow.run()
    flow.reception.receive(note(study[4:]))
    read(flow)
    assert flow.received.state == "receiving"
    flow.run()
    assert states(flow) == ["cancelled", "derived"]
    assert flow.jobs[1].instance_rows == [1, 2, 3, 4]
    assert sorted(row.state for row in flow.derived_outbox()) == ["cancelled"] * 5 + ["ready"] * 4


@pytest.mark.parametrize("title", ["113037", "113038"])
def test_other_reasons_reject_as_well(flow: Flow, title: str) -> None:
    study = phantom()
    flow.receive(study)
    flow.pipeline.plan(*flow.close())
    flow.reception.receive(note(study, title))
    read(flow)
    assert states(flow) == ["cancelled"]


def test_an_archive_whose_time_is_over_cancels_nothing(flow: Flow) -> None:
    study = phantom()
    flow.receive(study)
    flow.run()
    flow.reception.receive(note(study, "113039"))
    read(flow)
    assert states(flow) == ["derived"]
    assert outbox_states(flow, "received") == outbox_states(flow, "derived") == {"ready"}
    (rejection,) = flow.reception.rows(Rejection)
    assert (rejection.state, rejection.title) == ("noted", "113039")
    flow.run()
    assert flow.jobs[-1].instance_rows == [1, 2, 3, 4], "what comes later is handled as ever"


def test_key_images_of_another_kind_are_forgotten(flow: Flow) -> None:
    study = phantom()
    flow.receive(study)
    flow.reception.receive(note(study, "113000"))
    other_scheme = note(study, number=2)
    other_scheme.ConceptNameCodeSequence = [code("113001", "99ELSE")]
    flow.reception.receive(other_scheme)
    assert read(flow) == 0
    assert flow.reception.rows(Rejection) == []


@pytest.mark.parametrize(
    ("sender", "rejects", "state"),
    [
        (SCANNER, RejectsPolicy.OWN, "cancelled"),
        (SCANNER, RejectsPolicy.NONE, "planned"),
        (OTHER, RejectsPolicy.OWN, "planned"),
        (OTHER, RejectsPolicy.ANY, "cancelled"),
        (STRANGER, RejectsPolicy.ANY, "planned"),
    ],
)
def test_nobody_rejects_what_is_not_theirs(tmp_path: Path, sender: Sender, rejects: RejectsPolicy, state: str) -> None:
    with flowing(tmp_path, routes(VOLUME, rejects=rejects)) as flow:
        study = phantom()
        flow.receive(study)
        flow.pipeline.plan(*flow.close())
        flow.reception.receive(note(study), sender)
        read(flow)
        assert states(flow) == [state]
        (rejection,) = flow.reception.rows(Rejection)
        assert rejection.state == ("applied" if state == "cancelled" else "ignored")
        assert (flow.reception.rows(RejectedInstance) != []) == (state == "cancelled")


def test_sending_other_bytes_under_a_uid_gives_no_right_to_reject_it(flow: Flow) -> None:
    study = phantom()
    flow.receive(study)
    for dataset in study:
        dataset.PatientName = "Mine^Now"
        flow.reception.receive(dataset, OTHER)
    flow.reception.receive(note(study), OTHER)
    read(flow)
    assert flow.reception.rows(RejectedInstance) == []


@pytest.mark.both_databases
def test_an_archive_may_reject_what_was_delivered_to_it(flow: Flow) -> None:
    study = phantom()
    flow.receive(study)
    flow.run()
    flow.reception.receive(note(study), PACS)
    read(flow)
    assert flow.reception.rows(RejectedInstance) == [], "nothing is there yet"
    sent(flow)
    flow.reception.receive(note(study, number=2), PACS)
    read(flow)
    assert states(flow) == ["cancelled"]


def test_a_note_of_ours_follows_where_what_was_derived_had_arrived(tmp_path: Path) -> None:
    with flowing(tmp_path, routes(VOLUME, withdraw=True)) as flow:
        study = phantom()
        flow.receive(study)
        flow.run()
        sent(flow)
        flow.reception.receive(note(study, "113037"))
        read(flow)
        assert Withdrawer(flow.rooms, flow.pipeline).tell_all(5001.0) == 1
        row = flow.reception.rows(WithdrawalNote)[0]
        (instance,) = [one for one in flow.reception.rows(Instance) if one.id == row.note_row]
        ours = dcmread(flow.reception.files.path(instance.file))
        assert ours.ConceptNameCodeSequence[0].CodeValue == "113037", "the reason is theirs"
        assert instance.derived_by_us


@pytest.mark.both_databases
def test_who_rejects_what_we_derived_is_not_told_so_by_us(tmp_path: Path) -> None:
    with flowing(tmp_path, routes(VOLUME, withdraw=True)) as flow:
        flow.receive(phantom())
        flow.run()
        sent(flow)
        files = [row.file for row in flow.reception.rows(Instance) if row.origin == "derived"]
        derived = [dcmread(flow.reception.files.path(file)) for file in files]
        flow.reception.receive(note(derived), PACS)
        read(flow)
        assert len(flow.reception.rows(Withdrawal)) == 4
        assert Withdrawer(flow.rooms, flow.pipeline).tell_all(5001.0) == 0
        flow.run()
        assert outbox_states(flow, "derived") == {"sent"}, "and it does not come back"


@pytest.mark.both_databases
def test_what_waits_for_another_series_is_not_made_of_rejected_images(tmp_path: Path) -> None:
    needs = {"thin": {"SeriesDescription": "thin"}, "thick": {"SeriesDescription": "thick"}}
    both = RuleSpec("both", {"Modality": "CT"}, needs=needs, engines=("ct-nlm",), send=("pacs",))
    study = phantom()
    for dataset in study:
        dataset.SeriesDescription = "thin"
    with flowing(tmp_path, routes(both)) as flow:
        flow.receive(study)
        flow.pipeline.plan(*flow.close())
        flow.reception.receive(note(study[:1]))
        read(flow)
        (need,) = flow.reception.rows(StudyNeed)
        assert (need.met, flow.received.state) == ({}, "receiving")
        flow.pipeline.plan(*flow.close())
        (need,) = flow.reception.rows(StudyNeed)
        assert need.met["thin"]["instance_rows"] == [2, 3, 4]
        flow.reception.receive(note(study, number=2))
        read(flow)
        (need,) = flow.reception.rows(StudyNeed)
        assert (need.met, need.state) == ({}, "waiting")


def test_a_note_that_cannot_be_read_is_ignored_and_said_so(flow: Flow) -> None:
    study = phantom()
    flow.receive(study)
    flow.reception.receive(note(study))
    (instance,) = [row for row in flow.reception.rows(Instance) if row.sop_class_uid.endswith("88.59")]
    flow.reception.files.path(instance.file).write_bytes(b"no DICOM")
    read(flow)
    (rejection,) = flow.reception.rows(Rejection)
    assert rejection.state == "ignored"
    assert "cannot be read" in rejection.reason


def test_a_note_is_read_once_the_store_answers_again(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    study = phantom()
    flow.receive(study)
    flow.reception.receive(note(study))

    def away(_: Collection[str]) -> None:
        raise StoreError("the bucket failed")

    with monkeypatch.context() as patched:
        patched.setattr(flow.reception.files, "bring", away)
        read(flow)
    assert [one.state for one in flow.reception.rows(Rejection)] == ["unread"]
    read(flow)
    assert [one.state for one in flow.reception.rows(Rejection)] == ["applied"]


def test_a_note_on_what_is_not_known_changes_nothing(flow: Flow) -> None:
    flow.reception.receive(note(phantom()))
    read(flow)
    (rejection,) = flow.reception.rows(Rejection)
    assert rejection.state == "ignored"
    assert "4 are not known here" in rejection.reason
    assert [series.state for series in flow.reception.rows(Series)] == ["receiving"]


def test_what_holds_no_longer_is_not_asked_after(flow: Flow) -> None:
    """An archive that hides what was rejected would otherwise be sent it again, for it seems to lack it."""
    study = phantom()
    flow.receive(study)
    flow.run()
    sent(flow)
    with flow.reception.database.write() as session:
        proofs.begin(session, session.scalars(select(Outbox)).all(), 4000.0)
    assert unproved(flow, 4000.0) == 8
    flow.reception.receive(note(study))
    read(flow)
    assert unproved(flow, 4002.0) == 0


def unproved(flow: Flow, now: float) -> int:
    with flow.reception.database.write() as session:
        return sum(len(case.unproved) for case in proofs.claim(session, "pacs", now, now + 1.0, 10))


def test_what_a_person_cancelled_stays_so(tmp_path: Path) -> None:
    with flowing(tmp_path, routes(BY_SLICE)) as flow:
        study = phantom(5)
        flow.receive(study[:4])
        flow.run()
        with flow.reception.database.write() as session:
            session.execute(update(Outbox).values(state="cancelled", reason="cancelled by a person"))
        flow.receive(study[4:])
        flow.run()
        assert sorted(row.state for row in flow.derived_outbox()) == ["cancelled"] * 4 + ["ready"]
