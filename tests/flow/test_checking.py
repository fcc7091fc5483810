"""Derived objects wait until their destination was asked about patient and study; on both databases."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from pydicom import Dataset
from pynetdicom import evt
from sqlalchemy import update

from dicomnode.core.routing import DestinationPolicy
from dicomnode.core.withholding import NOT_CHECKED
from dicomnode.errors import StoreError
from dicomnode.flow.checking import Checker, CheckRoute
from dicomnode.flow.following import Following
from dicomnode.net.scu import Opening, Timeouts
from dicomnode.store.schema import Outbox, OutboxState, PatientCheck, Series
from tests.flow.archive import Archive, running
from tests.flow.rooms import DENOISE, Flow, flowing, phantom
from tests.store.receiving import routing

QUICK = Opening(Timeouts(connect_s=2, associate_s=2, response_s=2))
ASKED = {"pacs": DestinationPolicy(calling_ae="DICOMNODE", check_patient="yes")}


class Clock:
    """A clock that tests put forward."""

    def __init__(self, flow: Flow) -> None:
        self.now = max(row.created_at for row in flow.derived_outbox()) + 1.0

    def __call__(self) -> float:
        return self.now


def study() -> list[Dataset]:
    slices = phantom(3)
    for one in slices:
        one.PatientID, one.PatientName, one.AccessionNumber = "P1", "Doe^Jane", "A1"
    return slices


def another() -> list[Dataset]:
    """A second study."""
    slices = study()
    for number, one in enumerate(slices, 1):
        one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID = "1.9.1", "1.9.1.1", f"1.9.1.1.{number}"
    return slices


@contextmanager
def waiting(folder: Path, *, originals_arrived: bool = True) -> Iterator[Flow]:
    """A derived series that waits to be compared with what the destination has."""
    with flowing(folder, routing(DENOISE, policies=ASKED)) as flow:
        flow.receive(study())
        flow.run()
        if originals_arrived:
            arrive(flow)
        yield flow


def arrive(flow: Flow, at: float = 1.0) -> None:
    with flow.reception.database.write() as session:
        session.execute(
            update(Outbox).where(Outbox.origin == "received").values(state=OutboxState.SENT.value, finished_at=at)
        )


def checker(flow: Flow, archive: Archive, clock: Clock, *, if_possible: bool = False) -> Checker:
    route = CheckRoute("pacs", archive.address, "DICOMNODE", if_possible, QUICK)
    return Checker(flow.reception.database, flow.reception.files, route, clock)


def states(flow: Flow) -> set[tuple[str, str | None]]:
    return {(row.state, row.reason) for row in flow.derived_outbox()}


@pytest.mark.both_databases
def test_what_is_the_same_there_leaves(tmp_path: Path) -> None:
    with waiting(tmp_path) as flow, running(Archive(study())) as archive:
        assert states(flow) == {("withheld", NOT_CHECKED)}
        clock = Clock(flow)
        checking = checker(flow, archive, clock)
        assert checking.check() == 1
        assert states(flow) == {("ready", None)}
        assert {row.created_at for row in flow.derived_outbox()} == {clock.now}, "its patience begins now"
        assert checking.check() == 0
        (told,) = flow.reception.rows(PatientCheck)
        assert (told.outcome, told.differences) == ("same", [])


@pytest.mark.both_databases
def test_what_was_corrected_there_is_kept_back_with_the_reason(tmp_path: Path) -> None:
    corrected = study()
    for one in corrected:
        one.PatientName, one.AccessionNumber = "DOE^JANET", "A1 "
    with waiting(tmp_path) as flow, running(Archive(corrected)) as archive:
        checker(flow, archive, Clock(flow)).check()
        assert states(flow) == {("withheld", "patient or study differs there: PatientName")}
        (told,) = flow.reception.rows(PatientCheck)
        assert told.differences == [{"keyword": "PatientName", "ours": "Doe^Jane", "theirs": "DOE^JANET"}]


def test_it_is_asked_only_once_the_originals_have_arrived(tmp_path: Path) -> None:
    with waiting(tmp_path, originals_arrived=False) as flow, running(Archive(study())) as archive:
        clock = Clock(flow)
        checking = checker(flow, archive, clock)
        assert checking.check() == 0
        arrive(flow)
        assert checking.check() == 1


def test_a_study_that_is_not_found_is_asked_for_again_and_kept_back_at_last(tmp_path: Path) -> None:
    with waiting(tmp_path) as flow, running(Archive([])) as archive:
        clock = Clock(flow)
        checking = checker(flow, archive, clock)
        assert checking.check() == 1
        assert states(flow) == {("withheld", NOT_CHECKED)}
        assert checking.check() == 0, "not at once"
        clock.now += 31.0
        archive.instances.extend(study())
        assert checking.check() == 1
        assert states(flow) == {("ready", None)}
    with waiting(tmp_path / "never") as flow, running(Archive([])) as archive:
        clock = Clock(flow)
        clock.now += 901.0
        checker(flow, archive, clock).check()
        assert states(flow) == {("withheld", "patient or study differs there: StudyInstanceUID")}


@pytest.mark.both_databases
def test_an_archive_has_time_to_index_what_arrived_late(tmp_path: Path) -> None:
    with waiting(tmp_path, originals_arrived=False) as flow, running(Archive([])) as archive:
        clock = Clock(flow)
        clock.now += 2000.0
        arrive(flow, at=clock.now - 10.0)
        assert checker(flow, archive, clock).check() == 1
        assert states(flow) == {("withheld", NOT_CHECKED)}


def test_a_query_that_fails_keeps_no_other_study_waiting(tmp_path: Path) -> None:
    class Choosy(Archive):
        def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
            if event.identifier.StudyInstanceUID == study()[0].StudyInstanceUID:
                yield 0xC000, None
            else:
                yield from super().find(event)

    with waiting(tmp_path) as flow, running(Choosy(other := another())) as archive:
        flow.receive(other)
        row = max(series.id for series in flow.reception.rows(Series))
        with flow.reception.database.write() as session:
            session.execute(update(Series).where(Series.id == row).values(state="closed", generation=1, due_at=None))
        for job, _ in flow.pipeline.plan(row, 1):
            assert flow.pipeline.enhance(job)
            flow.pipeline.derive(job)
        arrive(flow)
        assert checker(flow, archive, Clock(flow)).check() == 2
        assert states(flow) == {("withheld", NOT_CHECKED), ("ready", None)}


def test_a_file_that_cannot_be_read_now_is_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: Collection[str]) -> None:
        raise StoreError("the bucket failed")

    with waiting(tmp_path) as flow, running(Archive(study())) as archive:
        clock = Clock(flow)
        with monkeypatch.context() as patched:
            patched.setattr(flow.reception.files, "bring", away)
            checker(flow, archive, clock).check()
        assert states(flow) == {("withheld", NOT_CHECKED)}
        clock.now += 31.0
        checker(flow, archive, clock).check()
        assert states(flow) == {("ready", None)}


def test_a_peer_that_answers_with_other_studies_has_not_found_ours(tmp_path: Path) -> None:
    others = study()
    for one in others:
        one.StudyInstanceUID = "1.9.9"

    class Careless(Archive):
        def _matching(self, wanted: Dataset) -> list[Dataset]:
            return self.instances

    with waiting(tmp_path) as flow, running(Careless(others)) as archive:
        checker(flow, archive, Clock(flow)).check()
        assert states(flow) == {("withheld", NOT_CHECKED)}


@pytest.mark.parametrize("if_possible", [False, True])
def test_a_peer_that_cannot_be_asked_is_waited_for_unless_that_is_not_wanted(tmp_path: Path, if_possible: bool) -> None:
    with waiting(tmp_path) as flow:
        clock = Clock(flow)
        nobody = Archive([])
        checking = checker(flow, nobody, clock, if_possible=if_possible)
        assert checking.check() == 1
        assert states(flow) == {("ready", None) if if_possible else ("withheld", NOT_CHECKED)}
        assert checking.check() == 0
        if not if_possible:
            clock.now += 31.0
            assert checking.check() == 1, "with back-off"
            clock.now += 31.0
            assert checking.check() == 0


def test_a_peer_that_refuses_queries_is_not_sent_to_unchecked(tmp_path: Path) -> None:
    with waiting(tmp_path) as flow, running(replace(Archive(study()), services=("get",))) as archive:
        checker(flow, archive, Clock(flow)).check()
        assert states(flow) == {("withheld", NOT_CHECKED)}


def test_a_checker_for_each_destination_that_is_asked(tmp_path: Path) -> None:
    with waiting(tmp_path) as flow, running(Archive(study())) as archive:
        route = CheckRoute("pacs", archive.address, "DICOMNODE", False, QUICK)
        checkers = Following(partial(Checker, flow.reception.database, flow.reception.files))
        checkers.follow([route])
        first = checkers.running
        checkers.follow([CheckRoute("pacs", archive.address, "DICOMNODE", False, QUICK)])
        assert checkers.running == first
        assert checkers.are_alive
        checkers.follow([])
        assert checkers.running == ()
        assert not first[0].is_alive
        checkers.stop()
