"""The loops beside the workflows: reviews, retention, the disks, and strays that are taken in; on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from sqlalchemy import update
from sqlalchemy.orm import Session

from dicomnode.core.disk import Marks
from dicomnode.core.retention import LEAST_S, RetentionPolicy
from dicomnode.errors import InputError, StoreError
from dicomnode.flow.disk import DiskWatch, Watched
from dicomnode.flow.port import Call
from dicomnode.flow.retention import Keeping, Retention
from dicomnode.flow.reviewing import Reviewer, keep_back, let_go
from dicomnode.flow.strays import StrayIntake
from dicomnode.store.schema import DiskUse, Instance, Job, Outbox, OutboxState, Purge, Series
from dicomnode.store.strays import Strays
from tests.flow.rooms import DENOISE, Flow, engine_that, flowing, phantom
from tests.store.receiving import ct_header, receiving, routing

DAY_S = 86400.0
GB = 10**9
EVERYTHING = RetentionPolicy(originals_days=30, derived_days=60)


class Killed(BaseException):
    """Stands in for SIGKILL."""


@contextmanager
def delivered(folder: Path) -> Iterator[Flow]:
    """A series that was received, enhanced, and has arrived with all that was derived."""
    with flowing(folder, routing(DENOISE)) as flow:
        flow.receive(phantom())
        flow.run()
        confirm(flow)
        yield flow


def confirm(flow: Flow) -> None:
    with flow.reception.database.write() as session:
        session.execute(update(Outbox).values(state=OutboxState.SENT.value, confirmed_at=1.0))
        session.execute(update(Series).values(last_at=0.0, first_at=0.0))


def retention(flow: Flow, policy: RetentionPolicy = EVERYTHING, *, is_scarce: bool = False) -> Retention:
    stores = (flow.reception.files, flow.results)
    return Retention(flow.reception.database, stores, Keeping(policy, 30.0), lambda: is_scarce)


def files(flow: Flow) -> int:
    return len(list((flow.reception.folder / "objects").rglob("*.dcm")))


@pytest.mark.both_databases
def test_what_is_confirmed_goes_after_its_days_and_its_rows_stay(tmp_path: Path) -> None:
    with delivered(tmp_path) as flow:
        assert retention(flow).step(29 * DAY_S) == 0
        assert files(flow) == 8
        assert retention(flow).step(31 * DAY_S) == 1
        assert files(flow) == 4
        assert retention(flow).step(61 * DAY_S) == 1
        assert files(flow) == 0
        assert len(flow.reception.rows(Instance)) == 8
        assert [purge.instances for purge in flow.reception.rows(Purge)] == [4, 4]


@pytest.mark.both_databases
def test_a_kill_after_the_note_leaves_nothing_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with delivered(tmp_path) as flow:

        def kill(*_: object) -> None:
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(flow.reception.files, "remove_all", kill)
            with pytest.raises(Killed):
                retention(flow).step(31 * DAY_S)
        (purge,) = flow.reception.rows(Purge)
        assert (purge.removed_at, files(flow)) == (None, 8)
        nothing_named = retention(flow, RetentionPolicy())
        assert nothing_named.step(31 * DAY_S + 1) == 0
        (purge,) = flow.reception.rows(Purge)
        assert (purge.removed_at, files(flow)) == (31 * DAY_S + 1, 4), "what was noted is finished"


def test_files_that_cannot_be_removed_are_tried_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with delivered(tmp_path) as flow:

        def refuse(*_: object) -> None:
            raise StoreError("the disk failed", "look at it")

        keeper = retention(flow)
        with monkeypatch.context() as patched:
            patched.setattr(flow.reception.files, "remove_all", refuse)
            assert keeper.step(31 * DAY_S) == 0
        assert keeper.step(31 * DAY_S + 299) == 0
        assert files(flow) == 8
        keeper.step(31 * DAY_S + 301)
        assert files(flow) == 4


def test_nothing_is_deleted_without_a_number(tmp_path: Path) -> None:
    with delivered(tmp_path) as flow:
        assert retention(flow, RetentionPolicy(), is_scarce=True).step(1e6 * DAY_S) == 0
        assert files(flow) == 8


def test_a_full_disk_takes_what_is_confirmed_before_its_days_are_over(tmp_path: Path) -> None:
    with delivered(tmp_path) as flow:
        policy = RetentionPolicy(originals_days=30, is_by_space=True)
        assert retention(flow, policy).step(DAY_S) == 0
        assert retention(flow, policy, is_scarce=True).step(LEAST_S + 1) == 2
        assert files(flow) == 0


def test_one_pass_looks_at_all_series_and_the_next_comes_later(tmp_path: Path) -> None:
    with delivered(tmp_path) as flow:
        keeper = retention(flow)
        assert [keeper.step(now) for now in (31 * DAY_S, 31 * DAY_S + 1, 31 * DAY_S + 2)] == [1, 0, 0]
        confirm(flow)
        assert keeper.step(61 * DAY_S) == 1


def test_a_late_slice_of_a_deleted_series_makes_no_half_volume(tmp_path: Path) -> None:
    with delivered(tmp_path) as flow:
        retention(flow).step(31 * DAY_S)
        (late,) = phantom(slices=5)[4:]
        flow.receive([late])
        with pytest.raises(InputError, match="deleted 4 of its 5 instances"):
            flow.pipeline.plan(*flow.close())


def test_a_deleted_series_that_is_sent_again_is_derived_again_under_the_same_uids(tmp_path: Path) -> None:
    with delivered(tmp_path) as flow:
        before = flow.derived()
        retention(flow).step(61 * DAY_S)
        assert files(flow) == 0
        flow.receive(phantom())
        flow.run()
        assert {uid: set(uids) for uid, uids in flow.derived().items()} == {
            uid: set(uids) for uid, uids in before.items()
        }
        assert files(flow) == 8
        here = [row for row in flow.reception.rows(Instance) if row.active]
        assert len(here) == 8
        for row in here:
            dcmread(flow.reception.files.path(row.file), stop_before_pixels=True)


@pytest.mark.both_databases
def test_a_released_job_is_handed_to_the_workflows_once(tmp_path: Path) -> None:
    calls: list[Call] = []

    def enqueue(_: Session, call: Call) -> None:
        calls.append(call)

    with flowing(tmp_path, routing(DENOISE), engine_that("withheld", ["too noisy"])) as flow:
        flow.receive(phantom())
        flow.run()
        reviewer = Reviewer(flow.reception.database, enqueue)
        assert reviewer.review(1.0) == 0
        with flow.reception.database.write() as session:
            session.execute(update(Job).values(review="released"))
        assert [reviewer.review(2.0), reviewer.review(3.0)] == [1, 0]
        assert [(call.workflow, call.arguments) for call in calls] == [("derive", (1, 1, 100))]
        assert flow.jobs[0].state == "enhanced"


def test_results_of_withheld_jobs_go_after_their_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with flowing(tmp_path, routing(DENOISE)) as flow:
        flow.receive(phantom())
        flow.pipeline.plan(*flow.close())
        flow.pipeline.enhance(1)
        with flow.reception.database.write() as session:
            session.execute(update(Job).values(state="withheld", updated_at=0.0))
        retention(flow).step(29 * DAY_S)
        assert len(list((tmp_path / "results").iterdir())) == 1
        retention(flow).step(31 * DAY_S)
        assert list((tmp_path / "results").iterdir()) == []
        assert flow.jobs[0].result is None


def test_where_commissioning_begins_what_is_ready_is_kept(tmp_path: Path) -> None:
    with flowing(tmp_path, routing(DENOISE)) as flow:
        flow.receive(phantom())
        flow.run()
        assert keep_back(flow.reception.database, routing(DENOISE)) == 0
        tried = routing(DENOISE)
        object.__setattr__(tried, "commissioning", True)
        assert keep_back(flow.reception.database, tried) == 4
        assert {row.state for row in flow.derived_outbox()} == {"withheld"}
        with flow.reception.database.write() as session:
            session.execute(
                update(Outbox).where(Outbox.origin == "derived").values(
                    reason="patient and study not compared with the destination's yet"
                )
            )  # fmt: skip
        assert let_go(flow.reception.database, ["pacs"], 9.0) == 0
        assert let_go(flow.reception.database, [], 9.0) == 4
        assert {row.state for row in flow.derived_outbox()} == {"ready"}


@pytest.mark.both_databases
def test_a_level_is_told_once_and_sampled_every_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    free = {"bytes": 500 * GB}
    monkeypatch.setattr("dicomnode.flow.disk.free_bytes", lambda _: (free["bytes"], 1000 * GB))
    monkeypatch.setattr("dicomnode.flow.disk.event", lambda name, **fields: told.append({"event": name, **fields}))
    watched = (Watched("files", tmp_path, Marks(200 * GB, 100 * GB)),)
    with receiving(tmp_path) as reception:
        watch = DiskWatch(reception.database, "node-a", watched)
        for now, gigabytes in (
            (0, 500),
            (10, 199),
            (20, 201),
            (30, 199),
            (40, 99),
            (50, 300),
            (3600, 300),
            (3700, 300),
        ):
            free["bytes"] = gigabytes * GB
            watch.look(float(now))
        assert [one["state"] for one in told] == ["warning", "refusing", "ample"]
        assert [(row.at, row.level) for row in reception.rows(DiskUse)] == [
            (0.0, "ample"), (10.0, "warning"), (40.0, "refusing"), (50.0, "ample"), (3700.0, "ample"),
        ]  # fmt: skip
        told.clear()
        free["bytes"] = 99 * GB
        watch.look(3800.0)
        DiskWatch(reception.database, "node-a", watched).look(3900.0)
        assert len(told) == 1, "a restart does not tell it again"


def test_a_stray_that_is_asked_for_is_taken_in_once(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        reception.receive(ct_header(1))
        (row,) = reception.rows(Instance)
        (tmp_path / "strays").mkdir()
        whole = tmp_path / "strays" / "whole.dcm"
        whole.write_bytes(reception.files.path(row.file).read_bytes().replace(b"1.2.3.4.1", b"1.2.3.4.2"))
        (tmp_path / "strays" / "torn.dcm").write_bytes(b"\0" * 200)
        strays = Strays(tmp_path)
        assert {stray.name for stray in strays.found()} == {"whole", "torn"}
        for stray in strays.found():
            strays.requeue(stray)
        taking = StrayIntake(strays, reception.intake, "DICOMNODE")
        assert taking.take_in_all() == 1
        assert [one.name for one in strays.found()] == ["torn"], "what cannot be read is put back"
        assert [one.sop_instance_uid for one in reception.rows(Instance)] == ["1.2.3.4.1", "1.2.3.4.2"]
        assert taking.take_in_all() == 0
