"""Slices that come late, versions that change, and what is replaced: jobs, derived series, deliveries, notes."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from sqlalchemy import update

from dicomnode.core.routing import DestinationPolicy, Routing
from dicomnode.core.rules import RuleSpec
from dicomnode.core.types import LatePolicy
from dicomnode.core.withholding import NEVER
from dicomnode.errors import InputError
from dicomnode.flow.withdrawing import Withdrawer
from dicomnode.store.index import purges
from dicomnode.store.schema import Instance, Job, Outbox, Series, Withdrawal, WithdrawalNote
from tests.flow.rooms import Flow, Killed, flowing, kill_at, phantom
from tests.store.receiving import WAITS, routing

BY_SLICE = RuleSpec("denoise", {"Modality": "CT"}, engines=("ct-nlm",), send=("pacs",))
VOLUME = RuleSpec("contrast", {"Modality": "CT"}, engines=("contrast-glcae",), send=("pacs",))


def routes(*rules: RuleSpec, late: LatePolicy = LatePolicy.SUPERSEDE, withdraw: bool = False) -> Routing:
    policies = {"pacs": DestinationPolicy(calling_ae="DICOMNODE", withdraw=withdraw)}
    return routing(*rules, policies=policies, waits=replace(WAITS, late=late))


@pytest.fixture(name="volume")
def _volume(tmp_path: Path) -> Iterator[Flow]:
    with flowing(tmp_path, routes(VOLUME)) as flow:
        yield flow


@pytest.fixture(name="by_slice")
def _by_slice(tmp_path: Path) -> Iterator[Flow]:
    with flowing(tmp_path, routes(BY_SLICE)) as flow:
        yield flow


def sent(flow: Flow) -> None:
    """All that waits arrives."""
    with flow.reception.database.write() as session:
        session.execute(update(Outbox).where(Outbox.state == "ready").values(state="sent"))


def late_slice(flow: Flow, *, arrived: bool = False) -> dict[str, list[str]]:
    """Four slices, then a fifth; what was derived of the four, and had `arrived` when the fifth came or had not."""
    study = phantom(5)
    flow.receive(study[:4])
    flow.run()
    before = flow.derived()
    if arrived:
        sent(flow)
    flow.receive(study[4:])
    flow.run()
    return before


def replaced_and_sent(flow: Flow) -> str:
    """A late slice has replaced what a volume engine made, and all of it has arrived; the old series."""
    (old,) = late_slice(flow, arrived=True)
    sent(flow)
    return old


def deliveries(flow: Flow) -> dict[str, str]:
    """State of each derived delivery by SOP Instance UID."""
    uids = {row.id: row.sop_instance_uid for row in flow.reception.rows(Instance)}
    return {uids[row.instance_row]: row.state for row in flow.derived_outbox()}


def states(flow: Flow) -> list[str]:
    return [job.state for job in flow.jobs]


def images(flow: Flow, uids: list[str]) -> list[Dataset]:
    files = {row.sop_instance_uid: row.file for row in flow.reception.rows(Instance)}
    return [dcmread(flow.reception.files.path(files[uid])) for uid in uids]


def renamed(datasets: list[Dataset]) -> list[Dataset]:
    corrected = deepcopy(datasets)
    for dataset in corrected:
        dataset.PatientName = "Corrected^Name"
    return corrected


def darker(dataset: Dataset) -> Dataset:
    changed = deepcopy(dataset)
    pixels = changed.pixel_array.copy()
    pixels[60:64, 60:64] -= 20
    changed.PixelData = pixels.tobytes()
    return changed


def test_a_late_slice_adds_an_object_to_what_a_slice_wise_engine_made(by_slice: Flow) -> None:
    before = late_slice(by_slice)
    ((series, uids),) = by_slice.derived().items()
    assert set(before[series]) < set(uids)
    assert len(uids) == 5
    assert states(by_slice) == ["derived", "derived"]
    assert (by_slice.jobs[1].supersedes, by_slice.jobs[0].superseded_by) == (1, 2)
    assert by_slice.reception.rows(Withdrawal) == []
    assert set(deliveries(by_slice).values()) == {"ready"}


@pytest.mark.both_databases
def test_a_late_slice_gives_a_volume_engine_a_new_series_that_names_the_one_it_replaces(volume: Flow) -> None:
    (old,) = late_slice(volume)
    derived = volume.derived()
    (new,) = derived.keys() - {old}
    assert states(volume) == ["superseded", "derived"]
    first, second = volume.jobs
    assert (first.superseded_by, second.supersedes) == (second.id, first.id)
    assert {deliveries(volume)[uid] for uid in derived[old]} == {"cancelled"}
    assert {deliveries(volume)[uid] for uid in derived[new]} == {"ready"}
    assert all("replaced" in (row.reason or "") for row in volume.derived_outbox() if row.state == "cancelled")
    for image in images(volume, derived[new]):
        (related,) = [item for item in image.RelatedSeriesSequence if item.SeriesInstanceUID == old]
        assert related.PurposeOfReferenceCodeSequence[0].CodeValue == "REPLACED"
        assert f"Replaces series {old}." in image.DerivationDescription


def test_what_had_arrived_stays_sent_and_is_marked(volume: Flow) -> None:
    (old,) = late_slice(volume, arrived=True)
    assert {deliveries(volume)[uid] for uid in volume.derived()[old]} == {"sent"}
    assert len(volume.reception.rows(Withdrawal)) == 4


@pytest.mark.parametrize("point", ["derive.after_build", "derive.before_commit", "derive.after_commit"])
def test_what_is_killed_while_it_replaces_ends_as_if_it_were_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    study = phantom(5)
    with flowing(tmp_path, routes(VOLUME)) as flow:
        flow.receive(study[:4])
        flow.run()
        flow.receive(study[4:])
        closed = flow.close()
        ((job_row, _),) = flow.pipeline.plan(*closed)
        flow.pipeline.enhance(job_row)
        kill_at(monkeypatch, point)
        with pytest.raises(Killed):
            flow.pipeline.derive(job_row)
        flow.pipeline.derive(job_row)
        assert states(flow) == ["superseded", "derived"]
        assert len(flow.reception.rows(Withdrawal)) == 4
        assert sorted(deliveries(flow).values()) == ["cancelled"] * 4 + ["ready"] * 5


def test_a_job_that_has_not_derived_is_superseded_at_once(volume: Flow) -> None:
    study = phantom(5)
    volume.receive(study[:4])
    ((first, _),) = volume.pipeline.plan(*volume.close())
    volume.pipeline.enhance(first)
    volume.receive(study[4:])
    ((second, _),) = volume.pipeline.plan(*volume.close())
    assert states(volume) == ["superseded", "planned"]
    volume.pipeline.derive(first)
    assert volume.derived() == {}
    assert volume.pipeline.enhance(second)
    volume.pipeline.derive(second)
    assert states(volume) == ["superseded", "derived"]
    assert list((volume.reception.folder / "results").iterdir()) == []


def test_a_job_that_is_superseded_while_it_computes_keeps_no_result(volume: Flow) -> None:
    volume.receive(phantom())
    ((row, _),) = volume.pipeline.plan(*volume.close())
    ran = volume.engines.operations["run_chain"]

    def superseded_meanwhile(**arguments: object) -> object:
        with volume.reception.database.write() as session:
            session.execute(update(Job).values(state="superseded"))
        return ran(**arguments)

    volume.engines.operations = {**volume.engines.operations, "run_chain": superseded_meanwhile}  # type: ignore[dict-item]
    assert not volume.pipeline.enhance(row)
    assert states(volume) == ["superseded"]
    assert list((volume.reception.folder / "results").iterdir()) == []


def test_what_is_ignored_changes_nothing_derived(tmp_path: Path) -> None:
    with flowing(tmp_path, routes(VOLUME, late=LatePolicy.IGNORE)) as flow:
        study = phantom(5)
        flow.receive(study[:4])
        flow.run()
        before = flow.derived()
        flow.receive(study[4:])
        assert flow.received.state == "closed"
        flow.run()  # for another reason, such as changed rules
        assert flow.derived() == before
        assert flow.jobs[-1].instance_rows == [1, 2, 3, 4]


@pytest.mark.both_databases
@pytest.mark.parametrize("rule", [VOLUME, BY_SLICE])
def test_what_is_separate_is_a_group_of_its_own(tmp_path: Path, rule: RuleSpec) -> None:
    with flowing(tmp_path, routes(rule, late=LatePolicy.SEPARATE)) as flow:
        study = phantom(8)
        flow.receive(study[:4])
        flow.run()
        before = flow.derived()
        flow.receive(study[4:])
        flow.run()
        after = flow.derived()
        (new,) = after.keys() - before.keys()
        assert {uid: after[uid] for uid in before} == before
        assert len(after[new]) == 4
        assert flow.reception.rows(Withdrawal) == []
        assert states(flow) == ["derived"] * 3
        rows = [row.id for row in flow.reception.rows(Instance) if row.origin == "received"]
        assert sorted(row for job in flow.jobs[1:] for row in job.instance_rows) == rows
        assert flow.engines.counts["run_chain"] == 2, "the series itself has not changed"


def test_the_same_late_slices_give_the_same_series_wherever_they_come(tmp_path: Path) -> None:
    found = []
    for folder in ("one", "other"):
        with flowing(tmp_path / folder, routes(BY_SLICE, late=LatePolicy.SEPARATE)) as flow:
            study = phantom(8)
            flow.receive(study[:4])
            flow.run()
            if folder == "other":
                flow.run()  # closed once more, for no reason
            flow.receive(list(reversed(study[4:])) if folder == "other" else study[4:])
            flow.run()
            found.append(sorted((series, sorted(uids)) for series, uids in flow.derived().items()))
    assert found[0] == found[1]


def test_a_corrected_name_derives_nothing_new_and_computes_nothing(volume: Flow) -> None:
    study = phantom()
    volume.receive(study)
    volume.run()
    before = volume.derived()
    volume.receive(renamed(study))
    volume.run()
    assert volume.derived() == before
    assert states(volume) == ["derived", "derived"]
    assert "as it was" in volume.jobs[1].reasons[0]
    assert volume.engines.counts["run_chain"] == 1
    assert len(volume.derived_outbox()) == 4
    volume.receive(renamed(renamed(study)))
    volume.run()
    assert volume.engines.counts["run_chain"] == 1


def test_a_resend_in_another_transfer_syntax_derives_nothing_new(volume: Flow) -> None:
    """What is received is announced as Explicit VR Little Endian here: the words of private elements differ instead."""
    study = phantom()
    volume.receive(study)
    volume.run()
    for dataset in study:
        dataset.StudyDescription = "re-described"
        dataset.add_new((0x0009, 0x0010), "LO", "VENDOR")
    volume.receive(study)
    volume.run()
    assert len(volume.derived()) == 1
    assert volume.engines.counts["run_chain"] == 1


@pytest.mark.both_databases
def test_changed_pixels_under_the_same_uid_replace_what_was_derived_of_them(by_slice: Flow) -> None:
    study = phantom()
    by_slice.receive(study)
    by_slice.run()
    ((series, before),) = by_slice.derived().items()
    by_slice.receive([darker(study[1])])
    by_slice.run()
    after = by_slice.derived()[series]
    (new,) = set(after) - set(before)
    (gone,) = [uid for uid, state in deliveries(by_slice).items() if state == "cancelled"]
    assert gone in before
    assert deliveries(by_slice)[new] == "ready"
    assert len(after) == 5
    assert len(by_slice.reception.rows(Withdrawal)) == 1


@pytest.mark.both_databases
def test_what_comes_back_as_it_was_holds_again(volume: Flow) -> None:
    study = phantom()
    volume.receive(study)
    volume.run()
    (old,) = volume.derived()
    volume.receive([darker(study[1])])
    volume.run()
    volume.receive([study[1]])
    volume.run()
    derived = volume.derived()
    assert len(derived) == 2
    assert {deliveries(volume)[uid] for uid in derived.pop(old)} == {"ready"}
    ((_, others),) = derived.items()
    assert {deliveries(volume)[uid] for uid in others} == {"cancelled"}
    assert len(volume.reception.rows(Withdrawal)) == 4


def test_what_holds_again_after_commissioning_is_sent_as_what_is_new(volume: Flow) -> None:
    study = phantom()
    volume.pipeline.routing = replace(routes(VOLUME), commissioning=True)
    volume.receive(study)
    volume.run()
    assert {row.next_attempt_at for row in volume.derived_outbox()} == {NEVER}
    volume.pipeline.routing = routes(VOLUME)
    with volume.reception.database.write() as session:
        session.execute(update(Outbox).values(created_at=1.0))
    volume.receive([darker(study[1])])
    volume.run()
    volume.receive([study[1]])
    volume.run()
    waiting = [row for row in volume.derived_outbox() if row.state == "ready"]
    assert len(waiting) == 4
    assert all(row.next_attempt_at < NEVER for row in waiting)
    assert all(row.created_at > 1.0 for row in waiting), "else it is given up before it was tried"


def test_slices_that_a_corrected_attribute_moves_to_another_stack_replace_what_was_derived(volume: Flow) -> None:
    study = phantom()
    volume.receive(study)
    volume.run()
    (old,) = volume.derived()
    corrected = deepcopy(study)
    for dataset in corrected:
        dataset.PixelSpacing = [1.3, 1.3]
    volume.receive(corrected)
    volume.run()
    assert states(volume) == ["superseded", "derived"]
    assert {deliveries(volume)[uid] for uid in volume.derived()[old]} == {"cancelled"}


def test_another_rule_on_the_same_stack_replaces_nothing(tmp_path: Path) -> None:
    with flowing(tmp_path, routes(BY_SLICE)) as flow:
        flow.receive(phantom())
        flow.run()
        stronger = replace(BY_SLICE, settings={"ct-nlm": {"strength": 0.9}})
        flow.pipeline.routing = routes(stronger)
        flow.run()
        assert states(flow) == ["derived", "derived"]
        assert len(flow.derived()) == 2
        assert flow.reception.rows(Withdrawal) == []


def withdrawer(flow: Flow) -> Withdrawer:
    return Withdrawer(flow.rooms, flow.pipeline)


@pytest.mark.both_databases
def test_a_note_follows_when_the_new_series_has_arrived(tmp_path: Path) -> None:
    with flowing(tmp_path, routes(VOLUME, withdraw=True)) as flow:
        (old,) = late_slice(flow, arrived=True)
        tell = withdrawer(flow)
        assert tell.tell_all(5000.0) == 0, "the new images are not there yet: nothing may hide the old ones"
        sent(flow)
        assert tell.tell_all(5001.0) == 1
        assert tell.tell_all(5002.0) == 0
        assert [row.destination for row in flow.reception.rows(WithdrawalNote)] == ["pacs"] * 4
        note_row = flow.reception.rows(WithdrawalNote)[0].note_row
        (delivery,) = [row for row in flow.derived_outbox() if row.instance_row == note_row]
        assert (delivery.destination, delivery.state) == ("pacs", "ready")
        (instance,) = [row for row in flow.reception.rows(Instance) if row.id == note_row]
        note = dcmread(flow.reception.files.path(instance.file))
        assert note.ConceptNameCodeSequence[0].CodeValue == "113001"
        (series,) = note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        assert series.SeriesInstanceUID == old
        listed = {item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence}
        assert listed == set(flow.derived()[old])


def test_no_note_goes_where_nobody_asked_for_it(tmp_path: Path) -> None:
    with flowing(tmp_path, routes(VOLUME)) as flow:
        replaced_and_sent(flow)
        assert withdrawer(flow).tell_all(5000.0) == 0


def test_no_note_goes_where_the_old_images_never_were(tmp_path: Path) -> None:
    with flowing(tmp_path, routes(VOLUME, withdraw=True)) as flow:
        late_slice(flow)
        sent(flow)
        assert withdrawer(flow).tell_all(5000.0) == 0


def test_a_note_is_written_though_what_it_withdraws_has_been_deleted_here(tmp_path: Path) -> None:
    with flowing(tmp_path, routes(VOLUME, withdraw=True)) as flow:
        old = replaced_and_sent(flow)
        for image in images(flow, flow.derived()[old]):
            Path(image.filename).unlink()
        assert withdrawer(flow).tell_all(5000.0) == 1


def test_a_note_that_cannot_be_written_is_tried_again_later(tmp_path: Path) -> None:
    with flowing(tmp_path, routes(VOLUME, withdraw=True)) as flow:
        replaced_and_sent(flow)
        write = flow.pixels.operations["write_rejection"]

        def broken(**_: object) -> object:
            raise InputError("no", "hint")

        flow.pixels.operations = {**flow.pixels.operations, "write_rejection": broken}  # type: ignore[dict-item]
        tell = withdrawer(flow)
        assert tell.tell_all(5000.0) == tell.tell_all(5001.0) == 0
        assert flow.pixels.counts["write_rejection"] == 1
        flow.pixels.operations = {**flow.pixels.operations, "write_rejection": write}
        assert tell.tell_all(6000.0) == 1


def test_what_nobody_is_to_be_told_of_is_settled_after_a_while(tmp_path: Path) -> None:
    with flowing(tmp_path, routes(VOLUME)) as flow:
        replaced_and_sent(flow)
        (at, *_) = {row.at for row in flow.reception.rows(Withdrawal)}
        withdrawer(flow).tell_all(at + 10.0)
        assert not any(row.settled for row in flow.reception.rows(Withdrawal)), "one may still be under way"
        withdrawer(flow).tell_all(at + 4000.0)
        assert all(row.settled for row in flow.reception.rows(Withdrawal))
        flow.pipeline.routing = routes(VOLUME, withdraw=True)
        assert withdrawer(flow).tell_all(at + 4001.0) == 0, "whoever wants it now hears of what comes now"


def test_what_waits_for_its_replacement_is_not_settled(tmp_path: Path) -> None:
    with flowing(tmp_path, routes(VOLUME, withdraw=True)) as flow:
        late_slice(flow, arrived=True)
        at = flow.reception.rows(Withdrawal)[0].at
        tell = withdrawer(flow)
        assert tell.tell_all(at + 9000.0) == 0
        sent(flow)
        assert tell.tell_all(at + 9001.0) == 1


def test_a_job_that_was_refused_needs_no_attention_once_a_late_slice_has_cured_it(by_slice: Flow) -> None:
    study = phantom(5)
    for dataset in study:
        dataset.PixelSpacing = [3, 3]
    by_slice.receive(study[:4])
    by_slice.run()
    assert states(by_slice) == ["refused"]
    for dataset in study:
        dataset.PixelSpacing = [1.4, 1.4]
    by_slice.receive(study)
    by_slice.run()
    assert states(by_slice) == ["superseded", "derived"]
    assert "spacing" in by_slice.jobs[0].reasons[0]
    assert "could do it" in by_slice.jobs[0].reasons[-1]


def test_what_holds_no_longer_keeps_nothing_from_being_deleted(volume: Flow) -> None:
    late_slice(volume)
    old, new = [series for series in volume.reception.rows(Series) if series.origin == "derived"]
    with volume.reception.database.read() as session:
        kept = [purges.holdings(session, series) for series in (old, new)]
    assert [(one.in_progress, one.unconfirmed, one.unrouted) for one in kept] == [(False, 0, 0), (True, 0, 5)]
